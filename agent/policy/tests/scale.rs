//! Large policies: time, size, and the limits with their numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{fmt::Write as _, time::Instant};

use sekimori_abi::{
    event::kind,
    limits::CANDIDATES_MAX,
    table::{SET_NONE, SET_UNKNOWN, action},
};
use sekimori_decide::Facts;
use sekimori_policy::{
    Compiled, DIRECTORY_TOO_MIXED, NoDirectory, PATH_TOO_DEEP, Severity, lint, load,
};

const HEAD: &str = "apiVersion: sekimori/v1\nkind: Policy\nmetadata: { name: t }\n";

fn errors(source: &str) -> Vec<String> {
    let findings = lint(source).into_iter().filter(|it| it.severity == Severity::Error);
    findings.map(|finding| finding.to_string()).collect()
}

fn compiled(source: &str) -> Compiled {
    match load(source, &NoDirectory, 1) {
        Ok((compiled, _)) => compiled,
        Err(findings) => panic!("{findings:#?}"),
    }
}

fn decided(compiled: &Compiled, kind: u8, set: u32, facts: &Facts) -> (u32, String) {
    let outcome = compiled.tables.judge(kind, set, facts);
    let rule = outcome.rule.checked_sub(1).map(|at| compiled.rules[at as usize].id.clone());
    (outcome.action, rule.unwrap_or_default())
}

/// `count` labels in 100 directories, a deny rule for each.
fn many_labels(count: usize, condition: impl Fn(usize) -> String) -> String {
    let mut source = format!("{HEAD}labels:\n");
    for at in 0..count {
        let directory = at % 100;
        writeln!(source, "  - {{ name: l{at}, paths: [\"/data/{directory}/c{at}/**\"] }}").unwrap();
    }
    source.push_str("rules:\n");
    for at in 0..count {
        let more = condition(at);
        writeln!(
            source,
            "  - {{ id: r{at}, on: file.open, when: {{ label: l{at}{more} }}, action: deny }}"
        )
        .unwrap();
    }
    source
}

#[test]
fn ten_thousand_rules_compile_quickly() {
    let source = many_labels(10_000, |_| String::new());
    let start = Instant::now();
    let compiled = compiled(&source);
    let seconds = start.elapsed().as_secs_f64();
    println!("10,000 rules: {seconds:.2} s");
    // Seconds on an idle machine are below 2; the bound leaves room for a busy one.
    assert!(seconds < 15.0, "{seconds} s");
    // One per label and directory, /data, none, unknown.
    assert_eq!(compiled.tables.sets.len(), 10_000 + 100 + 1 + 2);
    assert_eq!(compiled.tables.states.len(), 2 + 1 + 100 + 10_000);
    let set = compiled.tables.set_of(b"/data/42/c4242/x/y");
    let facts = Facts::default();
    assert_eq!(
        decided(&compiled, kind::FILE_OPEN, set, &facts),
        (action::DENY, "r4242".to_owned())
    );
    let below = compiled.tables.below_of(b"/data");
    assert_eq!(decided(&compiled, kind::FILE_OPEN, below, &facts).0, action::DENY);
    assert_eq!(decided(&compiled, kind::FILE_OPEN, SET_NONE, &facts), (0, String::new()));
    // Alike but for their label, the 10,000 rules are one for a directory above them.
    assert_eq!(compiled.tables.bucket(kind::FILE_OPEN, below).unwrap().count, 1);
}

#[test]
fn a_directory_with_too_many_rules_fails_closed() {
    // 60 different conditions of program groups: no two rules are alike.
    let mut source = many_labels(60, |at| format!(", program: p{at}"));
    source.push_str("programs:\n");
    for at in 0..60 {
        writeln!(source, "  - {{ name: p{at}, exe: [/bin/p{at}] }}").unwrap();
    }
    let compiled = compiled(&source);
    let below = compiled.tables.below_of(b"/data");
    let bucket = compiled.tables.bucket(kind::FILE_OPEN, below).unwrap();
    assert_eq!(bucket.count as usize, CANDIDATES_MAX);
    for at in 0..60 {
        let facts = Facts { programs: 1 << at, ..Facts::default() };
        let (action, rule) = decided(&compiled, kind::FILE_OPEN, below, &facts);
        assert_eq!(action, action::DENY, "program {at}");
        // 31 rules are kept as they are; one stands for the others.
        let kept = rule == format!("r{at}");
        assert!(kept || rule == DIRECTORY_TOO_MIXED, "program {at}: {rule}");
    }
    let facts = Facts { programs: 1 << 60, ..Facts::default() };
    assert_eq!(decided(&compiled, kind::FILE_OPEN, below, &facts).0, 0);
}

