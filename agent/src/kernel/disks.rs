//! Block devices that were opened before the programs were there.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc::{O_CLOEXEC, O_NOCTTY, O_NONBLOCK};

use super::load::host_mounts;

/// Shows the programs the devices of btrfs file systems that are mounted already: they know such a
/// device by its name once they saw it opened. Opened for reading and closed again, without waiting
/// for a medium, nothing happens to it.
pub(super) fn show_mounted() {
    let mounts = match host_mounts() {
        Ok(mounts) => mounts,
        Err(error) => {
            tracing::warn!(%error, "btrfs on removable media that is mounted already is not known");
            return;
        }
    };
    let sources: BTreeSet<PathBuf> = mounts
        .into_iter()
        .filter(|mount| mount.fs_type == "btrfs")
        .filter_map(|mount| mount.mount_source.map(PathBuf::from))
        .collect();
    for source in sources {
        if let Err(error) = show(&source) {
            tracing::warn!(%error, device = %source.display(), "what btrfs stands on is not known");
        }
    }
}

/// Shows the programs the loop devices that have a file already.
pub(super) fn show_loops() {
    let devices = Path::new("/sys/class/block").read_dir();
    for device in devices.into_iter().flatten().flatten() {
        let name = device.file_name();
        let size = std::fs::read_to_string(device.path().join("size")).unwrap_or_default();
        if !name.as_encoded_bytes().starts_with(b"loop") || size.trim() == "0" {
            continue;
        }
        let node = Path::new("/dev").join(name);
        if let Err(error) = show(&node) {
            tracing::warn!(%error, device = %node.display(), "what it stands on is not known");
        }
    }
}

fn show(device: &Path) -> std::io::Result<()> {
    if device.metadata()?.file_type().is_block_device() {
        let flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
        OpenOptions::new().read(true).custom_flags(flags).open(device)?;
    }
    Ok(())
}
