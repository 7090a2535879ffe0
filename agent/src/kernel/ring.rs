//! The two rings. Denials are read first, and again between portions of telemetry.

use std::{os::fd::AsRawFd, time::Duration};

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};
use tokio::time::{Instant, sleep_until, timeout};

use super::{KernelError, pins::Set};
use crate::limits::{GATHER, GATHER_RECORDS_MAX};

/// Records read from the telemetry ring before denials are looked at again.
const PORTION: usize = 256;

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

    /// Gives each waiting record to `each`, `enough` of them and one portion of each ring at most;
    /// answers how many there were.
    pub(super) fn drain(&mut self, enough: usize, each: &mut dyn FnMut(&[u8])) -> usize {
        let mut total = 0;
        while total < enough {
            let denials = portion(self.denials.get_mut(), each);
            let telemetry = portion(self.telemetry.get_mut(), each);
            total += denials + telemetry;
            if denials + telemetry == 0 {
                break;
            }
        }
        if (1..GATHER_RECORDS_MAX).contains(&total) {
            self.gathered = Instant::now() + GATHER;
        }
        total
    }
}

fn portion(ring: &mut Ring, each: &mut dyn FnMut(&[u8])) -> usize {
    let mut count = 0;
    while count < PORTION
        && let Some(record) = ring.0.next()
    {
        each(&record);
        count += 1;
    }
    count
}

fn open(set: &Set, name: &str) -> Result<AsyncFd<Ring>, KernelError> {
    let ring = RingBuf::try_from(set.map(name)?)
        .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))?;
    // SAFETY: the ring owns its descriptor for as long as it lives.
    unsafe { AsyncFd::register_with_interest(Ring(ring), Interest::READABLE) }
        .map_err(|error| KernelError::Other(format!("watching ring {name}: {error}")))
}
