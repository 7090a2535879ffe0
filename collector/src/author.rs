//! The collector as the author of records of its own.
//!
//! They have a host of their own ([`Agent::collector`]), a boot for each run, and sequences from 1, as
//! an agent's, and are signed as an agent's are. They go the way of all events, through the one
//! writer, and are read as all others are. What is not signed when a run ends, the next one signs: it
//! finds it in the store.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::{Arc, Mutex as Shared, PoisonError};

use jiff::Timestamp;
use prost::Message as _;
use sekimori_evidence::{ABSENT, Chain, Digest, Head, KeyError, Signed, SigningKey, digest};
use sekimori_proto::v1::{Event, Filter, Kind, Verdict};
use thiserror::Error;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{self, Instant, MissedTickBehavior};

use crate::identity::{Agent, Operator};
use crate::limits::{BOOT_BYTES, CHECKPOINT_EVENTS_MAX, CHECKPOINT_INTERVAL};
use crate::store::{Batch, Condition, Entry, ReadError, Store, WriteError, Writer, Written};

/// The file with the key, in the collector's directory.
pub const KEY_FILE: &str = "evidence.key";

/// Why there can be no records of the collector's own.
#[derive(Debug, Error)]
pub enum AuthorError {
    /// No random numbers.
    #[error("the system gives no random bytes for the boot of the collector's own records: {0}")]
    Random(getrandom::Error),
    /// No key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What it recorded earlier cannot be read.
    #[error("what the collector recorded earlier cannot be read: {0}")]
    Read(#[from] ReadError),
}

/// Writes the records.
#[derive(Clone, Debug)]
pub struct Author {
    writer: Writer,
    collector: Agent,
    key: Arc<SigningKey>,
    own: Arc<Mutex<Own>>,
}

#[derive(Debug)]
struct Own {
    chain: Chain,
    /// What earlier runs have left unsigned.
    left: VecDeque<Chain>,
    /// Something but signatures came since the last of them.
    news: bool,
}

impl Author {
    /// Begins the records of one run; `dir` has the key, or gets it.
    ///
    /// # Errors
    /// [`AuthorError`].
    pub async fn open(dir: &Path, store: &Store) -> Result<Author, AuthorError> {
        let mut boot = [0; BOOT_BYTES];
        getrandom::fill(&mut boot).map_err(AuthorError::Random)?;
        let key = SigningKey::open(&dir.join(KEY_FILE))?;
        let collector = Agent::collector();
        let (head, left) = left_unsigned(store, collector.name(), &key).await?;
        let own = Own { chain: Chain::new(&boot, head, 1), left, news: false };
        Ok(Author {
            writer: store.writer().clone(),
            collector,
            key: Arc::new(key),
            own: Arc::new(Mutex::new(own)),
        })
    }

    /// The host of these records.
    pub fn host(&self) -> &str {
        self.collector.name()
    }

    /// What it signs with.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Stores a record; boot, sequence, time and verdict are filled in. It is on the disk when this
    /// returns.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn store(&self, event: Event) -> Result<(), WriteError> {
        self.store_all(vec![event]).await
    }

    /// The same for many, in one commit.
    ///
    /// # Errors
    /// When they could not be stored: then none is.
    pub async fn store_all(&self, events: Vec<Event>) -> Result<(), WriteError> {
        let author = self.clone();
        to_the_end(async move { author.store_now(events).await }).await
    }

    async fn store_now(&self, events: Vec<Event>) -> Result<(), WriteError> {
        let mut own = self.own.lock().await;
        // So that what is behind the last signature in the store is what is not signed.
        while !own.left.is_empty() {
            self.sign_once(&mut own).await?;
        }
        let (sequences, written) = self.submit(&mut own, events).await?;
        own.news = true;
        drop(own);
        let result = written.await.unwrap_or(Err(WriteError::Stopping)).map(|_| ());
        if result.is_err() {
            absent(&mut self.own.lock().await.chain, sequences);
        }
        result
    }

    /// Signs what there is now.
    ///
    /// # Errors
    /// When the signature could not be stored.
    pub async fn sign(&self) -> Result<(), WriteError> {
        let author = self.clone();
        to_the_end(async move { author.sign_now().await }).await
    }

    async fn sign_now(&self) -> Result<(), WriteError> {
        let mut own = self.own.lock().await;
        while own.news || !own.left.is_empty() {
            self.sign_once(&mut own).await?;
        }
        Ok(())
    }

    async fn sign_once(&self, own: &mut MutexGuard<'_, Own>) -> Result<(), WriteError> {
        let head = own.chain.head();
        let Own { chain, left, .. } = &mut **own;
        let signed = left.front_mut().unwrap_or(chain);
        signed.signed(head, 0);
        let count = signed.digests().len().min(CHECKPOINT_EVENTS_MAX);
        let (checkpoint, head) = signed.sign(&self.key, count, now_ns(), 0);
        let event = Event {
            kind: Kind::Checkpoint.into(),
            checkpoint: Some(checkpoint),
            ..Event::default()
        };
        let (sequences, written) = self.submit(own, vec![event]).await?;
        if let Err(error) = written.await.unwrap_or(Err(WriteError::Stopping)) {
            absent(&mut own.chain, sequences);
            return Err(error);
        }
        let Own { chain, left, news } = &mut **own;
        match left.front_mut() {
            Some(earlier) => {
                earlier.signed(head, count);
                if earlier.digests().is_empty() {
                    left.pop_front();
                }
                chain.signed(head, 0);
            }
            None => {
                chain.signed(head, count);
                // The signature itself is left.
                *news = chain.digests().len() > 1;
            }
        }
        Ok(())
    }

