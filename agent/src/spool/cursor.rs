//! The small files beside the segments. Each is replaced as a whole, and one that is damaged
//! counts as not there: the worst that follows is that something is sent a second time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Lane, Position, SpoolError};

/// Suffix of a file that is being written; left over only by a crash.
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";
const EPOCH_FILE: &str = "epoch";
const CLEAN_FILE: &str = "clean";

fn acknowledged_path(directory: &Path, lane: Lane) -> PathBuf {
    directory.join(format!("acknowledged-{}", lane.number()))
}

/// How far the collector has stored this lane.
pub(super) fn read_acknowledged(directory: &Path, lane: Lane) -> Position {
    read(&acknowledged_path(directory, lane)).unwrap_or_default()
}

/// Not synced: after a power cut the collector sees some batches again and knows them.
pub(super) fn write_acknowledged(
    directory: &Path,
    lane: Lane,
    position: Position,
) -> Result<(), SpoolError> {
    write(&acknowledged_path(directory, lane), position)
}

/// The last epoch that was begun.
pub(super) fn read_epoch(directory: &Path) -> u64 {
    read(&directory.join(EPOCH_FILE)).map_or(0, |position| position.epoch)
}

/// Remembers the epoch that begins now.
pub(super) fn write_epoch(directory: &Path, epoch: u64) -> Result<(), SpoolError> {
    write(&directory.join(EPOCH_FILE), Position { epoch, sequence: 0 })
}

/// Whether the last epoch ended in order. The mark is gone afterwards.
pub(super) fn take_clean(directory: &Path) -> Option<Position> {
    let path = directory.join(CLEAN_FILE);
    let position = read(&path);
    match fs::remove_file(&path) {
        Ok(()) => position,
        // A mark that stays would call every later crash an orderly stop.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "the clean mark cannot be removed");
            None
        }
        Err(_) => None,
    }
}

/// Marks an orderly stop.
pub(super) fn write_clean(directory: &Path, position: Position) -> Result<(), SpoolError> {
    write(&directory.join(CLEAN_FILE), position)
}

fn read(path: &Path) -> Option<Position> {
    let bytes = fs::read(path).ok()?;
    let (epoch, rest) = bytes.split_first_chunk::<8>()?;
    let (sequence, crc) = rest.split_first_chunk::<8>()?;
    let sum = crc32fast::hash(bytes.get(..16)?).to_le_bytes();
    let position =
        Position { epoch: u64::from_le_bytes(*epoch), sequence: u64::from_le_bytes(*sequence) };
    (crc == sum.as_slice()).then_some(position)
}

fn write(path: &Path, position: Position) -> Result<(), SpoolError> {
    let mut bytes = Vec::with_capacity(20);
    bytes.extend_from_slice(&position.epoch.to_le_bytes());
    bytes.extend_from_slice(&position.sequence.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY_SUFFIX);
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, &bytes).map_err(SpoolError::storage("write", &temporary))?;
    fs::rename(&temporary, path).map_err(SpoolError::storage("replace", path))
}
