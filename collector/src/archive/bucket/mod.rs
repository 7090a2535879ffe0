//! An archive in a bucket of S3.
//!
//! A file is written to the disk of this machine, without a name, and sent when it is whole; in the
//! bucket it appears at once or not at all. The list is replaced after that, and only the one that
//! was read: of two runs at the same time one fails.

mod config;
mod error;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use object_store::path::Path as Prefix;
use object_store::{
    Error, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutResult,
    UpdateVersion,
};
use sha2::{Digest as _, Sha256};
use tokio::runtime::{Builder, Runtime};

pub use self::config::BucketConfig;
pub use self::error::BucketError;
use super::ArchiveError;
use super::columns::hexadecimal;
use super::manifest::{self, Line};
use super::place::Place;
use crate::limits::{ARCHIVE_PROGRESS, ARCHIVE_SENT_BYTES, MANIFEST_BYTES_MAX};

/// A bucket, or what is below a prefix in it.
#[derive(Debug)]
pub struct Bucket {
    /// `s3://BUCKET/PREFIX`
    name: String,
    store: Arc<dyn ObjectStore>,
    prefix: Prefix,
    runtime: Runtime,
    list: List,
}

/// The list, as it is in the bucket.
#[derive(Debug, Default)]
struct List {
    text: String,
    lines: BTreeMap<String, Line>,
    /// What the bucket knows it by; `None` before the first file.
    version: Option<UpdateVersion>,
}

impl Bucket {
    /// Reads the list.
    ///
    /// # Errors
    /// When what is said of it cannot be, there is no such bucket, or it does not answer.
    pub fn open(config: &BucketConfig) -> Result<Bucket, ArchiveError> {
        // The library's client has no other way to be told; where one is set, it is this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (store, prefix) = config.client()?;
        let name = format!("s3://{}", config.place.trim_end_matches('/'));
        Bucket::in_store(name, Arc::new(store), prefix)
    }

    fn in_store(
        name: String,
        store: Arc<dyn ObjectStore>,
        prefix: Prefix,
    ) -> Result<Bucket, ArchiveError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(temporary)?;
        let mut bucket = Bucket { name, store, prefix, runtime, list: List::default() };
        bucket.list = bucket.runtime.block_on(bucket.list())?;
        Ok(bucket)
    }

    async fn list(&self) -> Result<List, BucketError> {
        let failed = |error| self.told(manifest::NAME, &error);
        let found = match self.store.get(&self.path(manifest::NAME)).await {
            Err(error @ Error::NotFound { .. }) => {
                return match failed(error) {
                    missing @ BucketError::Missing(_) => Err(missing),
                    _ => Ok(List::default()),
                };
            }
            found => found.map_err(failed)?,
        };
        let why = |why: &str| BucketError::Failed {
            place: self.name.clone(),
            file: manifest::NAME.to_owned(),
            why: why.to_owned(),
        };
        if found.meta.size > MANIFEST_BYTES_MAX {
            return Err(why("it is too long for a list of files"));
        }
        let version =
            UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let text = found.bytes().await.map_err(failed)?;
        let lines = manifest::lines(&text);
        let mut text = String::from_utf8(text.into()).map_err(|_| why("it is not text"))?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(List { text, lines, version: Some(version) })
    }

    fn path(&self, file: &str) -> Prefix {
        self.prefix.clone().join(file)
    }

    fn told(&self, file: &str, error: &Error) -> BucketError {
        BucketError::of(&self.name, file, error)
    }

    async fn send(
        &self,
        part: File,
        line: &Line,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), ArchiveError> {
        let told = |error| self.told(&line.file, &error);
        let path = self.path(&line.file);
        let mut source = Source::begin(part).map_err(temporary)?;
        if line.bytes <= ARCHIVE_SENT_BYTES as u64 {
            let bytes = source.next().map_err(temporary)?;
            source.check(line).map_err(temporary)?;
            self.store.put(&path, bytes.into()).await.map_err(told)?;
            return Ok(());
        }
        let mut upload = self.store.put_multipart(&path).await.map_err(told)?;
        let sent = self.send_parts(upload.as_mut(), source, line, tell).await;
        if sent.is_err() {
            // The bucket may not answer any more; what failed first is told.
            let _ = upload.abort().await;
        }
        sent
    }

    async fn send_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        mut source: Source,
        line: &Line,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), ArchiveError> {
        let told = |error| self.told(&line.file, &error);
        let mut last_told = Instant::now();
        loop {
            let bytes = source.next().map_err(temporary)?;
            if bytes.is_empty() {
                break;
            }
            upload.put_part(bytes.into()).await.map_err(told)?;
            if last_told.elapsed() > ARCHIVE_PROGRESS {
                last_told = Instant::now();
                tell(&format!("{}: {} of {} bytes sent …", line.file, source.bytes, line.bytes));
            }
        }
        source.check(line).map_err(temporary)?;
        upload.complete().await.map_err(told)?;
        Ok(())
    }

    async fn add(&self, text: String) -> Result<PutResult, ArchiveError> {
        let mode = self.list.version.clone().map_or(PutMode::Create, PutMode::Update);
        let options = PutOptions::from(mode);
        let put = self.store.put_opts(&self.path(manifest::NAME), text.into(), options).await;
        put.map_err(|error| match error {
            Error::AlreadyExists { .. } | Error::Precondition { .. } => {
                ArchiveError::InUse(self.name.clone())
            }
            error => self.told(manifest::NAME, &error).into(),
        })
    }
}

impl Place for Bucket {
    type Part = File;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn line(&self, file: &str) -> Option<&Line> {
        self.list.lines.get(file)
    }

    fn length(&self, file: &str) -> Result<Option<u64>, ArchiveError> {
        match self.runtime.block_on(self.store.head(&self.path(file))) {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.told(file, &error).into()),
        }
    }

    fn begin(&self, _file: &str) -> Result<File, ArchiveError> {
        tempfile::tempfile().map_err(temporary)
    }

    fn failed(&self, _file: &str, source: io::Error) -> ArchiveError {
        temporary(source)
    }

    fn keep(
        &mut self,
        part: File,
        line: &Line,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), ArchiveError> {
        self.runtime.block_on(self.send(part, line, tell))?;
        let added = line.text().map_err(|error| temporary(error.into()))?;
        let text = format!("{}{added}", self.list.text);
        let put = self.runtime.block_on(self.add(text))?;
        self.list.version = Some(UpdateVersion { e_tag: put.e_tag, version: put.version });
        self.list.text += &added;
        self.list.lines.insert(line.file.clone(), line.clone());
        Ok(())
    }
}

fn temporary(source: io::Error) -> ArchiveError {
    BucketError::Temporary { path: env::temp_dir(), source }.into()
}

/// A file that is whole, read in parts and summed again.
struct Source {
    file: File,
    sum: Sha256,
    bytes: u64,
}

impl Source {
    fn begin(mut file: File) -> io::Result<Source> {
        file.rewind()?;
        Ok(Source { file, sum: Sha256::new(), bytes: 0 })
    }

    /// The next part; nothing at the end.
    fn next(&mut self) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        (&self.file).take(ARCHIVE_SENT_BYTES as u64).read_to_end(&mut bytes)?;
        self.sum.update(&bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.into())
    }

    /// That what was read is what was written.
    fn check(self, line: &Line) -> io::Result<()> {
        if self.bytes == line.bytes && hexadecimal(&self.sum.finalize()) == line.sha256 {
            return Ok(());
        }
        Err(io::Error::other(format!("{} came back from the disk changed", line.file)))
    }
}
