//! From ring bytes to spooled events. Knows nothing of the kernel: a test or a recorded file can
//! feed it as well.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sekimori_abi::event::{kind, operation, verdict};
use sekimori_abi::table::Accounts;
use sekimori_proto::v1::{Event, Kind, PolicyText, Verdict};
use tokio::sync::mpsc::UnboundedReceiver;

use super::taken::Taken;
use crate::decode::{DecodeError, Raw, decode};
use crate::enrich::Enricher;
use crate::flow::Flows;
use crate::limits::{MOUNT_PATIENCE, MOUNTING_MAX, RECEIPTS_DRAIN_TIMEOUT};
use crate::receipt::Receipts;
use crate::record::{LANE_ALERT, Losses, Lost, Recorded, RuleBook, Skipped, agent_event};
use crate::record::{device_event, event};
use crate::removable::Change;
use crate::spool::{Lane, SharedSpool, SpoolError};
use crate::tell::{Tell, Told};

/// Everything behind the rings.
pub(super) struct Pipeline {
    pub enricher: Enricher,
    pub rules: RuleBook,
    losses: Losses,
    tell: Tell,
    spool: SharedSpool,
    taken: Taken,
    flows: Flows,
    receipts: Receipts,
    finished: UnboundedReceiver<Recorded>,
    /// When the batch that is being recorded was begun.
    now: Instant,
    /// Mounts whose mount point is not known yet, and when each was read.
    mounting: Vec<(Instant, Box<[u8]>)>,
    undecodable: u64,
    /// A share was seen for the first time, and nobody was told yet.
    new_share: bool,
    /// What was lost since the start, by stage.
    lost: BTreeMap<String, u64>,
}

impl Pipeline {
    /// `accounts`: what earlier agents have recorded of the same rings and counters.
    pub fn new(spool: SharedSpool, enricher: Enricher, tell: Tell, accounts: Accounts) -> Self {
        let (receipts, finished) = Receipts::start();
        Self {
            enricher,
            rules: RuleBook::default(),
            losses: Losses::since(accounts),
            tell,
            spool,
            taken: Taken::default(),
            flows: Flows::default(),
            receipts,
            finished,
            now: Instant::now(),
            mounting: Vec::new(),
            undecodable: 0,
            new_share: false,
            lost: BTreeMap::new(),
        }
    }

    /// One record off a ring.
    pub fn take(&mut self, bytes: &[u8]) {
        self.taken.push(bytes);
    }

    /// Turns what was taken into events, in order of time: the launch of a program is read from
    /// another ring than its refusal, and must be known first.
    pub fn process(&mut self) {
        self.now = Instant::now();
        self.tell.again(self.now);
        if self.taken.records.is_empty() && self.mounting.is_empty() {
            return;
        }
        self.keep_mounts(MOUNT_PATIENCE);
        let mut taken = std::mem::take(&mut self.taken);
        taken.in_order().for_each(|bytes| self.one(bytes));
        taken.clear();
        self.taken = taken;
        self.flush();
    }

    fn one(&mut self, bytes: &[u8]) {
        let raw = match decode(bytes) {
            Ok(raw) => raw,
            Err(error) => return self.cannot_read(&error),
        };
        self.losses.received(raw.event.ring, raw.event.sequence);
        if !self.is_mounting(&raw) {
            return self.record(&raw);
        }
        if self.mounting.len() == MOUNTING_MAX {
            self.keep_mounts(Duration::ZERO);
        }
        self.mounting.push((self.now, bytes.into()));
    }

    fn cannot_read(&mut self, error: &DecodeError) {
        // One line for the first of a flood; the losses count all of them.
        if self.undecodable == 0 {
            tracing::error!(%error, "a record of the kernel programs cannot be read");
        }
        self.undecodable += 1;
        self.losses.undecodable(error.to_string());
    }

