//! Rule numbers to rule names.
//!
//! A record names its rule by number within the policy generation that decided. Records of the old
//! policy are still on the ring when a new one is installed, so the last few are kept.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::limits::GENERATIONS_KEPT_MAX;

/// A question about a path.
pub type PathTest = Box<dyn Fn(&[u8]) -> bool + Send>;

/// What user space needs to know of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFact {
    /// The rule's id.
    pub id: String,
    /// What the acting person is told when it refuses.
    pub tell_user: Option<String>,
}

/// The rules of the last policies, and what of the allowed events is stored.
pub struct RuleBook {
    generations: VecDeque<(u32, Vec<RuleFact>)>,
    /// Kinds (bit `1 << kind`) that are stored although no rule matched. The kernel reports
    /// launches and ends of processes in any case: the process table needs them.
    pub recorded_kinds: u32,
    /// Whether a path carries a label. The kernel reports failed opens that might lie in a labelled
    /// place; the resolved name decides.
    pub labelled: PathTest,
}

impl Default for RuleBook {
    fn default() -> Self {
        Self {
            generations: VecDeque::new(),
            recorded_kinds: u32::MAX,
            labelled: Box::new(|_| true),
        }
    }
}

impl RuleBook {
    /// The policies that are known, oldest first, as [`RuleBook::remember`] takes them.
    #[must_use]
    pub const fn known(&self) -> &VecDeque<(u32, Vec<RuleFact>)> {
        &self.generations
    }

    /// Takes the policies that another agent knew: records of theirs may still be on the rings.
    pub fn remember(&mut self, known: VecDeque<(u32, Vec<RuleFact>)>) {
        known.into_iter().for_each(|(generation, rules)| self.add(generation, rules));
    }

    /// Adds a policy; the oldest of more than [`GENERATIONS_KEPT_MAX`] is forgotten.
    pub fn add(&mut self, generation: u32, rules: Vec<RuleFact>) {
        self.generations.retain(|(known, _)| *known != generation);
        if self.generations.len() >= GENERATIONS_KEPT_MAX {
            self.generations.pop_front();
        }
        self.generations.push_back((generation, rules));
    }

    /// The rule of a record: its field is the index plus one, 0 for none.
    #[must_use]
    pub fn fact(&self, generation: u32, rule: u32) -> Option<&RuleFact> {
        let index = usize::try_from(rule.checked_sub(1)?).ok()?;
        let (_, rules) = self.generations.iter().find(|(known, _)| *known == generation)?;
        rules.get(index)
    }

    /// The id as the event carries it: empty when no rule decided, and the bare numbers when the
    /// policy is not known any more.
    #[must_use]
    pub fn id(&self, generation: u32, rule: u32) -> String {
        match (rule, self.fact(generation, rule)) {
            (0, _) => String::new(),
            (_, Some(fact)) => fact.id.clone(),
            (_, None) => format!("generation {generation} rule {}", rule - 1),
        }
    }
}
