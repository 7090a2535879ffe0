//! Buckets: for each kind and set of labels the rules that could apply, conditions on labels
//! resolved. A set has a bucket of its own only where it differs from the set of no labels.

use std::collections::HashMap;

use sekimori_abi::{
    event::kind,
    limits::{CANDIDATES_MAX, RULES_MAX},
    table::{Bucket, CANDIDATE_UNLESS_VOID, Condition, Rule, SET_NONE, SET_UNKNOWN, action},
};

use super::{
    DIRECTORY_TOO_MIXED, PATH_TOO_DEEP, Resolved, RuleFacts,
    candidates::{Candidate, approximate, conditions, number, prune, split},
    sets::{SetKey, Sets},
};
use crate::{
    finding::{Findings, Position, shown},
    limits::OVERFLOWS_REPORTED_MAX,
    model::{Action, AlertLevel, Mode, Subject, Word},
};

/// Rule ids named in a message about too many of them.
const IDS_SHOWN: usize = 12;

/// What was built.
#[derive(Default)]
pub(super) struct Built {
    pub buckets: Vec<(u8, u32, Bucket)>,
    /// By set.
    pub own_buckets: Vec<u32>,
    pub judged_kinds: u32,
}

/// Builds all buckets. Synthetic rules are appended to `resolved` and `rules`.
pub(super) fn build(
    resolved: &mut Vec<Resolved>,
    rules: &mut Vec<RuleFacts>,
    sets: &Sets,
    findings: &mut Findings,
) -> Built {
    let built = Built { own_buckets: vec![0; sets.keys.len()], ..Built::default() };
    let mut builder =
        Builder { resolved, rules, findings, built, synthetic: HashMap::new(), overflows: 0 };
    for word in Word::ALL {
        builder.overflows = 0;
        builder.kind(word, sets);
    }
    builder.built
}

/// The rules of one kind, by what they ask of labels.
#[derive(Default)]
struct Index {
    /// No label is named.
    plain: Vec<Candidate>,
    /// Only `unless` names labels.
    excepted: Vec<Candidate>,
    /// `when` names the label.
    by_label: HashMap<u32, Vec<Candidate>>,
}

impl Index {
    fn of(kind: u8, rules: &[Resolved]) -> Self {
        let mut index = Self::default();
        for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.kinds.contains(&kind)) {
            let at = at as u32;
            if rule.when_labels.is_empty() && rule.unless_labels.is_empty() {
                index.plain.push(at);
            } else if rule.when_labels.is_empty() {
                index.excepted.push(at);
            }
            for label in &rule.when_labels {
                index.by_label.entry(*label).or_default().push(at);
            }
        }
        index.plain = prune(index.plain, rules);
        index
    }

    /// Rules whose conditions on labels leave them possible for a set.
    fn candidates(&self, key: &SetKey, rules: &[Resolved]) -> Vec<Candidate> {
        let labelled = key.accepted.labels.iter().filter_map(|label| self.by_label.get(label));
        let mut found: Vec<u32> = self.plain.iter().chain(&self.excepted).copied().collect();
        found.extend(labelled.flatten());
        found.sort_unstable();
        found.dedup();
        let possible = |at: u32| {
            let rule = rules.get(at as usize)?;
            if rule.unless_labels.is_empty() {
                return Some(at);
            }
            let carried = |label| key.accepted.labels.binary_search(label).is_ok();
            if key.mixed || !rule.unless_labels.iter().any(carried) {
                return Some(at | CANDIDATE_UNLESS_VOID);
            }
            (rule.rule.unless != Condition::default()).then_some(at)
        };
        found.into_iter().filter_map(possible).collect()
    }
}

struct Builder<'a> {
    resolved: &'a mut Vec<Resolved>,
    rules: &'a mut Vec<RuleFacts>,
    findings: &'a mut Findings,
    built: Built,
    synthetic: HashMap<(&'static str, u8, [u64; 9], u32), u32>,
    overflows: usize,
}

