//! Loads a collector and measures what that costs it. `cargo xtask bench collector` runs this and
//! makes tables of what it prints.
#![forbid(unsafe_code)]

mod agents;
mod bench;
mod collector;
mod cores;
mod events;
mod figures;
mod measure;
mod meter;
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    reason = "shared with tests; a measurement without servers ends"
)]
#[path = "../nats.rs"]
mod nats;
mod proxy;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum as _};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::Bench;
use crate::cores::Cores;
use crate::measure::Measurement;

/// Measures a collector under load; prints one JSON object a line.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The program `sekimori-collector`
    #[arg(long, value_name = "PATH")]
    collector: PathBuf,
    /// A directory on the disk that is to be measured; what is made there is removed in the end
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Only this measurement; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<Measurement>,
    /// Stored events that questions are asked about
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    rows: u64,
    /// No limit on time and room: up to 100 million stored events
    #[arg(long)]
    full: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sekimori-load: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let cores = Cores::choose()?;
    cores::stay_on(cores.load)?;
    // The collector inherits it; a service manager gives it 16384.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut bench = Bench::prepare(&cli.collector, &cli.dir, cores)?;
    bench.full = cli.full;
    bench.rows = cli.rows;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Whatever happens, collectors are ended and directories removed on the way out.
        tokio::select! {
            outcome = all(cli, &bench) => outcome,
            _ = terminate.recv() => bail!("was asked to end"),
            _ = interrupt.recv() => bail!("was interrupted"),
        }
    })
}

async fn all(cli: &Cli, bench: &Bench) -> Result<()> {
    let chosen = |one: &&Measurement| cli.only.is_empty() || cli.only.contains(one);
    for measurement in Measurement::value_variants().iter().filter(chosen) {
        measure::take(*measurement, bench).await?;
    }
    Ok(())
}
