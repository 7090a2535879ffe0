//! Delivery: batches from the spool to the collector until it has acknowledged them.
//!
//! One task reads the spool, keeps up to [`limits::BATCHES_IN_FLIGHT_MAX`] batches on the way and
//! moves the spool's acknowledged position as the answers come. When anything breaks it begins
//! again at that position; the collector knows what it has seen by (host, boot, sequence).
//!
//! A collector that refuses a batch for what is in it closes the stream. Then batches go one at a
//! time and get smaller until the refused one holds a single event; that one is given up, recorded
//! as a loss of stage `ship`, and delivery goes on.

mod connect;
mod dial;
mod session;
mod status;
#[cfg(test)]
mod tests;
mod wire;

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use sekimori_proto::v1::{HostState, Isolation, PolicyBundle};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

pub use connect::{ShipError, channel};
pub use dial::Peers;
pub use status::{ShipState, ShipStatus};

use crate::config::Collector;
use crate::limits;
use crate::spool::SharedSpool;
use session::{Caution, Ended, Session};
use status::Progress;

/// A session that held this long counts as a success although nothing was acknowledged in it.
const STEADY: Duration = Duration::from_secs(10);
/// Pause before a stream is opened again after a refusal, so that a collector which refuses
/// everything costs it and us little.
const REFUSAL_PAUSE: Duration = Duration::from_millis(20);

/// What delivery hears from the rest of the agent, and tells it.
#[derive(Clone, Debug)]
pub struct News {
    /// How the agent stands; each new value is told to the collector.
    pub state: watch::Receiver<Option<HostState>>,
    /// There is another certificate.
    pub renewed: watch::Receiver<()>,
    /// The last order of the collector to cut this host off, or to let it be.
    pub orders: watch::Sender<Option<Isolation>>,
    /// The last policy that the collector gave.
    pub policies: watch::Sender<Option<PolicyBundle>>,
    /// Where the collector was found last.
    pub peers: Peers,
}

impl Default for News {
    /// Nothing, ever.
    fn default() -> Self {
        Self {
            state: watch::channel(None).1,
            renewed: watch::channel(()).1,
            orders: watch::channel(None).0,
            policies: watch::channel(None).0,
            peers: Peers::default(),
        }
    }
}

/// Waits for another value; for ever when there will be none.
async fn changed<T>(news: &mut watch::Receiver<T>) {
    if news.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The running delivery.
#[derive(Debug)]
pub struct Shipper {
    task: JoinHandle<()>,
    status: watch::Receiver<ShipStatus>,
    deadline: watch::Sender<Option<Instant>>,
}

impl Shipper {
    /// Starts delivery on the current tokio runtime. Certificates are read at each attempt to
    /// connect, so renewed ones are used without a restart.
    #[must_use]
    pub fn start(collector: Collector, spool: SharedSpool, news: News) -> Self {
        let (status_sender, status) = watch::channel(ShipStatus::default());
        let (deadline, stop) = watch::channel(None);
        let progress = Progress::new(status_sender, spool.clone());
        let task = tokio::spawn(deliver(collector, spool, news, progress, stop));
        Self { task, status, deadline }
    }

    /// Where delivery stands, now and from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ShipStatus> {
        self.status.clone()
    }

    /// Sends what has been flushed, waits for the acknowledgements until `limit` has passed, and
    /// ends. What is not acknowledged then stays in the spool for the next start.
    pub async fn drain(self, limit: Duration) -> ShipStatus {
        // The task may have ended already; then there is no one to tell.
        let _ = self.deadline.send(Some(Instant::now() + limit));
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the delivery task broke off");
        }
        self.status.borrow().clone()
    }
}

async fn deliver(
    collector: Collector,
    spool: SharedSpool,
    news: News,
    progress: Progress,
    stop: watch::Receiver<Option<Instant>>,
) {
    let mut waited = stop.clone();
    tokio::select! {
        () = try_for_ever(collector, &spool, news, &progress, stop) => {}
        () = expired(&mut waited) => {}
    }
    progress.state(ShipState::Stopped);
}

/// Waits for a deadline to be set and then for it to pass.
async fn expired(stop: &mut watch::Receiver<Option<Instant>>) {
    let deadline = stop.wait_for(Option::is_some).await.map(|deadline| *deadline);
    // When the shipper was dropped without a word, this ends at once.
    if let Ok(Some(deadline)) = deadline {
        sleep_until(deadline).await;
    }
}

fn delays() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(limits::RETRY_DELAY_MIN)
        .with_max_delay(limits::RETRY_DELAY_MAX)
        .with_jitter()
        .without_max_times()
        .build()
        .map(|delay| delay.min(limits::RETRY_DELAY_MAX))
}

/// Connects and delivers until told to end and nothing is left.
async fn try_for_ever(
    collector: Collector,
    spool: &SharedSpool,
    mut news: News,
    progress: &Progress,
    stop: watch::Receiver<Option<Instant>>,
) {
    let mut delay = delays();
    let mut caution = Caution::default();
    loop {
        progress.state(ShipState::Connecting);
        let began = Instant::now();
        // The certificate of this moment is what the connection is made with.
        news.renewed.mark_unchanged();
        let (error, acknowledged) = match connect::connect(&collector, &news.peers).await {
            Err(error) => (error, false),
            Ok(client) => {
                let mut session = Session::new(spool, progress, stop.clone(), &mut caution);
                let ended = session.run(client, &mut news).await;
                match ended {
                    Ended::Drained => return,
                    Ended::Renewed => {
                        tracing::info!("delivery goes on with the new certificate");
                        continue;
                    }
                    Ended::Refused => {
                        sleep(REFUSAL_PAUSE).await;
                        continue;
                    }
                    Ended::Broken(error) => (error, session.acknowledged()),
                }
            }
        };
        if acknowledged || began.elapsed() >= STEADY {
            delay = delays();
        }
        let wait = delay.next().unwrap_or(limits::RETRY_DELAY_MAX);
        tracing::warn!(address = %collector.address, %error, ?wait, "no delivery to the collector");
        progress.retrying(error.to_string(), wait);
        sleep(wait).await;
    }
}
