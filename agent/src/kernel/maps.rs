//! The maps that the agent reads and writes, opened from their pins.

use std::collections::BTreeMap;

use aya::maps::Map;

use super::{KernelError, pins::Set};

/// Maps that user space touches; the rings have a module of their own.
const NAMES: [&str; 20] = [
    "ACTIVE",
    "HEADS",
    "EDGES",
    "STATES",
    "SETS",
    "BUCKETS",
    "RULES",
    "USERS",
    "DEVICE_GROUPS",
    "NETWORKS",
    "PORTS",
    "PLACES",
    "NODES",
    "MODULE_OFFSETS",
    "SHARES_WATCHED",
    "COUNTERS",
    "ACCOUNTS",
    "GUARD",
    "GUARDED_MAPS",
    "GUARDED_MOUNTS",
];

/// Open maps by name.
pub(super) struct Maps(BTreeMap<&'static str, Map>);

impl Maps {
    pub(super) fn open(set: &Set) -> Result<Self, KernelError> {
        NAMES.into_iter().map(|name| Ok((name, set.map(name)?))).collect::<Result<_, _>>().map(Self)
    }

    /// Of another build, whose programs may not have all of them.
    pub(super) fn open_some(set: &Set) -> Self {
        Self(NAMES.into_iter().filter_map(|name| Some((name, set.map(name).ok()?))).collect())
    }

    pub(super) fn get(&mut self, name: &str) -> Result<&mut Map, KernelError> {
        self.0
            .get_mut(name)
            .ok_or_else(|| KernelError::Other(format!("the programs have no map {name}")))
    }

    pub(super) fn read(&self, name: &str) -> Result<&Map, KernelError> {
        self.0
            .get(name)
            .ok_or_else(|| KernelError::Other(format!("the programs have no map {name}")))
    }
}
