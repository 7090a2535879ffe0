//! The decision: facts and a bucket of candidate rules in, verdict and rule out. The kernel programs
//! and every user-space tool that explains or replays a policy run this very code.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod path;

use sekimori_abi::{
    event::verdict,
    limits::CANDIDATES_MAX,
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

#[inline(always)]
const fn asked_and_missed(asked: u64, has: u64) -> bool {
    (asked != 0) & (asked & has == 0)
}

#[inline(always)]
const fn holds(condition: &Condition, facts: &Facts) -> bool {
    !(asked_and_missed(condition.programs, facts.programs)
        | asked_and_missed(condition.users, facts.users)
        | asked_and_missed(condition.devices, facts.devices)
        | asked_and_missed(condition.destinations, facts.destinations))
}

/// Whether `rule` applies to an event with these facts.
#[inline(always)]
pub const fn applies(rule: &Rule, unless_void: bool, facts: &Facts) -> bool {
    let excepted = (rule.has_unless != 0) & !unless_void & holds(&rule.unless, facts);
    holds(&rule.when, facts) & !excepted
}

/// Judges one event. All candidates are looked at; the strongest action wins, and among equals the
/// rule with the highest index.
#[inline(always)]
pub fn decide<'a>(
    bucket: &Bucket,
    facts: &Facts,
    rule_at: impl Fn(u32) -> Option<&'a Rule>,
) -> Outcome {
    let mut best = 0u32;
    for at in 0..CANDIDATES_MAX {
        if at as u32 >= bucket.count {
            break;
        }
        let Some(candidate) = bucket.candidates.get(at) else { break };
        let index = candidate & !CANDIDATE_UNLESS_VOID;
        let Some(rule) = rule_at(index) else { continue };
        if applies(rule, candidate & CANDIDATE_UNLESS_VOID != 0, facts) {
            let score = rule.action << RULE_BITS | (index + 1);
            if score > best {
                best = score;
            }
        }
    }
    Outcome { action: best >> RULE_BITS, rule: best & ((1 << RULE_BITS) - 1) }
}