#[test]
fn too_many_rules_for_one_file_are_named() {
    let mut source = format!("{HEAD}programs:\n");
    for at in 0..40 {
        writeln!(source, "  - {{ name: p{at}, exe: [/bin/p{at}] }}").unwrap();
    }
    source.push_str("rules:\n");
    for at in 0..40 {
        let rule = format!("id: r{at}, on: usb.mount, when: {{ program: p{at} }}, action: alert");
        writeln!(source, "  - {{ {rule} }}").unwrap();
    }
    let errors = errors(&source);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("85:11: error: 40 rules could apply to one `usb.mount`"));
    assert!(errors[0].contains("at most 32") && errors[0].contains("`r0`, `r1`, "));
    assert!(errors[0].contains(" and 28 more"));
}

#[test]
fn rules_that_cannot_matter_make_room() {
    // 40 rules for one condition: all but the last are left out.
    let mut source = format!("{HEAD}programs: [{{ name: p, exe: [/bin/p] }}]\nrules:\n");
    source.push_str("  - { id: all, on: usb.mount, action: deny }\n");
    for at in 0..40 {
        let rule = format!("id: r{at}, on: usb.mount, when: {{ program: p }}, action: alert");
        writeln!(source, "  - {{ {rule} }}").unwrap();
    }
    let compiled = compiled(&source);
    let bucket = compiled.tables.bucket(kind::USB_MOUNT, SET_NONE).unwrap();
    assert_eq!((bucket.count, &bucket.candidates[..2]), (2, [0, 40].as_slice()));
}

#[test]
fn a_path_too_deep_is_refused_when_a_deny_rule_could_match_it() {
    let source = format!(
        "{HEAD}mode: MODE\nlabels: [{{ name: l, paths: [/x/**] }}]\n\
         programs: [{{ name: p, exe: [/opt/x/**] }}]\nusers: [{{ name: u, users: [7] }}]\nrules:\n  \
         - {{ id: a, on: file.open, when: {{ label: l, user: u }}, action: deny }}\n  \
         - {{ id: b, on: exec, when: {{ program: p }}, action: deny }}\n  \
         - {{ id: c, on: usb.write, when: {{ label: l }}, action: alert }}\n"
    );
    let nobody = Facts::default();
    let seven = Facts { users: 1, ..nobody };
    for (mode, refused) in [("enforce", action::DENY), ("observe", action::WOULD_DENY)] {
        let compiled = compiled(&source.replace("MODE", mode));
        let decided = |kind, facts| decided(&compiled, kind, SET_UNKNOWN, facts);
        let deep = (refused, PATH_TOO_DEEP.to_owned());
        assert_eq!(decided(kind::FILE_OPEN, &seven), deep);
        assert_eq!(decided(kind::FILE_OPEN, &nobody), (0, String::new()));
        assert_eq!(decided(kind::EXEC, &nobody), deep);
        assert_eq!(decided(kind::USB_WRITE, &seven), (0, String::new()));
        assert_eq!(compiled.tables.head.judged_kinds, 1 << kind::EXEC);
        assert_eq!(compiled.tables.head.failed_opens, 1);
    }
}

#[test]
fn too_many_groups_ports_and_states_are_refused_with_the_number() {
    let mut source = format!("{HEAD}rules:\n");
    for at in 0..65 {
        let rule = format!("id: r{at}, on: exec, when: {{ user: u{at} }}, action: record");
        writeln!(source, "  - {{ {rule} }}").unwrap();
    }
    assert!(errors(&source)[0].starts_with("69:"), "{:?}", errors(&source));
    assert!(errors(&source)[0].contains("rules name 65 different groups under `user`; at most 64"));

    let source = format!(
        "{HEAD}destinations: [{{ name: d, ports: [1-9000] }}]\nrules:\n  \
         - {{ id: r, on: net.connect, when: {{ destination: d }}, action: deny }}\n"
    );
    assert!(errors(&source)[0].contains("the policy has 9000 ports; at most 8192 fit"));

    // Each `/**/a` pattern can begin anywhere, so their states multiply.
    let paths: Vec<String> = (0..18).map(|at| format!("\"/**/a{at}/**/b{at}\"")).collect();
    let source = format!(
        "{HEAD}labels: [{{ name: l, paths: [{}] }}]\nrules:\n  \
         - {{ id: r, on: file.open, when: {{ label: l }}, action: record }}\n",
        paths.join(", ")
    );
    let errors = errors(&source);
    assert!(errors[0].contains("need more than") && errors[0].contains("fewer"), "{errors:?}");
}
