//! What is done on the collector's machine without the collector: commands that work on its directory
//! leave a note in `desk`, and the collector makes a record of each.
//!
//! A note comes by a rename and goes when its record is stored; a collector that dies in between
//! records it twice. Whoever may write there could do all of it without a word: notes are for those
//! who ask later, not against whoever owns the machine.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{self, MissedTickBehavior};

use crate::audit::Audit;
use crate::limits::{DESK_INTERVAL, DESK_NOTES_MAX, DESK_PAUSE, NOTE_BYTES_MAX};
use crate::pki::files::{Mode, create_own_directory, file_error, replace};
use crate::pki::{PkiError, check_initialised};

/// Name of the directory, within the collector's.
const DESK: &str = "desk";
/// What a note is named by that is none.
const UNREAD: &str = ".unread";

/// What somebody did.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Who they are on this machine, as `uid 0 (login uid 1000)`.
    pub by: String,
    /// The command.
    pub method: String,
    /// Its options, those that say what was done.
    pub question: String,
    /// Events that they were given.
    pub answered: u64,
    /// Whether it begins, has ended, or is all of it.
    pub phase: Phase,
}

/// Which part of it a note is about.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// All of it.
    Whole,
    /// Before it is done.
    Begin,
    /// Behind it.
    End,
}

/// The content of a file.
#[derive(Debug, Deserialize, Serialize)]
struct Document {
    /// Milliseconds since 1970.
    done_ms: i64,
    #[serde(flatten)]
    note: Note,
}

/// Leaves a note for the collector of `dir`, which may not run now.
///
/// # Errors
/// A file that cannot be written.
pub fn leave(dir: &Path, note: Note) -> Result<(), PkiError> {
    check_initialised(dir)?;
    let desk = dir.join(DESK);
    create_own_directory(dir, &desk)?;
    let now = Timestamp::now();
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(PkiError::Random)?;
    // In their order when they are sorted.
    let name = format!("{:020}-{:08x}", now.as_nanosecond(), u32::from_ne_bytes(random));
    let path = desk.join(name);
    let text = serde_json::to_string(&Document { done_ms: now.as_millisecond(), note });
    let text = text.map_err(|error| file_error("write", &path)(error.into()))?;
    if text.len() as u64 > NOTE_BYTES_MAX {
        let long = format!("a note of {} bytes, at most {NOTE_BYTES_MAX}", text.len());
        return Err(file_error("write", &path)(io::Error::new(io::ErrorKind::InvalidInput, long)));
    }
    replace(&path, &text, Mode::Secret)
}

/// Makes records of notes.
#[derive(Debug)]
pub struct Desk {
    directory: PathBuf,
    audit: Audit,
}

impl Desk {
    /// Of the collector of `dir`.
    pub fn new(dir: &Path, audit: Audit) -> Desk {
        Desk { directory: dir.join(DESK), audit }
    }

    /// Looks now and then, for ever.
    pub async fn run(self) {
        let mut ticks = time::interval(DESK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.take().await {
                let path = self.directory.display();
                tracing::error!(%error, %path, "what was done beside the collector is not recorded yet");
                time::sleep(DESK_PAUSE).await;
            }
        }
    }

    /// Records what lies there, the oldest first, a bounded number of notes.
    async fn take(&self) -> io::Result<()> {
        let mut result = Ok(());
        for path in self.waiting()? {
            match read(&path) {
                Ok(Document { done_ms, note }) => {
                    let done = Timestamp::from_millisecond(done_ms).unwrap_or_default();
                    self.audit.noted(note, done).await.map_err(io::Error::other)?;
                    fs::remove_file(&path)?;
                }
                // It may be read another time.
                Err(error) if error.kind() != io::ErrorKind::InvalidData => result = Err(error),
                Err(error) => {
                    let mut aside = path.clone().into_os_string();
                    aside.push(UNREAD);
                    fs::rename(&path, &aside)?;
                    let path = path.display();
                    tracing::error!(%error, %path, "this is no note, and is put aside");
                }
            }
        }
        result
    }

    fn waiting(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry?.path();
            // Others are on their way, or were put aside.
            if path.extension().is_none() {
                paths.push(path);
            }
        }
        paths.sort();
        paths.truncate(DESK_NOTES_MAX);
        Ok(paths)
    }
}

fn read(path: &Path) -> io::Result<Document> {
    let bad = |error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, error.to_string())
    };
    // Nothing that could hold up whoever opens it.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(bad(&"it is no file"));
    }
    let mut text = String::new();
    File::open(path)?.take(NOTE_BYTES_MAX).read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(|error| bad(&error))
}
