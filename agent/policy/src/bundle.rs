//! A policy as a collector gives it to hosts: signed, numbered, and for some of them.
//!
//! What is signed says itself which hosts it is for, and its epoch: whoever stands between, and a
//! collector without the key, can keep a bundle back, and nothing else.

use std::io::{self, Read as _};

use glob::Pattern;
use prost::Message as _;
use sekimori_evidence::{SigningKey, is_signed};
use sekimori_proto::v1::{PolicyBundle, PolicyStatement};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::limits::{
    BUNDLE_BYTES_MAX, BUNDLE_HOSTS_MAX, BUNDLE_REASON_BYTES_MAX, DOCUMENT_BYTES_MAX, NAME_BYTES_MAX,
};

/// Stands before what is signed: nothing else that this key may sign begins so.
const CONTEXT: &[u8] = b"sekimori policy 1\n";
/// Stands before what chooses the hosts of a part of a rollout.
const CANARY: &[u8] = b"sekimori canary 1\n";
/// Bytes of a public key.
const KEY_BYTES: usize = 32;
/// Stands before a public key in a file.
const KEY_PREFIX: &str = "ed25519:";
/// The largest epoch: numbers in databases have 63 bits.
const EPOCH_MAX: u64 = i64::MAX.unsigned_abs();

/// What is wrong with a bundle. Nothing of the policy's text stands in these.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BundleError {
    /// Before anything else is looked at.
    #[error("it has {0} bytes, at most {BUNDLE_BYTES_MAX}")]
    TooLarge(usize),
    /// Not what the owner of the key signed.
    #[error("its signature is not that of the key that this host was given")]
    Signature,
    /// Signed, and not what a bundle says.
    #[error("what is signed is no policy: {0}")]
    Statement(&'static str),
    /// A pattern of host names.
    #[error("{0:?} is no pattern of host names")]
    Hosts(String),
    /// It was in force before, or one that is newer.
    #[error("its epoch {epoch} is not higher than {last}, which this host has had")]
    Epoch {
        /// Its own.
        epoch: u64,
        /// The last one.
        last: u64,
    },
    /// For others.
    #[error("it is not for the host {0}")]
    Host(String),
}

/// Signs a statement.
pub fn sign(key: &SigningKey, statement: &PolicyStatement) -> PolicyBundle {
    let statement = statement.encode_to_vec();
    let signature = key.sign(&message(&statement));
    PolicyBundle { statement: statement.into(), signature }
}

fn message(statement: &[u8]) -> Vec<u8> {
    [CONTEXT, statement].concat()
}

/// Checks the signature of a bundle, and that it is whole.
///
/// # Errors
/// [`BundleError`].
pub fn open(bundle: &PolicyBundle, key: &[u8]) -> Result<PolicyStatement, BundleError> {
    let size = bundle.statement.len().saturating_add(bundle.signature.len());
    if size > BUNDLE_BYTES_MAX {
        return Err(BundleError::TooLarge(size));
    }
    if !is_signed(key, &message(&bundle.statement), &bundle.signature) {
        return Err(BundleError::Signature);
    }
    let statement = PolicyStatement::decode(bundle.statement.clone())
        .map_err(|_| BundleError::Statement("it cannot be decoded"))?;
    check(&statement)?;
    Ok(statement)
}

/// Looks whether a statement is one that may be signed.
///
/// # Errors
/// [`BundleError`].
pub fn check(statement: &PolicyStatement) -> Result<(), BundleError> {
    let PolicyStatement { epoch, name, hosts, percent, reason, by, .. } = statement;
    if !(1..=EPOCH_MAX).contains(epoch) {
        return Err(BundleError::Statement("its epoch is no number from 1"));
    }
    if !(1..=100).contains(percent) {
        return Err(BundleError::Statement("its percentage is not 1 to 100"));
    }
    if hosts.len() > BUNDLE_HOSTS_MAX {
        return Err(BundleError::Statement("it names too many hosts"));
    }
    if name.len() > NAME_BYTES_MAX || reason.len().max(by.len()) > BUNDLE_REASON_BYTES_MAX {
        return Err(BundleError::Statement("its name or reason is too long"));
    }
    hosts.iter().try_for_each(|text| pattern(text).map(drop))
}

