//! The tree to the model: fields, types and single values. What depends on several places of the
//! document (references, duplicates, words and subjects) is checked in `check`.

mod address;
pub(crate) use address::masked;
mod fields;
mod rules;
mod subjects;

use crate::{
    finding::{Findings, Position, shown},
    limits::{NAME_BYTES_MAX, RULES_MAX},
    model::{Located, Mode, Policy},
    yaml::Node,
};
use fields::{Fields, Known, choice, items, text};

const POLICY: Known = Known {
    what: "the policy",
    fields: &[
        "apiVersion",
        "kind",
        "metadata",
        "mode",
        "labels",
        "devices",
        "destinations",
        "programs",
        "users",
        "rules",
    ],
    later: &["hours", "exceptions"],
};
const METADATA: Known = Known { what: "metadata", fields: &["name"], later: &[] };

/// The words of `mode`.
const MODES: [(&str, Mode); 2] = [("observe", Mode::Observe), ("enforce", Mode::Enforce)];

/// The model of a tree. `None` when the root is not a mapping. Parts with mistakes are left out,
/// but a definition keeps its name, so that references to it are not reported as well.
pub(crate) fn policy(root: &Node, findings: &mut Findings) -> Option<Policy> {
    let fields = Fields::of(root, &POLICY, findings)?;
    fixed(&fields, "apiVersion", "sekimori/v1", findings);
    fixed(&fields, "kind", "Policy", findings);
    let policy_name = fields
        .required("metadata", findings)
        .and_then(|node| Fields::of(node, &METADATA, findings))
        .and_then(|metadata| metadata.required("name", findings))
        .and_then(|node| name(node, "the policy's name", findings));
    let mode = mode(&fields, findings).map_or(Mode::Enforce, |mode| mode.value);
    let policy = Policy {
        name: policy_name.map(|name| name.value).unwrap_or_default(),
        mode,
        labels: each(&fields, "labels", findings, subjects::label),
        devices: each(&fields, "devices", findings, subjects::device),
        destinations: each(&fields, "destinations", findings, subjects::destination),
        programs: each(&fields, "programs", findings, subjects::program),
        users: each(&fields, "users", findings, subjects::users),
        rules: each(&fields, "rules", findings, |node, findings| rules::rule(node, mode, findings)),
    };
    let Some(node) = fields.get("rules") else {
        let at = Position { line: 1, column: 1 };
        findings.warn(at, "the policy has no `rules`: events are recorded and nothing is judged");
        return Some(policy);
    };
    if policy.rules.len() > RULES_MAX {
        let message = format!("{} rules; at most {RULES_MAX} are possible", policy.rules.len());
        findings.error(node.at, message);
    }
    Some(policy)
}

/// Reads every entry of a list of mappings.
fn each<T>(
    fields: &Fields<'_>,
    field: &'static str,
    findings: &mut Findings,
    mut read: impl FnMut(&Node, &mut Findings) -> Option<T>,
) -> Vec<T> {
    let Some(node) = fields.get(field) else {
        return Vec::new();
    };
    let what = format!("`{field}`");
    let Some(nodes) = fields::sequence(node, &what, findings) else {
        return Vec::new();
    };
    nodes.iter().filter_map(|node| read(node, findings)).collect()
}

fn fixed(fields: &Fields<'_>, field: &'static str, value: &str, findings: &mut Findings) {
    let Some(node) = fields.required(field, findings) else {
        return;
    };
    if let Some(given) = text(node, &format!("`{field}`"), findings)
        && given.value != value
    {
        let message = format!("`{field}` is `{}`", shown(&given.value));
        findings.error_hint(given.at, message, format!("expected `{value}`"));
    }
}

fn mode(fields: &Fields<'_>, findings: &mut Findings) -> Option<Located<Mode>> {
    choice(fields.get("mode")?, "mode", &MODES, &[], findings)
}

/// A name that messages, records and other parts of the policy can carry.
fn name(node: &Node, what: &str, findings: &mut Findings) -> Option<Located<String>> {
    let name = text(node, what, findings)?;
    if name.value.len() > NAME_BYTES_MAX {
        let message =
            format!("{what} is {} bytes long; at most {NAME_BYTES_MAX}", name.value.len());
        findings.error(name.at, message);
        return None;
    }
    if name.value.trim() != name.value || name.value.chars().any(char::is_control) {
        let message = format!("{what} has space around it or control characters in it");
        findings.error(name.at, message);
        return None;
    }
    Some(name)
}

/// Reads every entry of a list of texts with `read`, which reports what it refuses.
fn texts<T>(
    node: &Node,
    what: &str,
    findings: &mut Findings,
    mut read: impl FnMut(Located<String>, &mut Findings) -> Option<T>,
) -> Vec<T> {
    let Some(nodes) = items(node, what, findings) else {
        return Vec::new();
    };
    nodes
        .iter()
        .filter_map(|node| text(node, what, findings))
        .collect::<Vec<_>>()
        .into_iter()
        .filter_map(|text| read(text, findings))
        .collect()
}
