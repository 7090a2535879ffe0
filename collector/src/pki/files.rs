//! Files of the authority: created, never overwritten, private from the first byte.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::PkiError;

/// Who may read a new file.
#[derive(Clone, Copy)]
pub enum Mode {
    /// The owner only: keys.
    Secret,
    /// Everyone: certificates.
    Public,
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { action, path, source }
}

/// Creates `path` and its parents for the owner only. An existing one is kept as it is.
pub fn create_directory(path: &Path) -> Result<(), PkiError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(file_error("create directory", path))
}

/// Writes a file that must not exist yet, and waits until the disk has it.
pub fn write_new(path: &Path, text: &str, mode: Mode) -> Result<(), PkiError> {
    let mode = match mode {
        Mode::Secret => 0o600,
        Mode::Public => 0o644,
    };
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(PkiError::Exists(path.to_owned()));
        }
        Err(error) => return Err(file_error("create", path)(error)),
    };
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(file_error("write", path))
}

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(file_error("read", path))
}
