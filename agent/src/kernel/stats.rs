//! The programs' counters.

use aya::{Ebpf, maps::PerCpuArray};
use sekimori_abi::event::{counter, kind};

use super::KernelError;

/// Sums over all CPUs since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By kind, then by `sekimori_abi::event::counter`.
    pub per_kind: [[u64; counter::COUNT as usize]; kind::COUNT],
}

pub(super) fn read(ebpf: &Ebpf) -> Result<Counters, KernelError> {
    let map = ebpf
        .map("COUNTERS")
        .ok_or_else(|| KernelError::Other("the programs have no map COUNTERS".to_owned()))?;
    let table = PerCpuArray::<_, u64>::try_from(map)
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
