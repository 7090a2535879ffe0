//! Files of the authority: created, private from the first byte, and overwritten by nobody but the
//! collector itself, as a whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use nix::fcntl::OFlag;

use super::PkiError;

/// For files that are given away: what is opened is what has that name.
pub const NO_LINK: i32 = OFlag::O_NOFOLLOW.bits();

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

/// Creates the directory `path` in `dir`, whose owner it belongs to, unless it is there. What is not a
/// directory itself, but a link to one, is none: the owner of `dir` may have put it there, and root
/// writes here.
pub fn create_own_directory(dir: &Path, path: &Path) -> Result<(), PkiError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(file_error("create directory", path)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let flags = OFlag::O_DIRECTORY.bits() | NO_LINK;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    opened.and_then(|it| give_to_owner(&it, dir)).map_err(file_error("open directory", path))
}

/// Writes a file that must not exist yet, and waits until the disk has it.
pub fn write_new(path: &Path, text: &str, mode: Mode) -> Result<File, PkiError> {
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
        .map_err(file_error("write", path))?;
    Ok(file)
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
    let file = write_new(new, text, mode)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    give_to_owner(&file, directory).map_err(file_error("give away", new))?;
    fs::rename(new, path).map_err(file_error("replace", path))?;
    sync_directory(directory)
}

/// Waits until the disk has the names in a directory.
pub fn sync_directory(path: &Path) -> Result<(), PkiError> {
    File::open(path).and_then(|it| it.sync_all()).map_err(file_error("write", path))
}

/// The collector must be able to read what is in its directory, whoever made it: root, mostly. The
/// file must be opened without following a link; one that has another name elsewhere is not given.
pub fn give_to_owner(file: &File, directory: &Path) -> io::Result<()> {
    let (owner, own) = (directory.metadata()?, file.metadata()?);
    if (owner.uid(), owner.gid()) == (own.uid(), own.gid()) {
        return Ok(());
    }
    if own.is_file() && own.nlink() > 1 {
        return Err(io::Error::other(
            "it has another name besides this one, and is not given away",
        ));
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(file_error("read", path))
}
