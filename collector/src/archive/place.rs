//! Where an archive is.

use std::io::{self, Write};

use super::ArchiveError;
use super::manifest::Line;

/// A directory or a bucket. It has a list of its files, in which each stands only when it is whole
/// and there to stay.
pub trait Place {
    /// A file that is not whole yet.
    type Part: Write + Send;

    /// What errors call it.
    fn name(&self) -> String;

    /// What the list says of the file of this name.
    fn line(&self, file: &str) -> Option<&Line>;

    /// The length of what has this name; `None` when there is no such file.
    ///
    /// # Errors
    /// When that cannot be known.
    fn length(&self, file: &str) -> Result<Option<u64>, ArchiveError>;

    /// Begins a file, readable by its owner only.
    ///
    /// # Errors
    /// When the disk refuses.
    fn begin(&self, file: &str) -> Result<Self::Part, ArchiveError>;

    /// An error of the disk while a part is written.
    fn failed(&self, file: &str, source: io::Error) -> ArchiveError;

    /// Gives a file that is whole the name that the line says, then adds the line to the list.
    /// `tell` is told how far it has come where that takes long.
    ///
    /// # Errors
    /// When the place refuses; the file may have its name then, and is in no list.
    fn keep(
        &mut self,
        part: Self::Part,
        line: &Line,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), ArchiveError>;
}
