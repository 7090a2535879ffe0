//! The one thread that writes.
//!
//! Batches of all agents wait in one bounded queue; the thread takes what is there and commits it
//! in one transaction. A batch is answered after the commit. When the commit fails, every batch in
//! it is refused, nothing of it is stored, and the thread goes on with a new connection.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::row::Row;
use super::{StoreError, schema};
use crate::bus::Committed;
use crate::identity::Agent;
use crate::limits::{COMMIT_EVENTS_MAX, WRITER_PAUSE, WRITER_QUEUE_MAX};

/// Why a batch was not stored. Nothing of it is.
#[derive(Clone, Debug, Error)]
pub enum WriteError {
    /// No room on the disk.
    #[error("the collector's disk is full; the batch is not stored, send it again later")]
    Full,
    /// Any other failure of the disk or database.
    #[error("the collector cannot write its store ({0}); the batch is not stored, send it again")]
    Failed(String),
    /// The writer has stopped.
    #[error("the collector is stopping; the batch is not stored, send it again")]
    Stopping,
}

/// What becomes of a batch: how many of its events were new.
pub type Written = oneshot::Receiver<Result<u32, WriteError>>;

#[derive(Debug)]
struct Job {
    host: String,
    rows: Vec<Row>,
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
}

impl Writer {
    /// Puts a batch into the queue, waiting for room; the receiver then says what became of it.
    ///
    /// # Errors
    /// [`WriteError::Stopping`].
    pub async fn submit(&self, agent: &Agent, rows: Vec<Row>) -> Result<Written, WriteError> {
        let (answer, written) = oneshot::channel();
        let job = Job { host: agent.name().to_owned(), rows, answer };
        self.queue.send(Message::Job(job)).await.map_err(|_| WriteError::Stopping)?;
        Ok(written)
    }

    /// Asks the thread to end after the batches that are queued now.
    pub async fn stop(&self) {
        // It has ended already when nobody takes this.
        let _ = self.queue.send(Message::Stop).await;
    }
}

/// Starts the thread on an open connection.
pub fn start(
    path: PathBuf,
    connection: Connection,
    committed: Committed,
) -> Result<(Writer, JoinHandle<()>), StoreError> {
    let (queue, messages) = mpsc::channel(WRITER_QUEUE_MAX);
    let mut thread = Thread { path, connection: Some(connection), committed };
    let handle = thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || thread.run(messages))
        .map_err(StoreError::Thread)?;
    Ok((Writer { queue }, handle))
}

struct Thread {
    path: PathBuf,
    /// None after a failure: the next commit opens a new one.
    connection: Option<Connection>,
    committed: Committed,
}

