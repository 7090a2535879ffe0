//! The loaded programs, as the rest of the agent sees them.

use std::time::Duration;

use aya::Ebpf;
use sekimori_policy::Tables;

use super::{
    KernelError, load, log,
    plan::{self, Feature},
    ring::Rings,
    stats::{self, Counters},
    tables::Slots,
};

/// How to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Print the programs' debug logs.
    pub program_logs: bool,
}

/// Programs in place, rings open, a policy in force. Dropping it detaches everything.
pub struct Sensor {
    ebpf: Ebpf,
    rings: Rings,
    slots: Slots,
    features: Vec<Feature>,
}

impl Sensor {
    /// Loads the programs, puts the policy in force and attaches them. Must be called in a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the kernel or the permissions do not suffice; the text says what to do.
    pub fn start(tables: &Tables, options: &Options) -> Result<Self, KernelError> {
        load::check_lsm()?;
        let mut loaded = load::load(options.program_logs)?;
        let rings = Rings::take(&mut loaded.ebpf)?;
        if options.program_logs {
            log::follow(&mut loaded.ebpf);
        }
        let mut slots = Slots::default();
        slots.install(&mut loaded.ebpf, tables)?;
        let features = plan::attach(&mut loaded)?;
        Ok(Self { ebpf: loaded.ebpf, rings, slots, features })
    }

    /// Replaces the policy: each event is judged by the old one or by the new one, whole.
    ///
    /// # Errors
    /// When a table cannot be written; the old policy stays in force.
    pub fn install(&mut self, tables: &Tables) -> Result<(), KernelError> {
        self.slots.install(&mut self.ebpf, tables)
    }

    /// Waits until a ring has something or `patience` is over.
    ///
    /// # Errors
    /// When the rings cannot be waited for.
    pub async fn ready(&self, patience: Duration) -> Result<(), KernelError> {
        self.rings.ready(patience).await
    }

    /// Gives each waiting record to `each`, denials first, until `enough` were given; answers how
    /// many there were.
    pub fn drain(&mut self, enough: usize, each: &mut dyn FnMut(&[u8])) -> usize {
        self.rings.drain(enough, each)
    }

    /// Takes all programs off their hooks: nothing is judged or recorded from here on, and what the
    /// rings hold can still be drained.
    pub fn detach(&mut self) {
        plan::detach(&mut self.ebpf);
    }

    /// The programs' counters.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        stats::read(&self.ebpf)
    }

    /// What is attached and what is lost.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }
}
