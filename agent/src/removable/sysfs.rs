//! Reading sysfs.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of an attribute that are kept: descriptors come from whoever made the device.
const ATTRIBUTE_BYTES_MAX: usize = 256;
/// USB interface classes (usb.org, "Defined Class Codes").
pub(super) const STORAGE: &str = "08";
/// Cameras, which is also how phones show their files (PTP, MTP).
pub(super) const IMAGING: &str = "06";

/// Directories of devices, with the links resolved.
pub(super) fn entries(directory: &Path) -> Option<Vec<PathBuf>> {
    let entries = directory.read_dir().ok()?;
    Some(entries.flatten().filter_map(|entry| entry.path().canonicalize().ok()).collect())
}

/// Interfaces are called `1-1:1.0`, devices `1-1`.
pub(super) fn is_interface(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(':'))
}

/// An attribute without the newline.
pub(super) fn read(device: &Path, name: &str) -> Option<String> {
    let text = fs::read(device.join(name)).ok()?;
    let text = String::from_utf8_lossy(&text);
    let text = text.get(..text.floor_char_boundary(ATTRIBUTE_BYTES_MAX)).unwrap_or_default();
    Some(text.trim_end_matches('\n').to_owned())
}
