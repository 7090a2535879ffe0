//! Why a policy decides as it does: every rule that could apply, and which of its conditions hold.

use std::{fmt, net::IpAddr};

use sekimori_abi::table::{CANDIDATE_UNLESS_VOID, Condition, SET_NONE, SET_UNKNOWN, action};
use sekimori_decide::{Facts, applies};
use serde::Serialize;

use crate::{
    compile::Compiled,
    model::{Action, Mode, RESERVED, Subject, Word},
};

/// A removable device as it says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluggedDevice {
    /// One of `event::device_class`.
    pub class: u8,
    /// `idVendor`, 0 when it is not USB.
    pub vendor: u16,
    /// `idProduct`.
    pub product: u16,
    /// Serial, empty when the device has none.
    pub serial: String,
}

/// The far end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

/// An event that might happen. What is not given belongs to no group.
#[derive(Clone, Debug)]
pub struct Question {
    /// What happens.
    pub kind: Word,
    /// The file acted on (exec: the executable to be launched), an absolute path.
    pub path: Option<Vec<u8>>,
    /// The acting program's executable; not asked in `exec`, where `path` is the program.
    pub exe: Option<Vec<u8>>,
    /// The acting person's login uid.
    pub user: Option<u32>,
    /// The device below the file.
    pub device: Option<PluggedDevice>,
    /// Where to.
    pub peer: Option<Peer>,
}

/// One condition on one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `when` or `unless`.
    pub side: &'static str,
    /// Which subject.
    pub subject: Subject,
    /// Any of these would do.
    pub wanted: Vec<String>,
    /// Whether it holds.
    pub holds: bool,
}

/// One candidate rule. Conditions on labels were resolved when the policy was compiled: the rule
/// is a candidate because they hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CandidateReport {
    /// Its id.
    pub id: String,
    /// What it does.
    pub action: Action,
    /// Whether its deny is real.
    pub mode: Mode,
    /// Whether it applies.
    pub applies: bool,
    /// Its `unless` names a label that the file does not carry and can not apply.
    pub unless_void: bool,
    /// Its conditions other than labels.
    pub checks: Vec<Check>,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What happens.
    pub kind: Word,
    /// The path was too deep to be walked.
    pub path_unknown: bool,
    /// Labels of the file.
    pub labels: Vec<String>,
    /// Program groups of the acting program.
    pub programs: Vec<String>,
    /// Groups of the acting person.
    pub users: Vec<String>,
    /// Device groups.
    pub devices: Vec<String>,
    /// Destination groups.
    pub destinations: Vec<String>,
    /// Rules that could apply, in order.
    pub candidates: Vec<CandidateReport>,
    /// Rules of this kind that cannot matter here: their labels rule them out, or a stronger rule
    /// always applies with them.
    pub other_rules: usize,
    /// `allowed`, `alerted`, `would-deny` or `denied`.
    pub verdict: &'static str,
    /// Id of the rule that decided.
    pub rule: Option<String>,
    /// What the acting person is told.
    pub tell: Option<String>,
}

/// Explains what a policy says of an event.
pub fn explain(compiled: &Compiled, question: &Question) -> Explanation {
    let tables = &compiled.tables;
    let kind = question.kind.kind();
    let has_file = Subject::Label.fits(question.kind);
    let set_of = |path: &Option<Vec<u8>>| path.as_ref().map_or(SET_NONE, |it| tables.set_of(it));
    let set = if has_file { set_of(&question.path) } else { SET_NONE };
    let program_set = if question.kind == Word::Exec { set } else { set_of(&question.exe) };
    let facts = Facts {
        programs: tables.programs_of(program_set),
        users: question.user.map_or(0, |uid| tables.users_of(uid)),
        devices: question
            .device
            .as_ref()
            .filter(|_| Subject::Device.fits(question.kind))
            .map_or(0, |it| {
                tables.devices_of(it.class, it.vendor, it.product, it.serial.as_bytes())
            }),
        destinations: question
            .peer
            .filter(|_| Subject::Destination.fits(question.kind))
            .map_or(0, |peer| tables.destinations_of(peer.address, peer.port)),
    };
    let outcome = tables.judge(kind, set, &facts);
    let decided = outcome.rule.checked_sub(1).and_then(|at| compiled.rules.get(at as usize));
    let candidates = candidates(compiled, kind, set, &facts);
    let real = |id: &str| !id.starts_with(RESERVED);
    let all =
        compiled.rules.iter().filter(|rule| rule.on.contains(&kind) && real(&rule.id)).count();
    let listed = candidates.iter().filter(|candidate| real(&candidate.id)).count();
    let names = &compiled.names;
    Explanation {
        kind: question.kind,
        path_unknown: set == SET_UNKNOWN,
        labels: labels(compiled, set),
        programs: names.in_mask(Subject::Program, facts.programs),
        users: names.in_mask(Subject::User, facts.users),
        devices: names.in_mask(Subject::Device, facts.devices),
        destinations: names.in_mask(Subject::Destination, facts.destinations),
        other_rules: all.saturating_sub(listed),
        candidates,
        verdict: verdict(outcome.action),
        rule: decided.map(|rule| rule.id.clone()),
        tell: decided
            .filter(|_| outcome.action == action::DENY)
            .and_then(|rule| rule.tell_user.clone()),
    }
}

