//! Telling the kernel programs what belongs to the monitor itself.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aya::maps::{Array, MapInfo};
use procfs::process::MountInfo;
use sekimori_abi::table::{Guard, action};
use serde::Deserialize;

use super::{
    KernelError,
    load::{host_mounts, kernel_device},
    maps::Maps,
    pins::{BPF_FILE_SYSTEM, ROOT, Set},
    tables::{self, Plain},
};

/// What happens to whoever lays hands on the agent, its maps or its pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuardMode {
    /// It is refused and recorded.
    #[default]
    Deny,
    /// It is recorded.
    Alert,
    /// Nothing.
    Off,
}

/// In [`super::maps::Maps`]' `GUARDED_MOUNTS`.
const PINS: u32 = 1;
const ABOVE_PINS: u32 = 2;

/// Begins to guard this process and the set.
pub(super) fn begin(maps: &mut Maps, set: &Set, mode: GuardMode) -> Result<(), KernelError> {
    let action = match mode {
        GuardMode::Deny => action::DENY,
        GuardMode::Alert => action::ALERT,
        GuardMode::Off => return end(maps),
    };
    let pins = std::fs::metadata(ROOT).map_err(|error| KernelError::from_aya(ROOT, &error))?;
    let mounts = host_mounts()?;
    let at = mounts.iter().rev().find(|mount| mount.mount_point == Path::new(BPF_FILE_SYSTEM));
    let pins_dev = at.and_then(|mount| kernel_device(&mount.majmin)).ok_or_else(|| {
        KernelError::Other(format!("process 1 has nothing mounted at {BPF_FILE_SYSTEM}"))
    })?;
    tables::replace(maps, "GUARDED_MAPS", &map_ids(set)?)?;
    tables::replace(maps, "GUARDED_MOUNTS", &guarded_mounts(at, &mounts))?;
    let agent_tgid = std::process::id();
    let pins_inode = pins.ino();
    write(maps, Guard { action, agent_tgid, pins_dev, reserved: 0, pins_inode, agent_task: 0 })?;
    // The programs find this task when it opens a map.
    set.map("GUARD")?;
    let task = Array::<_, Plain<Guard>>::try_from(maps.read("GUARD")?)
        .and_then(|cell| cell.get(&0, 0))
        .map(|Plain(guard)| guard.agent_task)
        .map_err(|error| KernelError::from_aya("reading GUARD", &error))?;
    if task == 0 {
        tracing::error!("the agent's control group is not guarded: its task was not seen");
    }
    Ok(())
}

/// Ends the guard: the agent is about to stop in order, and that is on record.
pub(super) fn end(maps: &mut Maps) -> Result<(), KernelError> {
    write(maps, Guard::default())
}

fn write(maps: &mut Maps, guard: Guard) -> Result<(), KernelError> {
    Array::<_, Plain<Guard>>::try_from(maps.get("GUARD")?)
        .and_then(|mut cell| cell.set(0, Plain(guard), 0))
        .map_err(|error| KernelError::from_aya("writing GUARD", &error))
}

/// The pins' mount and everything it hangs below, by the kernel's `mnt_id`.
fn guarded_mounts(pins: Option<&MountInfo>, all: &[MountInfo]) -> Vec<(u32, u32)> {
    let mut guarded = Vec::new();
    let mut next = pins;
    while let Some(mount) = next {
        let what = if guarded.is_empty() { PINS } else { ABOVE_PINS };
        if guarded.iter().any(|(id, _)| i64::from(*id) == i64::from(mount.mnt_id)) {
            break;
        }
        guarded.extend(u32::try_from(mount.mnt_id).map(|id| (id, what)));
        next = all.iter().find(|other| other.mnt_id == mount.pid);
    }
    guarded
}

fn map_ids(set: &Set) -> Result<Vec<(u32, u32)>, KernelError> {
    set.maps()?
        .iter()
        .map(|path| {
            let info = MapInfo::from_pin(path)
                .map_err(|error| KernelError::from_aya(&path.display().to_string(), &error))?;
            Ok((info.id(), 1))
        })
        .collect()
}
