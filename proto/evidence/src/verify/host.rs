//! The records of one host against its checkpoints.

use std::collections::{BTreeMap, HashMap};

use rangemap::RangeInclusiveSet;
use sekimori_proto::v1::{FindingKind, HostEvidence, Kind, Loss};

use super::custody::Custodian;
use super::ranges::{ranges, shown};
use super::{Findings, Place, Scope};
use crate::checkpoint::Signed;
use crate::digest::{ABSENT, Digest, Name};

/// A checkpoint whose signature holds.
#[derive(Debug)]
pub(super) struct Link {
    pub sha256: [u8; 32],
    pub cursor: u64,
    pub boot: Vec<u8>,
    /// The last sequence that it signs.
    last: u64,
    previous: Vec<u8>,
}

/// What one key signed: a host that is set up anew begins anew.
#[derive(Debug, Default)]
struct Line {
    /// By number, at least one of each: a host that is put back to an earlier state signs other
    /// things under the same number.
    links: BTreeMap<u64, Vec<Link>>,
}

impl Line {
    /// The last one of all.
    fn last(&self) -> Option<(u64, &Link)> {
        let (number, links) = self.links.last_key_value()?;
        links.iter().max_by_key(|link| link.cursor).map(|link| (*number, link))
    }
}

/// A record that is not what was signed.
#[derive(Debug)]
struct Changed {
    boot: Vec<u8>,
    sequence: u64,
    cursor: u64,
}

#[derive(Debug, Default)]
struct Boot {
    /// Signed, and not seen yet.
    expected: HashMap<u64, Digest>,
    /// Seen, and not signed yet: digest and cursor.
    seen: HashMap<u64, (Digest, u64)>,
    /// Lowest sequence seen of each lane.
    lowest: [Option<u64>; 2],
    /// Sequences that are signed.
    signed: RangeInclusiveSet<u64>,
    /// Sequences of checkpoints, whose signature is in themselves.
    links: Vec<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Host {
    pub records: u64,
    proven: u64,
    boots: BTreeMap<Vec<u8>, Boot>,
    lines: BTreeMap<Vec<u8>, Line>,
    /// Keys in the order of the cursors of their first links.
    keys: Vec<(u64, Vec<u8>)>,
    changed: Vec<Changed>,
    /// Records that were never signed stand under a number of which it is signed that nothing does.
    inserted: Vec<(Vec<u8>, u64, u64)>,
    /// Events that it recorded as lost after they had their numbers.
    lost: u64,
    /// Checkpoints among them.
    lost_checkpoints: u64,
    waiting: usize,
}

fn lane_index(digest: &Digest) -> usize {
    usize::from(digest.last().is_some_and(|last| last & 1 == 1))
}

impl Host {
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn links(&self) -> impl Iterator<Item = (u64, &Link)> {
        let links = self.lines.values().flat_map(|line| &line.links);
        links.flat_map(|(number, links)| links.iter().map(|link| (*number, link)))
    }

    pub fn has_link(&self, number: u64, sha256: &[u8]) -> bool {
        let mut links = self.lines.values().filter_map(|line| line.links.get(&number)).flatten();
        links.any(|link| link.sha256 == sha256)
    }

    /// What the host itself says that it lost.
    pub fn lost(&mut self, loss: &Loss) {
        if !matches!(loss.stage.as_str(), "spool" | "ship") {
            return;
        }
        // No number: it could not be known.
        let count = if loss.count == 0 { u64::MAX } else { loss.count };
        self.lost = self.lost.saturating_add(count);
        if loss.kind() == Kind::Checkpoint || loss.kind == 0 {
            self.lost_checkpoints = self.lost_checkpoints.saturating_add(count);
        }
    }

    pub fn event(&mut self, name: Name<'_>, digest: Digest, cursor: u64) {
        let Name { boot, sequence, lane } = name;
        if !self.boots.contains_key(boot) {
            self.boots.insert(boot.to_vec(), Boot::default());
        }
        let Some(known) = self.boots.get_mut(boot) else { return };
        if let Some(lowest) = known.lowest.get_mut(usize::from(lane != 0)) {
            *lowest = Some(lowest.map_or(sequence, |it| it.min(sequence)));
        }
        match known.expected.remove(&sequence) {
            None => {
                known.seen.insert(sequence, (digest, cursor));
                self.waiting += 1;
            }
            Some(signed) => {
                self.waiting -= 1;
                if signed == digest {
                    self.proven += 1;
                } else {
                    self.changed.push(Changed { boot: boot.to_vec(), sequence, cursor });
                }
            }
        }
    }

