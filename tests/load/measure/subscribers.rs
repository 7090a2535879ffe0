//! What those who watch live cost while much comes in.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sekimori_proto::v1::watch_service_client::WatchServiceClient;
use sekimori_proto::v1::{Filter, SubscribeRequest, SubscribeResponse, Verdict};
use tokio::task::LocalSet;
use tonic::{Code, Streaming};

use super::ingest;
use crate::agents::Agents;
use crate::bench::{Bench, HOSTS};
use crate::collector::Collector;
use crate::events::host_name;
use crate::figures::Figures;
use crate::meter::Spent;

const SUBSCRIBERS: u64 = 100;
const SECONDS: u64 = 8;
const STEP_NS: i64 = 50_000_000;
/// After so long without another event everything has been told.
const SILENCE: Duration = Duration::from_millis(1000);
/// How long that may take.
const PATIENCE: u32 = 30;

pub async fn measure(bench: &Bench) -> Result<()> {
    let mut all = Vec::new();
    // Before and after: a machine that others use too is not equally fast all the time.
    for (wanted, of) in
        [(0, Of::All), (SUBSCRIBERS, Of::OneHost), (SUBSCRIBERS, Of::All), (0, Of::All)]
    {
        let local = LocalSet::new();
        let (told, events, spent) = local.run_until(load(bench, wanted, of)).await?;
        all.push((wanted, of, told, events, spent));
    }
    let without = |rate: fn(&Spent, u64) -> f64| {
        let rates = all.iter().filter(|it| it.0 == 0).map(|it| rate(&it.4, it.3));
        rates.clone().sum::<f64>() / rates.count() as f64
    };
    let wall_without = without(Spent::per_second);
    let cpu_without = without(Spent::per_cpu_second);
    for (wanted, of, told, events, spent) in &all {
        let subscribers = told.len() as u64;
        let (collector_percent, load_percent) = spent.percent();
        let (wall, cpu) = (spent.per_second(*events), spent.per_cpu_second(*events));
        let fewer = format!("the collector takes {subscribers} subscribers, not {wanted}");
        let whose = match (subscribers, of) {
            (0, _) => "",
            (_, Of::OneHost) => ", each of one host's refusals",
            (_, Of::All) => ", each of all refusals",
        };
        Figures::new("subscribers", &format!("{subscribers} subscribers{whose}"))
            .number("events/s", wall)
            .number("of without", wall / wall_without)
            .number("events/CPU s", cpu)
            .number("of without, CPU", cpu / cpu_without)
            .number("collector CPU %", collector_percent)
            .number("load CPU %", load_percent)
            .number("told each", told.first().map(|count| count.get()))
            .note(if subscribers < *wanted { fewer } else { String::new() })
            .print();
    }
    Ok(())
}

/// Whose refusals a subscriber follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// Those of one host, each another one.
    OneHost,
    /// Those of all hosts: a hundred subscribers are told half as many events as come in.
    All,
}

/// How many events a subscriber was told.
type Told = Rc<Cell<u64>>;

async fn load(bench: &Bench, wanted: u64, of: Of) -> Result<(Vec<Told>, u64, Spent)> {
    let collector = Collector::start(bench, "subscribers")?;
    let mut agents = Agents::connect(bench, collector.address, 0..HOSTS, STEP_NS).await?;
    let mut all = Vec::new();
    while (all.len() as u64) < wanted {
        let Some(stream) = subscribe(bench, &collector, all.len() as u64, of).await? else { break };
        let told = Told::default();
        tokio::task::spawn_local(count(stream, Rc::clone(&told)));
        all.push(told);
    }
    let (events, spent) = ingest::load(&mut agents, collector.pid(), SECONDS).await?;
    for _ in 0..PATIENCE {
        let sum = || all.iter().map(|told| told.get()).sum::<u64>();
        let before = sum();
        tokio::time::sleep(SILENCE).await;
        if before == sum() {
            break;
        }
    }
    ensure!(all.iter().all(|told| told.get() > 0), "subscribers were told nothing");
    if let Some(first) = all.first().filter(|_| of == Of::All) {
        ensure!(all.iter().all(|told| told == first), "subscribers were told different things");
    }
    Ok((all, events, spent))
}

/// None when the collector takes no more.
async fn subscribe(
    bench: &Bench,
    collector: &Collector,
    number: u64,
    of: Of,
) -> Result<Option<Streaming<SubscribeResponse>>> {
    let channel = bench.operator(collector.address, number).await?;
    let hosts = match of {
        Of::OneHost => vec![host_name(number % HOSTS)],
        Of::All => Vec::new(),
    };
    let filter = Filter { verdicts: vec![Verdict::Denied.into()], hosts, ..Filter::default() };
    let request = SubscribeRequest { filter: Some(filter), cursor: None };
    match WatchServiceClient::new(channel).subscribe(request).await {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::ResourceExhausted => Ok(None),
        Err(status) => Err(status).context("cannot subscribe"),
    }
}

/// Until the collector ends.
async fn count(mut stream: Streaming<SubscribeResponse>, told: Told) {
    while let Ok(Some(_)) = stream.message().await {
        told.set(told.get() + 1);
    }
}
