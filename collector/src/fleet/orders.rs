//! Orders to cut a host off, and to let it be.
//!
//! An order is kept on the disk before it is answered, and goes down each stream of the host until
//! its agent says that it is done.

use jiff::Timestamp;
use sekimori_proto::v1::{HostChange, Isolation};
use tokio::sync::watch;

use super::hosts::Unwritten;
use super::{Fleet, Presence, Signs};
use crate::audit::Audit;
use crate::limits::BATCH_EVENTS_MAX;
use crate::store::StoreError;

/// Orders of one open stream.
#[derive(Debug)]
pub struct Orders {
    fleet: Fleet,
    host: String,
    changed: watch::Receiver<u64>,
    sent: u64,
}

impl Fleet {
    /// Keeps an order.
    ///
    /// # Errors
    /// When it cannot be kept; then it is none.
    pub async fn order(
        &self,
        host: &str,
        isolated: bool,
        reason: &str,
        by: &str,
    ) -> Result<(), StoreError> {
        let now = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0);
        let mut before = None;
        self.change(host, |host| {
            before = Some(host.order.clone());
            let known = host.order.as_ref().map_or(0, |order| order.order);
            // What is known here may have been lost, and the agent takes only what is higher.
            let done = host.state.as_ref().map_or(0, |(state, _)| state.isolation_order);
            let last = known.max(done);
            host.unwritten = Unwritten::Facts;
            host.order = Some(Isolation {
                // Grows although a clock may go back.
                order: now.max(last.saturating_add(1)),
                isolated,
                reason: reason.to_owned(),
                by: by.to_owned(),
            });
        });
        let kept = self.keep(Signs::Due).await;
        match &kept {
            Ok(()) => self.0.orders.send_modify(|count| *count = count.wrapping_add(1)),
            Err(_) => {
                self.change(host, |host| host.order = before.unwrap_or_default());
            }
        }
        kept
    }

    /// Records which orders were done. What cannot be recorded is tried again.
    pub(super) async fn tell_orders(&self, audit: &Audit) {
        loop {
            let done: Vec<(u64, HostChange)> = {
                let hosts = self.hosts();
                let done = hosts.iter().filter_map(|(name, host)| {
                    host.done_order().map(|order| (order.order, host.done(name, order)))
                });
                done.take(BATCH_EVENTS_MAX).collect()
            };
            if done.is_empty() {
                return;
            }
            let changes = done.iter().map(|(_, change)| change.clone()).collect();
            if let Err(error) = audit.changes(changes).await {
                tracing::error!(%error, "that hosts were cut off or let be cannot be recorded");
                return;
            }
            for (order, change) in done {
                self.change(&change.name, |host| {
                    host.unwritten = Unwritten::Facts;
                    host.told_order = order;
                });
            }
        }
    }
}

impl Presence {
    /// The orders of this stream's host.
    pub fn orders(&self) -> Orders {
        let mut changed = self.fleet.0.orders.subscribe();
        // What was ordered before the stream was opened.
        changed.mark_changed();
        Orders { fleet: self.fleet.clone(), host: self.host.clone(), changed, sent: 0 }
    }
}

impl Orders {
    /// Waits for an order that is not done and was not sent on this stream.
    pub async fn next(&mut self) -> Isolation {
        loop {
            if self.changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let order = {
                let hosts = self.fleet.hosts();
                hosts.get(&self.host).and_then(|host| host.open_order().cloned())
            };
            if let Some(order) = order.filter(|order| order.order != self.sent) {
                self.sent = order.order;
                return order;
            }
        }
    }
}