    /// Waits for a receipt and records it, and those that are ready too.
    pub async fn receipt(&mut self) {
        if let Some(first) = self.finished.recv().await {
            self.keep_recorded(&first);
            self.receipts.finished();
            while let Ok(next) = self.finished.try_recv() {
                self.keep_recorded(&next);
                self.receipts.finished();
            }
            self.flush();
        }
    }

    /// Records the receipts that are still being made.
    pub async fn finish_receipts(&mut self) {
        self.wait_for_receipts().await;
        self.receipts.stop();
        self.wait_for_receipts().await;
        let count = self.receipts.waiting() as u64;
        if count > 0 {
            let reason = "files could not be read for their receipts in time".to_owned();
            self.lost(Lost { stage: "receipt", kind: Kind::UsbWrite, count, reason });
        }
    }

    /// For at most [`RECEIPTS_DRAIN_TIMEOUT`].
    async fn wait_for_receipts(&mut self) {
        let all = async {
            while self.receipts.waiting() > 0 {
                self.receipt().await;
            }
        };
        // What is still missing then is counted by whoever asked.
        let _ = tokio::time::timeout(RECEIPTS_DRAIN_TIMEOUT, all).await;
    }

    fn keep_recorded(&self, recorded: &Recorded) {
        let Event { kind, .. } = recorded.event;
        let lane = lane_of(&recorded.event);
        noted(self.spool.append_with(lane, kind, |buffer| recorded.encode(buffer)));
    }

    /// Records everything that waits for something.
    pub fn finish(&mut self) {
        self.process();
        self.keep_mounts(Duration::ZERO);
        self.flush();
    }

    /// Whether a share was seen for the first time since this was asked last.
    pub const fn take_new_share(&mut self) -> bool {
        std::mem::replace(&mut self.new_share, false)
    }

    fn record(&mut self, raw: &Raw) {
        if (raw.event.kind, raw.event.operation) == (kind::NOTE, operation::MOUNT) {
            self.new_share = true;
            return;
        }
        if self.flows.learn(raw, self.now) {
            return;
        }
        // Whatever is recorded of it.
        self.receipts.observe(raw);
        let Some(mut recorded) = event(raw, &mut self.enricher, &self.rules) else {
            return;
        };
        if let Some(destination) = &mut recorded.event.destination {
            self.flows.describe(raw.event.inode, destination, self.now);
        }
        if raw.event.kind == kind::NET_UPLOAD && raw.event.operation == operation::CLOSE {
            self.flows.closed(raw.event.inode);
        }
        if self.receipts.learn(raw, &recorded) {
            return;
        }
        self.keep_recorded(&recorded);
        let fact = self.rules.fact(raw.event.generation, raw.event.rule);
        if let Some(text) = fact.and_then(|fact| fact.tell_user.as_deref())
            && raw.event.verdict == verdict::DENIED
        {
            self.tell.refused(&recorded.whole(), text, self.now);
        }
    }

    /// A file system is judged before it gets its place in the tree; a moment later it has one.
    fn is_mounting(&mut self, raw: &Raw) -> bool {
        let from = &raw.event;
        from.kind == kind::USB_MOUNT
            && from.operation == operation::MOUNT
            && from.verdict != verdict::DENIED
            && !self.enricher.mounts.is_mounted(from.device.dev)
    }

    /// Records the mounts that got their place, and those that waited for longer than `patience`.
    fn keep_mounts(&mut self, patience: Duration) {
        for (read, bytes) in std::mem::take(&mut self.mounting) {
            // It was read before.
            let Ok(raw) = decode(&bytes) else { continue };
            if read.elapsed() < patience && self.is_mounting(&raw) {
                self.mounting.push((read, bytes));
            } else {
                self.record(&raw);
            }
        }
    }

