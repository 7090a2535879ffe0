//! Files of the authority: created, private from the first byte, and overwritten by nobody but the
//! collector itself, as a whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
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

/// The error of what was done to a file.
pub fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError + use<> {
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

/// Puts a file with this text in the place of another, or where none is, at one go: whatever
/// happens, the old or the new one is there whole. It belongs to the owner of the directory,
/// whoever writes.
pub fn replace(path: &Path, text: &str, mode: Mode) -> Result<(), PkiError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    if let Err(error) = fs::remove_file(new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(file_error("remove", new)(error));
    }
    write_new(new, text, mode)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    give_to_owner(&File::open(new).map_err(file_error("open", new))?, directory)
        .map_err(file_error("give away", new))?;
    fs::rename(new, path).map_err(file_error("replace", path))?;
    sync_directory(directory)
}

/// Waits until the disk has the names in a directory.
pub fn sync_directory(path: &Path) -> Result<(), PkiError> {
    File::open(path).and_then(|it| it.sync_all()).map_err(file_error("write", path))
}

/// The collector must be able to read what is in its directory, whoever made it: root, mostly.
pub fn give_to_owner(file: &File, directory: &Path) -> io::Result<()> {
    let (owner, own) = (directory.metadata()?, file.metadata()?);
    if (owner.uid(), owner.gid()) == (own.uid(), own.gid()) {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(file_error("read", path))
}
