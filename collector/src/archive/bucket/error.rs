//! What a bucket says when it does not want, in words of one line and without what is secret.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::alert::deliver::one_line;
use crate::limits::ANSWER_TOLD_BYTES_MAX;

/// Why a bucket cannot be written to. What it has stays.
#[derive(Debug, Error)]
pub enum BucketError {
    /// An option says what cannot be.
    #[error("{option}: {why}")]
    Option {
        /// Which.
        option: &'static str,
        /// What is wrong; never a credential.
        why: String,
    },
    /// The credentials.
    #[error("--s3-credentials {path}: {why}", path = .path.display())]
    Credentials {
        /// Their file.
        path: PathBuf,
        /// What is wrong; never what is in it.
        why: String,
    },
    /// Nobody made it.
    #[error("archive {0}: there is no such bucket; make it, or name another one with --to")]
    Missing(String),
    /// Its owner does not want.
    #[error(
        "archive {place}: {why}; look at the credentials, and at what their owner may do there: \
         s3:ListBucket, s3:GetObject, s3:PutObject, s3:AbortMultipartUpload"
    )]
    Refused {
        /// The archive.
        place: String,
        /// What it says.
        why: String,
    },
    /// It does not answer, or not as S3 does.
    #[error(
        "archive {place}: {file}: {why}; what is listed stays, and the command can be repeated"
    )]
    Failed {
        /// The archive.
        place: String,
        /// The file.
        file: String,
        /// What it says.
        why: String,
    },
    /// What is to be sent is written there first.
    #[error(
        "{path}: {source}; a file of the archive is written there first: name a directory with \
         room for it in TMPDIR", path = .path.display()
    )]
    Temporary {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl BucketError {
    /// Of an error about a file of the archive.
    pub fn of(place: &str, file: &str, error: &object_store::Error) -> BucketError {
        use object_store::Error::{PermissionDenied, Unauthenticated};

        let (place, text) = (place.to_owned(), error.to_string());
        if element(&text, "Code") == Some("NoSuchBucket") {
            return BucketError::Missing(place);
        }
        let why = why(error, &text);
        match error {
            PermissionDenied { .. } | Unauthenticated { .. } => BucketError::Refused { place, why },
            _ => BucketError::Failed { place, file: file.to_owned(), why },
        }
    }
}

/// Code and message of an answer of S3; the rest of it repeats what was asked. Without an answer,
/// what is at the bottom of the error.
fn why(error: &object_store::Error, text: &str) -> String {
    let why = match (element(text, "Code"), element(text, "Message")) {
        (Some(code), message) => format!("{code}: {}", message.unwrap_or_default()),
        (None, _) => {
            let mut cause = error.source();
            while let Some(next) = cause.and_then(|it| it.source()) {
                cause = Some(next);
            }
            cause.map_or_else(|| text.to_owned(), ToString::to_string)
        }
    };
    one_line(why.trim_end_matches([':', ' ', '.']), ANSWER_TOLD_BYTES_MAX)
}

fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}
