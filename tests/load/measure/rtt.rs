//! What one agent gets through that is some way off.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::agents::{Agents, IN_FLIGHT_MAX, Pace, WITHOUT_END};
use crate::bench::Bench;
use crate::collector::Collector;
use crate::figures::Figures;
use crate::meter::{Meter, in_seconds};
use crate::proxy;

const SECONDS: u64 = 6;
/// Each way takes that much.
const ONE_WAY: Duration = Duration::from_millis(1);
const STEP_NS: i64 = 50_000_000;
/// As the true agent sends when it has much to send.
const PACE: Pace = Pace { each: WITHOUT_END, until: None, batch: 500, in_flight: IN_FLIGHT_MAX };
/// Single events that are waited for, one after the other.
const SINGLE: u64 = 50;

pub async fn measure(bench: &Bench) -> Result<()> {
    for delay in [Duration::ZERO, ONE_WAY] {
        let collector = Collector::start(bench, "rtt")?;
        let address = match delay {
            Duration::ZERO => collector.address,
            delay => proxy::start(collector.address, delay)?,
        };
        let mut agents = Agents::connect(bench, address, 0..1, STEP_NS).await?;
        let single = Pace { each: SINGLE, until: None, batch: 1, in_flight: 1 };
        agents.deliver(single).await?;
        let began = Instant::now();
        agents.deliver(single).await?;
        let single_ms = began.elapsed().as_secs_f64() * 1000.0 / SINGLE as f64;
        let meter = Meter::begin(collector.pid())?;
        let events = agents.deliver(Pace { until: Some(in_seconds(SECONDS)), ..PACE }).await?;
        let spent = meter.spent()?;
        let (collector_percent, load_percent) = spent.percent();
        Figures::new("rtt", &format!("1 agent, {} ms there and back", 2 * delay.as_millis()))
            .number("events/s", spent.per_second(events))
            .number("events/CPU s", spent.per_cpu_second(events))
            .number("collector CPU %", collector_percent)
            .number("load CPU %", load_percent)
            .number("ms/single event", single_ms)
            .print();
    }
    Ok(())
}
