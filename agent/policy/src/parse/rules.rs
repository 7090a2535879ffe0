//! Rules.

use super::{
    fields::{Fields, Known, choice, text},
    mode, name, texts,
};
use crate::{
    finding::{Findings, Position, one_of, shown},
    limits::TELL_BYTES_MAX,
    model::{Action, AlertLevel, Asked, Conditions, Located, Mode, RESERVED, Rule, Subject, Word},
    yaml::Node,
};

const RULE: Known = Known {
    what: "a rule",
    fields: &["id", "on", "when", "unless", "action", "tell", "mode"],
    later: &[],
};
const SUBJECTS: &[&str] = &["label", "program", "user", "device", "destination"];
/// Conditions that the language has and this version does not judge.
const LATER: &[&str] = &["carries", "content", "bytes", "hours", "inside", "outside"];
const WHEN: Known = Known { what: "`when`", fields: SUBJECTS, later: LATER };
const UNLESS: Known = Known { what: "`unless`", fields: SUBJECTS, later: LATER };
const TELL: Known = Known { what: "`tell`", fields: &["user", "admin"], later: &[] };

const ACTIONS: [(&str, Action); 3] =
    [("record", Action::Record), ("alert", Action::Alert), ("deny", Action::Deny)];
const LEVELS: [(&str, AlertLevel); 3] =
    [("low", AlertLevel::Low), ("medium", AlertLevel::Medium), ("high", AlertLevel::High)];
/// Words that the language has and this version does not see.
const LATER_WORDS: [&str; 5] = ["file.read", "file.write", "device.raw", "print", "mail"];

pub(super) fn rule(node: &Node, policy_mode: Mode, findings: &mut Findings) -> Option<Rule> {
    let fields = Fields::of(node, &RULE, findings)?;
    let id = fields.required("id", findings).and_then(|node| id(node, findings));
    let on = fields.required("on", findings).map_or_else(Vec::new, |node| words(node, findings));
    let when = conditions(&fields, "when", &WHEN, findings);
    let unless = conditions(&fields, "unless", &UNLESS, findings);
    let action = fields
        .required("action", findings)
        .and_then(|node| choice(node, "action", &ACTIONS, &["deny+kill"], findings));
    let (tell_user, tell_admin) = tell(&fields, findings);
    let own_mode = mode(&fields, findings);
    if policy_mode == Mode::Observe
        && let Some(Located { value: Mode::Enforce, at }) = own_mode
    {
        findings.error_hint(
            at,
            "the rule's mode is stronger than the policy's",
            "the policy observes: remove the rule's `mode`, or set the policy's to `enforce`",
        );
    }
    Some(Rule {
        id: id?,
        on,
        when,
        unless,
        action: action?.value,
        tell_user,
        tell_admin,
        mode: own_mode.map_or(policy_mode, |mode| mode.value),
    })
}

fn id(node: &Node, findings: &mut Findings) -> Option<Located<String>> {
    let id = name(node, "`id`", findings)?;
    if id.value.starts_with(RESERVED) {
        let message = format!("ids that begin with `{RESERVED}` are reserved");
        findings.error(id.at, message);
    }
    Some(id)
}

fn words(node: &Node, findings: &mut Findings) -> Vec<Located<Word>> {
    let mut words: Vec<Located<Word>> = Vec::new();
    for word in texts(node, "`on`", findings, word) {
        if words.iter().any(|earlier| earlier.value == word.value) {
            findings.error(word.at, format!("`{}` is given twice", word.value.text()));
        } else {
            words.push(word);
        }
    }
    words
}

fn word(given: Located<String>, findings: &mut Findings) -> Option<Located<Word>> {
    if let Some(value) = Word::from_text(&given.value) {
        return Some(Located { value, at: given.at });
    }
    let supported = Word::ALL.map(Word::text);
    if LATER_WORDS.contains(&given.value.as_str()) {
        let message = format!("`{}` is not supported by this version", given.value);
        findings.error_hint(given.at, message, format!("supported: {}", one_of(&supported)));
        return None;
    }
    let message =
        format!("unknown word `{}`, expected {}", shown(&given.value), one_of(&supported));
    match findings.suggest(&given.value, supported.into_iter().chain(LATER_WORDS)) {
        Some(hint) => findings.error_hint(given.at, message, hint),
        None => findings.error(given.at, message),
    }
    None
}

fn conditions(
    fields: &Fields<'_>,
    field: &str,
    known: &Known,
    findings: &mut Findings,
) -> Conditions {
    let mut conditions = Conditions::new();
    let Some(node) = fields.get(field) else {
        return conditions;
    };
    let Some(asked) = Fields::of(node, known, findings) else {
        return conditions;
    };
    if asked.is_empty_mapping() {
        let message = format!("`{field}` asks for nothing");
        findings.error_hint(node.at, message, "leave it out");
    }
    for subject in Subject::ALL {
        let found = asked.iter().find(|(name, ..)| *name == subject.text());
        if let Some((_, at, node)) = found {
            let names = names(node, subject, findings);
            conditions.insert(subject, Asked { at, names });
        }
    }
    conditions
}

fn names(node: &Node, subject: Subject, findings: &mut Findings) -> Vec<Located<String>> {
    let mut names: Vec<Located<String>> = Vec::new();
    for name in texts(node, &format!("`{}`", subject.text()), findings, |name, _| Some(name)) {
        if names.iter().any(|earlier| earlier.value == name.value) {
            findings.error(name.at, format!("`{}` is given twice", shown(&name.value)));
        } else {
            names.push(name);
        }
    }
    names
}

fn tell(fields: &Fields<'_>, findings: &mut Findings) -> (Option<String>, Option<AlertLevel>) {
    let Some(tell) = fields.get("tell").and_then(|node| Fields::of(node, &TELL, findings)) else {
        return (None, None);
    };
    let user = tell.get("user").and_then(|node| {
        let told = text(node, "`user`", findings)?;
        check_told(&told.value, told.at, findings);
        Some(told.value.trim_end().to_owned())
    });
    let admin = tell
        .get("admin")
        .and_then(|node| choice(node, "admin", &LEVELS, &[], findings))
        .map(|level| level.value);
    (user, admin)
}

/// The text goes to a person's terminal as it is, so it must not steer the terminal.
fn check_told(told: &str, at: Position, findings: &mut Findings) {
    if told.len() > TELL_BYTES_MAX {
        let message = format!("the text is {} bytes long; at most {TELL_BYTES_MAX}", told.len());
        findings.error(at, message);
    }
    if told.chars().any(|character| character.is_control() && !matches!(character, '\n' | '\t')) {
        findings.error(at, "the text has control characters other than newline and tab");
    }
}
