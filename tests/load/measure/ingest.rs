//! How much comes in: many agents send as fast as the collector acknowledges.

use anyhow::{Result, anyhow};

use crate::agents::{Agents, Pace, WITHOUT_END};
use crate::bench::{Bench, HOSTS};
use crate::collector::Collector;
use crate::figures::Figures;
use crate::meter::{Meter, Spent, in_seconds, resident_mib};

/// How long it is measured.
const SECONDS: u64 = 10;
/// Events of each agent before, so that connections, caches and files are there.
const BEFORE_EACH: u64 = 200;
/// Events of a host are so far apart: a busy machine.
const STEP_NS: i64 = 50_000_000;
/// A processor that is this busy has nothing left.
const BUSY_PERCENT: f64 = 90.0;
/// As fast as it goes: batches as large as the collector takes them.
const PACE: Pace = Pace { each: WITHOUT_END, until: None, batch: 1000, in_flight: 2 };

pub async fn measure(bench: &Bench) -> Result<()> {
    let collector = Collector::start(bench, "ingest")?;
    let mut agents = Agents::connect(bench, collector.address, 0..HOSTS, STEP_NS).await?;
    let (events, spent) = load(&mut agents, collector.pid(), SECONDS).await?;
    let (_, peak_mib) = resident_mib(collector.pid())?;
    let all = events + BEFORE_EACH * agents.count();
    agents.close().await?;
    let stopped = collector.stop().await?;
    let mut before = bench.ingested.lock().map_err(|_| anyhow!("a thread panicked"))?;
    let again = if before.is_empty() { "" } else { ", again" };
    before.push(spent.per_cpu_second(events));
    let (collector_percent, load_percent) = spent.percent();
    Figures::new("ingest", &format!("{HOSTS} agents{again}"))
        .number("events", events)
        .number("events/s", spent.per_second(events))
        .number("events/CPU s", spent.per_cpu_second(events))
        .number("CPU µs/event", 1e6 / spent.per_cpu_second(events))
        .number("collector CPU %", collector_percent)
        .number("load CPU %", load_percent)
        .number("peak MiB", peak_mib)
        .number("sent B/event", bench.event_bytes())
        .number("disk B/event", stopped.store_bytes as f64 / all as f64)
        .number("CPU s to stop", stopped.cpu_s)
        .note(bottleneck(bench, &spent))
        .print();
    Ok(())
}

/// Has agents send for so many seconds, after a short while that is not counted.
///
/// # Errors
/// When the collector refuses something or goes away.
pub async fn load(agents: &mut Agents, pid: u32, seconds: u64) -> Result<(u64, Spent)> {
    agents.deliver(Pace { each: BEFORE_EACH, ..PACE }).await?;
    let meter = Meter::begin(pid)?;
    let events = agents.deliver(Pace { until: Some(in_seconds(seconds)), ..PACE }).await?;
    Ok((events, meter.spent()?))
}

fn bottleneck(bench: &Bench, spent: &Spent) -> String {
    let (collector, load) = spent.percent();
    if !bench.cores.apart() {
        "load and collector shared one processor: only the figures per CPU second count".to_owned()
    } else if load > BUSY_PERCENT {
        format!("the load was the bottleneck ({load:.0} % of its CPU): events/s could be higher")
    } else if collector > BUSY_PERCENT {
        "the collector's CPU was the bottleneck, not the load".to_owned()
    } else {
        "the disk was the bottleneck, neither the collector's CPU nor the load".to_owned()
    }
}
