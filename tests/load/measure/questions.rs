//! What people ask, of a month's events of a hundred hosts.

use std::time::Instant;

use anyhow::{Result, ensure};
use sekimori_proto::v1::query_service_client::QueryServiceClient;
use sekimori_proto::v1::{AggregateRequest, Field, Filter, Kind, Order, SearchRequest};
use tonic::Status;
use tonic::transport::Channel;

use crate::agents::{Agents, IN_FLIGHT_MAX, Pace};
use crate::bench::{Bench, HOSTS};
use crate::collector::Collector;
use crate::events::{person, world};
use crate::figures::Figures;
use crate::meter::{Meter, in_seconds};

const DAYS: i64 = 30;
const HOUR_NS: i64 = 3600 * 1_000_000_000;
const DAY_NS: i64 = 24 * HOUR_NS;
/// How often each is asked.
const RUNS: usize = 20;
/// No run begins later than that.
const SECONDS_MAX: u64 = 20;
/// How long storing may take.
const STORE_SECONDS_MAX: u64 = 120;
/// Small batches, so that hosts are stored among each other.
const BATCH: u64 = 100;
/// Whose evening is looked at.
const HOST: u64 = 7;
/// A stick that goes round.
const STICK: u64 = 3;

pub async fn measure(bench: &Bench) -> Result<()> {
    let collector = Collector::start(bench, "questions")?;
    let each = (bench.rows / HOSTS).max(1);
    let step_ns = DAYS * DAY_NS / each.cast_signed();
    let mut agents = Agents::connect(bench, collector.address, 0..HOSTS, step_ns).await?;
    let until = (!bench.full).then(|| in_seconds(STORE_SECONDS_MAX));
    let pace = Pace { each, until, batch: BATCH, in_flight: IN_FLIGHT_MAX };
    let stored = agents.deliver(pace).await?;
    let fewer = if stored < each * HOSTS { "there was no time to store more" } else { "" };
    let mut client = QueryServiceClient::new(bench.operator(collector.address, 0).await?);
    for (name, question) in questions(agents.newest_ns()) {
        let asked = ask(&mut client, &collector, &question).await?;
        let figures = Figures::new("questions", name).number("stored", stored);
        let figures = match asked {
            Ok(asked) => figures
                .number("p50 ms", percentile(&asked.times_ms, 50))
                .number("p95 ms", percentile(&asked.times_ms, 95))
                .number("CPU ms", asked.cpu_ms)
                .number("runs", asked.times_ms.len())
                .number("in the answer", asked.found)
                .note(fewer),
            Err(status) => figures.note(format!("not answered: {}", status.message())),
        };
        figures.print();
    }
    Ok(())
}

enum Question {
    Aggregate(AggregateRequest),
    Search(SearchRequest),
}

fn questions(newest_ns: i64) -> [(&'static str, Question); 5] {
    let since = |ns: i64| Filter { since_ns: Some(ns), ..Filter::default() };
    let kind = |kind: Kind, filter: Filter| Filter { kinds: vec![kind.into()], ..filter };
    let copied = AggregateRequest {
        filter: Some(kind(Kind::UsbWrite, since(newest_ns - DAYS * DAY_NS))),
        by: vec![Field::User.into(), Field::Device.into()],
        ..AggregateRequest::default()
    };
    let uploaded = AggregateRequest {
        filter: Some(kind(Kind::NetUpload, since(newest_ns - DAY_NS))),
        by: vec![Field::User.into(), Field::Destination.into()],
        order: Order::Bytes.into(),
        ..AggregateRequest::default()
    };
    let day_ns = newest_ns - DAYS / 2 * DAY_NS;
    let day_ns = day_ns - day_ns.rem_euclid(DAY_NS);
    let evening = SearchRequest {
        filter: Some(Filter {
            users: vec![person(HOST)],
            until_ns: Some(day_ns + 22 * HOUR_NS),
            ..since(day_ns + 18 * HOUR_NS)
        }),
        ..SearchRequest::default()
    };
    let by_host = |filter| AggregateRequest {
        filter: Some(filter),
        by: vec![Field::Host.into()],
        ..AggregateRequest::default()
    };
    let seen = by_host(Filter { serials: vec![world::serial(STICK)], ..Filter::default() });
    let somewhere = by_host(Filter { text: world::serial(STICK), ..Filter::default() });
    [
        ("who copied to which stick, a month", Question::Aggregate(copied)),
        ("top uploads by destination, a day", Question::Aggregate(uploaded)),
        ("one person's evening", Question::Search(evening)),
        ("which hosts saw this serial", Question::Aggregate(seen)),
        ("which have this text anywhere", Question::Aggregate(somewhere)),
    ]
}

struct Asked {
    /// In order.
    times_ms: Vec<f64>,
    /// Of the collector, each time.
    cpu_ms: f64,
    /// Groups or events in the answer.
    found: usize,
}

async fn ask(
    client: &mut QueryServiceClient<Channel>,
    collector: &Collector,
    question: &Question,
) -> Result<Result<Asked, Status>> {
    let (until, mut found) = (in_seconds(SECONDS_MAX), 0);
    let mut times_ms = Vec::new();
    let meter = Meter::begin(collector.pid())?;
    while times_ms.len() < RUNS && (times_ms.is_empty() || Instant::now() < until) {
        let began = Instant::now();
        found = match answer(client, question).await {
            Ok(found) => found,
            Err(status) => return Ok(Err(status)),
        };
        times_ms.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    ensure!(found > 0, "nothing was found although it was sent");
    let cpu_ms = meter.spent()?.collector_s * 1000.0 / times_ms.len() as f64;
    times_ms.sort_by(f64::total_cmp);
    Ok(Ok(Asked { times_ms, cpu_ms, found }))
}

async fn answer(
    client: &mut QueryServiceClient<Channel>,
    question: &Question,
) -> Result<usize, Status> {
    Ok(match question {
        Question::Aggregate(request) => {
            client.aggregate(request.clone()).await?.into_inner().groups.len()
        }
        Question::Search(request) => {
            client.search(request.clone()).await?.into_inner().events.len()
        }
    })
}

/// The least of these, in order, that so many percent are not above.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!((percentile(&times, 50), percentile(&times, 95)), (10.0, 19.0));
        assert_eq!(percentile(&[4.0], 95), 4.0);
    }
}