impl Builder<'_> {
    fn kind(&mut self, word: Word, sets: &Sets) {
        let kind = word.kind();
        let index = Index::of(kind, self.resolved);
        let none = index.candidates(&SetKey::default(), self.resolved);
        let base = prune(none.clone(), self.resolved);
        if base.len() > CANDIDATES_MAX {
            self.overflow(word, &base, &[]);
            return;
        }
        if !base.is_empty() {
            self.built.judged_kinds |= 1 << kind;
            self.emit(kind, SET_NONE, &base);
        }
        if !Subject::Label.fits(word) {
            return;
        }
        self.unknown(kind, &index, base);
        for (set, key) in (0u32..).zip(&sets.keys).skip(SET_UNKNOWN as usize + 1) {
            let exact = sets.exact.contains(&set);
            // A directory is renamed, not launched.
            if !exact && kind == kind::EXEC {
                continue;
            }
            let own = index.candidates(key, self.resolved);
            if own == none {
                continue;
            }
            let mut own = prune(own, self.resolved);
            if own.len() > CANDIDATES_MAX {
                if exact {
                    self.overflow(word, &own, &key.accepted.labels);
                    continue;
                }
                own = self.squeeze(kind, own);
            }
            self.emit(kind, set, &own);
        }
    }

    /// The bucket of paths too deep to be walked: as without labels, and a deny rule that could
    /// match a labelled file (exec: a file of a program group) applies to them.
    fn unknown(&mut self, kind: u8, index: &Index, base: Vec<Candidate>) {
        let exec = kind == kind::EXEC;
        let by_program = index.plain.iter().filter(|at| {
            let rule = self.resolved.get(number(**at) as usize);
            exec && rule.is_some_and(|rule| rule.rule.when.programs != 0)
        });
        let mut hidden: Vec<Candidate> =
            index.by_label.values().flatten().chain(by_program).copied().collect();
        hidden.sort_unstable();
        hidden.dedup();
        for candidate in &mut hidden {
            let rule = self.resolved.get(*candidate as usize);
            if rule.is_some_and(|rule| !rule.unless_labels.is_empty()) {
                *candidate |= CANDIDATE_UNLESS_VOID;
            }
        }
        let Some(rule) = approximate(&hidden, exec, self.resolved) else {
            return;
        };
        let (mut kept, _) = split(base, CANDIDATES_MAX - 1, self.resolved);
        kept.extend(self.synthesize(PATH_TOO_DEEP, kind, rule));
        kept.sort_unstable_by_key(|candidate| number(*candidate));
        self.emit(kind, SET_UNKNOWN, &kept);
    }

    /// The bucket of a directory below which files carry so many labels that their rules do not fit:
    /// the strongest ones are kept, and one synthetic rule refuses at least what the deny rules
    /// among the others would refuse. Alerts and records beyond the bound are left out.
    fn squeeze(&mut self, kind: u8, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let (mut kept, left) = split(candidates, CANDIDATES_MAX - 1, self.resolved);
        if let Some(rule) = approximate(&left, false, self.resolved) {
            kept.extend(self.synthesize(DIRECTORY_TOO_MIXED, kind, rule));
        } else {
            kept.extend(left.first());
        }
        kept.sort_unstable_by_key(|candidate| number(*candidate));
        kept
    }

    /// The number of a synthetic rule; the same rule is made once.
    fn synthesize(&mut self, id: &'static str, kind: u8, rule: Rule) -> Option<u32> {
        let key = (id, kind, conditions(&rule), rule.action);
        if let Some(number) = self.synthetic.get(&key) {
            return Some(*number);
        }
        let number = self.resolved.len() as u32;
        if number >= RULES_MAX {
            let message =
                format!("the policy needs more than {RULES_MAX} rules, synthetic ones included");
            self.findings.error(Position::default(), message);
            return None;
        }
        self.synthetic.insert(key, number);
        let at = Position::default();
        let (when_labels, unless_labels) = (Vec::new(), Vec::new());
        self.resolved.push(Resolved { rule, kinds: vec![kind], when_labels, unless_labels, at });
        let tell = if id == PATH_TOO_DEEP {
            "The path has too many directories to be checked against the policy."
        } else {
            "The directory holds files under too many different rules to be moved as a whole."
        };
        self.rules.push(RuleFacts {
            id: id.to_owned(),
            action: Action::Deny,
            on: vec![kind],
            tell_user: Some(tell.to_owned()),
            tell_admin: Some(AlertLevel::Medium),
            mode: if rule.action == action::DENY { Mode::Enforce } else { Mode::Observe },
        });
        Some(number)
    }

    fn emit(&mut self, kind: u8, set: u32, candidates: &[Candidate]) {
        let mut bucket = Bucket { count: candidates.len() as u32, candidates: [0; CANDIDATES_MAX] };
        for (to, from) in bucket.candidates.iter_mut().zip(candidates) {
            *to = *from;
        }
        if set != SET_NONE
            && let Some(own) = self.built.own_buckets.get_mut(set as usize)
        {
            *own |= 1 << kind;
        }
        self.built.buckets.push((kind, set, bucket));
    }

    fn overflow(&mut self, word: Word, candidates: &[Candidate], labels: &[u32]) {
        self.overflows += 1;
        if self.overflows > OVERFLOWS_REPORTED_MAX {
            return;
        }
        let name = |candidate: &Candidate| {
            let id = self.rules.get(number(*candidate) as usize).map_or("", |rule| &rule.id);
            format!("`{}`", shown(id))
        };
        let ids: Vec<String> = candidates.iter().take(IDS_SHOWN).map(name).collect();
        let more = match candidates.len().saturating_sub(IDS_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let of_what = match labels.len() {
            0 => String::new(),
            1 => " of a file with one label".to_owned(),
            count => format!(" of a file with {count} labels"),
        };
        let message = format!(
            "{} rules could apply to one `{}`{of_what}, at most {CANDIDATES_MAX} can be compared: \
             {}{more}",
            candidates.len(),
            word.text(),
            ids.join(", ")
        );
        let last = candidates.last().and_then(|it| self.resolved.get(number(*it) as usize));
        let at = last.map_or_else(Position::default, |rule| rule.at);
        self.findings.error_hint(
            at,
            message,
            "join rules that differ only in a name: a condition takes a list of names",
        );
    }
}
