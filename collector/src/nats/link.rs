//! The connection to the bus, its stream, and this collector's consumer on it.

use std::fmt::Display;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::{Client, ConnectOptions, Event};
use tokio::sync::watch;
use tokio::time;

use super::mend::Mender;
use super::meter::Meter;
use super::publish::Publisher;
use super::settings::Settings;
use super::signs;
use super::take::{End, Taken, Taker};
use crate::fleet::Fleet;
use crate::limits::{
    BUS_AGAIN, BUS_COMMANDS_MAX, BUS_FLIGHT_MESSAGES_MAX, BUS_PUBLISH_TIME_MAX, BUS_STORE_TIME_MAX,
    BUS_UNANSWERED_MAX,
};
use crate::store::Store;

/// Keeps the connection, and stores what comes.
#[derive(Debug)]
pub struct Link {
    settings: Settings,
    /// Tells apart two collectors that were given the same name.
    id: String,
    taker: Taker,
    fleet: Fleet,
    context: watch::Sender<Result<Context, String>>,
}

impl Link {
    /// Of the collector whose own records are signed with the key of hexadecimal `id`. Nothing is
    /// connected before [`Link::run`].
    pub fn new(settings: Settings, id: String, store: &Store, fleet: Fleet) -> Link {
        let (writer, meter) = (store.writer().clone(), Meter::default());
        let taker = Taker { writer, meter, taken: Taken::default() };
        let context = watch::Sender::new(Err("it is not connected".to_owned()));
        Link { settings, id, taker, fleet, context }
    }

    /// Publishes through this connection.
    pub fn publisher(&self) -> Publisher {
        let (stream, subject) = (&self.settings.stream, self.batches());
        Publisher::new(self.context.subscribe(), stream, &subject, self.taker.meter.clone())
    }

    /// What is counted.
    pub fn meter(&self) -> &Meter {
        &self.taker.meter
    }

    fn batches(&self) -> String {
        format!("{}.batches", self.settings.stream)
    }

    /// Connects and stores what comes, for ever. What fails is logged and tried again.
    pub async fn run(self) {
        let client = loop {
            match self.connect().await {
                Ok(client) => break client,
                Err(error) => {
                    tracing::error!(error, "the bus cannot be used; no batch is taken");
                    time::sleep(BUS_AGAIN).await;
                }
            }
        };
        let context = ContextBuilder::new()
            .timeout(BUS_PUBLISH_TIME_MAX)
            .ack_timeout(BUS_PUBLISH_TIME_MAX)
            .max_ack_inflight(BUS_FLIGHT_MESSAGES_MAX)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let subject = format!("{}-signs", self.settings.stream);
        let name = self.settings.name.clone();
        let signs = signs::exchange(client, subject, name, self.fleet.clone());
        tokio::join!(signs, self.take(context));
    }

