//! The exporter: reads, sends, notes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use sekimori_proto::v1::ActPhase;
use tokio::time;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::kept::Kept;
use super::meter::Meter;
use super::request::{self, Item};
use super::target::{OtlpConfig, OtlpError, Target};
use crate::audit::{Act, Audit};
use crate::bus::{Committed, Stop};
use crate::identity::Operator;
use crate::limits::{
    OTLP_EVENTS_MAX, OTLP_GATHER, OTLP_PAUSE_ASKED_MAX, OTLP_PAUSE_MAX, OTLP_PAUSE_MIN,
    OTLP_REFUSED_MAX, WATCH_PAGE_EVENTS,
};
use crate::store::{Condition, Readers};

/// Sends stored events to one receiver.
#[derive(Debug)]
pub struct Exporter {
    target: Target,
    kept: Kept,
    meter: Meter,
    readers: Readers,
    committed: Committed,
    everything: Arc<Condition>,
    /// The last cursor that was acknowledged, or that there is nothing to send of.
    position: u64,
    /// Records of the next request at most.
    limit: usize,
    /// Refused for good since the receiver took something.
    refused: usize,
    pauses: ExponentialBackoff,
    /// Events that it took in this run.
    sent: u64,
}

/// What becomes of a request that failed.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// It is about this very request: a smaller one may do, one record will not.
    Refused,
    /// Too much at one time.
    TooMuch,
    /// Another time, at the earliest after this.
    Later(Option<Duration>),
}

impl Exporter {
    /// Reads the configuration and how far the receiver is; it is not connected to yet.
    ///
    /// # Errors
    /// [`OtlpError`].
    pub fn open(
        config: &OtlpConfig,
        store: &Path,
        readers: Readers,
        committed: Committed,
    ) -> Result<Exporter, OtlpError> {
        let target = Target::new(config)?;
        let kept = Kept::open(store)?;
        let position = begin(kept.position(target.url())?, committed.get(), &readers);
        let everything = Condition::new(None)?;
        Ok(Exporter {
            target,
            kept,
            meter: Meter::default(),
            readers,
            committed,
            everything: Arc::new(everything),
            position,
            limit: OTLP_EVENTS_MAX,
            refused: 0,
            pauses: pauses(),
            sent: 0,
        })
    }

    /// What it counts.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Sends until it is time to stop. That it begins is recorded before anything is sent.
    pub async fn run(mut self, audit: Audit, stop: Stop) {
        let recorded = tokio::select! {
            () = self.begun(&audit) => true,
            () = stop.wanted() => false,
        };
        if !recorded {
            return;
        }
        tokio::select! {
            () = self.follow() => {}
            () = stop.wanted() => {}
        }
        if let Err(status) = self.record(&audit, ActPhase::End).await {
            tracing::error!(%status, "that the export over OTLP ended is not recorded");
        }
    }

    async fn begun(&mut self, audit: &Audit) {
        while let Err(status) = self.record(audit, ActPhase::Begin).await {
            tracing::error!(%status, "nothing is exported over OTLP as long as it is not recorded");
            time::sleep(OTLP_PAUSE_MAX).await;
        }
        tracing::info!(receiver = self.target.url(), from = self.position, "exporting over OTLP");
    }

    async fn record(&mut self, audit: &Audit, phase: ActPhase) -> Result<(), Status> {
        let question = format!("--otlp {} from cursor {}", self.target.url(), self.position);
        let act = Act { method: "ExportLogs", question, answered: self.sent, phase };
        audit.record(&Operator::collector(), act).await
    }

    /// Returns when the store is closed.
    async fn follow(&mut self) {
        let mut committed = self.committed.follow();
        loop {
            self.tell_behind();
            let upper = match committed.wait_for(|last| *last > self.position).await {
                Ok(last) => *last,
                Err(_) => return,
            };
            if upper.saturating_sub(self.position) < WATCH_PAGE_EVENTS as u64 {
                // More may come, which goes in the same request.
                time::sleep(OTLP_GATHER).await;
            }
            let all = Arc::clone(&self.everything);
            let step = match self.readers.step(&Operator::collector(), all, self.position).await {
                Ok(step) => step,
                Err(error) => {
                    tracing::error!(%error, "what is to be exported over OTLP cannot be read");
                    self.pause(None).await;
                    continue;
                }
            };
            let position = step.position;
            let items = Item::of(step, self.position, self.readers.removed_up_to());
            self.send(&items).await;
            self.done(position).await;
        }
    }

    /// Sends all of them, however long that takes.
    async fn send(&mut self, items: &[Item]) {
        let mut rest = items;
        while !rest.is_empty() {
            let (request, taken) = request::of(rest, self.limit, now_ns());
            let (now, later) = rest.split_at(taken);
            let answer = self.target.send(request).await;
            self.tell_behind();
            match answer {
                Ok(answer) => {
                    let partial = answer.partial_success.unwrap_or_default();
                    self.taken(now, partial.rejected_log_records, &partial.error_message);
                }
                Err(status) => match judged(&status) {
                    Failure::Refused if taken == 1 && self.refused < OTLP_REFUSED_MAX => {
                        self.refused += 1;
                        self.meter.refused.inc();
                        let cursor = now.first().map_or(0, Item::cursor);
                        tracing::error!(
                            cursor, %status, "an event was refused by the OTLP receiver for good"
                        );
                    }
                    failure => {
                        self.again(taken, failure, &status).await;
                        continue;
                    }
                },
            }
            if let Some(last) = now.last() {
                self.done(last.cursor()).await;
            }
            rest = later;
        }
    }