fn verdict(of: u32) -> &'static str {
    match of {
        action::DENY => "denied",
        action::WOULD_DENY => "would-deny",
        action::ALERT => "alerted",
        _ => "allowed",
    }
}

fn labels(compiled: &Compiled, set: u32) -> Vec<String> {
    let numbers = compiled.set_labels.get(set as usize).into_iter().flatten();
    numbers.filter_map(|number| compiled.names.labels.get(*number as usize).cloned()).collect()
}

fn candidates(compiled: &Compiled, kind: u8, set: u32, facts: &Facts) -> Vec<CandidateReport> {
    let Some(bucket) = compiled.tables.bucket(kind, set) else {
        return Vec::new();
    };
    let used = bucket.candidates.iter().take(bucket.count as usize);
    used.filter_map(|candidate| {
        let number = (candidate & !CANDIDATE_UNLESS_VOID) as usize;
        let void = candidate & CANDIDATE_UNLESS_VOID != 0;
        let rule = compiled.tables.rules.get(number)?;
        let about = compiled.rules.get(number)?;
        let mut checks = checks(compiled, "when", &rule.when, facts);
        if !void {
            checks.extend(self::checks(compiled, "unless", &rule.unless, facts));
        }
        Some(CandidateReport {
            id: about.id.clone(),
            action: about.action,
            mode: about.mode,
            applies: applies(rule, void, facts),
            unless_void: void,
            checks,
        })
    })
    .collect()
}

fn checks(
    compiled: &Compiled,
    side: &'static str,
    condition: &Condition,
    facts: &Facts,
) -> Vec<Check> {
    [
        (Subject::Program, condition.programs, facts.programs),
        (Subject::User, condition.users, facts.users),
        (Subject::Device, condition.devices, facts.devices),
        (Subject::Destination, condition.destinations, facts.destinations),
    ]
    .into_iter()
    .filter(|(_, asked, _)| *asked != 0)
    .map(|(subject, asked, has)| Check {
        side,
        subject,
        wanted: compiled.names.in_mask(subject, asked),
        holds: asked & has != 0,
    })
    .collect()
}

impl fmt::Display for Check {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = if self.holds { "is" } else { "is not" };
        let wanted = self.wanted.join(", ");
        write!(out, "{} {}: {is} in {wanted}", self.side, self.subject.text())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.kind.text())?;
        if self.path_unknown {
            writeln!(out, "  the path is too deep to be walked")?;
        }
        for (subject, names) in [
            ("labels", &self.labels),
            ("programs", &self.programs),
            ("users", &self.users),
            ("devices", &self.devices),
            ("destinations", &self.destinations),
        ] {
            if !names.is_empty() {
                writeln!(out, "  {subject}: {}", names.join(", "))?;
            }
        }
        for candidate in &self.candidates {
            let applies = if candidate.applies { "applies" } else { "does not apply" };
            let action = match (candidate.action, candidate.mode) {
                (Action::Record, _) => "record",
                (Action::Alert, _) => "alert",
                (Action::Deny, Mode::Observe) => "deny, observed",
                (Action::Deny, Mode::Enforce) => "deny",
            };
            writeln!(out, "  rule {} ({action}): {applies}", candidate.id)?;
            for check in &candidate.checks {
                writeln!(out, "    {check}")?;
            }
            if candidate.unless_void {
                writeln!(out, "    unless: the file has none of the labels it asks for")?;
            }
        }
        if self.other_rules > 0 {
            let count = self.other_rules;
            writeln!(out, "  {count} more rules of this kind cannot matter for these labels")?;
        }
        match &self.rule {
            Some(rule) => write!(out, "{} by rule {rule}", self.verdict),
            None => write!(out, "{}: no rule applies", self.verdict),
        }
    }
}
