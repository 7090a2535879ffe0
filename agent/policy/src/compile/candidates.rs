//! Candidate rules of one bucket: which of them can matter, and what stands for too many.

use std::collections::HashMap;

use sekimori_abi::{
    limits::CANDIDATES_MAX,
    table::{CANDIDATE_UNLESS_VOID, Condition, Rule, action},
};

use super::Resolved;
use crate::limits::DOMINANCE_MAX;

/// A rule number, perhaps with `CANDIDATE_UNLESS_VOID`.
pub(super) type Candidate = u32;

/// The rule number of a candidate.
pub(super) const fn number(candidate: Candidate) -> u32 {
    candidate & !CANDIDATE_UNLESS_VOID
}

/// A candidate's rule as it acts: an exception that can never apply is gone.
fn acting(candidate: Candidate, rules: &[Resolved]) -> Option<Rule> {
    let mut rule = rules.get(number(candidate) as usize)?.rule;
    if candidate & CANDIDATE_UNLESS_VOID != 0 || rule.has_unless == 0 {
        rule.unless = Condition::default();
        rule.has_unless = 0;
    }
    Some(rule)
}

/// Leaves out rules that cannot change any verdict when there are more than fit: whenever such a
/// rule applies, another one applies too and is stronger, or as strong and later.
pub(super) fn prune(candidates: Vec<Candidate>, rules: &[Resolved]) -> Vec<Candidate> {
    if candidates.len() <= CANDIDATES_MAX {
        return candidates;
    }
    let mut strongest: HashMap<[u64; 9], (u32, Candidate)> = HashMap::new();
    for candidate in candidates {
        let Some(rule) = acting(candidate, rules) else {
            continue;
        };
        let score = (rule.action, candidate);
        let best = strongest.entry(conditions(&rule)).or_insert(score);
        if (score.0, number(score.1)) > (best.0, number(best.1)) {
            *best = score;
        }
    }
    let mut kept: Vec<Candidate> = strongest.into_values().map(|(_, it)| it).collect();
    kept.sort_unstable_by_key(|candidate| number(*candidate));
    if kept.len() > CANDIDATES_MAX && kept.len() <= DOMINANCE_MAX {
        kept = undominated(&kept, rules);
    }
    kept
}

fn undominated(candidates: &[Candidate], rules: &[Resolved]) -> Vec<Candidate> {
    let acting: Vec<(u32, Candidate, Rule)> = candidates
        .iter()
        .filter_map(|candidate| {
            let rule = acting(*candidate, rules)?;
            Some((rule.action, *candidate, rule))
        })
        .collect();
    let score = |(action, candidate, _): &(u32, Candidate, Rule)| (*action, number(*candidate));
    acting
        .iter()
        .filter(|weak| {
            !acting.iter().any(|strong| score(strong) > score(weak) && covers(&strong.2, &weak.2))
        })
        .map(|(_, candidate, _)| *candidate)
        .collect()
}

/// Whether `strong` surely applies whenever `weak` does.
fn covers(strong: &Rule, weak: &Rule) -> bool {
    let unless =
        strong.has_unless == 0 || (weak.has_unless != 0 && implies(&strong.unless, &weak.unless));
    unless && implies(&weak.when, &strong.when)
}

/// Whether `to` surely holds when `from` does.
fn implies(from: &Condition, to: &Condition) -> bool {
    let subject = |from: u64, to: u64| to == 0 || (from != 0 && from & !to == 0);
    subject(from.programs, to.programs)
        && subject(from.users, to.users)
        && subject(from.devices, to.devices)
        && subject(from.destinations, to.destinations)
}

/// What a rule asks, whatever it does.
pub(super) fn conditions(rule: &Rule) -> [u64; 9] {
    let (when, unless) = (&rule.when, &rule.unless);
    [
        when.programs,
        when.users,
        when.devices,
        when.destinations,
        unless.programs,
        unless.users,
        unless.devices,
        unless.destinations,
        u64::from(rule.has_unless),
    ]
}

/// The strongest candidates that fit, and those left over.
pub(super) fn split(
    mut candidates: Vec<Candidate>,
    room: usize,
    rules: &[Resolved],
) -> (Vec<Candidate>, Vec<Candidate>) {
    candidates.sort_by_key(|candidate| {
        let action = rules.get(number(*candidate) as usize).map_or(0, |it| it.rule.action);
        (std::cmp::Reverse(action), number(*candidate))
    });
    let left = candidates.split_off(room.min(candidates.len()));
    (candidates, left)
}

/// One rule that applies at least whenever one of the strongest deny rules among `candidates` does:
/// it asks for no more than all of them ask for, and excepts only what all of them except.
/// `None` when there is no deny rule, observed or not. With `any_program` it does not ask for
/// programs: those of an unknown executable are unknown.
pub(super) fn approximate(
    candidates: &[Candidate],
    any_program: bool,
    rules: &[Resolved],
) -> Option<Rule> {
    let acting: Vec<Rule> = candidates.iter().filter_map(|it| acting(*it, rules)).collect();
    let strongest = acting.iter().map(|rule| rule.action).max()?;
    if strongest < action::WOULD_DENY {
        return None;
    }
    let deny: Vec<&Rule> = acting.iter().filter(|rule| rule.action == strongest).collect();
    let first = **deny.first()?;
    let join = |mask: fn(&Condition) -> u64| {
        deny.iter()
            .map(|rule| mask(&rule.when))
            .try_fold(0, |joined, mask| (mask != 0).then_some(joined | mask))
    };
    let mut when = Condition {
        programs: join(|when| when.programs).unwrap_or(0),
        users: join(|when| when.users).unwrap_or(0),
        devices: join(|when| when.devices).unwrap_or(0),
        destinations: join(|when| when.destinations).unwrap_or(0),
    };
    if any_program {
        when.programs = 0;
    }
    let same_unless = deny.iter().all(|rule| rule.has_unless != 0 && rule.unless == first.unless);
    let unless = if same_unless { first.unless } else { Condition::default() };
    Some(Rule { when, unless, action: strongest, has_unless: u32::from(same_unless) })
}