    /// A checkpoint that `carrier` carries.
    pub fn link(&mut self, signed: Signed, carrier: Name<'_>, cursor: u64) {
        let Signed { statement, sha256, key } = &signed;
        let boot = self.boots.entry(statement.boot.clone()).or_default();
        for (sequence, digest) in signed.digests() {
            // What was signed twice is proven by the first of them.
            if boot.signed.contains(&sequence) {
                continue;
            }
            match boot.seen.remove(&sequence) {
                None if digest == ABSENT => {}
                None => {
                    boot.expected.insert(sequence, digest);
                    self.waiting += 1;
                }
                Some((seen, at)) => {
                    self.waiting -= 1;
                    if seen == digest {
                        self.proven += 1;
                    } else if digest == ABSENT {
                        self.inserted.push((statement.boot.clone(), sequence, at));
                    } else {
                        let boot = statement.boot.clone();
                        self.changed.push(Changed { boot, sequence, cursor: at });
                    }
                }
            }
        }
        let last = (statement.first + signed.count()).saturating_sub(1);
        if signed.count() > 0 {
            boot.signed.insert(statement.first..=last);
        }
        match self.keys.iter_mut().find(|(_, known)| known == key) {
            None => self.keys.push((cursor, key.clone())),
            Some((first, _)) => *first = (*first).min(cursor),
        }
        let line = self.lines.entry(key.clone()).or_default();
        let (boot, previous) = (statement.boot.clone(), statement.previous.clone());
        let link = Link { sha256: *sha256, cursor, boot, last, previous };
        let links = line.links.entry(statement.number).or_default();
        if links.iter().any(|known| known.sha256 == *sha256) {
            return;
        }
        links.push(link);
        let carrying = self.boots.entry(carrier.boot.to_vec()).or_default();
        carrying.links.push(carrier.sequence);
    }

    pub fn evidence(&mut self, name: &str) -> HostEvidence {
        self.keys.sort();
        let newest = self.keys.last().and_then(|(_, key)| self.lines.get(key));
        let head = newest.and_then(Line::last);
        HostEvidence {
            host: name.to_owned(),
            records: self.records,
            proven: self.proven,
            keys: self.keys.iter().map(|(_, key)| key.clone()).collect(),
            head_number: head.map_or(0, |(number, _)| number),
            head_sha256: head.map(|(_, link)| link.sha256.to_vec()).unwrap_or_default(),
        }
    }

    /// What is wrong, now that everything was seen.
    pub fn judge(
        &mut self,
        scope: Scope,
        name: &str,
        custodian: &Custodian,
        findings: &mut Findings,
    ) {
        for boot in self.boots.values_mut() {
            // The last one of a boot is in no other.
            let own = boot.links.iter().filter(|it| boot.seen.remove(it).is_some());
            self.proven += own.count() as u64;
        }
        self.judge_keys(name, custodian, findings);
        let unexplained = self.judge_links(scope, name, custodian, findings);
        self.judge_changed(name, findings);
        if scope == Scope::Whole {
            self.judge_missing(name, custodian, findings);
        }
        self.judge_unsigned(name, unexplained, findings);
    }

    fn judge_keys(&mut self, name: &str, custodian: &Custodian, findings: &mut Findings) {
        self.keys.sort();
        for (cursor, key) in self.keys.iter().skip(1) {
            let Some(line) = self.lines.get(key) else { continue };
            let mut links = line
                .links
                .iter()
                .flat_map(|(number, links)| links.iter().map(|link| (*number, link)));
            let received = links.all(|(number, link)| custodian.received(name, number, link));
            let place = Place { host: name, cursor: *cursor, ..Place::default() };
            let key = crate::hex(key);
            if received {
                let text = format!(
                    "it signs with another key from here on, {key}: it was set up anew, or its \
                     spool was taken away"
                );
                findings.note(FindingKind::KeyChanged, place, text);
            } else {
                let text = format!(
                    "it signs with another key from here on, {key}, and the collector did not \
                     receive all of it so"
                );
                findings.problem(FindingKind::KeyChanged, place, text);
            }
        }
    }