impl Thread {
    fn run(&mut self, mut messages: mpsc::Receiver<Message>) {
        let mut stop = false;
        while !stop {
            let Some(Message::Job(first)) = messages.blocking_recv() else {
                break;
            };
            let mut events = first.rows.len();
            let mut jobs = vec![first];
            while events < COMMIT_EVENTS_MAX {
                match messages.try_recv() {
                    Ok(Message::Job(job)) => {
                        events += job.rows.len();
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
        tracing::debug!("the writer of the store has ended");
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        match self.try_commit(&jobs) {
            Ok((cursor, counts)) => {
                self.committed.advance(cursor);
                for (job, stored) in jobs.into_iter().zip(counts) {
                    // The stream may have gone; the events are stored all the same.
                    let _ = job.answer.send(Ok(stored));
                }
            }
            Err(error) => {
                tracing::error!(%error, batches = jobs.len(), "the store cannot be written");
                let error = refusal(&error);
                for job in jobs {
                    let _ = job.answer.send(Err(error.clone()));
                }
                self.connection = None;
                thread::sleep(WRITER_PAUSE);
            }
        }
    }

    /// Stores all jobs or none. Returns the last cursor and, for each job, how many were new.
    fn try_commit(&mut self, jobs: &[Job]) -> Result<(u64, Vec<u32>), StoreError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            slot => slot.insert(schema::open_writer(&self.path)?),
        };
        insert_all(connection, jobs)
            .map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }
}

const COUNT_HOST: &str = "
    INSERT INTO hosts (host, events, last_event_ns, lost) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (host) DO UPDATE SET
        events = events + excluded.events,
        last_event_ns = max(last_event_ns, excluded.last_event_ns),
        lost = min(lost, 9223372036854775807 - excluded.lost) + excluded.lost";

fn insert_all(connection: &mut Connection, jobs: &[Job]) -> rusqlite::Result<(u64, Vec<u32>)> {
    // Dropping it on the way out rolls back.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut counts = Vec::with_capacity(jobs.len());
    {
        let mut insert = transaction.prepare_cached(Row::INSERT)?;
        let mut count_host = transaction.prepare_cached(COUNT_HOST)?;
        for job in jobs {
            let mut stored: u32 = 0;
            let mut last_event_ns = i64::MIN;
            let mut lost: i64 = 0;
            for row in &job.rows {
                if row.insert(&mut insert, &job.host)? {
                    stored = stored.saturating_add(1);
                    last_event_ns = last_event_ns.max(row.time_ns);
                    lost = lost.saturating_add(row.lost);
                }
            }
            if stored > 0 {
                count_host.execute(params![job.host, stored, last_event_ns, lost])?;
            }
            counts.push(stored);
        }
    }
    let cursor = super::read::last_cursor(&transaction)?;
    transaction.commit()?;
    Ok((cursor, counts))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use sekimori_proto::v1::Event;

    use super::*;

    fn rows(agent: &Agent, sequences: std::ops::Range<u64>) -> Vec<Row> {
        let event = |sequence| Event {
            boot: vec![1; 16],
            sequence,
            kind: 6,
            message: "x".repeat(4000),
            ..Event::default()
        };
        sequences.map(|sequence| Row::new(agent, event(sequence))).collect()
    }

    #[tokio::test]
    async fn a_full_disk_refuses_the_batch_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        let connection = schema::open_writer(&path).unwrap();
        // SQLite reports this limit as it reports a full disk. The connection that is opened after
        // the failure does not have it.
        let pages: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        connection.pragma_update(None, "max_page_count", pages + 20).unwrap();
        let committed = Committed::new(0);
        let (writer, thread) = start(path, connection, committed.clone()).unwrap();
        let agent = Agent::for_test("pc");
        let submit = async |sequences| {
            writer.submit(&agent, rows(&agent, sequences)).await.unwrap().await.unwrap()
        };
        assert_eq!(submit(1..6).await.unwrap(), 5);
        let error = submit(6..200).await.unwrap_err();
        assert!(matches!(error, WriteError::Full), "{error}");
        assert_eq!(committed.get(), 5, "nothing of the refused batch is stored");
        assert_eq!(submit(6..200).await.unwrap(), 194);
        assert_eq!(submit(1..200).await.unwrap(), 0);
        writer.stop().await;
        thread.join().unwrap();
        assert!(writer.submit(&agent, Vec::new()).await.is_err());
    }

    #[tokio::test]
    async fn batches_that_wait_together_are_answered_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        let connection = schema::open_writer(&path).unwrap();
        let (writer, thread) = start(path, connection, Committed::new(0)).unwrap();
        let (first, second) = (Agent::for_test("a"), Agent::for_test("b"));
        let mut answers = Vec::new();
        for (agent, sequences) in
            [(&first, 1..11), (&second, 1..11), (&first, 6..16), (&second, 1..1), (&first, 1..3)]
        {
            answers.push(writer.submit(agent, rows(agent, sequences)).await.unwrap());
        }
        // What was submitted before the wish to stop is stored.
        writer.stop().await;
        let mut counts = Vec::new();
        for answer in answers {
            counts.push(answer.await.unwrap().unwrap());
        }
        assert_eq!(counts, [10, 10, 5, 0, 0]);
        thread.join().unwrap();
    }
}
