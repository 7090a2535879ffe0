//! Where delivery stands, for the local commands.

use std::time::Duration;

use tokio::sync::watch;

use crate::spool::SharedSpool;

/// State of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ShipState {
    /// On the way to the collector.
    #[default]
    Connecting,
    /// The stream is open.
    Connected,
    /// Broken; tried again after the delay.
    Retrying {
        /// What went wrong last.
        error: String,
        /// Wait before the next attempt, ms.
        delay_ms: u64,
    },
    /// Delivery has ended.
    Stopped,
}

/// Counts since the agent's start, and the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShipStatus {
    /// State of the connection.
    pub state: ShipState,
    /// Events sent, those sent again included.
    pub sent: u64,
    /// Events the collector has acknowledged.
    pub acknowledged: u64,
    /// Events the collector refused one by one, or that could not be read as events; each is
    /// recorded as a loss.
    pub refused: u64,
    /// Times a stream was opened.
    pub connections: u64,
    /// Batches on the way.
    pub in_flight: usize,
    /// Bytes in the spool that are not acknowledged.
    pub unacknowledged_bytes: u64,
}

/// Keeps the status up to date.
#[derive(Debug)]
pub(super) struct Progress {
    sender: watch::Sender<ShipStatus>,
    spool: SharedSpool,
}

impl Progress {
    pub fn new(sender: watch::Sender<ShipStatus>, spool: SharedSpool) -> Self {
        Self { sender, spool }
    }

    /// Changes the status.
    pub fn change(&self, change: impl FnOnce(&mut ShipStatus)) {
        let unacknowledged_bytes = self.spool.stats().unacknowledged_bytes;
        self.sender.send_modify(|status| {
            change(status);
            status.unacknowledged_bytes = unacknowledged_bytes;
        });
    }

    pub fn state(&self, state: ShipState) {
        self.change(|status| status.state = state);
    }

    pub fn retrying(&self, error: String, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.change(|status| {
            status.in_flight = 0;
            status.state = ShipState::Retrying { error, delay_ms };
        });
    }
}
