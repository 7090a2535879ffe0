//! The model to tables.
//!
//! Labels are resolved here: which rules could apply to a file is decided per set of labels, so
//! the kernel compares masks only and the number of labels is free. A mistake found here is about
//! size; everything about meaning was checked before.

mod automaton;
mod buckets;
mod candidates;
mod groups;
mod names;
mod places;
mod sets;

use std::collections::HashSet;

use sekimori_abi::{
    event::kind,
    table::{self, Head, Set, action},
};
use serde::Serialize;

use crate::{
    directory::Directory,
    finding::{Findings, Position},
    limits::BUCKETS_MAX,
    model::{Action, AlertLevel, Mode, Paths, Policy, Rule, Subject, Word},
    tables::Tables,
};
use automaton::Member;
pub use names::Names;
use names::Numbers;

/// Id of the synthetic rules that refuse files whose path is too deep to be walked, when a deny rule
/// could match them.
pub const PATH_TOO_DEEP: &str = "sekimori/path-too-deep";
/// Id of the synthetic rules that stand for the deny rules of a directory below which more rules
/// apply than fit one bucket.
pub const DIRECTORY_TOO_MIXED: &str = "sekimori/directory-too-mixed";

/// Kinds that are recorded even when no rule matches. File opens are recorded by rule only.
const RECORDED_KINDS: u32 = 1 << kind::EXEC
    | 1 << kind::EXIT
    | 1 << kind::USB_WRITE
    | 1 << kind::USB_MOUNT
    | 1 << kind::SHARE_WRITE
    | 1 << kind::NET_CONNECT
    | 1 << kind::NET_UPLOAD
    | 1 << kind::NET_SOCKET;

/// What user space needs to know of a rule number in a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleFacts {
    /// The rule's id.
    pub id: String,
    /// What it does.
    pub action: Action,
    /// Kinds it is about, numbers of `sekimori_abi::event::kind`.
    pub on: Vec<u8>,
    /// Text for the acting person.
    pub tell_user: Option<String>,
    /// How loudly to tell the administrator.
    pub tell_admin: Option<AlertLevel>,
    /// Whether a deny is real.
    pub mode: Mode,
}

/// A policy ready for the kernel.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// `metadata.name`.
    pub name: String,
    /// What the kernel needs.
    pub tables: Tables,
    /// By rule number, synthetic rules last.
    pub rules: Vec<RuleFacts>,
    /// Names of groups by bit.
    pub names: Names,
    /// Labels of each set, numbers in `names.labels`.
    pub set_labels: Vec<Vec<u32>>,
}

/// A rule with its names resolved.
pub(crate) struct Resolved {
    pub rule: table::Rule,
    pub kinds: Vec<u8>,
    pub when_labels: Vec<u32>,
    pub unless_labels: Vec<u32>,
    pub at: Position,
}

/// Compiles a policy that passed all checks; errors about size go to `findings`, and the tables are
/// then not fit for use. Without a directory nobody is looked up and nobody is missed.
pub(crate) fn compile(
    policy: &Policy,
    directory: Option<&dyn Directory>,
    generation: u32,
    findings: &mut Findings,
) -> Compiled {
    let numbers = Numbers::of(policy, findings);
    let mut resolved: Vec<Resolved> =
        policy.rules.iter().map(|rule| resolve(rule, &numbers)).collect();
    let mut rules: Vec<RuleFacts> = policy.rules.iter().map(facts).collect();
    let mut tables = Tables { generation, ..Tables::default() };
    let sets = path_tables(policy, &numbers, &resolved, &mut tables, findings);
    let mut built = buckets::build(&mut resolved, &mut rules, &sets, findings);
    built.buckets.sort_by_key(|(kind, set, _)| (*kind, *set));
    if built.buckets.len() > BUCKETS_MAX {
        let message = format!(
            "the policy needs {} rule buckets; at most {BUCKETS_MAX}: too many labels with rules \
             of their own",
            built.buckets.len()
        );
        findings.error(Position::default(), message);
    }
    tables.sets = sets
        .keys
        .iter()
        .zip(&built.own_buckets)
        .map(|(key, own)| Set { programs: key.accepted.programs, own_buckets: *own, reserved: 0 })
        .collect();
    tables.buckets = built.buckets;
    tables.rules = resolved.iter().map(|resolved| resolved.rule).collect();
    let any_port = groups::destinations(policy, &numbers, &mut tables, findings);
    groups::devices(policy, &numbers, &mut tables, findings);
    groups::users(policy, &numbers, directory, &mut tables, findings);
    places::fill(policy, &numbers, &resolved, &mut tables, findings);
    let named = resolved.iter().filter(|rule| rule.kinds.contains(&kind::EXEC));
    let load_programs = named.fold(0, |all, rule| all | rule.rule.when.programs);
    let owns_exec = built.own_buckets.iter().any(|own| own & 1 << kind::EXEC != 0);
    tables.head = Head {
        generation,
        judged_kinds: built.judged_kinds,
        recorded_kinds: RECORDED_KINDS,
        failed_opens: u32::from(resolved.iter().any(|rule| {
            rule.kinds.contains(&kind::FILE_OPEN)
                && !(rule.when_labels.is_empty() && rule.unless_labels.is_empty())
        })),
        any_port,
        load_programs,
        judges_loads: u32::from(load_programs != 0 || owns_exec),
        reserved: 0,
    };
    let set_labels = sets.keys.into_iter().map(|key| key.accepted.labels).collect();
    Compiled { name: policy.name.clone(), tables, rules, names: numbers.names, set_labels }
}

