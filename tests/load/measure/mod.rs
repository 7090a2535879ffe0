//! One file for each measurement.

mod archive;
mod bus;
mod growth;
mod idle;
mod ingest;
mod limit;
mod questions;
mod rtt;
mod subscribers;

use anyhow::{Context as _, Result};

use crate::bench::Bench;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Measurement {
    /// 100 agents send as fast as they are acknowledged
    Ingest,
    /// The same events into SQLite alone, as rows and as compressed blocks
    Limit,
    /// What an event costs when many are stored already
    Growth,
    /// One agent behind a round trip of 2 ms
    Rtt,
    /// 1000 agents that send nothing
    Idle,
    /// Many who watch live
    Subscribers,
    /// Questions about stored events
    Questions,
    /// Bytes of an event in the store and in an archive
    Archive,
    /// The same 100 agents, through a bus of three NATS servers
    Bus,
}

/// Takes one measurement and prints its figures.
///
/// # Errors
/// When the collector does not do what is expected of it.
pub async fn take(measurement: Measurement, bench: &Bench) -> Result<()> {
    eprintln!("{measurement:?} …");
    let outcome = match measurement {
        Measurement::Ingest => ingest::measure(bench).await,
        Measurement::Limit => limit::measure(bench).await,
        Measurement::Growth => growth::measure(bench).await,
        Measurement::Rtt => rtt::measure(bench).await,
        Measurement::Idle => idle::measure(bench).await,
        Measurement::Subscribers => subscribers::measure(bench).await,
        Measurement::Questions => questions::measure(bench).await,
        Measurement::Archive => archive::measure(bench).await,
        Measurement::Bus => bus::measure(bench).await,
    };
    outcome.with_context(|| format!("{measurement:?}"))
}
