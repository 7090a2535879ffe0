//! Names to bits: which groups the rules use, and which bit each has.

use std::collections::HashMap;

use sekimori_abi::{limits::GROUPS_MAX, table::Condition};
use serde::Serialize;

use crate::{
    finding::{Findings, Position},
    model::{Conditions, Policy, Subject},
};

/// Names of the groups that rules use; a name's place is its bit (labels: its number).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// Labels.
    pub labels: Vec<String>,
    /// Program groups.
    pub programs: Vec<String>,
    /// Groups of users and login names.
    pub users: Vec<String>,
    /// Device groups.
    pub devices: Vec<String>,
    /// Destination groups.
    pub destinations: Vec<String>,
}

impl Names {
    /// Names of a subject, by bit.
    pub fn of(&self, subject: Subject) -> &[String] {
        match subject {
            Subject::Label => &self.labels,
            Subject::Program => &self.programs,
            Subject::User => &self.users,
            Subject::Device => &self.devices,
            Subject::Destination => &self.destinations,
        }
    }

    /// The names of the bits in `mask`.
    pub fn in_mask(&self, subject: Subject, mask: u64) -> Vec<String> {
        let names = self.of(subject).iter().enumerate().take(GROUPS_MAX);
        names.filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, name)| name.clone()).collect()
    }
}

/// Names with a quick way from name to number.
pub(super) struct Numbers {
    pub names: Names,
    by_name: HashMap<(Subject, String), u32>,
}

impl Numbers {
    /// Numbers the names in the order in which rules use them; too many groups are reported.
    pub fn of(policy: &Policy, findings: &mut Findings) -> Self {
        let mut by_name = HashMap::new();
        let mut lists: HashMap<Subject, Vec<String>> = HashMap::new();
        let mut full: HashMap<Subject, Position> = HashMap::new();
        for conditions in policy.rules.iter().flat_map(|rule| [&rule.when, &rule.unless]) {
            for (subject, asked) in conditions {
                let list = lists.entry(*subject).or_default();
                for name in &asked.names {
                    let key = (*subject, name.value.clone());
                    if by_name.contains_key(&key) {
                        continue;
                    }
                    if list.len() == GROUPS_MAX && *subject != Subject::Label {
                        full.entry(*subject).or_insert(name.at);
                    }
                    by_name.insert(key, list.len() as u32);
                    list.push(name.value.clone());
                }
            }
        }
        for (subject, at) in full {
            let count = lists.get(&subject).map_or(0, Vec::len);
            let message = format!(
                "rules name {count} different groups under `{}`; at most {GROUPS_MAX}",
                subject.text()
            );
            findings.error_hint(at, message, "join groups that always appear together");
        }
        let mut take = |subject| lists.remove(&subject).unwrap_or_default();
        let names = Names {
            labels: take(Subject::Label),
            programs: take(Subject::Program),
            users: take(Subject::User),
            devices: take(Subject::Device),
            destinations: take(Subject::Destination),
        };
        Self { names, by_name }
    }

    /// Number of a label, or bit of a group. `None` when no rule uses it, or when it found no bit.
    pub fn number(&self, subject: Subject, name: &str) -> Option<u32> {
        let number = *self.by_name.get(&(subject, name.to_owned()))?;
        (subject == Subject::Label || (number as usize) < GROUPS_MAX).then_some(number)
    }

    /// The mask of a group, 0 when no rule uses it.
    pub fn mask(&self, subject: Subject, name: &str) -> u64 {
        self.number(subject, name).map_or(0, |bit| 1 << bit)
    }

    /// The part of a condition that is masks.
    pub fn condition(&self, conditions: &Conditions) -> Condition {
        let mask = |subject| {
            conditions.get(&subject).map_or(0, |asked| {
                asked.names.iter().fold(0, |mask, name| mask | self.mask(subject, &name.value))
            })
        };
        Condition {
            programs: mask(Subject::Program),
            users: mask(Subject::User),
            devices: mask(Subject::Device),
            destinations: mask(Subject::Destination),
        }
    }

    /// The part of a condition that is labels, sorted numbers.
    pub fn labels(&self, conditions: &Conditions) -> Vec<u32> {
        let asked = conditions.get(&Subject::Label);
        let names = asked.into_iter().flat_map(|asked| &asked.names);
        let mut labels: Vec<u32> =
            names.filter_map(|name| self.number(Subject::Label, &name.value)).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }
}
