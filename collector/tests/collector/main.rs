//! A real collector on loopback and real clients, with certificates made by the collector's code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod alerts;
mod archive;
mod audit;
mod bus;
mod certificates;
mod enroll;
mod fleet;
mod ingest;
mod kills;
mod metrics;
#[path = "../../../tests/nats.rs"]
mod nats;
mod otlp;
mod policy;
mod process;
mod query;
mod services;
mod slow;
mod support;
mod trust;
mod watch;
