//! Whose instructions they were.

use std::time::Duration;

use anyhow::Result;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::daemons::Daemons;

/// How long the daemons are given to finish what they have to do: longer than the agent's poll.
const SETTLE: Duration = Duration::from_secs(3);

/// Instructions of one measurement.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// The operation itself with everything that the kernel did in its context.
    pub kernel: u64,
    /// The agent, until it had nothing left to do.
    pub agent: u64,
    /// The collector, likewise.
    pub collector: u64,
}

/// The clocks of the daemons.
#[derive(Debug)]
pub struct Clocks {
    daemons: Vec<ClockId>,
    /// What each does in [`SETTLE`] when there is nothing to do.
    idle: Vec<u64>,
}

impl Clocks {
    /// Of these daemons, or of none.
    pub fn of(daemons: Option<&Daemons>) -> Result<Self> {
        let agent = daemons.map(Daemons::agent_pid);
        let collector = daemons.and_then(Daemons::collector_pid);
        let clocks: Vec<ClockId> = [agent, collector]
            .into_iter()
            .flatten()
            .map(|pid| Ok(clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))?))
            .collect::<Result<_>>()?;
        let mut idle = Vec::new();
        if !clocks.is_empty() {
            std::thread::sleep(SETTLE);
            let before = read(&clocks)?;
            std::thread::sleep(SETTLE);
            idle = differences(&before, &read(&clocks)?);
        }
        Ok(Self { daemons: clocks, idle })
    }

    /// Runs something and waits until the daemons have done their part.
    pub fn cost_of(&self, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
        let before = read(&self.daemons)?;
        let started = now(ClockId::CLOCK_MONOTONIC)?;
        work()?;
        let elapsed = now(ClockId::CLOCK_MONOTONIC)? - started;
        let during: u64 = differences(&before, &read(&self.daemons)?).iter().sum();
        if !self.daemons.is_empty() {
            std::thread::sleep(SETTLE);
        }
        let all = differences(&before, &read(&self.daemons)?);
        let part = |index: usize| {
            let idle = self.idle.get(index).copied().unwrap_or(0);
            all.get(index).copied().unwrap_or(0).saturating_sub(idle)
        };
        Ok(Cost { kernel: elapsed.saturating_sub(during), agent: part(0), collector: part(1) })
    }
}

/// Instructions of a process while nothing happens.
pub fn idle(pid: u32, time: Duration) -> Result<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))?;
    std::thread::sleep(SETTLE);
    let before = now(clock)?;
    std::thread::sleep(time);
    Ok(now(clock)?.saturating_sub(before))
}

fn read(clocks: &[ClockId]) -> Result<Vec<u64>> {
    clocks.iter().map(|clock| now(*clock)).collect()
}

fn differences(before: &[u64], after: &[u64]) -> Vec<u64> {
    before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before)).collect()
}

/// Nanoseconds, which are instructions here.
fn now(clock: ClockId) -> Result<u64> {
    Ok(u64::try_from(Duration::from(clock_gettime(clock)?).as_nanos())?)
}