/// Fills the automaton's tables and gives the sets; on an error about size the sets are empty.
fn path_tables(
    policy: &Policy,
    numbers: &Numbers,
    resolved: &[Resolved],
    tables: &mut Tables,
    findings: &mut Findings,
) -> sets::Sets {
    let unless_labels: HashSet<u32> =
        resolved.iter().flat_map(|rule| rule.unless_labels.iter().copied()).collect();
    let labels = members(&policy.labels, numbers, Subject::Label, Member::Label);
    let programs = members(&policy.programs, numbers, Subject::Program, Member::Program);
    let made = automaton::build(labels.chain(programs)).and_then(|automaton| {
        let sets = sets::assign(&automaton, &unless_labels)?;
        Ok((automaton, sets))
    });
    match made {
        Ok((automaton, sets)) => {
            tables.edges = automaton.edges;
            tables.states.clone_from(&sets.states);
            sets
        }
        Err(message) => {
            let hint = "use fewer paths, and fewer that begin with `/**`";
            findings.error_hint(Position::default(), message, hint);
            sets::Sets::empty()
        }
    }
}

fn members<'a>(
    all: &'a [Paths],
    numbers: &'a Numbers,
    subject: Subject,
    member: fn(u32) -> Member,
) -> impl Iterator<Item = (&'a crate::pattern::Pattern, Member)> {
    all.iter()
        .filter_map(move |paths| {
            let number = numbers.number(subject, &paths.name.value)?;
            Some((paths, member(number)))
        })
        .flat_map(|(paths, member)| {
            paths.patterns.iter().map(move |pattern| (&pattern.value, member))
        })
}

fn resolve(rule: &Rule, numbers: &Numbers) -> Resolved {
    let action = match (rule.action, rule.mode) {
        (Action::Record, _) => action::RECORD,
        (Action::Alert, _) => action::ALERT,
        (Action::Deny, Mode::Observe) => action::WOULD_DENY,
        (Action::Deny, Mode::Enforce) => action::DENY,
    };
    Resolved {
        rule: table::Rule {
            when: numbers.condition(&rule.when),
            unless: numbers.condition(&rule.unless),
            action,
            has_unless: u32::from(!rule.unless.is_empty()),
        },
        kinds: kinds(rule),
        when_labels: numbers.labels(&rule.when),
        unless_labels: numbers.labels(&rule.unless),
        at: rule.id.at,
    }
}

fn kinds(rule: &Rule) -> Vec<u8> {
    rule.on.iter().map(|word| Word::kind(word.value)).collect()
}

fn facts(rule: &Rule) -> RuleFacts {
    RuleFacts {
        id: rule.id.value.clone(),
        action: rule.action,
        on: kinds(rule),
        tell_user: rule.tell_user.clone(),
        tell_admin: rule.tell_admin,
        mode: rule.mode,
    }
}
