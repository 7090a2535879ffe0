//! What can be wrong with an endpoint, and with a try to send.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::target::{Target, TargetError};
use crate::limits::{
    ENDPOINT_NAME_MAX, RECIPIENTS_MAX, SECRET_BYTES_MAX, SIGNING_SECRET_BYTES_MIN,
};

/// An endpoint cannot be used as it is written.
#[derive(Debug, Error)]
#[error("endpoint \"{name}\": {fault}")]
pub struct EndpointError {
    /// The endpoint.
    pub(super) name: String,
    /// What is wrong with it.
    pub(super) fault: Fault,
}

/// What is wrong with an endpoint. Secrets, and the paths of webhooks, are not shown.
#[derive(Debug, Error)]
pub enum Fault {
    /// Empty, too long, or with characters that logs and metrics cannot take.
    #[error("the name must have 1 to {ENDPOINT_NAME_MAX} letters, digits, `-`, `_` or `.`")]
    Name,
    /// None of the three, or more than one.
    #[error("say exactly one of `mail`, `webhook` and `syslog`")]
    NotOne,
    /// `server` is no host with a port.
    #[error("`server`: {0}")]
    Server(#[from] TargetError),
    /// The list does not have it.
    #[error("{0} is not in the `egress` list: add `{0}` to it if notices may go there")]
    Egress(Target),
    /// The URL of a webhook.
    #[error("`url`: {0}")]
    Url(&'static str),
    /// A file that cannot be read.
    #[error("{field} {path}: {source}", path = .path.display())]
    File {
        /// As it is called in the configuration.
        field: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A secret that more than its owner and group may read.
    #[error(
        "{field} {path} has mode {mode:04o}: others can read it, or change it. \
         Run `chmod 600 {path}`", path = .path.display()
    )]
    Open {
        /// As it is called in the configuration.
        field: &'static str,
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A secret that cannot be one.
    #[error("{field} {path}: {reason}", path = .path.display())]
    Secret {
        /// As it is called in the configuration.
        field: &'static str,
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: SecretReason,
    },
    /// `user` without `password_file`, or the other way round.
    #[error("`user` and `password_file` belong together: say both, or neither")]
    HalfLogin,
    /// A name for the login that SMTP cannot carry.
    #[error("`user` must be 1 to 256 bytes without control characters")]
    User,
    /// An address of a mail.
    #[error(
        "`{field}`: {address:?} is no mail address: write `someone@example.org` or \
         `Name <someone@example.org>`, in ASCII but for the name"
    )]
    Address {
        /// As it is called in the configuration.
        field: &'static str,
        /// What is written there.
        address: String,
    },
    /// No recipient, or too many.
    #[error("`to` must have 1 to {RECIPIENTS_MAX} addresses, and has {0}: use a list address")]
    Recipients(usize),
    /// Authorities that cannot be read.
    #[error("ca_file {path}: {reason}", path = .path.display())]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The system has no authorities.
    #[error(
        "this system has no certificates of authorities ({0}): install `ca-certificates`, or say \
         `ca_file`"
    )]
    NoRoots(String),
    /// `ca_file` where there is no TLS.
    #[error("`ca_file` is for TLS: say `transport: tls`, or leave it out")]
    NoTls,
    /// The TLS library refuses its own settings.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// What is wrong with a secret.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SecretReason {
    /// A directory, a device.
    #[error("is no file")]
    NoFile,
    /// Nothing, or an empty line.
    #[error("is empty")]
    Empty,
    /// More than a secret has.
    #[error("has more than {SECRET_BYTES_MAX} bytes")]
    Long,
    /// It can be guessed.
    #[error(
        "has fewer than {SIGNING_SECRET_BYTES_MIN} bytes: `openssl rand -hex 32` makes a good one"
    )]
    Short,
    /// A password is sent as text.
    #[error("is not text in UTF-8 in one line")]
    NoText,
}

/// A notice was not delivered, or nobody knows whether it was.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct SendError {
    reason: String,
    is_final: bool,
    retry_after: Option<Duration>,
}

impl SendError {
    /// Another try may succeed.
    pub(super) fn retry(reason: impl Into<String>) -> SendError {
        SendError { reason: reason.into(), is_final: false, retry_after: None }
    }

    /// This notice will not be taken, however often it is sent.
    pub(super) fn last(reason: impl Into<String>) -> SendError {
        SendError { reason: reason.into(), is_final: true, retry_after: None }
    }

    /// All of it was not done in the time that there is.
    pub(super) fn late(target: &Target, time_max: Duration) -> SendError {
        SendError::retry(format!("{target} did not finish within {time_max:?}"))
    }

    /// Not before so long, says the other side.
    pub(super) fn after(mut self, retry_after: Option<Duration>) -> SendError {
        self.retry_after = retry_after;
        self
    }

    /// Whether this notice will not be taken, however often it is sent. What is wrong with the
    /// endpoint and can be mended is not final: a password, a certificate, a name.
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// How long the other side asks to wait, an hour at most.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}
