//! What the agent is told to enforce while it is measured.

/// A policy with this many rules, each with a label of its own. One records the opens of a
/// directory, and none refuses anything that is measured.
pub fn with_rules(rules: usize) -> String {
    let mut text = format!(
        "apiVersion: sekimori/v1\nkind: Policy\nmetadata: {{ name: {rules} rules }}\n\
         mode: enforce\nlabels:\n  - {{ name: recorded, paths: [/dev/shm/labelled/**] }}\n  \
         - {{ name: quiet, paths: [/dev/shm/quiet/**] }}\n"
    );
    let others = rules.saturating_sub(3);
    for number in 0..others {
        text.push_str(&format!("  - {{ name: l{number}, paths: [/srv/many/{number}/**] }}\n"));
    }
    text.push_str(
        "devices:\n  - { name: others, usb: { serials: [\"NOT-HERE\"] } }\n\
         users:\n  - { name: somebody, users: [4242] }\nrules:\n  \
         - { id: recorded, on: file.open, when: { label: recorded }, action: record }\n  \
         - { id: quiet, on: file.open, when: { label: quiet, user: somebody }, action: deny }\n  \
         - { id: others, on: usb.write, when: { device: others }, action: deny }\n",
    );
    for number in 0..others {
        text.push_str(&format!(
            "  - {{ id: r{number}, on: file.open, when: {{ label: l{number} }}, action: deny }}\n"
        ));
    }
    text
}