    /// Counts what the receiver took, and rejected while it took the rest: that is not sent again
    /// (OTLP 1, "Partial Success").
    fn taken(&mut self, items: &[Item], rejected: i64, why: &str) {
        let rejected = u64::try_from(rejected).unwrap_or(0).min(items.len() as u64);
        if rejected > 0 {
            let (first, last) = (items.first(), items.last());
            let cursor = |item: Option<&Item>| item.map_or(0, Item::cursor);
            tracing::error!(
                rejected,
                first = cursor(first),
                last = cursor(last),
                why = one_line(why),
                "events were refused by the OTLP receiver for good"
            );
            self.meter.refused.inc_by(rejected);
        }
        let gaps = items.iter().filter(|it| matches!(it, Item::Gap(_))).count() as u64;
        let sent = (items.len() as u64).saturating_sub(gaps).saturating_sub(rejected);
        self.meter.gaps.inc_by(gaps);
        self.meter.sent.inc_by(sent);
        self.sent = self.sent.saturating_add(sent);
        // Slowly: a receiver with a smaller limit is not asked too much each other time.
        self.limit = (self.limit + (self.limit / 8).max(1)).min(OTLP_EVENTS_MAX);
        self.refused = 0;
        self.pauses = pauses();
    }

    /// Makes ready for another try.
    async fn again(&mut self, taken: usize, failure: Failure, status: &Status) {
        self.meter.failed.inc();
        let smaller = matches!(failure, Failure::Refused | Failure::TooMuch);
        let asked = match failure {
            Failure::Later(asked) => asked,
            Failure::Refused | Failure::TooMuch => None,
        };
        if smaller && taken > 1 {
            self.limit = taken / 2;
            tracing::debug!(%status, limit = self.limit, "smaller requests to the OTLP receiver");
            if failure == Failure::Refused {
                return;
            }
        }
        if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
            && let Err(error) = self.target.refresh()
        {
            tracing::error!(%error, "the headers from before are used");
        }
        let (receiver, code) = (self.target.url(), status.code());
        let reason = one_line(status.message());
        tracing::warn!(receiver, ?code, reason, "the OTLP receiver is tried again");
        self.pause(asked).await;
    }

    async fn pause(&mut self, asked: Option<Duration>) {
        let pause = self.pauses.next().unwrap_or(OTLP_PAUSE_MAX);
        let asked = asked.unwrap_or_default().min(OTLP_PAUSE_ASKED_MAX);
        time::sleep(pause.max(asked)).await;
    }

    /// Notes that everything up to here is done with. When that fails it is sent again after a
    /// restart, and nothing else.
    async fn done(&mut self, position: u64) {
        if position <= self.position {
            return;
        }
        self.position = position;
        self.tell_behind();
        if let Err(error) = self.kept.keep(self.target.url(), position).await {
            tracing::error!(%error, "how far the OTLP receiver is cannot be noted");
        }
    }

    fn tell_behind(&self) {
        self.meter.behind.set(self.committed.get().saturating_sub(self.position));
    }
}

/// Where to begin: at the oldest event that is there when nothing was sent yet, or to another store.
fn begin(kept: Option<u64>, committed: u64, readers: &Readers) -> u64 {
    match kept {
        Some(position) if position <= committed => position,
        Some(position) => {
            tracing::error!(
                position,
                committed,
                "the OTLP receiver is further than the store: this is another store, and all of it \
                 is exported"
            );
            readers.removed_up_to()
        }
        None => readers.removed_up_to(),
    }
}

/// Codes as OTLP 1 says which may be tried again ("Failures", OTLP/gRPC). One that cannot pass is
/// tried again too, and nothing is thrown away: the store is the queue. Only what the receiver calls
/// wrong in itself is not.
fn judged(status: &Status) -> Failure {
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match status.code() {
        Code::InvalidArgument => Failure::Refused,
        Code::ResourceExhausted if asked.is_none() => Failure::TooMuch,
        _ => Failure::Later(asked),
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(OTLP_PAUSE_MIN)
        .with_max_delay(OTLP_PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

fn now_ns() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}

/// What a receiver says, for the log.
fn one_line(text: &str) -> String {
    text.chars().take(500).map(|it| if it.is_control() { ' ' } else { it }).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tonic_types::ErrorDetails;

    use super::*;

    #[rstest]
    #[case(Code::Unavailable, Failure::Later(None))]
    #[case(Code::Unauthenticated, Failure::Later(None))]
    #[case(Code::Unimplemented, Failure::Later(None))]
    #[case(Code::ResourceExhausted, Failure::TooMuch)]
    #[case(Code::InvalidArgument, Failure::Refused)]
    fn what_becomes_of_a_failure(#[case] code: Code, #[case] expected: Failure) {
        assert_eq!(judged(&Status::new(code, "")), expected);
    }

    #[test]
    fn the_receiver_says_when() {
        let asked = Duration::from_secs(7);
        let details = ErrorDetails::with_retry_info(Some(asked));
        let status = Status::with_error_details(Code::ResourceExhausted, "full", details);
        assert_eq!(judged(&status), Failure::Later(Some(asked)));
    }

    #[test]
    fn pauses_grow_and_never_end() {
        let all: Vec<Duration> = pauses().take(100).collect();
        assert_eq!(all.len(), 100);
        assert!(all.iter().all(|it| *it >= OTLP_PAUSE_MIN && *it <= 2 * OTLP_PAUSE_MAX));
        assert!(all.iter().skip(20).all(|it| *it >= OTLP_PAUSE_MAX));
    }
}
