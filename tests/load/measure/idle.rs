//! What agents cost that are connected and send nothing.

use std::time::Duration;

use anyhow::Result;

use crate::agents::Agents;
use crate::bench::Bench;
use crate::collector::Collector;
use crate::figures::Figures;
use crate::meter::{Meter, resident_mib};

const AGENTS: u64 = 1000;
/// How long nothing is done.
const SILENCE: Duration = Duration::from_secs(5);

pub async fn measure(bench: &Bench) -> Result<()> {
    let collector = Collector::start(bench, "idle")?;
    let (before_mib, _) = resident_mib(collector.pid())?;
    Figures::new("idle", "no agents").number("resident MiB", before_mib).print();
    let agents = Agents::connect(bench, collector.address, 0..AGENTS, 1).await?;
    let meter = Meter::begin(collector.pid())?;
    tokio::time::sleep(SILENCE).await;
    let (percent, _) = meter.spent()?.percent();
    let (after_mib, _) = resident_mib(collector.pid())?;
    Figures::new("idle", &format!("{} agents", agents.count()))
        .number("resident MiB", after_mib)
        .number("KiB/agent", (after_mib - before_mib) * 1024.0 / agents.count() as f64)
        .number("collector CPU %", percent)
        .print();
    Ok(())
}