    /// Answers whether links are missing without a reason that is known, and whether any are.
    fn judge_links(
        &self,
        scope: Scope,
        name: &str,
        custodian: &Custodian,
        findings: &mut Findings,
    ) -> MissingLinks {
        let mut missing = MissingLinks::default();
        let mut lost = self.lost_checkpoints;
        for line in self.lines.values() {
            let mut before: Option<(u64, &[Link])> = None;
            for (number, links) in &line.links {
                let Some(link) = links.first() else { continue };
                let place = Place {
                    host: name,
                    boot: &link.boot,
                    sequences: (*number, *number),
                    cursor: link.cursor,
                };
                if links.len() > 1 {
                    went_back(name, *number, links, custodian, findings);
                }
                let next = before.map_or(1, |(number, _)| number + 1);
                if next == *number {
                    let follows = |link: &Link| match before {
                        None => link.previous.is_empty(),
                        Some((_, before)) => before.iter().any(|it| link.previous == it.sha256),
                    };
                    if !links.iter().all(follows) {
                        let text = format!("checkpoint {number} does not follow the one before it");
                        findings.problem(FindingKind::CheckpointBroken, place, text);
                    }
                } else if scope == Scope::Whole {
                    let (count, gap) = (number - next, shown((next, number - 1)));
                    let place = Place { sequences: (next, number - 1), ..place };
                    let came_first =
                        || before.is_none() && custodian.came_first(name, *number, link, self);
                    if before.is_none() && custodian.removed() > 0 {
                        missing.any = true;
                        let text = format!("checkpoints {gap} are no longer kept");
                        findings.note(FindingKind::Expired, place, text);
                    } else if count <= lost {
                        missing.any = true;
                        lost -= count;
                        let text = format!("checkpoints {gap} are among what the host lost");
                        findings.note(FindingKind::Lost, place, text);
                    } else if came_first() {
                        missing.before_us = missing.before_us.max(Some(link.cursor));
                        // The collector's own records are verified as well: none says of another.
                        let text = format!(
                            "checkpoints {gap} were signed before this collector received any"
                        );
                        findings.note(FindingKind::BeforeUs, place, text);
                    } else {
                        missing.any = true;
                        missing.unexplained = true;
                        let text = format!("checkpoints {gap} are missing");
                        findings.problem(FindingKind::CheckpointMissing, place, text);
                    }
                }
                before = Some((*number, links));
            }
        }
        missing
    }

    fn judge_changed(&self, name: &str, findings: &mut Findings) {
        for changed in &self.changed {
            let Changed { boot, sequence, cursor, .. } = changed;
            let (boot, cursor) = (boot.as_slice(), *cursor);
            let place = Place { host: name, boot, sequences: (*sequence, *sequence), cursor };
            let text = format!("record {sequence} is not what was signed");
            findings.problem(FindingKind::Changed, place, text);
        }
        for (boot, sequence, cursor) in &self.inserted {
            let place =
                Place { host: name, boot, sequences: (*sequence, *sequence), cursor: *cursor };
            let text =
                format!("record {sequence} is there, and it is signed that nothing was kept as it");
            findings.problem(FindingKind::Inserted, place, text);
        }
    }

    /// Signed and not there.
    fn judge_missing(&self, name: &str, custodian: &Custodian, findings: &mut Findings) {
        let mut missing = Vec::new();
        let came_with = self.came_with(name, custodian);
        for (boot, known) in &self.boots {
            let is_before_all = |(sequence, digest): &(&u64, &Digest)| {
                let lowest = known.lowest.get(lane_index(digest)).copied().flatten();
                lowest.is_none_or(|lowest| **sequence < lowest)
            };
            let came_later =
                |sequence| came_with.iter().any(|link| link.boot == *boot && sequence <= link.last);
            let (before_all, gone): (Vec<_>, Vec<_>) = known.expected.iter().partition(|it| {
                is_before_all(it) && (custodian.removed() > 0 || came_later(*it.0))
            });
            for range in ranges(before_all.into_iter().map(|(sequence, _)| *sequence)) {
                let place = Place { host: name, boot, sequences: range, cursor: 0 };
                let range = shown(range);
                if custodian.removed() > 0 {
                    let text = format!("records {range} are no longer kept");
                    findings.note(FindingKind::Expired, place, text);
                } else {
                    let text = format!(
                        "records {range} were made before this collector received any checkpoint"
                    );
                    findings.note(FindingKind::BeforeUs, place, text);
                }
            }
            let gone = gone.into_iter();
            let found = ranges(gone.map(|(sequence, _)| *sequence));
            missing.extend(found.into_iter().map(|range| (boot, range)));
        }
        let count: u64 = missing.iter().map(|(_, (first, last))| last - first + 1).sum();
        let explained = count <= self.lost;
        for (boot, range) in missing {
            let place = Place { host: name, boot, sequences: range, cursor: 0 };
            let range = shown(range);
            if explained {
                let text = format!("records {range} are among what the host recorded as lost");
                findings.note(FindingKind::Lost, place, text);
            } else {
                let text = if self.lost == 0 {
                    format!("records {range} were signed and are not there")
                } else {
                    format!(
                        "records {range} were signed and are not there; {count} records are \
                         missing in all, and the host lost {}",
                        self.lost
                    )
                };
                findings.problem(FindingKind::Removed, place, text);
            }
        }
    }

