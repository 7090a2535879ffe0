//! Certificates of this host or operator: got by a token, renewed before they end, kept in files.
//!
//! The private key is made here and never leaves this machine. What is renewed has a new key.

mod enroll;
mod files;
mod renew;
mod request;

use std::path::{Path, PathBuf};

pub use enroll::{Enrolment, enroll, read_token};
pub use files::{Credentials, Staged, read, stage};
pub use renew::{is_due, keep, renew_over};
pub use request::{Life, own_name};

/// Why there is no certificate, or no new one.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file or directory.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is a key already.
    #[error(
        "{} is there already: this machine is enrolled; --replace gives it up for a new one",
        .0.display()
    )]
    Exists(PathBuf),
    /// Somebody else could read a secret.
    #[error(
        "{} has mode {mode:03o}: others than its owner may read it; chmod 600 it, and make another \
         one if someone may have read it", path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Key and certificate are of different times.
    #[error(
        "{} does not belong to the key {}: put both back from the same enrolment, or enrol again",
        cert.display(), key.display()
    )]
    Mismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A certificate that cannot be read.
    #[error("the certificate {} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another process renews at this moment.
    #[error("another process renews the certificate {} just now", .0.display())]
    Busy(PathBuf),
    /// No key or request could be made.
    #[error("cannot make a key: {0}")]
    Key(rcgen::Error),
    /// The token.
    #[error(transparent)]
    Token(#[from] sekimori_proto::token::TokenError),
    /// An address that cannot be enrolled at.
    #[error("cannot enrol at {0}: expected https://HOST:PORT")]
    Address(String),
    /// No connection, or another collector.
    #[error("cannot connect to the collector at {address}: {message}")]
    Connect {
        /// The collector's address.
        address: String,
        /// What went wrong, innermost cause last.
        message: String,
    },
    /// The collector gave none.
    #[error("the collector gives no certificate: {message}")]
    Refused {
        /// The gRPC code.
        code: tonic::Code,
        /// What it said.
        message: String,
    },
    /// What it gave is not what was asked for.
    #[error("the collector's answer cannot be used: {0}; the files here are as they were")]
    Answer(&'static str),
}

impl CredentialsError {
    /// Whether the caller gave something that makes no sense.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Exists(_) | Self::Open { .. } | Self::Token(_) | Self::Address(_))
    }

    /// Whether something may not be done.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Self::File { source, .. } => source.kind() == std::io::ErrorKind::PermissionDenied,
            Self::Refused { code, .. } => {
                matches!(code, tonic::Code::PermissionDenied | tonic::Code::Unauthenticated)
            }
            _ => false,
        }
    }
}

fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> CredentialsError + 'a {
    move |source| CredentialsError::File { action, path: path.to_owned(), source }
}

fn refused(status: &tonic::Status) -> CredentialsError {
    CredentialsError::Refused { code: status.code(), message: status.message().to_owned() }
}

#[cfg(test)]
mod tests;