/// A bundle for `host`, which had epoch `last` before (0: none).
///
/// # Errors
/// [`BundleError`]; then nothing of it may be used.
pub fn accept(
    bundle: &PolicyBundle,
    key: &[u8],
    host: &str,
    last: u64,
) -> Result<(PolicyStatement, Vec<u8>), BundleError> {
    let statement = open(bundle, key)?;
    if statement.epoch <= last {
        return Err(BundleError::Epoch { epoch: statement.epoch, last });
    }
    if !is_for(&statement, host) {
        return Err(BundleError::Host(host.to_owned()));
    }
    let text = text(&statement)?;
    Ok((statement, text))
}

/// Whether a host is to run it: it is one of those named, and within the percentage.
pub fn is_for(statement: &PolicyStatement, host: &str) -> bool {
    Audience::of(statement).is_ok_and(|audience| audience.has(host))
}

/// The hosts that a policy is for.
#[derive(Clone, Debug)]
pub struct Audience {
    epoch: u64,
    percent: u32,
    patterns: Vec<Pattern>,
}

impl Audience {
    /// Of a statement.
    ///
    /// # Errors
    /// [`BundleError::Hosts`].
    pub fn of(statement: &PolicyStatement) -> Result<Self, BundleError> {
        let PolicyStatement { hosts, epoch, percent, .. } = statement;
        let patterns = hosts.iter().map(|text| pattern(text)).collect::<Result<_, _>>()?;
        Ok(Self { epoch: *epoch, percent: *percent, patterns })
    }

    /// Whether a host is one of them.
    pub fn has(&self, host: &str) -> bool {
        let named = self.patterns.is_empty() || self.patterns.iter().any(|it| it.matches(host));
        named && place(host, self.epoch) < self.percent
    }
}

/// The policy's text.
///
/// # Errors
/// When it does not fit or is not what its hash says.
pub fn text(statement: &PolicyStatement) -> Result<Vec<u8>, BundleError> {
    let unpacked = unpack(&statement.text_zstd)
        .map_err(|_| BundleError::Statement("its text cannot be unpacked"))?;
    if unpacked.len() > DOCUMENT_BYTES_MAX {
        return Err(BundleError::Statement("its text is too long"));
    }
    if Sha256::digest(&unpacked).as_slice() != statement.sha256 {
        return Err(BundleError::Statement("its text has another hash"));
    }
    Ok(unpacked)
}

fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let most = DOCUMENT_BYTES_MAX as u64 + 1;
    zstd::stream::read::Decoder::new(packed)?.take(most).read_to_end(&mut text)?;
    Ok(text)
}

/// A host's place among all, 0 to 99; another one in each epoch, so that the same hosts are not
/// always the first.
fn place(host: &str, epoch: u64) -> u32 {
    let mut hash = Sha256::new_with_prefix(CANARY);
    hash.update(epoch.to_be_bytes());
    hash.update(host);
    let first: [u8; 8] = *hash.finalize().first_chunk().unwrap_or(&[0; 8]);
    (u64::from_be_bytes(first) % 100) as u32
}

fn pattern(text: &str) -> Result<Pattern, BundleError> {
    let bad = || BundleError::Hosts(text.chars().take(NAME_BYTES_MAX).collect());
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(bad());
    }
    Pattern::new(text).map_err(|_| bad())
}

/// A public key as it stands in a file.
pub fn key_text(key: &[u8]) -> String {
    format!("{KEY_PREFIX}{}\n", sekimori_evidence::hex(key))
}

/// The key in the text of such a file; `None` when there is none.
pub fn key_of(text: &str) -> Option<Vec<u8>> {
    let key = sekimori_evidence::unhex(text.trim().strip_prefix(KEY_PREFIX)?)?;
    (key.len() == KEY_BYTES).then_some(key)
}
