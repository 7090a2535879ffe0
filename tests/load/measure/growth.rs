//! What an event costs when many are stored already.

use std::time::Instant;

use anyhow::Result;

use crate::agents::{Agents, Pace};
use crate::bench::{Bench, HOSTS};
use crate::collector::Collector;
use crate::figures::Figures;
use crate::meter::{cpu_s, in_seconds};

/// Stored events at which the cost is told.
const POINTS: [u64; 3] = [100_000, 1_000_000, 10_000_000];
/// One more, for those who have time and room.
const POINT_FULL: u64 = 100_000_000;
/// Events between two looks at time and room.
const STEP: u64 = 100_000;
/// The cost is that of the last one in so many.
const LAST_OF: u64 = 5;
const SECONDS_MAX: u64 = 80;
const STORE_BYTES_MAX: u64 = 5 << 30;
const STEP_NS: i64 = 50_000_000;

pub async fn measure(bench: &Bench) -> Result<()> {
    let collector = Collector::start(bench, "growth")?;
    let mut agents = Agents::connect(bench, collector.address, 0..HOSTS, STEP_NS).await?;
    let pace = Pace { each: STEP / HOSTS, until: None, batch: 1000, in_flight: 2 };
    let until = in_seconds(SECONDS_MAX);
    let mut history = History(vec![(0, cpu_s(collector.pid())?)]);
    let points = POINTS.into_iter().chain(bench.full.then_some(POINT_FULL));
    for point in points {
        let mut end = "";
        while history.stored() < point && end.is_empty() {
            let stored = history.stored() + agents.deliver(pace).await?;
            history.0.push((stored, cpu_s(collector.pid())?));
            if !bench.full && Instant::now() > until {
                end = "there was no time for more";
            } else if !bench.full && collector.store_bytes() > STORE_BYTES_MAX {
                end = "there was no room for more";
            }
        }
        let stored = history.stored();
        let end = if stored < point { end } else { "" };
        let bytes = collector.store_bytes() as f64 / stored as f64;
        Figures::new("growth", &format!("{stored} stored"))
            .number("CPU µs/event", history.last_us())
            .number("of the first", history.last_us() / history.first_us())
            .number("disk B/event", bytes)
            .note(end)
            .print();
        if !end.is_empty() {
            break;
        }
    }
    Ok(())
}

/// How many were stored, and what CPU the collector had spent by then.
struct History(Vec<(u64, f64)>);

impl History {
    fn stored(&self) -> u64 {
        self.0.last().map_or(0, |(stored, _)| *stored)
    }

    /// What an event cost lately.
    fn last_us(&self) -> f64 {
        self.us(self.stored())
    }

    /// What it cost at the first point.
    fn first_us(&self) -> f64 {
        self.us(POINTS.into_iter().min().unwrap_or(STEP).min(self.stored()))
    }

    fn us(&self, stored: u64) -> f64 {
        let from = stored - (stored / LAST_OF).max(STEP.min(stored));
        let at = |wanted: u64| self.0.iter().rfind(|(stored, _)| *stored <= wanted).copied();
        let (Some(from), Some(to)) = (at(from), at(stored)) else { return f64::NAN };
        (to.1 - from.1) * 1e6 / (to.0 - from.0) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::History;

    #[test]
    fn the_cost_is_that_of_the_last_fifth() {
        let history = History(vec![(0, 1.0), (100_000, 2.0), (800_000, 9.0), (1_000_000, 13.0)]);
        assert_eq!(history.first_us().round(), 10.0);
        assert_eq!(history.last_us().round(), 20.0);
    }
}