    async fn take(&self, context: Context) {
        let Settings { stream, name, .. } = &self.settings;
        let mut mender = Mender::new(stream, self.batches(), name, &self.taker);
        loop {
            match self.consumer(&context).await {
                Ok(consumer) => {
                    // Not before the consumer is there: what nobody waits for, the stream drops.
                    self.context.send_modify(|now| *now = Ok(context.clone()));
                    let end = tokio::select! {
                        end = self.taker.run(&consumer) => end,
                        never = mender.run(&context) => match never {},
                    };
                    match end {
                        End::Deleted => {
                            let why = "this collector's consumer was removed".to_owned();
                            tracing::error!(why, "what is published meanwhile is not stored here");
                            self.context.send_modify(|now| *now = Err(why));
                            continue;
                        }
                        End::Broken(why) => {
                            tracing::warn!(why, "the bus gives nothing for now");
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(error, "the bus cannot be used; no batch is taken");
                    self.context.send_modify(|now| *now = Err(error));
                }
            }
            time::sleep(BUS_AGAIN).await;
        }
    }

    async fn connect(&self) -> Result<Client, String> {
        let Settings { servers, ca, certificate, credentials, name, .. } = &self.settings;
        let meter = self.taker.meter.clone();
        let mut options = ConnectOptions::new()
            .name(format!("sekimori-collector {name}"))
            .require_tls(true)
            .add_root_certificates(ca.clone())
            .max_reconnects(None)
            .client_capacity(BUS_COMMANDS_MAX)
            .retry_on_initial_connect()
            .event_callback(move |event| {
                told(&event, &meter);
                std::future::ready(())
            });
        if let Some((certificate, key)) = certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        if let Some(path) = credentials {
            let read = options.credentials_file(path).await;
            options = read.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        options.connect(servers).await.map_err(|error| error.to_string())
    }

    /// This collector's consumer; it, and the stream, are made where they are missing.
    async fn consumer(&self, context: &Context) -> Result<PullConsumer, String> {
        let Settings { name, stream, replicas, bytes_max, .. } = &self.settings;
        let failed = |what: &str, error: &dyn Display| format!("{what}: {error}");
        let wanted = stream::Config {
            name: stream.clone(),
            description: Some("Batches on their way to the collectors of Sekimori".to_owned()),
            subjects: vec![self.batches()],
            retention: RetentionPolicy::Interest,
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            num_replicas: *replicas,
            max_bytes: bytes_max.unwrap_or(-1),
            deny_delete: true,
            deny_purge: true,
            ..stream::Config::default()
        };
        let found = context.get_or_create_stream(wanted).await;
        let found = found.map_err(|error| failed(&format!("stream {stream}"), &error))?;
        let unfit = unfit(&found.cached_info().config, &self.batches(), *replicas);
        if let Some(why) = unfit {
            return Err(format!(
                "stream {stream} is there, and {why}: what is acknowledged could be \
                                lost. Name another one in bus.yaml, or change it"
            ));
        }
        let wanted = pull::Config {
            durable_name: Some(name.clone()),
            description: Some(self.id.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: BUS_STORE_TIME_MAX,
            max_ack_pending: BUS_UNANSWERED_MAX,
            ..pull::Config::default()
        };
        let consumer: PullConsumer = found
            .get_or_create_consumer(name, wanted)
            .await
            .map_err(|error| failed(&format!("consumer {name}"), &error))?;
        let config = &consumer.cached_info().config;
        if config.description.as_ref() != Some(&self.id) {
            return Err(format!(
                "another collector has the name {name} on the bus: give each its own in bus.yaml. \
                 If this is that one, and its evidence.key is lost, remove the consumer {name} of \
                 the stream {stream}"
            ));
        }
        let whole = config.filter_subject.is_empty() && config.max_deliver <= 0;
        let stays = config.inactive_threshold.is_zero();
        if config.ack_policy != AckPolicy::Explicit || !whole || !stays {
            return Err(format!("consumer {name} was made by someone else"));
        }
        Ok(consumer)
    }
}

/// What of a stream would let go of batches that no collector has stored.
fn unfit(found: &stream::Config, subject: &str, replicas: usize) -> Option<String> {
    if !found.subjects.iter().any(|it| it == subject) {
        return Some(format!("it does not take {subject}"));
    }
    if found.retention != RetentionPolicy::Interest {
        return Some("its retention is not by interest".to_owned());
    }
    if found.storage != StorageType::File {
        return Some("it is kept in memory".to_owned());
    }
    if found.discard != DiscardPolicy::New {
        return Some("it drops the oldest when it is full".to_owned());
    }
    if found.no_ack {
        return Some("it does not say what it has".to_owned());
    }
    if !found.max_age.is_zero() || found.max_messages_per_subject > 0 {
        return Some("it drops what is old".to_owned());
    }
    (found.num_replicas < replicas)
        .then(|| format!("it is on {} servers, not on {replicas}", found.num_replicas))
}

fn told(event: &Event, meter: &Meter) {
    match event {
        Event::Connected => {
            meter.connected.set(1);
            tracing::info!("the bus is connected");
        }
        Event::Disconnected => {
            meter.connected.set(0);
            tracing::warn!("the bus is not connected");
        }
        event => tracing::warn!(%event, "the bus"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn fit() -> stream::Config {
        stream::Config {
            retention: RetentionPolicy::Interest,
            discard: DiscardPolicy::New,
            num_replicas: 3,
            subjects: vec!["s.batches".to_owned()],
            ..stream::Config::default()
        }
    }

    #[test]
    fn the_own_stream_is_fit() {
        assert_eq!(unfit(&fit(), "s.batches", 3), None);
    }

    #[rstest]
    #[case(stream::Config { retention: RetentionPolicy::Limits, ..fit() }, "by interest")]
    #[case(stream::Config { storage: StorageType::Memory, ..fit() }, "in memory")]
    #[case(stream::Config { discard: DiscardPolicy::Old, ..fit() }, "the oldest")]
    #[case(stream::Config { subjects: vec!["s.>".into()], ..fit() }, "does not take s.batches")]
    #[case(stream::Config { no_ack: true, ..fit() }, "does not say")]
    #[case(stream::Config { max_age: BUS_AGAIN, ..fit() }, "what is old")]
    #[case(stream::Config { num_replicas: 1, ..fit() }, "on 1 servers")]
    fn one_that_would_lose_is_not(#[case] config: stream::Config, #[case] says: &str) {
        let why = unfit(&config, "s.batches", 3).unwrap_or_default();
        assert!(why.contains(says), "{why}");
    }
}
