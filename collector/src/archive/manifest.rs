//! `manifest.jsonl`: what an archive has, a line for each file, in the order in which they were
//! written.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use crate::limits::MANIFEST_BYTES_MAX;

/// Its name in the archive.
pub const NAME: &str = "manifest.jsonl";

/// One file of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its name; nothing is ever opened by it, names are only compared.
    pub file: String,
    /// SHA-256 of it, in hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// How many events it has.
    pub rows: u64,
    /// The lowest cursor of them; none without events.
    pub first_cursor: Option<u64>,
    /// The highest.
    pub last_cursor: Option<u64>,
    /// Parts of the store's file that were damaged, whose events may be missing here.
    pub damaged: u64,
    /// The last cursor before the store's file, and the last one in it.
    pub store_cursors: (u64, u64),
}

impl Line {
    /// As it stands in the list, with its end.
    ///
    /// # Errors
    /// None that is known.
    pub fn text(&self) -> serde_json::Result<String> {
        serde_json::to_string(self).map(|text| text + "\n")
    }
}

/// The last line for each file. Lines that are none are passed over: the files that they were for
/// are written again.
pub fn lines(text: &[u8]) -> BTreeMap<String, Line> {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let line: Line = serde_json::from_slice(line).ok()?;
        Some((line.file.clone(), line))
    });
    lines.collect()
}

/// The list of a directory, open to be added to.
#[derive(Debug)]
pub struct Manifest {
    file: File,
    lines: BTreeMap<String, Line>,
    /// The last line has no end: somebody was killed while writing it.
    torn: bool,
}

impl Manifest {
    /// Reads the list in a directory, or begins one.
    ///
    /// # Errors
    /// When it cannot be read or written, is a link or no file, or is too long.
    pub fn open(dir: &Path) -> io::Result<Manifest> {
        let mut file = own_file(&dir.join(NAME))?;
        let mut text = Vec::new();
        (&file).take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(io::Error::other("it is too long for a list of files"));
        }
        file.seek(SeekFrom::End(0))?;
        let lines = lines(&text);
        let torn = text.last().is_some_and(|last| *last != b'\n');
        Ok(Manifest { file, lines, torn })
    }

    /// The last line for a file of this name.
    pub fn line(&self, file: &str) -> Option<&Line> {
        self.lines.get(file)
    }

    /// Adds a line. It is on the disk when this returns.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn add(&mut self, line: Line) -> io::Result<()> {
        let mut text = line.text()?;
        if self.torn {
            text.insert(0, '\n');
        }
        // Part of it may be there after a failure.
        self.torn = true;
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        self.torn = false;
        self.lines.insert(line.file.clone(), line);
        Ok(())
    }
}

/// Opens or makes a file that only its owner can read. A link is refused: it may lead anywhere.
///
/// # Errors
/// When that is so, when it is no file, or the disk refuses.
pub fn own_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn line(file: &str, rows: u64) -> Line {
        Line {
            file: file.to_owned(),
            sha256: "ab".repeat(32),
            bytes: 1,
            rows,
            first_cursor: Some(1),
            last_cursor: Some(rows),
            damaged: 0,
            store_cursors: (0, rows),
        }
    }

    #[test]
    fn a_line_that_was_cut_short_is_passed_over_and_the_next_one_stands_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::open(dir.path()).unwrap();
        manifest.add(line("a", 1)).unwrap();
        manifest.add(line("a", 2)).unwrap();
        drop(manifest);
        let path = dir.path().join(NAME);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str(r#"{"file":"b","sha256":"#);
        std::fs::write(&path, &text).unwrap();
        let mut manifest = Manifest::open(dir.path()).unwrap();
        assert_eq!(manifest.line("a"), Some(&line("a", 2)));
        assert_eq!(manifest.line("b"), None);
        manifest.add(line("b", 3)).unwrap();
        let manifest = Manifest::open(dir.path()).unwrap();
        assert_eq!(manifest.line("b"), Some(&line("b", 3)));
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(&elsewhere, "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.path().join(NAME)).unwrap();
        Manifest::open(dir.path()).unwrap_err();
        std::fs::remove_file(dir.path().join(NAME)).unwrap();
        nix::unistd::mkfifo(&dir.path().join(NAME), nix::sys::stat::Mode::S_IRWXU).unwrap();
        Manifest::open(dir.path()).unwrap_err();
    }
}
