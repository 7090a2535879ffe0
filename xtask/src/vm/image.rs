//! USB stick images.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use crate::process;

/// Largest stick, in bytes. Images are sparse: only what the guest writes takes space.
const SIZE_MAX_BYTES: u64 = 1 << 40;
const SERIAL_MAX_BYTES: usize = 32;

/// The file system that a stick is born with; it lies on the whole device, without partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileSystem {
    /// FAT with long names.
    #[default]
    Vfat,
    /// ext4.
    Ext4,
    /// exFAT.
    Exfat,
    /// XFS, which lets files share blocks.
    Xfs,
    /// btrfs, which puts no block device into its superblock.
    Btrfs,
}

/// A stick as `--stick SIZE:SERIAL[:FS]` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stick {
    /// What the USB device reports; letters, digits, `-` and `_`.
    pub serial: String,
    /// Size in bytes.
    pub size: u64,
    /// What mkfs makes on it.
    pub file_system: FileSystem,
}

impl FromStr for FileSystem {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "vfat" => Ok(Self::Vfat),
            "ext4" => Ok(Self::Ext4),
            "exfat" => Ok(Self::Exfat),
            "xfs" => Ok(Self::Xfs),
            "btrfs" => Ok(Self::Btrfs),
            other => {
                bail!("{other} is no file system for a stick: use vfat, ext4, exfat, xfs or btrfs")
            }
        }
    }
}

impl FromStr for Stick {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, ':');
        let (Some(size), Some(serial)) = (parts.next(), parts.next()) else {
            bail!("a stick is SIZE:SERIAL[:FS], such as 64M:SEKI0001:vfat");
        };
        let file_system = parts.next().map_or(Ok(FileSystem::default()), FileSystem::from_str)?;
        Ok(Self { serial: serial_number(serial)?, size: size_bytes(size)?, file_system })
    }
}

impl Stick {
    /// Reads `SERIAL` and `SIZE[:FS]`, as the guest asks for a stick.
    ///
    /// # Errors
    /// When one of them is not valid.
    pub fn from_request(serial: &str, shape: &str) -> Result<Self> {
        let (size, file_system) = shape.split_once(':').unwrap_or((shape, "vfat"));
        Ok(Self {
            serial: serial_number(serial)?,
            size: size_bytes(size)?,
            file_system: file_system.parse()?,
        })
    }

    /// Where the image of the stick with this serial lies in a run's directory.
    #[must_use]
    pub fn path(directory: &Path, serial: &str) -> PathBuf {
        directory.join(format!("stick-{serial}.img"))
    }

    /// Makes the image, over an older one of the same serial.
    ///
    /// # Errors
    /// When the disk is full or mkfs fails.
    pub fn make(&self, directory: &Path) -> Result<PathBuf> {
        let path = Self::path(directory, &self.serial);
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        file.set_len(self.size).with_context(|| format!("cannot size {}", path.display()))?;
        let (program, options): (&str, &[&str]) = match self.file_system {
            FileSystem::Vfat => ("mkfs.vfat", &[]),
            FileSystem::Ext4 => ("mkfs.ext4", &["-q", "-F"]),
            FileSystem::Exfat => ("mkfs.exfat", &[]),
            FileSystem::Xfs => ("mkfs.xfs", &["-q", "-m", "reflink=1"]),
            FileSystem::Btrfs => ("mkfs.btrfs", &["-q"]),
        };
        let Some(found) = process::find_program(program) else {
            bail!("{program} is missing: run `cargo xtask setup`");
        };
        process::output(Command::new(found).args(options).arg(&path))?;
        Ok(path)
    }
}

/// Checks a serial number: it becomes part of file names and of QEMU's options.
///
/// # Errors
/// When it is empty, too long or has other characters.
pub fn serial_number(text: &str) -> Result<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if text.is_empty() || text.len() > SERIAL_MAX_BYTES || !text.bytes().all(good) {
        bail!("{text:?} is no serial number: 1 to {SERIAL_MAX_BYTES} of A-Z a-z 0-9 - _");
    }
    Ok(text.to_owned())
}

fn size_bytes(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match text.strip_prefix(digits) {
        Some("") => 0,
        Some("K") => 10,
        Some("M") => 20,
        Some("G") => 30,
        _ => bail!("{text} is no size: use a number with K, M or G"),
    };
    let number: u64 = digits
        .parse()
        .with_context(|| format!("{text} is no size: use a number with K, M or G"))?;
    let size = number.checked_mul(1 << shift).filter(|size| *size <= SIZE_MAX_BYTES);
    size.filter(|size| *size > 0)
        .with_context(|| format!("{text}: from 1 to {SIZE_MAX_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::{FileSystem, Stick};

    fn stick(serial: &str, size: u64, file_system: FileSystem) -> Stick {
        Stick { serial: serial.into(), size, file_system }
    }

    #[test]
    fn descriptions_are_read() {
        let cases = [
            ("64M:SEKI0001", stick("SEKI0001", 64 << 20, FileSystem::Vfat)),
            ("1G:A-b_9:ext4", stick("A-b_9", 1 << 30, FileSystem::Ext4)),
            ("4096:x:exfat", stick("x", 4096, FileSystem::Exfat)),
            ("320M:x:xfs", stick("x", 320 << 20, FileSystem::Xfs)),
            ("128M:x:btrfs", stick("x", 128 << 20, FileSystem::Btrfs)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Stick>().ok(), Some(expected), "{text}");
        }
    }

    #[test]
    fn bad_descriptions_are_refused() {
        for text in ["", "64M", "64M:", "0:x", "M:x", "64MM:x", "1:a,b", "1:a:ntfs", "99999999G:x"]
        {
            assert!(text.parse::<Stick>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_request_without_file_system_means_vfat() {
        let expected = stick("S", 1 << 20, FileSystem::Vfat);
        assert_eq!(Stick::from_request("S", "1M").ok(), Some(expected));
    }
}
