//! The two rings. Denials are read first, and again between portions of telemetry.

use std::{os::fd::AsRawFd, time::Duration};

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};
use tokio::time::{Instant, sleep_until, timeout};

use super::{KernelError, pins::Set};
use crate::limits::{DRAIN_BYTES_MAX, DRAIN_RECORDS_MAX, GATHER, GATHER_RECORDS_MAX};

/// Records read from the telemetry ring before denials are looked at again.
const PORTION: usize = 256;
/// Bytes of them.
const PORTION_BYTES: usize = 256 << 10;

/// When to stop reading for a while.
#[derive(Clone, Copy, Debug)]
pub struct Enough {
    /// After so many records.
    pub records: usize,
    /// After so many bytes.
    pub bytes: usize,
}

impl Enough {
    /// What one turn of the agent takes.
    pub const TURN: Self = Self { records: DRAIN_RECORDS_MAX, bytes: DRAIN_BYTES_MAX };
    /// All that there is.
    pub const ALL: Self = Self { records: usize::MAX, bytes: usize::MAX };
}

/// What was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drained {
    /// Records.
    pub records: usize,
    /// Their bytes.
    pub bytes: usize,
    /// It was enough, and there may be more.
    pub more: bool,
}

pub(super) struct Rings {
    telemetry: AsyncFd<Ring>,
    denials: AsyncFd<Ring>,
    /// Before that, telemetry is left to gather.
    gathered: Instant,
}

struct Ring(RingBuf<MapData>);

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl Rings {
    /// Opens the rings where the last reader left them. Must be called in a tokio runtime.
    pub(super) fn open(set: &Set) -> Result<Self, KernelError> {
        Ok(Self {
            telemetry: open(set, "TELEMETRY")?,
            denials: open(set, "DENIALS")?,
            gathered: Instant::now(),
        })
    }

    /// Waits until a ring has something or `patience` is over. A denial is read at once; telemetry
    /// gathers for a moment, since each turn has a price of its own.
    pub(super) async fn ready(&self, patience: Duration) -> Result<(), KernelError> {
        let telemetry = async {
            sleep_until(self.gathered).await;
            self.telemetry.readable().await
        };
        let either = async {
            tokio::select! {
                guard = self.denials.readable() => guard.map(|mut guard| guard.clear_ready()),
                guard = telemetry => guard.map(|mut guard| guard.clear_ready()),
            }
        };
        match timeout(patience, either).await {
            Ok(Err(error)) => Err(KernelError::Other(format!("waiting for the rings: {error}"))),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Gives each waiting record to `each`, `enough` of them and one portion of each ring at most.
    pub(super) fn drain(&mut self, enough: Enough, each: &mut dyn FnMut(&[u8])) -> Drained {
        let mut all = Drained::default();
        while all.records < enough.records && all.bytes < enough.bytes {
            let before = all.records;
            portion(self.denials.get_mut(), &mut all, each);
            portion(self.telemetry.get_mut(), &mut all, each);
            if all.records == before {
                break;
            }
        }
        all.more = all.records >= enough.records || all.bytes >= enough.bytes;
        if !all.more && (1..GATHER_RECORDS_MAX).contains(&all.records) {
            self.gathered = Instant::now() + GATHER;
        }
        all
    }
}

fn portion(ring: &mut Ring, all: &mut Drained, each: &mut dyn FnMut(&[u8])) {
    let enough = Enough { records: all.records + PORTION, bytes: all.bytes + PORTION_BYTES };
    while all.records < enough.records
        && all.bytes < enough.bytes
        && let Some(record) = ring.0.next()
    {
        each(&record);
        all.records += 1;
        all.bytes += record.len();
    }
}

fn open(set: &Set, name: &str) -> Result<AsyncFd<Ring>, KernelError> {
    let ring = RingBuf::try_from(set.map(name)?)
        .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))?;
    // SAFETY: the ring owns its descriptor for as long as it lives.
    unsafe { AsyncFd::register_with_interest(Ring(ring), Interest::READABLE) }
        .map_err(|error| KernelError::Other(format!("watching ring {name}: {error}")))
}
