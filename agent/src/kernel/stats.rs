//! The programs' counters.

use aya::maps::PerCpuArray;
use sekimori_abi::event::{counter, kind};

use super::{KernelError, maps::Maps};

/// Sums over all CPUs since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By kind, then by `sekimori_abi::event::counter`.
    pub per_kind: [[u64; counter::COUNT as usize]; kind::COUNT],
}

impl Counters {
    /// Losses of all kinds and stages.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let stages = [counter::LOST_RING, counter::LOST_SCRATCH, counter::LOST_TABLE];
        let of = |row: &[u64]| -> u64 {
            stages.iter().filter_map(|stage| row.get(*stage as usize)).sum()
        };
        self.per_kind.iter().map(|row| of(row)).sum()
    }
}

/// How many opens were seen.
pub(super) fn opens_seen(maps: &Maps) -> Result<u64, KernelError> {
    let index = u32::from(kind::FILE_OPEN) * counter::COUNT + counter::SEEN;
    PerCpuArray::<_, u64>::try_from(maps.read("COUNTERS")?)
        .and_then(|table| table.get(&index, 0))
        .map(|values| values.iter().sum())
        .map_err(|error| KernelError::from_aya("reading COUNTERS", &error))
}

pub(super) fn read(maps: &Maps) -> Result<Counters, KernelError> {
    let table = PerCpuArray::<_, u64>::try_from(maps.read("COUNTERS")?)
        .map_err(|error| KernelError::from_aya("map COUNTERS", &error))?;
    let mut counters = Counters::default();
    let cells = counters.per_kind.iter_mut().flatten();
    for (index, cell) in (0u32..).zip(cells) {
        let values = table
            .get(&index, 0)
            .map_err(|error| KernelError::from_aya("reading COUNTERS", &error))?;
        *cell = values.iter().sum();
    }
    Ok(counters)
}