    /// Compares the kernel's counters and the clocks with what is known.
    pub fn poll(&mut self, counters: &crate::record::Counters, skipped: &Skipped) {
        self.enricher.users.refresh();
        if let Some(step) = self.enricher.clock.refresh() {
            let seconds = step.by_ns as f64 / 1e9;
            self.say(format!("the wall clock was set by {seconds:+.3} s"));
        }
        let now_ns = self.enricher.clock.now_ns();
        for lost in self.losses.poll(counters, skipped) {
            tracing::warn!(
                stage = lost.stage, kind = ?lost.kind, count = lost.count, reason = lost.reason,
                "events were lost"
            );
            self.keep(&lost.event(now_ns));
        }
        self.flush();
    }

    /// What was received and recorded up to now. A mount that waits for its place is not recorded
    /// yet: when this agent is killed, the next one must miss it.
    pub fn accounts(&self) -> Accounts {
        let mut accounts = *self.losses.accounts();
        for (_, bytes) in &self.mounting {
            let Ok(raw) = decode(bytes) else { continue };
            if let Some(received) = accounts.received.get_mut(usize::from(raw.event.ring)) {
                *received = received.saturating_sub(1);
            }
        }
        accounts
    }

    /// Whether something was received and is not recorded yet.
    pub const fn waits(&self) -> bool {
        !self.mounting.is_empty()
    }

    /// One loss that was found elsewhere than in the counters.
    pub fn lost(&mut self, lost: Lost) {
        tracing::warn!(
            stage = lost.stage,
            count = lost.count,
            reason = lost.reason,
            "events were lost"
        );
        self.keep(&lost.event(self.enricher.clock.now_ns()));
        self.flush();
    }

    /// One `agent` record.
    pub fn say(&mut self, message: impl Into<String>) {
        let message = message.into();
        tracing::info!("{message}");
        self.keep(&agent_event(self.enricher.clock.now_ns(), message));
        self.flush();
    }

    /// One `agent` record of the policy that is in force from here on.
    pub fn say_policy(&mut self, message: impl Into<String>, policy: PolicyText) {
        let message = message.into();
        tracing::info!("{message}");
        let event = agent_event(self.enricher.clock.now_ns(), message);
        self.keep(&Event { policy: Some(policy), ..event });
        self.flush();
    }

    /// What came and went.
    pub fn devices(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.keep(&device_event(self.enricher.clock.now_ns(), change));
        }
        self.flush();
    }

    /// One `agent` record that somebody should look at.
    pub fn alert(&mut self, message: impl Into<String>) {
        let message = message.into();
        tracing::error!("{message}");
        let event = Event {
            verdict: Verdict::Alerted.into(),
            ..agent_event(self.enricher.clock.now_ns(), message)
        };
        self.keep(&event);
        self.flush();
    }

    /// Signs everything that is recorded.
    pub fn sign_off(&self) {
        if let Err(error) = self.spool.sign_off(self.enricher.clock.now_ns()) {
            tracing::error!(%error, "the last records could not be signed");
        }
    }

    pub const fn told(&self) -> Told {
        self.tell.told()
    }

    /// What was lost since the start in the kernel and here, by stage.
    pub const fn losses(&self) -> &BTreeMap<String, u64> {
        &self.lost
    }

    fn keep(&mut self, event: &Event) {
        if let Some(loss) = &event.loss {
            let count = self.lost.entry(loss.stage.clone()).or_default();
            *count = count.saturating_add(loss.count);
        }
        noted(self.spool.append(lane_of(event), event));
    }

    fn flush(&self) {
        if let Err(error) = self.spool.flush(self.enricher.clock.now_ns()) {
            tracing::error!(%error, "the spool could not be written");
        }
    }
}

const fn lane_of(event: &Event) -> Lane {
    if event.lane == LANE_ALERT { Lane::Alerts } else { Lane::Telemetry }
}

/// The spool counts what it could not keep and records it as a loss.
fn noted(kept: Result<u64, SpoolError>) {
    if let Err(error) = kept {
        tracing::error!(%error, "an event was not kept");
    }
}
