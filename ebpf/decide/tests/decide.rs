//! The decision function against a naive reading of its contract, and the names' hashes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use proptest::prelude::*;
use sekimori_abi::{
    event::verdict,
    limits::{CANDIDATES_MAX, RULES_MAX},
    table::{Bucket, CANDIDATE_UNLESS_VOID, Condition, Rule, action},
};
use sekimori_decide::{
    Facts, Outcome, applies, decide,
    path::{NAME_WORDS, component_hash, words_hash},
};

/// Masks of few bits, so that they often meet and are often empty.
fn mask() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0u64), (0u64..8).prop_map(|bits| bits | bits << 61)]
}

fn condition() -> impl Strategy<Value = Condition> {
    (mask(), mask(), mask(), mask()).prop_map(|(programs, users, devices, destinations)| {
        Condition { programs, users, devices, destinations }
    })
}

fn facts() -> impl Strategy<Value = Facts> {
    (mask(), mask(), mask(), mask()).prop_map(|(programs, users, devices, destinations)| Facts {
        programs,
        users,
        devices,
        destinations,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    (condition(), condition(), action::RECORD..=action::DENY, 0u32..2)
        .prop_map(|(when, unless, action, has_unless)| Rule { when, unless, action, has_unless })
}

fn pairs(condition: &Condition, facts: &Facts) -> [(u64, u64); 4] {
    [
        (condition.programs, facts.programs),
        (condition.users, facts.users),
        (condition.devices, facts.devices),
        (condition.destinations, facts.destinations),
    ]
}

fn naive_holds(condition: &Condition, facts: &Facts) -> bool {
    for (asked, has) in pairs(condition, facts) {
        let any = (0..64).any(|bit| asked >> bit & 1 == 1 && has >> bit & 1 == 1);
        if asked != 0 && !any {
            return false;
        }
    }
    true
}

fn naive_applies(rule: &Rule, void: bool, facts: &Facts) -> bool {
    if !naive_holds(&rule.when, facts) {
        return false;
    }
    if rule.has_unless == 0 || void {
        return true;
    }
    !naive_holds(&rule.unless, facts)
}

fn naive_decide(candidates: &[(u32, bool)], rules: &[Rule], facts: &Facts) -> Outcome {
    let mut best = Outcome::default();
    for (index, void) in candidates {
        let Some(rule) = rules.get(*index as usize) else {
            continue;
        };
        let stronger =
            rule.action > best.action || (rule.action == best.action && index + 1 > best.rule);
        if naive_applies(rule, *void, facts) && stronger {
            best = Outcome { action: rule.action, rule: index + 1 };
        }
    }
    best
}

fn bucket(candidates: &[(u32, bool)]) -> Bucket {
    // What lies behind `count` is old data and must not be read.
    let mut bucket = Bucket { count: candidates.len() as u32, candidates: [0; CANDIDATES_MAX] };
    for (to, (index, void)) in bucket.candidates.iter_mut().zip(candidates) {
        *to = *index | if *void { CANDIDATE_UNLESS_VOID } else { 0 };
    }
    bucket
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn decide_is_the_naive_reading(
        rules in prop::collection::vec(rule(), 0..20),
        // Some candidates name rules that do not exist.
        candidates in prop::collection::vec((0u32..22, any::<bool>()), 0..=CANDIDATES_MAX),
        facts in facts(),
    ) {
        let outcome = decide(&bucket(&candidates), &facts, |at| rules.get(at as usize));
        prop_assert_eq!(outcome, naive_decide(&candidates, &rules, &facts));
    }

    #[test]
    fn a_rule_applies_as_read(rule in rule(), void in any::<bool>(), facts in facts()) {
        prop_assert_eq!(applies(&rule, void, &facts), naive_applies(&rule, void, &facts));
    }

    #[test]
    fn names_hash_as_their_padded_words(name in prop::collection::vec(1u8.., 0..256)) {
        let mut padded = [0u8; NAME_WORDS * 8];
        padded[..name.len()].copy_from_slice(&name);
        let mut words = [0u64; NAME_WORDS];
        for (word, bytes) in words.iter_mut().zip(padded.chunks(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap());
        }
        let hash = component_hash(&name).unwrap();
        prop_assert_eq!(hash, words_hash(&words));
        prop_assert_ne!(hash, 0);
    }

    #[test]
    fn different_names_hash_differently(
        left in prop::collection::vec(1u8.., 0..256),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        prop_assume!(!left.is_empty());
        let mut right = left.clone();
        let at = at.index(right.len());
        right[at] ^= flip;
        prop_assume!(right[at] != 0);
        prop_assert_ne!(component_hash(&left), component_hash(&right));
    }
}

#[test]
fn names_longer_than_a_file_name_have_no_hash() {
    assert!(component_hash(&[b'n'; 255]).is_some());
    assert_eq!(component_hash(&[b'n'; 256]), None);
}

#[test]
fn the_last_possible_rule_and_all_candidates_are_seen() {
    let last = RULES_MAX - 1;
    let deny = Rule { action: action::DENY, ..Rule::default() };
    let record = Rule { action: action::RECORD, ..Rule::default() };
    let mut candidates = vec![(0, false); CANDIDATES_MAX];
    candidates[CANDIDATES_MAX - 1] = (last, true);
    let rule_at = |at| Some(if at == last { &deny } else { &record });
    let outcome = decide(&bucket(&candidates), &Facts::default(), rule_at);
    assert_eq!(outcome, Outcome { action: action::DENY, rule: last + 1 });
    assert!(outcome.denies());
    assert_eq!(outcome.verdict(), verdict::DENIED);
}

#[test]
fn candidates_behind_the_count_are_not_read() {
    let mut bucket = bucket(&[(0, false)]);
    bucket.candidates[1] = 1;
    let rules = [
        Rule { action: action::RECORD, ..Rule::default() },
        Rule { action: action::DENY, ..Rule::default() },
    ];
    let outcome = decide(&bucket, &Facts::default(), |at| rules.get(at as usize));
    assert_eq!(outcome, Outcome { action: action::RECORD, rule: 1 });
    // A count beyond the array (never written by the loader) reads the array and no further.
    bucket.count = u32::MAX;
    let outcome = decide(&bucket, &Facts::default(), |at| rules.get(at as usize));
    assert_eq!(outcome, Outcome { action: action::DENY, rule: 2 });
}

#[test]
fn verdicts_of_all_actions() {
    let verdict = |action| Outcome { action, rule: 1 }.verdict();
    assert_eq!(verdict(0), verdict::ALLOWED);
    assert_eq!(verdict(action::RECORD), verdict::ALLOWED);
    assert_eq!(verdict(action::ALERT), verdict::ALERTED);
    assert_eq!(verdict(action::WOULD_DENY), verdict::WOULD_DENY);
    assert_eq!(verdict(action::DENY), verdict::DENIED);
    assert!(!Outcome { action: action::WOULD_DENY, rule: 1 }.denies());
}
