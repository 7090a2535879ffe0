//! Whether events are what their authors signed.
//!
//! Events may come in any order. Each is compared with the digest that a checkpoint has for its
//! number, whichever of the two comes first; what has found no counterpart waits, and what still
//! waits at the end is missing or was never signed. Some of that is as it should be: the newest
//! events are not signed yet, hosts record what they lost, and the collector records what it
//! removed because it was old enough.

mod custody;
mod host;
mod ranges;

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use sekimori_proto::v1::{Event, EvidenceSummary, Finding, FindingKind, Head, HostEvidence, Kind};
use thiserror::Error;

use self::custody::Custodian;
use self::host::Host;
use crate::checkpoint::{CheckpointError, Signed};
use crate::digest::{Name, digest};

/// Events and digests that wait for their counterpart at one time; each takes some fifty bytes.
const WAITING_MAX: usize = 8 << 20;
/// Findings that are named one by one; what is beyond them is only counted.
const FINDINGS_MAX: usize = 1000;

/// How much of the records there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that the hosts named have in a store: what is signed must be there.
    Whole,
    /// Some of it, as in a case: what is there must be signed.
    Selection,
}

/// Too many events without a signature, or signatures without their events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "more than {WAITING_MAX} records have not met their signature: verify fewer hosts at a time"
)]
pub struct TooMuch;

/// What came out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Problems first; at most a thousand.
    pub findings: Vec<Finding>,
    /// In the order of their names.
    pub hosts: Vec<HostEvidence>,
    /// Counts, of problems that are not named too.
    pub summary: EvidenceSummary,
}

/// Takes events and says what is wrong with them.
#[derive(Debug)]
pub struct Verifier {
    scope: Scope,
    hosts: BTreeMap<String, Host>,
    custodian: Custodian,
    findings: Findings,
    records: u64,
    /// Of all hosts.
    waiting: usize,
    /// Links that were told before.
    expected: Vec<Head>,
    /// The hosts whose records are looked at; empty for all.
    only: BTreeSet<String>,
}

impl Verifier {
    /// With nothing looked at.
    #[must_use]
    pub fn new(scope: Scope) -> Verifier {
        Verifier {
            scope,
            hosts: BTreeMap::new(),
            custodian: Custodian::default(),
            findings: Findings::default(),
            records: 0,
            waiting: 0,
            expected: Vec::new(),
            only: BTreeSet::new(),
        }
    }

    /// Only these hosts are looked at, besides the collector's own; without any, all are.
    #[must_use]
    pub fn of(mut self, hosts: impl IntoIterator<Item = String>) -> Verifier {
        self.only.extend(hosts);
        self
    }

