//! How much comes in through a bus: what is acknowledged lies on two of three servers at least, and
//! the collector stores it from there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::ingest::load;
use crate::agents::{Agents, Pace};
use crate::bench::{Bench, HOSTS};
use crate::collector::Collector;
use crate::figures::Figures;
use crate::meter::resident_mib;
use crate::nats::Cluster;

const SECONDS: u64 = 10;
const STEP_NS: i64 = 50_000_000;
/// How often it is tried whether the servers have found each other, a second apart.
const TRIES: u64 = 60;

pub async fn measure(bench: &Bench) -> Result<()> {
    // The servers share the processor of the load.
    let cluster = Cluster::start(bench.directory());
    let settings = bench.directory().join("bus.yaml");
    std::fs::write(&settings, cluster.bus("bench"))?;
    let collector = Collector::start_with(bench, "bus", &[Path::new("--bus"), settings.as_path()])?;
    let mut tried = 0;
    let mut agents = loop {
        let mut agents = Agents::connect(bench, collector.address, 0..HOSTS, STEP_NS).await?;
        let one = Pace { each: 1, until: None, batch: 1, in_flight: 1 };
        match agents.deliver(one).await {
            Ok(_) => break agents,
            Err(error) if tried >= TRIES => bail!("the bus takes nothing: {error:#}"),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
        tried += 1;
    };
    let (events, spent) = load(&mut agents, collector.pid(), SECONDS).await?;
    let (_, peak_mib) = resident_mib(collector.pid())?;
    agents.close().await?;
    let (collector_percent, load_percent) = spent.percent();
    Figures::new("bus", &format!("{HOSTS} agents, 3 servers, 1 collector"))
        .number("events", events)
        .number("events/s", spent.per_second(events))
        .number("events/CPU s", spent.per_cpu_second(events))
        .number("CPU µs/event", 1e6 / spent.per_cpu_second(events))
        .number("collector CPU %", collector_percent)
        .number("load CPU %", load_percent)
        .number("peak MiB", peak_mib)
        .note("the servers ran on the processor of the load")
        .print();
    Ok(())
}
