//! Checks across the document: names, references, and conditions that could never hold.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    finding::{Findings, shown},
    model::{Action, Cidr, Located, Mode, Policy, Rule, Subject, Word},
};

/// The destination that every policy has.
pub(crate) const LOOPBACK: &str = "loopback";
/// What it stands for.
pub(crate) const LOOPBACK_BLOCKS: [Cidr; 2] = [
    Cidr { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), bits: 8 },
    Cidr { address: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128 },
];

/// Adds what is wrong with `policy` as a whole.
pub(crate) fn check(policy: &Policy, findings: &mut Findings) {
    let defined: Vec<(Subject, Vec<&Located<String>>)> =
        Subject::ALL.into_iter().map(|subject| (subject, defined(policy, subject))).collect();
    for (subject, names) in &defined {
        duplicates(*subject, names, findings);
    }
    let ids: Vec<&Located<String>> = policy.rules.iter().map(|rule| &rule.id).collect();
    twice("rule", &ids, findings);
    let known: HashMap<Subject, HashSet<&str>> = defined
        .iter()
        .map(|(subject, names)| (*subject, names.iter().map(|name| name.value.as_str()).collect()))
        .collect();
    let mut used: HashSet<(Subject, &str)> = HashSet::new();
    for rule in &policy.rules {
        check_rule(rule, findings);
        for conditions in [&rule.when, &rule.unless] {
            for (subject, asked) in conditions {
                for name in &asked.names {
                    used.insert((*subject, &name.value));
                    reference(*subject, name, &known, findings);
                }
            }
        }
    }
    for (subject, names) in &defined {
        for name in names {
            if !used.contains(&(*subject, name.value.as_str())) {
                let message = format!("{} `{}` is in no rule", noun(*subject), shown(&name.value));
                findings.warn(name.at, message);
            }
        }
    }
    doubled_patterns(policy, findings);
}

/// The names that a policy defines for a subject.
fn defined(policy: &Policy, subject: Subject) -> Vec<&Located<String>> {
    match subject {
        Subject::Label => policy.labels.iter().map(|label| &label.name).collect(),
        Subject::Program => policy.programs.iter().map(|program| &program.name).collect(),
        Subject::User => policy.users.iter().map(|users| &users.name).collect(),
        Subject::Device => policy.devices.iter().map(|device| &device.name).collect(),
        Subject::Destination => policy.destinations.iter().map(|it| &it.name).collect(),
    }
}

const fn noun(subject: Subject) -> &'static str {
    match subject {
        Subject::Label => "label",
        Subject::Program => "program group",
        Subject::User => "group of users",
        Subject::Device => "device",
        Subject::Destination => "destination",
    }
}

const fn section(subject: Subject) -> &'static str {
    match subject {
        Subject::Label => "labels",
        Subject::Program => "programs",
        Subject::User => "users",
        Subject::Device => "devices",
        Subject::Destination => "destinations",
    }
}

fn duplicates(subject: Subject, names: &[&Located<String>], findings: &mut Findings) {
    twice(noun(subject), names, findings);
}

fn twice(what: &str, names: &[&Located<String>], findings: &mut Findings) {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for name in names {
        match first.get(name.value.as_str()) {
            Some(line) => {
                let message =
                    format!("{what} `{}` is already defined in line {line}", shown(&name.value));
                findings.error_hint(name.at, message, "give it another name");
            }
            None => {
                first.insert(&name.value, name.at.line);
            }
        }
    }
}

fn reference(
    subject: Subject,
    name: &Located<String>,
    known: &HashMap<Subject, HashSet<&str>>,
    findings: &mut Findings,
) {
    let Some(names) = known.get(&subject) else {
        return;
    };
    if names.contains(name.value.as_str()) {
        return;
    }
    let built_in = (subject == Subject::Destination).then_some(LOOPBACK);
    if built_in == Some(name.value.as_str()) {
        return;
    }
    let hint = findings.suggest(&name.value, names.iter().copied().chain(built_in));
    let given = shown(&name.value);
    if subject == Subject::User {
        // A login name: it may be any, so only a near miss is worth a word.
        if let Some(hint) = hint {
            let message = format!("`{given}` is no group under `users` and taken as a login name");
            findings.warn_hint(name.at, message, hint);
        }
        return;
    }
    let message = format!("{} `{given}` is not defined", noun(subject));
    let hint = hint.unwrap_or_else(|| format!("define it under `{}`", section(subject)));
    findings.error_hint(name.at, message, hint);
}

fn check_rule(rule: &Rule, findings: &mut Findings) {
    for (side, conditions) in [("when", &rule.when), ("unless", &rule.unless)] {
        for (subject, asked) in conditions {
            for word in rule.on.iter().filter(|word| !subject.fits(word.value)) {
                let message = format!(
                    "`{}` has no `{}`: this `{side}` could never hold for it",
                    word.value.text(),
                    subject.text()
                );
                findings.error_hint(asked.at, message, fitting(*subject));
            }
        }
    }
    if rule.action == Action::Deny && rule.mode == Mode::Enforce && rule.when.is_empty() {
        stops_machine(rule, findings);
    }
}

fn fitting(subject: Subject) -> String {
    let words: Vec<&str> =
        Word::ALL.into_iter().filter(|word| subject.fits(*word)).map(Word::text).collect();
    format!("`{}` goes with {}", subject.text(), crate::finding::one_of(&words))
}

/// A rule that refuses every open or launch stops the machine the moment it is loaded.
fn stops_machine(rule: &Rule, findings: &mut Findings) {
    for word in &rule.on {
        let what = match word.value {
            Word::FileOpen => "every open of every file",
            Word::Exec => "every launch of every program",
            _ => continue,
        };
        if rule.unless.is_empty() {
            let message = format!("the rule refuses {what}: nothing would run any more");
            findings.error_hint(word.at, message, "add a `when`, or `mode: observe`");
        } else {
            let message = format!("the rule refuses {what} outside of its `unless`");
            findings.warn_hint(word.at, message, "try it with `mode: observe` first");
        }
    }
}

fn doubled_patterns(policy: &Policy, findings: &mut Findings) {
    for paths in policy.labels.iter().chain(&policy.programs) {
        let mut seen = HashSet::new();
        for pattern in &paths.patterns {
            if !seen.insert(&pattern.value) {
                findings.warn(pattern.at, "this path is given twice");
            }
        }
    }
}
