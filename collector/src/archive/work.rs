//! A file of the archive while it is written.

use std::io::{self, Write};
use std::time::Instant;

use parquet::errors::ParquetError;
use prost::Message as _;
use sekimori_proto::v1::Event;
use thiserror::Error;

use super::ArchiveError;
use super::columns;
use super::file::{ParquetFile, Sum};
use super::manifest::Line;
use crate::limits::{ARCHIVE_DAMAGE_TOLD_MAX, ARCHIVE_PROGRESS};
use crate::store::sealed::{Damage, OpenFile};
use crate::store::{StoreError, Stored};

/// What ends the writing of a file.
#[derive(Debug, Error)]
pub enum Failure {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file, or the disk.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

impl Failure {
    /// As an error of the archive; `disk` makes one of an error of the disk.
    pub fn told(self, disk: impl FnOnce(io::Error) -> ArchiveError) -> ArchiveError {
        match self {
            Failure::Store(error) => error.into(),
            Failure::Parquet(error) => disk(match error {
                // As the disk said it: who may not write is told so.
                ParquetError::External(error) => match error.downcast::<io::Error>() {
                    Ok(error) => *error,
                    Err(error) => io::Error::other(error),
                },
                error => io::Error::other(error),
            }),
        }
    }
}

/// One file at work.
pub struct Work<'a, P: Write + Send> {
    out: ParquetFile<P>,
    line: Line,
    told: Instant,
    tell: &'a mut dyn FnMut(&str),
}

impl<'a, P: Write + Send> Work<'a, P> {
    /// Begins a file of this name.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin(
        name: &str,
        store_cursors: (u64, u64),
        part: P,
        tell: &'a mut dyn FnMut(&str),
    ) -> Result<Work<'a, P>, Failure> {
        let line = Line {
            file: name.to_owned(),
            sha256: String::new(),
            bytes: 0,
            rows: 0,
            first_cursor: None,
            last_cursor: None,
            damaged: 0,
            store_cursors,
        };
        Ok(Work { out: ParquetFile::begin(part)?, line, told: Instant::now(), tell })
    }

    /// Writes all events of a file of the store.
    ///
    /// # Errors
    /// When the disk refuses, or the store cannot be read on.
    pub fn all(&mut self, source: &OpenFile) -> Result<(), Failure> {
        // Both are told of by one reader, never at the same time.
        let work = std::cell::RefCell::new(self);
        source.read(
            |stored| work.borrow_mut().event(stored),
            |damage| work.borrow_mut().damaged(&damage),
        )
    }

    fn event(&mut self, stored: &Stored<'_>) -> Result<(), Failure> {
        let event = match Event::decode(stored.body.as_ref()) {
            Ok(event) => event,
            Err(error) => {
                // What the store knows of it is kept, with its bytes.
                let what = format!("event {}: {error}", stored.cursor);
                self.damaged(&Damage { what });
                Event { kind: stored.kind, verdict: stored.verdict, ..Event::default() }
            }
        };
        self.out.push(columns::row(stored, &event))?;
        let Line { rows, first_cursor, last_cursor, .. } = &mut self.line;
        *rows += 1;
        *first_cursor = Some(first_cursor.map_or(stored.cursor, |it| it.min(stored.cursor)));
        *last_cursor = Some(last_cursor.map_or(stored.cursor, |it| it.max(stored.cursor)));
        if self.told.elapsed() > ARCHIVE_PROGRESS {
            self.told = Instant::now();
            let (before, last) = self.line.store_cursors;
            let all = last.saturating_sub(before);
            (self.tell)(&format!("{}: {} of {all} events …", self.line.file, self.line.rows));
        }
        Ok(())
    }

    fn damaged(&mut self, damage: &Damage) {
        self.line.damaged += 1;
        if self.line.damaged <= ARCHIVE_DAMAGE_TOLD_MAX {
            (self.tell)(&format!("{}: damaged: {}", self.line.file, damage.what));
        }
    }

    /// Writes the end; the answer is what it was written to, and what it has.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(self) -> Result<(P, Line), Failure> {
        let (part, Sum { sha256, bytes }) = self.out.finish()?;
        let sha256 = columns::hexadecimal(&sha256);
        Ok((part, Line { sha256, bytes, ..self.line }))
    }
}
