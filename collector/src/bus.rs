//! What the parts of the collector tell each other: how far the store is, who is connected, and
//! that it is time to stop. No events pass here: readers take them from the store and its tail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::limits::HOST_STREAMS_MAX;

/// The last committed cursor. Only ever grows; whoever waits on it then reads the store.
#[derive(Clone, Debug)]
pub struct Committed {
    sender: watch::Sender<u64>,
}

impl Committed {
    /// Begins at the last cursor of a store that was just opened.
    pub fn new(cursor: u64) -> Committed {
        Committed { sender: watch::Sender::new(cursor) }
    }

    /// Called by the writer after a commit, before any acknowledgement.
    pub fn advance(&self, cursor: u64) {
        self.sender.send_if_modified(|last| {
            let later = cursor > *last;
            *last = cursor.max(*last);
            later
        });
    }

    /// The last committed cursor, 0 when the store never held anything.
    pub fn get(&self) -> u64 {
        *self.sender.borrow()
    }

    /// Something to wait on.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.sender.subscribe()
    }
}

/// The wish to stop. Set once.
#[derive(Clone, Debug)]
pub struct Stop {
    sender: watch::Sender<bool>,
}

impl Default for Stop {
    fn default() -> Stop {
        Stop { sender: watch::Sender::new(false) }
    }
}

impl Stop {
    /// Everyone who waits wakes up.
    pub fn stop(&self) {
        self.sender.send_replace(true);
    }

    /// Returns when it is time to stop; at once if it already is.
    pub async fn wanted(&self) {
        let mut receiver = self.sender.subscribe();
        // An error would mean that no sender is left, but this is one.
        let _ = receiver.wait_for(|stop| *stop).await;
    }
}

/// Which agents have a stream open, and how many.
#[derive(Clone, Debug, Default)]
pub struct Connected {
    streams: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// One open stream; dropping it says that the stream is closed.
#[derive(Debug)]
pub struct ConnectedGuard {
    connected: Connected,
    host: String,
}

impl Connected {
    /// A stream of `host` is open until the guard is dropped; none when [`HOST_STREAMS_MAX`] are.
    pub fn enter(&self, host: &str) -> Option<ConnectedGuard> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let own = streams.entry(host.to_owned()).or_default();
        if *own >= HOST_STREAMS_MAX {
            return None;
        }
        *own += 1;
        Some(ConnectedGuard { connected: self.clone(), host: host.to_owned() })
    }

    /// Hosts with at least one open stream, sorted.
    pub fn hosts(&self) -> Vec<String> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.keys().cloned().collect()
    }
}

impl Drop for ConnectedGuard {
    fn drop(&mut self) {
        let mut streams = self.connected.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = streams.get_mut(&self.host) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                streams.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_never_goes_back() {
        let committed = Committed::new(5);
        let follower = committed.follow();
        committed.advance(3);
        assert_eq!((committed.get(), follower.has_changed().ok()), (5, Some(false)));
        committed.advance(9);
        assert_eq!((committed.get(), follower.has_changed().ok()), (9, Some(true)));
    }

    #[test]
    fn a_host_is_connected_while_any_stream_is_open() {
        let connected = Connected::default();
        let first = connected.enter("b");
        assert!(first.is_some());
        let second = connected.enter("b");
        let _other = connected.enter("a");
        assert_eq!(connected.hosts(), ["a", "b"]);
        drop(first);
        assert_eq!(connected.hosts(), ["a", "b"]);
        drop(second);
        assert_eq!(connected.hosts(), ["a"]);
    }
}
