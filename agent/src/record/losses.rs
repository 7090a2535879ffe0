//! Every loss in the kernel becomes a record: counters are compared each poll, and the numbers on
//! the rings are a second witness.

use std::collections::BTreeSet;

use sekimori_abi::{
    event::{counter, kind},
    table::Accounts,
};
use sekimori_proto::v1::{Event, Kind, Loss, Verdict};

use super::LANE_ALERT;
use super::event::kind_of;
use crate::limits::GAP_POLLS;

/// The kernel's counters: `[kind][counter]`, sums over all CPUs.
pub type Table = [[u64; 8]; kind::COUNT];

/// Calls of programs that the kernel skipped, by kind.
pub type Skipped = [u64; kind::COUNT];

const RINGS: usize = 2;
/// Missing numbers of a ring that are remembered.
const MISSING_MAX: usize = 256;
/// Missing numbers of a ring that a loss names.
const NAMED_MAX: usize = 8;

/// One loss to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// `hook`, `ring`, `scratch`, `table` or `decode`.
    pub stage: &'static str,
    /// Kind of what was lost, when known.
    pub kind: Kind,
    /// How many.
    pub count: u64,
    /// One sentence.
    pub reason: String,
}

impl Lost {
    /// The event that is stored.
    #[must_use]
    pub fn event(self, time_ns: i64) -> Event {
        Event {
            time_ns,
            kind: Kind::Loss.into(),
            verdict: Verdict::Allowed.into(),
            loss: Some(Loss {
                stage: self.stage.to_owned(),
                kind: self.kind.into(),
                count: self.count,
                reason: self.reason,
            }),
            lane: LANE_ALERT,
            ..Event::default()
        }
    }
}

/// What was counted so far.
#[derive(Debug, Default)]
pub struct Losses {
    /// What the next agent goes on from.
    accounts: Accounts,
    /// Numbers that were passed over and may still come, the first few of each ring.
    missing: [BTreeSet<u64>; RINGS],
    gap_polls: u32,
    undecoded: u64,
    undecoded_reason: String,
}

impl Losses {
    /// Goes on where another agent stopped, or begins anew with the default.
    #[must_use]
    pub fn since(accounts: Accounts) -> Self {
        Self { accounts, ..Self::default() }
    }

    /// What was received and recorded up to now.
    #[must_use]
    pub const fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// A record came from this ring with this number.
    pub fn received(&mut self, ring: u8, sequence: u64) {
        let ring = usize::from(ring);
        let Accounts { newest, received, .. } = &mut self.accounts;
        if let (Some(newest), Some(received)) = (newest.get_mut(ring), received.get_mut(ring)) {
            let next = newest.saturating_add(1);
            if sequence != next {
                tracing::debug!(ring, sequence, newest = *newest, "out of order");
            }
            let missing = self.missing.get_mut(ring);
            if let Some(missing) = missing {
                missing.remove(&sequence);
                let room = MISSING_MAX.saturating_sub(missing.len());
                missing.extend((next..sequence).take(room));
            }
            *newest = (*newest).max(sequence);
            *received += 1;
        }
    }

    /// A record came that could not be read. Its ring and number are not known, so it also shows
    /// as a gap, which is then explained.
    pub fn undecodable(&mut self, reason: String) {
        self.undecoded += 1;
        self.undecoded_reason = reason;
        self.accounts.unexplained = self.accounts.unexplained.saturating_add(1);
    }

    /// Compares with the counters as they are now. Counts exactly: what is returned over all polls
    /// is what the counters say.
    pub fn poll(&mut self, now: &Table, skipped: &Skipped) -> Vec<Lost> {
        let mut lost = Vec::new();
        for (number, (now, reported)) in skipped.iter().zip(&mut self.accounts.skipped).enumerate()
        {
            // What could not be asked for once counts nothing then.
            let count = now.saturating_sub(*reported);
            *reported = (*reported).max(*now);
            if count > 0 {
                let kind = kind_of(u8::try_from(number).unwrap_or(0));
                lost.push(Lost { stage: "hook", kind, count, reason: SKIPPED.to_owned() });
            }
        }
        for (number, (seen, reported)) in now.iter().zip(&mut self.accounts.reported).enumerate() {
            let kind = kind_of(u8::try_from(number).unwrap_or(0));
            for (index, stage, reason) in STAGES {
                let (Some(seen), Some(reported)) = (seen.get(index), reported.get_mut(index))
                else {
                    continue;
                };
                let count = seen.saturating_sub(*reported);
                if count > 0 {
                    *reported = *seen;
                    lost.push(Lost { stage, kind, count, reason: reason.to_owned() });
                }
            }
        }
        lost.extend(self.undecoded());
        lost.extend(self.unexplained_gap());
        lost
    }

    fn undecoded(&mut self) -> Option<Lost> {
        let count = std::mem::take(&mut self.undecoded);
        let reason = std::mem::take(&mut self.undecoded_reason);
        (count > 0).then_some(Lost { stage: "decode", kind: Kind::Unspecified, count, reason })
    }

    /// Numbers that never came and that no counter explains.
    fn unexplained_gap(&mut self) -> Option<Lost> {
        let Accounts { newest, received, reported, unexplained, .. } = &self.accounts;
        let missing: u64 = newest
            .iter()
            .zip(received)
            .map(|(newest, received)| newest.saturating_sub(*received))
            .fold(0, u64::saturating_add);
        let counted: u64 =
            reported.iter().filter_map(|row| row.get(counter::LOST_RING as usize)).sum();
        let count = missing.saturating_sub(counted.saturating_add(*unexplained));
        self.gap_polls = if count > 0 { self.gap_polls + 1 } else { 0 };
        if self.gap_polls < GAP_POLLS {
            return None;
        }
        self.gap_polls = 0;
        self.accounts.unexplained = unexplained.saturating_add(count);
        let reason = format!(
            "numbers are missing that no counter explains: telemetry {:?}, denials {:?}",
            self.missing.first().into_iter().flatten().take(NAMED_MAX).collect::<Vec<_>>(),
            self.missing.last().into_iter().flatten().take(NAMED_MAX).collect::<Vec<_>>(),
        );
        self.missing.iter_mut().for_each(BTreeSet::clear);
        Some(Lost { stage: "ring", kind: Kind::Unspecified, count, reason })
    }
}

const SKIPPED: &str = "the kernel did not call a program, which was at work on the same CPU for a \
    process that was preempted there: as many events at most";

const STAGES: [(usize, &str, &str); 3] = [
    (
        counter::LOST_RING as usize,
        "ring",
        "the ring was full: the agent did not read as fast as the kernel wrote",
    ),
    (
        counter::LOST_SCRATCH as usize,
        "scratch",
        "no buffer was free to build the record in: too many programs were preempted at once",
    ),
    (
        counter::LOST_TABLE as usize,
        "table",
        "the table of open files or sockets was full: bytes of this one were not summed",
    ),
];