    /// Events looked at.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Looks at an event, as it was sent; `host` and `cursor` are what the store says of it.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn look(&mut self, host: &str, cursor: u64, body: &[u8]) -> Result<(), TooMuch> {
        self.records += 1;
        if !self.hosts.contains_key(host) {
            self.hosts.insert(host.to_owned(), Host::default());
        }
        let Some(known) = self.hosts.get_mut(host) else { return Ok(()) };
        let waited = known.waiting();
        known.records += 1;
        let event = match Event::decode(body) {
            Ok(event) => event,
            Err(error) => {
                let text = format!("the record cannot be read: {error}");
                let place = Place { host, cursor, ..Place::default() };
                self.findings.problem(FindingKind::Unreadable, place, text);
                return Ok(());
            }
        };
        if let Some(custody) = &event.custody {
            self.custodian.look(host, custody);
        }
        if let Some(loss) = &event.loss {
            known.lost(loss);
        }
        let name = Name { boot: &event.boot, sequence: event.sequence, lane: event.lane };
        known.event(name, digest(&[body], event.lane), cursor);
        if event.kind() == Kind::Checkpoint {
            let signed = event.checkpoint.as_ref().ok_or(CheckpointError::Statement);
            match signed.and_then(Signed::open) {
                Ok(signed) => known.link(signed, name, cursor),
                Err(error) => {
                    let place = Place {
                        host,
                        boot: &event.boot,
                        sequences: (event.sequence, event.sequence),
                        cursor,
                    };
                    let text = format!("the checkpoint in record {}: {error}", event.sequence);
                    self.findings.problem(FindingKind::CheckpointBroken, place, text);
                }
            }
        }
        self.waiting = self.waiting + known.waiting() - waited;
        if self.waiting > WAITING_MAX { Err(TooMuch) } else { Ok(()) }
    }

    /// A link that was told before, and must still be there.
    pub fn expect(&mut self, head: Head) {
        self.expected.push(head);
    }

    /// Events that could not be read: what was there cannot be said.
    pub fn unreadable(&mut self, first: u64, last: u64, reason: &str) {
        let text = format!("cursors {first} to {last} cannot be read: {reason}");
        let place = Place { cursor: first, ..Place::default() };
        self.findings.problem(FindingKind::Unreadable, place, text);
    }

    /// Events that questions find or count by something that they do not say.
    pub fn falsified(&mut self, first: u64, last: u64, reason: &str) {
        let place = Place { cursor: first, ..Place::default() };
        let text = format!("cursors {first} to {last}: {reason}");
        self.findings.problem(FindingKind::Changed, place, text);
    }

    /// What came out of it.
    #[must_use]
    pub fn finish(self) -> Outcome {
        let Verifier { scope, mut hosts, custodian, mut findings, records, expected, only, .. } =
            self;
        let mut told = Vec::with_capacity(hosts.len());
        for (name, host) in &mut hosts {
            custodian.judge(scope, name, host, &mut findings);
            host.judge(scope, name, &custodian, &mut findings);
            told.push(host.evidence(name));
        }
        custodian.judge_missing(scope, (&hosts, &only), &mut findings);
        for head in &expected {
            judge_expected(head, hosts.get(&head.host), &custodian, &mut findings);
        }
        let proven = told.iter().map(|it| it.proven).sum();
        let Findings { mut list, problems } = findings;
        list.sort_by_key(|it| !it.problem);
        Outcome {
            findings: list,
            hosts: told,
            summary: EvidenceSummary { records, proven, problems },
        }
    }
}

/// A link that was noted elsewhere is there, or it is older than what is kept.
fn judge_expected(
    head: &Head,
    host: Option<&Host>,
    custodian: &Custodian,
    findings: &mut Findings,
) {
    let Head { host: name, number, sha256 } = head;
    if host.is_some_and(|host| host.has_link(*number, sha256)) {
        return;
    }
    let place = Place { host: name, sequences: (*number, *number), ..Place::default() };
    let older = host.is_none_or(|host| host.links().all(|(it, _)| it > *number));
    if older && custodian.removed() > 0 {
        let text = format!("checkpoint {number}, which was noted elsewhere, is no longer kept");
        findings.note(FindingKind::Expired, place, text);
    } else {
        let text = format!("checkpoint {number}, which was noted elsewhere, is not there");
        findings.problem(FindingKind::CheckpointMissing, place, text);
    }
}

/// Where something was found.
#[derive(Clone, Copy, Debug, Default)]
struct Place<'a> {
    host: &'a str,
    boot: &'a [u8],
    /// First and last.
    sequences: (u64, u64),
    cursor: u64,
}

#[derive(Debug, Default)]
struct Findings {
    list: Vec<Finding>,
    problems: u64,
}

impl Findings {
    fn problem(&mut self, kind: FindingKind, place: Place<'_>, text: String) {
        self.problems += 1;
        self.add(kind, true, place, text);
    }

    fn note(&mut self, kind: FindingKind, place: Place<'_>, text: String) {
        self.add(kind, false, place, text);
    }

    fn add(&mut self, kind: FindingKind, problem: bool, place: Place<'_>, text: String) {
        if self.list.len() >= FINDINGS_MAX {
            return;
        }
        let Place { host, boot, sequences: (first, last), cursor } = place;
        let (host, boot) = (host.to_owned(), boot.to_vec());
        self.list.push(Finding {
            kind: kind.into(),
            problem,
            host,
            boot,
            first,
            last,
            cursor,
            text,
        });
    }
}

#[cfg(test)]
mod tests;
