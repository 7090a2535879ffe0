//! The decision: facts and a bucket of candidate rules in, verdict and rule out. The kernel programs
//! and every user-space tool that explains or replays a policy run this very code.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod path;

use core::hint::black_box;

use sekimori_abi::{
    event::verdict,
    table::{Bucket, CANDIDATE_UNLESS_VOID, Condition, Rule, action},
};

/// What is known of an event when it is judged: which named groups each subject belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Program groups of the acting program (exec: of the program to be launched).
    pub programs: u64,
    /// User groups of the acting person.
    pub users: u64,
    /// Device groups of the device below the file.
    pub devices: u64,
    /// Destination groups of the peer.
    pub destinations: u64,
}

/// What was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One of `table::action`, 0 when no rule matched.
    pub action: u32,
    /// Index of the deciding rule plus one, 0 when no rule matched.
    pub rule: u32,
}

impl Outcome {
    /// Whether the operation is refused.
    #[inline(always)]
    pub const fn denies(self) -> bool {
        self.action == action::DENY
    }

    /// The verdict that a record of this outcome carries.
    #[inline(always)]
    pub const fn verdict(self) -> u8 {
        match self.action {
            action::DENY => verdict::DENIED,
            action::WOULD_DENY => verdict::WOULD_DENY,
            action::ALERT => verdict::ALERTED,
            _ => verdict::ALLOWED,
        }
    }
}

/// Bits of a packed score that hold the rule: index plus one, so that of two rules of the same
/// strength the one written later wins.
const RULE_BITS: u32 = 16;

/// Whether a question is asked and not answered by what there is.
///
/// `black_box` keeps the compiler from joining several such questions into arithmetic on truth
/// values: the kernel's verifier follows each combination of known truth values, so it needs plain
/// branches that leave early.
#[inline(always)]
fn misses(asked: u64, has: u64) -> bool {
    let asked = black_box(asked);
    asked != 0 && asked & has == 0
}

#[inline(always)]
fn holds(condition: &Condition, facts: &Facts) -> bool {
    if misses(condition.programs, facts.programs) {
        return false;
    }
    if misses(condition.users, facts.users) {
        return false;
    }
    if misses(condition.devices, facts.devices) {
        return false;
    }
    !misses(condition.destinations, facts.destinations)
}

/// Whether `rule` applies to an event with these facts.
#[inline(always)]
pub fn applies(rule: &Rule, unless_void: bool, facts: &Facts) -> bool {
    if !holds(&rule.when, facts) {
        return false;
    }
    if black_box(rule.has_unless) == 0 || unless_void {
        return true;
    }
    !holds(&rule.unless, facts)
}

/// How strongly one candidate speaks: its action and, behind it, its index plus one, so that the
/// strongest action wins and among equals the rule written later. 0 when it does not apply.
#[inline(always)]
pub fn score(candidate: u32, rule: &Rule, facts: &Facts) -> u32 {
    if applies(rule, candidate & CANDIDATE_UNLESS_VOID != 0, facts) {
        let index = candidate & !CANDIDATE_UNLESS_VOID;
        rule.action << RULE_BITS | (index + 1)
    } else {
        0
    }
}

/// The outcome that the highest score stands for.
#[inline(always)]
pub const fn outcome(best: u32) -> Outcome {
    Outcome { action: best >> RULE_BITS, rule: best & ((1 << RULE_BITS) - 1) }
}

/// Judges one event. All candidates are looked at; the strongest action wins.
pub fn decide<'a>(
    bucket: &Bucket,
    facts: &Facts,
    rule_at: impl Fn(u32) -> Option<&'a Rule>,
) -> Outcome {
    let candidates = bucket.candidates.iter().take(bucket.count as usize);
    let scores = candidates.filter_map(|candidate| {
        let rule = rule_at(candidate & !CANDIDATE_UNLESS_VOID)?;
        Some(score(*candidate, rule, facts))
    });
    outcome(scores.max().unwrap_or(0))
}