    /// Signs every now and then, for ever.
    pub async fn run(self) {
        let mut ticks = time::interval_at(Instant::now(), CHECKPOINT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.sign().await {
                tracing::error!(%error, "what the collector recorded could not be signed");
            }
        }
    }

    /// Numbers records and hands them to the writer. The lock is held, so that the order of the
    /// numbers is that of the store.
    async fn submit(
        &self,
        own: &mut MutexGuard<'_, Own>,
        events: Vec<Event>,
    ) -> Result<(Range<u64>, Written), WriteError> {
        let first = own.chain.next();
        let mut entries = Vec::with_capacity(events.len());
        for (sequence, mut event) in (first..).zip(events) {
            event.boot = own.chain.boot().to_vec();
            event.sequence = sequence;
            event.time_ns = now_ns();
            if event.verdict() == Verdict::Unspecified {
                event.verdict = Verdict::Allowed.into();
            }
            let body = event.encode_to_vec();
            own.chain.note(sequence, digest(&[&body], event.lane));
            // Its boot is one.
            entries.extend(Entry::new(&event, body.into()));
        }
        let sequences = first..own.chain.next();
        match self.writer.submit(Batch::new(&self.collector, entries)).await {
            Ok(written) => Ok((sequences, written)),
            Err(error) => {
                absent(&mut own.chain, sequences);
                Err(error)
            }
        }
    }
}

/// Does it even if nobody waits for it any more. Numbers that were given and a signature that was made
/// are stored, or it is noted that they were not: otherwise the next signature would be over something
/// else than the store has.
async fn to_the_end(
    work: impl Future<Output = Result<(), WriteError>> + Send + 'static,
) -> Result<(), WriteError> {
    tokio::spawn(work).await.unwrap_or(Err(WriteError::Stopping))
}

/// Nothing was kept under these numbers.
fn absent(chain: &mut Chain, sequences: Range<u64>) {
    sequences.for_each(|sequence| chain.note(sequence, ABSENT));
}

fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// The last signature of earlier runs, and what came behind it.
async fn left_unsigned(
    store: &Store,
    host: &str,
    key: &SigningKey,
) -> Result<(Head, VecDeque<Chain>), AuthorError> {
    let reader = Operator::collector();
    let own = |kinds: Vec<i32>| {
        let filter = Filter { hosts: vec![host.to_owned()], kinds, ..Filter::default() };
        // It has no part that could be wrong.
        Condition::new(Some(&filter)).map(Arc::new).ok()
    };
    let (Some(checkpoints), Some(all)) = (own(vec![Kind::Checkpoint.into()]), own(Vec::new()))
    else {
        return Ok((Head::default(), VecDeque::new()));
    };
    let last = store.readers().last(&reader, checkpoints).await?;
    let from = last.as_ref().map_or(0, |event| event.cursor);
    let last =
        last.and_then(|event| Signed::open(event.checkpoint.as_ref()?).ok().zip(Some(event)));
    let last = last.filter(|(signed, _)| signed.key == key.public());
    let found: Arc<Shared<Vec<Found>>> = Arc::default();
    let finding = Arc::clone(&found);
    let each = move |stored: &crate::store::Stored<'_>| {
        if let Ok(event) = stored.event() {
            let digest = digest(&[stored.body], event.lane);
            let found =
                Found { cursor: stored.cursor, boot: event.boot, sequence: event.sequence, digest };
            finding.lock().unwrap_or_else(PoisonError::into_inner).push(found);
        }
        ControlFlow::Continue(())
    };
    // The last signature is behind what it signs, and is itself not signed.
    let range = (from.saturating_sub(1), store.committed().get());
    store.readers().scan(&reader, all, range, each).await?;
    let mut found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    found.sort_by_key(|it| it.cursor);
    let mut left: VecDeque<Chain> = VecDeque::new();
    let mut head = Head::default();
    if let Some((signed, _)) = &last {
        head = Head { number: signed.statement.number, sha256: signed.sha256 };
        let next = signed.statement.first + signed.count();
        left.push_back(Chain::new(&signed.statement.boot, head, next));
    }
    for Found { boot, sequence, digest, .. } in found {
        if left.back().is_none_or(|chain| chain.boot() != boot) {
            left.push_back(Chain::new(&boot, head, sequence));
        }
        if let Some(chain) = left.back_mut() {
            chain.note(sequence, digest);
        }
    }
    left.retain(|chain| !chain.digests().is_empty());
    Ok((head, left))
}

struct Found {
    cursor: u64,
    boot: Vec<u8>,
    sequence: u64,
    digest: Digest,
}
