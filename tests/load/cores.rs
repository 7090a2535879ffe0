//! Which processor does what: the collector has one for itself, whoever loads it another.

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Two processors, or the same one twice where there is no other.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// The collector's.
    pub collector: usize,
    /// The load's.
    pub load: usize,
}

impl Cores {
    /// The first two that we may use.
    ///
    /// # Errors
    /// When the kernel does not say which those are.
    pub fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("which processors we may use")?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let collector = allowed.next().context("there is no processor for us")?;
        Ok(Self { collector, load: allowed.next().unwrap_or(collector) })
    }

    /// Whether everybody has a processor for themselves.
    pub const fn apart(self) -> bool {
        self.collector != self.load
    }
}

/// Keeps this thread, and what it starts from now on, on one processor.
///
/// # Errors
/// When the kernel does not allow it.
pub fn stay_on(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on processor {core}"))
}
