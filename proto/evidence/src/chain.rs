//! The chain as its author makes it.

use sekimori_proto::v1::{Checkpoint, CheckpointStatement};

use crate::checkpoint::sign;
use crate::digest::{ABSENT, Digest};
use crate::key::SigningKey;

/// The last link of a chain; before the first its number is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Counted over all boots of an author.
    pub number: u64,
    /// SHA-256 of its statement.
    pub sha256: [u8; 32],
}

/// What an author has noted since it signed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    boot: Vec<u8>,
    head: Head,
    first: u64,
    digests: Vec<Digest>,
}

impl Chain {
    /// Behind `head`, with the events of `boot` from the sequence `first` on.
    #[must_use]
    pub fn new(boot: &[u8], head: Head, first: u64) -> Chain {
        Chain { boot: boot.to_vec(), head, first, digests: Vec::new() }
    }

    /// The last link.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// The boot whose events these are.
    #[must_use]
    pub fn boot(&self) -> &[u8] {
        &self.boot
    }

    /// The sequence of the first event that is not signed.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The sequence that comes next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.first + self.digests.len() as u64
    }

    /// The digests that are not signed yet, from [`Chain::first`] on.
    #[must_use]
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// Notes an event. Nothing was kept under the numbers that are passed over; what is below the
    /// next one replaces what was noted of it.
    pub fn note(&mut self, sequence: u64, digest: Digest) {
        let Some(place) = sequence.checked_sub(self.first).and_then(|it| usize::try_from(it).ok())
        else {
            return;
        };
        if self.digests.len() <= place {
            self.digests.resize(place + 1, ABSENT);
        }
        if let Some(slot) = self.digests.get_mut(place) {
            *slot = digest;
        }
    }

    /// Signs the first `count` events that are noted; [`Chain::signed`] makes it count. `dropped`:
    /// events of this boot that could not be kept.
    #[must_use]
    pub fn sign(
        &self,
        key: &SigningKey,
        count: usize,
        time_ns: i64,
        dropped: u64,
    ) -> (Checkpoint, Head) {
        let Chain { boot, head, first, digests } = self;
        let digests = digests.get(..count).unwrap_or(digests);
        let statement = CheckpointStatement {
            boot: boot.clone(),
            number: head.number + 1,
            previous: if head.number == 0 { Vec::new() } else { head.sha256.to_vec() },
            first: *first,
            digests: digests.as_flattened().to_vec(),
            time_ns,
            dropped,
        };
        let (checkpoint, sha256) = sign(key, &statement);
        (checkpoint, Head { number: statement.number, sha256 })
    }

    /// A link with the first `count` digests is kept and is the last one now.
    pub fn signed(&mut self, head: Head, count: usize) {
        let count = count.min(self.digests.len());
        self.digests.drain(..count);
        self.first += count as u64;
        self.head = head;
    }
}
