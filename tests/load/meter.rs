//! Time that passed, and time that processors spent.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use procfs::process::Process;

/// Seconds of CPU that a process, all of its threads, has spent: what `utime` and `stime` in
/// `/proc/PID/stat` are together, finer than in hundredths. It can be asked of a process that has
/// ended until somebody has waited for it.
///
/// # Errors
/// When there is no such process.
pub fn cpu_s(pid: u32) -> Result<f64> {
    let spent = clock_getcpuclockid(Pid::from_raw(pid.try_into()?)).and_then(ClockId::now);
    let spent = spent.with_context(|| format!("what process {pid} spent"))?;
    Ok(Duration::from(spent).as_secs_f64())
}

/// Seconds of CPU that this process has spent.
///
/// # Errors
/// Never, on Linux.
pub fn own_cpu_s() -> Result<f64> {
    Ok(Duration::from(ClockId::CLOCK_PROCESS_CPUTIME_ID.now()?).as_secs_f64())
}

/// Seconds of CPU that this thread has spent.
///
/// # Errors
/// Never, on Linux.
pub fn thread_cpu_s() -> Result<f64> {
    Ok(Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now()?).as_secs_f64())
}

/// Seconds of CPU that programs which were started from here, and have ended, have spent.
///
/// # Errors
/// Never, on Linux.
pub fn seconds_of_children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |it: TimeVal| it.tv_sec() as f64 + it.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Resident memory of a process in MiB: now, and at most so far.
///
/// # Errors
/// When there is no such process.
pub fn resident_mib(pid: u32) -> Result<(f64, f64)> {
    let status = Process::new(i32::try_from(pid)?)?.status()?;
    let mib = |kib: Option<u64>| kib.map(|kib| kib as f64 / 1024.0);
    let both = mib(status.vmrss).zip(mib(status.vmhwm));
    both.with_context(|| format!("process {pid} has ended"))
}

/// A measurement that has begun.
#[derive(Debug)]
pub struct Meter {
    pid: u32,
    began: Instant,
    collector_s: f64,
    own_s: f64,
}

/// What passed between two moments.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// By the clock.
    pub wall_s: f64,
    /// CPU of the collector.
    pub collector_s: f64,
    /// CPU of whoever loads it.
    pub own_s: f64,
}

impl Meter {
    /// Begins, for the collector with this pid.
    ///
    /// # Errors
    /// When it has ended.
    pub fn begin(pid: u32) -> Result<Self> {
        let (collector_s, own_s) = (cpu_s(pid)?, own_cpu_s()?);
        Ok(Self { pid, began: Instant::now(), collector_s, own_s })
    }

    /// What passed since.
    ///
    /// # Errors
    /// When the collector has ended.
    pub fn spent(&self) -> Result<Spent> {
        Ok(Spent {
            wall_s: self.began.elapsed().as_secs_f64(),
            collector_s: cpu_s(self.pid)? - self.collector_s,
            own_s: own_cpu_s()? - self.own_s,
        })
    }
}

impl Spent {
    /// Per second by the clock.
    pub fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.wall_s
    }

    /// Per second of the collector's CPU.
    pub fn per_cpu_second(&self, count: u64) -> f64 {
        count as f64 / self.collector_s
    }

    /// Who was busiest, in percent of a processor: collector, load.
    pub fn percent(&self) -> (f64, f64) {
        (self.collector_s / self.wall_s * 100.0, self.own_s / self.wall_s * 100.0)
    }
}

/// A moment so many seconds from now.
pub fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_a_process_spent_is_known_until_it_is_waited_for() {
        let own = cpu_s(std::process::id()).unwrap();
        assert!((own - own_cpu_s().unwrap()).abs() < 1.0);
        let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        let mut child =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        // Its end is seen as that of its output, and it is not waited for yet.
        std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let spent = cpu_s(child.id()).unwrap();
        let stat = Process::new(child.id().try_into().unwrap()).unwrap().stat().unwrap();
        let ticks = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        assert!(spent > 0.0 && (spent - ticks).abs() < 0.03, "{spent} s, {ticks} s");
        child.wait().unwrap();
        assert!(cpu_s(child.id()).is_err());
    }
}