    /// The first links of the host's lines before which others were signed that never came here.
    fn came_with(&self, name: &str, custodian: &Custodian) -> Vec<&Link> {
        let firsts = self.lines.values().filter_map(|line| line.links.first_key_value());
        let links = firsts.filter_map(|(number, links)| Some((*number, links.first()?)));
        let came = links.filter(|(number, link)| {
            *number > 1 && custodian.came_first(name, *number, link, self)
        });
        came.map(|(_, link)| link).collect()
    }

    /// There and not signed.
    fn judge_unsigned(&self, name: &str, missing: MissingLinks, findings: &mut Findings) {
        let last = self.last_boots();
        for (boot, known) in &self.boots {
            let signed_to = known.signed.last().map(|range| *range.end());
            for range in ranges(known.seen.keys().copied()) {
                let cursor = known.seen.get(&range.0).map_or(0, |(_, cursor)| *cursor);
                let place = Place { host: name, boot, sequences: range, cursor };
                let range_shown = shown(range);
                if self.lines.is_empty() {
                    let text = format!("records {range_shown}: the host has never signed anything");
                    findings.note(FindingKind::NeverSigned, place, text);
                } else if Some(range.0) > signed_to && last.contains(&boot) {
                    let text = format!("records {range_shown} are not signed yet");
                    findings.note(FindingKind::NotSigned, place, text);
                } else if signed_to.is_some() && Some(range.0) > signed_to {
                    let text = format!(
                        "records {range_shown} are behind the last signature of their boot and \
                         cannot be proven: their machine died, or somebody put them in"
                    );
                    findings.note(FindingKind::NotSigned, place, text);
                } else if missing.any && !missing.unexplained {
                    let text = format!(
                        "records {range_shown} cannot be proven: their checkpoint is lost or no \
                         longer kept"
                    );
                    findings.note(FindingKind::Lost, place, text);
                } else if missing.before_us.is_some_and(|first| cursor < first) {
                    let text = format!(
                        "records {range_shown} cannot be proven: they came before any checkpoint"
                    );
                    findings.note(FindingKind::BeforeUs, place, text);
                } else {
                    let text =
                        format!("records {range_shown} are there, and nobody has signed them");
                    findings.problem(FindingKind::Inserted, place, text);
                }
            }
        }
    }

    /// The boot of the record with the last cursor, and that of the last link of each key: nobody
    /// has come yet to sign what is behind them, or nobody with that key.
    fn last_boots(&self) -> Vec<&Vec<u8>> {
        let by_link = self.links().map(|(_, link)| (link.cursor, &link.boot));
        let by_record = self.boots.iter().filter_map(|(boot, known)| {
            known.seen.values().map(|(_, cursor)| *cursor).max().map(|cursor| (cursor, boot))
        });
        let newest = by_link.chain(by_record).max().map(|(_, boot)| boot);
        let lines = self.lines.values().filter_map(Line::last);
        lines.map(|(_, link)| &link.boot).chain(newest).collect()
    }
}

/// Several links have one number. Whoever has not the host's key cannot make them.
fn went_back(
    name: &str,
    number: u64,
    links: &[Link],
    custodian: &Custodian,
    findings: &mut Findings,
) {
    let count = links.len();
    let cursor = links.iter().map(|link| link.cursor).max().unwrap_or(0);
    let boot = links.first().map(|link| link.boot.as_slice()).unwrap_or_default();
    let place = Place { host: name, boot, sequences: (number, number), cursor };
    if links.iter().all(|link| custodian.received(name, number, link)) {
        let text = format!(
            "there are {count} checkpoints {number}, all of them received: the host went back to an \
             earlier state (a snapshot, or its machine died), or its key is used elsewhere"
        );
        findings.note(FindingKind::WentBack, place, text);
    } else {
        let text = format!("there are {count} checkpoints {number}, and not all were received");
        findings.problem(FindingKind::CheckpointBroken, place, text);
    }
}

/// Numbers of checkpoints that are not there.
#[derive(Clone, Copy, Debug, Default)]
struct MissingLinks {
    any: bool,
    unexplained: bool,
    /// Where the first checkpoint lies that came here, when others were signed before.
    before_us: Option<u64>,
}
