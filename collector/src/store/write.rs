//! The one thread that writes.
//!
//! Batches of all agents wait in one bounded queue; the thread takes what is there and commits it
//! in one transaction. A batch is answered after the commit. When the commit fails, every batch in
//! it is refused, nothing of it is stored, and the thread goes on with a new connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rusqlite::ErrorCode;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::block::Placed;
use super::current::Current;
use super::entry::Batch;
use super::files::Files;
use super::meter::Meter;
use super::totals::{Total, Totals};
use crate::bus::Committed;
use crate::limits::{COMMIT_EVENTS_MAX, COMMIT_GATHER, WRITER_PAUSE, WRITER_QUEUE_MAX};

/// Why a batch was not stored. Nothing of it is.
#[derive(Clone, Debug, Error)]
pub enum WriteError {
    /// No room on the disk.
    #[error("the collector's disk is full; the batch is not stored, send it again later")]
    Full,
    /// Any other failure of the disk or database.
    #[error("the collector cannot write its store ({0}); the batch is not stored, send it again")]
    Failed(String),
    /// It was to be passed on, and could not be.
    #[error("the collector's bus does not take the batch ({0}); send it again")]
    Bus(String),
    /// The writer has stopped.
    #[error("the collector is stopping; the batch is not stored, send it again")]
    Stopping,
}

/// What becomes of a batch: how many of its events were new.
pub type Written = oneshot::Receiver<Result<u32, WriteError>>;

#[derive(Debug)]
struct Job {
    batch: Batch,
    answer: oneshot::Sender<Result<u32, WriteError>>,
}

#[derive(Debug)]
enum Message {
    Job(Job),
    Stop,
}

/// Hands batches to the thread.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: mpsc::Sender<Message>,
    failing: Arc<AtomicBool>,
}

impl Writer {
    /// Puts a batch into the queue, waiting for room; the receiver then says what became of it.
    ///
    /// # Errors
    /// [`WriteError::Stopping`].
    pub async fn submit(&self, batch: Batch) -> Result<Written, WriteError> {
        let (answer, written) = oneshot::channel();
        let job = Job { batch, answer };
        self.queue.send(Message::Job(job)).await.map_err(|_| WriteError::Stopping)?;
        Ok(written)
    }

    /// Whether the last commit failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Asks the thread to end after the batches that are queued now.
    pub async fn stop(&self) {
        // It has ended already when nobody takes this.
        let _ = self.queue.send(Message::Stop).await;
    }
}

/// What the writer shares with those who read.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The files.
    pub files: Files,
    /// How far they are committed.
    pub committed: Committed,
    /// The numbers of the hosts.
    pub totals: Totals,
    /// What is counted of its work.
    pub meter: Meter,
}

/// Starts the thread on the file that is written to.
pub fn start(current: Current, shared: Shared) -> Result<(Writer, JoinHandle<()>), StoreError> {
    let (queue, messages) = mpsc::channel(WRITER_QUEUE_MAX);
    let failing = Arc::new(AtomicBool::new(false));
    let mut thread = Thread { current, shared, failing: Arc::clone(&failing) };
    let handle = thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || thread.run(messages))
        .map_err(StoreError::Thread)?;
    Ok((Writer { queue, failing }, handle))
}

struct Thread {
    current: Current,
    shared: Shared,
    failing: Arc<AtomicBool>,
}

impl Thread {
    fn run(&mut self, mut messages: mpsc::Receiver<Message>) {
        let mut stop = false;
        while !stop {
            let Some(Message::Job(first)) = messages.blocking_recv() else {
                break;
            };
            let mut events = first.batch.entries.len();
            let mut jobs = vec![first];
            // A moment for others to come: a commit costs about the same for one and for many.
            thread::sleep(COMMIT_GATHER);
            while events < COMMIT_EVENTS_MAX {
                match messages.try_recv() {
                    Ok(Message::Job(job)) => {
                        events += job.batch.entries.len();
                        jobs.push(job);
                    }
                    Ok(Message::Stop) => {
                        stop = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
            self.commit(jobs);
        }
        self.current.close();
        tracing::debug!("the writer of the store has ended");
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let (batches, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|Job { batch, answer }| (batch, answer)).unzip();
        let begun = Instant::now();
        let result = self.try_commit(batches);
        // That nothing was to be written says nothing of the disk.
        if !result.as_ref().is_ok_and(|counts| counts.iter().all(|count| *count == 0)) {
            self.failing.store(result.is_err(), Ordering::Relaxed);
        }
        match result {
            Ok(counts) => {
                self.shared.meter.committed(counts.len(), begun.elapsed());
                for (answer, stored) in answers.into_iter().zip(counts) {
                    // The stream may have gone; the events are stored all the same.
                    let _ = answer.send(Ok(stored));
                }
            }
            Err(error) => {
                tracing::error!(%error, batches = answers.len(), "the store cannot be written");
                self.shared.meter.failed(answers.len());
                let error = refusal(&error);
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
                thread::sleep(WRITER_PAUSE);
            }
        }
    }

    /// Stores all batches or none. Returns, for each, how many of its events were new.
    fn try_commit(&mut self, batches: Vec<Batch>) -> Result<Vec<u32>, StoreError> {
        self.current.begin(&self.shared.files, &self.shared.totals)?;
        let mut counts = Vec::with_capacity(batches.len());
        let mut new = Vec::with_capacity(batches.iter().map(|it| it.entries.len()).sum());
        let mut totals: BTreeMap<Arc<str>, Total> = BTreeMap::new();
        let mut kinds: BTreeMap<i32, u64> = BTreeMap::new();
        for Batch { host, entries } in batches {
            let host: Arc<str> = host.into();
            let entries = self.current.keep_new(&host, entries);
            counts.push(u32::try_from(entries.len()).unwrap_or(u32::MAX));
            if entries.is_empty() {
                continue;
            }
            let total =
                totals.entry(Arc::clone(&host)).or_insert_with(|| self.shared.totals.of(&host));
            for entry in &entries {
                *kinds.entry(entry.kind).or_default() += 1;
                let (last_event_ns, lost) = (entry.time_ns, entry.lost);
                *total = total.with(Total { events: 1, last_event_ns, lost });
            }
            new.extend(entries.into_iter().map(|entry| Placed {
                cursor: 0,
                host: Arc::clone(&host),
                entry,
            }));
        }
        let cursor = self.current.commit(new, &totals)?;
        self.shared.meter.stored(&kinds);
        totals.iter().for_each(|(host, total)| self.shared.totals.set(host, *total));
        // Last of all: whoever waits for this reads what is above.
        self.shared.committed.advance(cursor);
        Ok(counts)
    }
}

fn refusal(error: &StoreError) -> WriteError {
    match error {
        StoreError::Sqlite { source, .. }
            if source.sqlite_error_code() == Some(ErrorCode::DiskFull) =>
        {
            WriteError::Full
        }
        StoreError::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            WriteError::Full
        }
        error => WriteError::Failed(error.to_string()),
    }
}
