//! A link of the chain: signed, and opened again.

use prost::Message as _;
use sekimori_proto::v1::{Checkpoint, CheckpointStatement};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::digest::{DIGEST_BYTES, Digest};
use crate::key::{SigningKey, is_signed};

/// Stands before what is signed: nothing else that this key may sign begins so.
const CONTEXT: &[u8] = b"sekimori checkpoint 1\n";

/// The largest number of an event or a link.
const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// Not what this key signed.
    #[error("its signature does not hold")]
    Signature,
    /// Signed, and no statement.
    #[error("what is signed is no statement")]
    Statement,
}

/// A link whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What is signed.
    pub statement: CheckpointStatement,
    /// SHA-256 of it, by which the next link names this one.
    pub sha256: [u8; 32],
    /// Public key of the author.
    pub key: Vec<u8>,
}

impl Signed {
    /// Checks the signature of a link. Whose key it is must be known from elsewhere.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(checkpoint: &Checkpoint) -> Result<Signed, CheckpointError> {
        let Checkpoint { statement, key, signature } = checkpoint;
        if !is_signed(key, &message(statement), signature) {
            return Err(CheckpointError::Signature);
        }
        let sha256 = Sha256::digest(statement).into();
        let statement = CheckpointStatement::decode(statement.as_slice())
            .map_err(|_| CheckpointError::Statement)?;
        let whole = statement.digests.len().is_multiple_of(DIGEST_BYTES);
        // Sequences are numbers of 63 bits, and so are those of links: no sum of them is too large.
        let numbered = (1..=NUMBER_MAX).contains(&statement.number)
            && (1..=NUMBER_MAX).contains(&statement.first);
        if !whole || !numbered {
            return Err(CheckpointError::Statement);
        }
        Ok(Signed { statement, sha256, key: key.clone() })
    }

    /// The sequences that are signed, and the digest of each.
    pub fn digests(&self) -> impl Iterator<Item = (u64, Digest)> {
        let (digests, _) = self.statement.digests.as_chunks::<DIGEST_BYTES>();
        (self.statement.first..).zip(digests.iter().copied())
    }

    /// How many these are.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.statement.digests.len() / DIGEST_BYTES) as u64
    }
}

/// Signs a statement. Also gives its SHA-256.
pub(crate) fn sign(key: &SigningKey, statement: &CheckpointStatement) -> (Checkpoint, [u8; 32]) {
    let statement = statement.encode_to_vec();
    let sha256 = Sha256::digest(&statement).into();
    let signature = key.sign(&message(&statement));
    (Checkpoint { key: key.public(), signature, statement }, sha256)
}

fn message(statement: &[u8]) -> Vec<u8> {
    [CONTEXT, statement].concat()
}
