//! What the collector's own records say of the records of others.

use std::collections::{BTreeMap, BTreeSet};

use sekimori_proto::v1::{Countersigned, Custody, FindingKind};

use super::host::{Host, Link};
use super::{Findings, Place, Scope};

/// All that custody records say.
#[derive(Debug, Default)]
pub(super) struct Custodian {
    /// Hosts of collectors: nobody else makes such records.
    collectors: BTreeSet<String>,
    /// By host, number and hash: the cursor.
    countersigned: BTreeMap<(String, u64, Vec<u8>), u64>,
    through_cursor: u64,
    /// Everything up to it was removed in the end.
    removed: u64,
}

impl Custodian {
    pub fn look(&mut self, host: &str, custody: &Custody) {
        self.collectors.insert(host.to_owned());
        for it in &custody.countersigned {
            let Countersigned { host, number, statement_sha256, cursor } = it;
            let key = (host.clone(), *number, statement_sha256.clone());
            self.countersigned.insert(key, *cursor);
        }
        self.through_cursor = self.through_cursor.max(custody.through_cursor);
        let removed = custody.removed.as_ref().map_or(0, |it| it.through_cursor);
        self.removed = self.removed.max(removed);
    }

    /// The last cursor that was removed because it was old enough; 0 when nothing was.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    fn is_countersigned(&self, host: &str, number: u64, sha256: &[u8; 32]) -> bool {
        let key = (host.to_owned(), number, sha256.to_vec());
        self.countersigned.contains_key(&key)
    }

    /// Whether a link of a host is the first of its line that came here: the collector received it,
    /// and before it none that is not there any more.
    pub fn came_first(&self, name: &str, number: u64, link: &Link, host: &Host) -> bool {
        let from = (name.to_owned(), 0, Vec::new());
        let of_host = self.countersigned.range(from..).take_while(|((it, ..), _)| it == name);
        let mut earlier = of_host.filter(|(_, cursor)| **cursor < link.cursor);
        !self.collectors.is_empty()
            && self.received(name, number, link)
            && earlier.all(|((_, number, sha256), _)| host.has_link(*number, sha256))
    }

    /// The collector countersigned it, or has not come so far yet.
    pub fn received(&self, host: &str, number: u64, link: &Link) -> bool {
        link.cursor > self.through_cursor || self.is_countersigned(host, number, &link.sha256)
    }

    /// A link that was there when the collector last countersigned must be countersigned.
    pub fn judge(&self, scope: Scope, name: &str, host: &Host, findings: &mut Findings) {
        if self.collectors.contains(name) {
            return;
        }
        for (number, link) in host.links() {
            let seen = link.cursor <= self.through_cursor;
            let expected = match scope {
                Scope::Whole => seen,
                // A case has the countersignatures of its links.
                Scope::Selection => seen && !self.collectors.is_empty(),
            };
            if expected && !self.is_countersigned(name, number, &link.sha256) {
                let place = Place {
                    host: name,
                    boot: &link.boot,
                    sequences: (number, number),
                    cursor: link.cursor,
                };
                let text = format!(
                    "checkpoint {number} is not one that the collector received: it never \
                     countersigned it"
                );
                findings.problem(FindingKind::CheckpointReplaced, place, text);
            }
        }
    }

    /// What was countersigned must be there.
    pub fn judge_missing(
        &self,
        scope: Scope,
        (hosts, only): (&BTreeMap<String, Host>, &BTreeSet<String>),
        findings: &mut Findings,
    ) {
        if scope == Scope::Selection {
            return;
        }
        for ((name, number, sha256), cursor) in &self.countersigned {
            let asked = only.is_empty() || only.contains(name);
            let host = hosts.get(name);
            let there = host.is_some_and(|host| host.has_link(*number, sha256));
            if !asked || there || *cursor <= self.removed {
                continue;
            }
            let place = Place {
                host: name,
                sequences: (*number, *number),
                cursor: *cursor,
                ..Place::default()
            };
            let text = format!(
                "checkpoint {number} was countersigned at cursor {cursor} and is not there"
            );
            findings.problem(FindingKind::CheckpointMissing, place, text);
        }
    }
}
