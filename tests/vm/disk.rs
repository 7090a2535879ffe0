//! A disk that can lose its power: what was not synced by then is gone.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{check, guest};

const IMAGE: &str = "/run/sekimori-disk.img";
const PLACE: &str = "/mnt/disk";

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH` (fs/ext4/ext4.h): nothing is written from
/// then on, the journal neither.
const CUT: &str = "import fcntl, os, struct, sys\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// An ext4 file system that is mounted.
#[derive(Debug)]
pub struct Disk(());

impl Disk {
    /// Makes and mounts it.
    ///
    /// # Errors
    /// When that fails.
    pub fn make() -> Result<Self> {
        let script = "modprobe loop || insmod \"$(find /lib/modules -name 'loop.ko*')\"\n\
            truncate -s 256M \"$1\" && mkfs.ext4 -q -F \"$1\" && mkdir -p \"$2\"";
        check::ok(&guest::bash(script, &[IMAGE, PLACE])?)?;
        let disk = Self(());
        disk.mount()?;
        Ok(disk)
    }

    /// A path on it.
    pub fn path(&self, name: &str) -> PathBuf {
        Path::new(PLACE).join(name)
    }

    fn mount(&self) -> Result<()> {
        check::ok(&guest::run("mount", &["-o", "loop", IMAGE, PLACE])?)
    }

    /// Takes the power away and gives it back.
    ///
    /// # Errors
    /// When somebody still uses it.
    pub fn lose_power(&self) -> Result<()> {
        check::ok(&guest::python(CUT, &[PLACE])?)?;
        check::ok(&guest::run("umount", &[PLACE])?)?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = guest::run("umount", &["-l", PLACE]);
        let _ = std::fs::remove_file(IMAGE);
    }
}
