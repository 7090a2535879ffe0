//! Whose instructions they were.

use std::time::Duration;

use anyhow::Result;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// How long the processes are given to finish what they have to do: longer than the agent's poll.
const SETTLE: Duration = Duration::from_secs(3);

/// Instructions of one measurement.
#[derive(Debug, Default)]
pub struct Cost {
    /// The operation itself with everything that the kernel did in its context.
    pub kernel: u64,
    /// Each of the monitor's processes, until it had nothing left to do.
    pub processes: Vec<u64>,
}

/// The clocks of a monitor's processes.
#[derive(Debug)]
pub struct Clocks {
    processes: Vec<ClockId>,
    /// What each does in [`SETTLE`] when there is nothing to do.
    idle: Vec<u64>,
}

impl Clocks {
    /// Of these processes, or of none.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let clock = |pid: &u32| Ok(clock_getcpuclockid(Pid::from_raw(i32::try_from(*pid)?))?);
        let clocks: Vec<ClockId> = pids.iter().map(clock).collect::<Result<_>>()?;
        let mut idle = Vec::new();
        if !clocks.is_empty() {
            std::thread::sleep(SETTLE);
            let before = read(&clocks)?;
            std::thread::sleep(SETTLE);
            idle = differences(&before, &read(&clocks)?);
        }
        Ok(Self { processes: clocks, idle })
    }

    /// Runs something and waits until the processes have done their part.
    pub fn cost_of(&self, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
        let before = read(&self.processes)?;
        let started = now(ClockId::CLOCK_MONOTONIC)?;
        work()?;
        let elapsed = now(ClockId::CLOCK_MONOTONIC)? - started;
        let during: u64 = differences(&before, &read(&self.processes)?).iter().sum();
        if !self.processes.is_empty() {
            std::thread::sleep(SETTLE);
        }
        let all = differences(&before, &read(&self.processes)?);
        let processes = differences(&self.idle, &all);
        Ok(Cost { kernel: elapsed.saturating_sub(during), processes })
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
