//! One spool for the task that appends and the task that ships.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sekimori_proto::v1::Event;
use tokio::sync::Notify;

use super::read::{Batch, BatchEnd, Reader};
use super::{Boot, Lane, Spool, SpoolError, SpoolLoss, SpoolStats};

/// A spool behind a lock. The lock is held for memory copies and one read or write of at most
/// about a megabyte; `fdatasync` happens outside of it.
#[derive(Clone, Debug)]
pub struct SharedSpool {
    spool: Arc<Mutex<Option<Spool>>>,
    flushed: Arc<Notify>,
    boot: Boot,
    /// The time that the last flush was told.
    flush_time_ns: Arc<AtomicI64>,
}

impl SharedSpool {
    /// Shares a spool.
    #[must_use]
    pub fn new(spool: Spool) -> Self {
        let boot = spool.boot();
        Self {
            spool: Arc::new(Mutex::new(Some(spool))),
            flushed: Arc::default(),
            boot,
            flush_time_ns: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Spool>> {
        // A panic between two steps leaves at worst an event that is not yet counted as written.
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` unless the spool is closed.
    fn with<T>(&self, work: impl FnOnce(&mut Spool) -> T) -> Option<T> {
        self.lock().as_mut().map(work)
    }

    /// The 16 bytes that name this start of the agent.
    #[must_use]
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// As [`Spool::append`]. After [`SharedSpool::close`] events are not kept and get number 0.
    ///
    /// # Errors
    /// As [`Spool::append`].
    pub fn append(&self, lane: Lane, event: &Event) -> Result<u64, SpoolError> {
        self.with(|spool| spool.append(lane, event)).unwrap_or(Ok(0))
    }

    /// As [`Spool::append_with`], and like [`SharedSpool::append`] once it is closed.
    ///
    /// # Errors
    /// As [`Spool::append`].
    pub fn append_with(
        &self,
        lane: Lane,
        kind: i32,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, SpoolError> {
        self.with(|spool| spool.append_with(lane, kind, encode)).unwrap_or(Ok(0))
    }

    /// Appends Loss events for what was lost ([`Spool::record_losses`]) and a signature when one is
    /// due ([`Spool::checkpoint`]), flushes, and wakes the shipper. `time_ns` is now, UTC ns since 1970.
    ///
    /// # Errors
    /// As [`Spool::flush`].
    pub fn flush(&self, time_ns: i64) -> Result<(), SpoolError> {
        self.write(time_ns, false)
    }

    /// As [`SharedSpool::flush`], and all that is there by then is signed.
    ///
    /// # Errors
    /// As [`Spool::flush`].
    pub fn sign_off(&self, time_ns: i64) -> Result<(), SpoolError> {
        self.write(time_ns, true)
    }

    fn write(&self, time_ns: i64, now: bool) -> Result<(), SpoolError> {
        self.flush_time_ns.store(time_ns, Ordering::Relaxed);
        let result = self.with(|spool| {
            let recorded = spool.record_losses(time_ns).map(drop);
            let signed = spool.checkpoint(time_ns, now);
            spool.flush().and(recorded).and(signed)
        });
        self.flushed.notify_waiters();
        result.unwrap_or(Ok(()))
    }

    /// Makes what is flushed survive the machine. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// What the system said.
    pub fn sync(&self) -> Result<(), SpoolError> {
        let files = self.with(Spool::take_unsynced).unwrap_or_default();
        for file in files {
            file.sync_data().map_err(SpoolError::storage("sync", "a segment"))?;
        }
        Ok(())
    }

    /// Adds a loss that happened elsewhere on the way; it is recorded at the next flush.
    pub fn note_loss(&self, loss: SpoolLoss) {
        self.with(|spool| spool.note_loss(loss));
    }

    /// A reader at the acknowledged position.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.with(|spool| Reader::new(spool)).unwrap_or_default()
    }

    /// Puts a reader back to the acknowledged position.
    pub fn rewind(&self, reader: &mut Reader) {
        self.with(|spool| reader.rewind(spool));
    }

    /// As [`Reader::next_batch`].
    pub fn next_batch(&self, reader: &mut Reader) -> Option<Batch> {
        self.with(|spool| reader.next_batch(spool)).flatten()
    }

    /// As [`Spool::acknowledge`].
    ///
    /// # Errors
    /// As [`Spool::acknowledge`].
    pub fn acknowledge(&self, end: BatchEnd) -> Result<(), SpoolError> {
        self.with(|spool| spool.acknowledge(end)).unwrap_or(Ok(()))
    }

    /// Gives up what stands up to `end`: the losses are on disk as Loss events before the spool
    /// forgets the events. Their time is that of the last flush: the lost event's own time may be
    /// what is wrong with it.
    ///
    /// # Errors
    /// As [`Spool::flush`] and [`Spool::acknowledge`].
    pub fn discard(&self, end: BatchEnd, losses: Vec<SpoolLoss>) -> Result<(), SpoolError> {
        let time_ns = self.flush_time_ns.load(Ordering::Relaxed);
        let result = self.with(|spool| {
            losses.into_iter().for_each(|loss| spool.note_loss(loss));
            let recorded = spool.record_losses(time_ns);
            let flushed = spool.flush();
            spool.acknowledge(end).and(recorded.map(drop)).and(flushed)
        });
        self.flushed.notify_waiters();
        result.unwrap_or(Ok(()))
    }

    /// Where the spool stands.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        self.with(|spool| spool.stats()).unwrap_or_default()
    }

    /// Notified at each flush. Make and `enable` the future, look for a batch, then wait: no
    /// flush in between is missed.
    #[must_use]
    pub fn flushed(&self) -> Arc<Notify> {
        Arc::clone(&self.flushed)
    }

    /// Closes the spool in order ([`Spool::close`]); later calls do nothing.
    ///
    /// # Errors
    /// As [`Spool::close`].
    pub fn close(&self) -> Result<(), SpoolError> {
        let spool = self.lock().take();
        spool.map_or(Ok(()), Spool::close)
    }
}
