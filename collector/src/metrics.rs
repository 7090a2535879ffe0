//! `GET /metrics`: how the collector does, for Prometheus.
//!
//! It is served on the one port, over HTTP/2 and TLS with a client certificate, to every operator:
//! nothing in it tells of people, and no label names a host. What is cheap to ask for is asked for
//! when somebody scrapes; only the writer counts as it goes.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tonic::Status;
use tonic::codegen::http::{Request, Response, header};

use crate::bus::Connected;
use crate::fleet::Fleet;
use crate::identity::{Operator, Viewer};
use crate::listen::Refusals;
use crate::nats;
use crate::otlp;
use crate::store::{Meter, Readers};
use crate::watch::Places;

/// Where it is served.
pub const PATH: &str = "/metrics";
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// For so long the same text is given again, however often somebody asks.
const KEPT: Duration = Duration::from_secs(1);

type Level = Gauge<u64, AtomicU64>;

/// What is told, and where it is asked for.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    levels: Levels,
    sources: Sources,
    kept: Kept,
}

/// The text that was made last, and when. Only one is made at a time.
#[derive(Debug, Default)]
struct Kept(Mutex<Option<(Instant, String)>>);

impl Kept {
    fn text(&self, now: Instant, make: impl FnOnce() -> String) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((made, text)) if now.saturating_duration_since(*made) < KEPT => text.clone(),
            _ => kept.insert((now, make())).1.clone(),
        }
    }
}

/// What is asked when somebody scrapes.
#[derive(Debug)]
pub struct Sources {
    /// The store.
    pub readers: Readers,
    /// Agents with an open stream.
    pub connected: Connected,
    /// All hosts.
    pub fleet: Fleet,
    /// Live streams.
    pub places: Places,
    /// The bus, for a collector that is on one.
    pub bus: Option<nats::Meter>,
    /// What goes over OTLP, if anything does.
    pub otlp: Option<otlp::Meter>,
    /// Connections that were refused.
    pub refusals: Refusals,
}

#[derive(Debug, Default)]
struct Levels {
    store_events: Level,
    store_bytes: Level,
    store_files: Level,
    connected: Level,
    hosts: Level,
    silent: Level,
    clock_wrong: Level,
    lost: Level,
    streams: Level,
}

impl Metrics {
    /// Tells what `meter` counts and `sources` know.
    pub fn new(meter: Meter, sources: Sources) -> Metrics {
        let mut registry = Registry::with_prefix("sekimori_collector");
        let Meter { events, received, invalid, batches, refused, commits, questions } = meter;
        registry.register("events_stored", "Events that were new and are on the disk", events);
        let text = "Size of the events that agents sent";
        registry.register_with_unit("received", text, Unit::Bytes, received);
        let text = "Batches that were refused because an event in them cannot be true";
        registry.register("batches_invalid", text, invalid);
        registry.register("batches_acknowledged", "Batches that were acknowledged", batches);
        let text = "Batches that were refused because the store could not be written";
        registry.register("batches_refused", text, refused);
        let text = "Time that commits took";
        registry.register_with_unit("commit", text, Unit::Seconds, commits);
        let text = "Time from the questions of operators to their answers";
        registry.register_with_unit("question", text, Unit::Seconds, questions);
        let text = "Connections that were refused";
        registry.register("connections_refused", text, sources.refusals.clone());
        if let Some(otlp) = &sources.otlp {
            otlp.register(&mut registry);
        }
        let levels = Levels::default();
        for (name, text, level) in [
            ("store_events", "Events in the store", &levels.store_events),
            ("store_files", "Files of the store", &levels.store_files),
            ("agents_connected", "Agents with an open stream", &levels.connected),
            ("hosts", "Hosts that ever delivered or got a certificate", &levels.hosts),
            ("hosts_silent", "Hosts that are silent for longer than is allowed", &levels.silent),
            (
                "hosts_clock_wrong",
                "Hosts whose clock is more than a minute off",
                &levels.clock_wrong,
            ),
            ("events_lost", "Events that the hosts recorded as lost", &levels.lost),
            ("live_streams", "Live streams of operators", &levels.streams),
        ] {
            registry.register(name, text, level.clone());
        }
        let text = "Size of the store on the disk";
        registry.register_with_unit("store", text, Unit::Bytes, levels.store_bytes.clone());
        if let Some(bus) = &sources.bus {
            bus.register(&mut registry);
        }
        Metrics(Arc::new(Inner { registry, levels, sources, kept: Kept::default() }))
    }

    /// Answers an operator; whoever else asks is refused as by every other call.
    pub fn answer<B>(&self, request: Request<B>) -> Response<String> {
        let (parts, _) = request.into_parts();
        let mut asked = tonic::Request::new(());
        *asked.extensions_mut() = parts.extensions;
        let (status, kind, text) = match Viewer::of(&asked) {
            Ok(viewer) => {
                let operator = viewer.operator();
                (200, TYPE, self.0.kept.text(Instant::now(), || self.text(operator)))
            }
            Err(refusal) => (403, "text/plain; charset=utf-8", refused(&refusal)),
        };
        let mut response = Response::new(text);
        if let Ok(status) = tonic::codegen::http::StatusCode::from_u16(status) {
            *response.status_mut() = status;
        }
        let kind = header::HeaderValue::from_static(kind);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    fn text(&self, operator: &Operator) -> String {
        let Inner { registry, levels, sources, .. } = &*self.0;
        let stored = sources.readers.hosts(operator);
        levels.store_events.set(stored.iter().map(|host| host.events).sum());
        levels.lost.set(stored.iter().fold(0, |sum, host| sum.saturating_add(host.lost)));
        let (files, bytes) = sources.readers.size();
        levels.store_files.set(files as u64);
        levels.store_bytes.set(bytes);
        levels.connected.set(sources.connected.hosts().len() as u64);
        let count = sources.fleet.count();
        levels.hosts.set(count.hosts as u64);
        levels.silent.set(count.silent as u64);
        levels.clock_wrong.set(count.clock_wrong as u64);
        levels.streams.set(sources.places.taken() as u64);
        let mut text = String::new();
        if encode(&mut text, registry).is_err() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# the metrics cannot be written");
        }
        text
    }
}

fn refused(refusal: &Status) -> String {
    format!("{}\n", refusal.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_made_once_a_second() {
        let kept = Kept::default();
        let begun = Instant::now();
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        let ask = |now, text: &str| kept.text(now, || text.to_owned());
        assert_eq!(ask(at(0), "a"), "a");
        assert_eq!(ask(at(999), "b"), "a");
        assert_eq!(ask(at(1000), "c"), "c");
        assert_eq!(ask(at(1999), "d"), "c");
        assert_eq!(ask(at(0), "e"), "c", "an earlier time makes no new one");
    }
}
