//! What the monitor costs, in instructions: runs in a guest whose clock counts them (QEMU's
//! `-icount shift=0`), with one CPU, so that everything that is done is counted somewhere.

mod clock;
mod floor;
mod operations;
mod peers;
mod policy;
mod state;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use self::clock::{Clocks, Cost};
use self::floor::Floor;
use self::operations::{Operation, Places};
use crate::daemons::Daemons;
use crate::{guest, limits, records};

const DIRECTORY: &str = "/run/sekimori-bench";
const SERIAL: &str = "SEKI0009";
const STICK: &str = "/mnt/bench-stick";
/// Done before each measurement, for what is only done the first time.
const BEFORE: u64 = 32;

/// Measures everything; prints one JSON object for each setup and operation, and for each state of
/// the daemons. With the directory where Debian's packages of other monitors are unpacked, those are
/// measured and nothing of ours.
pub fn main(packages: Option<&Path>, audited: bool, operation: Option<&str>) -> ExitCode {
    let outcome = match (packages, operation) {
        (Some(packages), _) => measure_peers(packages, audited),
        (None, Some(text)) => measure_some(text),
        (None, None) => measure(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn measure_peers(packages: &Path, audited: bool) -> Result<()> {
    let places = Places::prepare(STICK)?;
    if audited {
        return peers::measure_audited(packages, &places);
    }
    run_all("nothing", &places, &peers::OPERATIONS, None)?;
    peers::measure(packages, &places)
}

/// For those who change one of them.
fn measure_some(text: &str) -> Result<()> {
    let chosen = |all: &[Operation]| -> Vec<Operation> {
        all.iter().copied().filter(|it| it.name().contains(text)).collect()
    };
    let mut daemons = Daemons::prepare(Path::new(DIRECTORY))?;
    let places = Places::prepare(STICK)?;
    plug()?;
    run_all("nothing", &places, &chosen(Operation::ALL), None)?;
    unplug()?;
    start(&mut daemons)?;
    daemons.end_collector(Signal::SIGTERM)?;
    let recorded = chosen(Operation::RECORDED);
    let others = chosen(&Operation::without_stick());
    let others: Vec<_> = others.into_iter().filter(|it| !recorded.contains(it)).collect();
    run_all("10 rules, to the spool", &places, &recorded, Some(&daemons))?;
    run_all("10 rules", &places, &others, Some(&daemons))?;
    plug()?;
    run_all("10 rules, stick", &places, &chosen(Operation::WITH_STICK), Some(&daemons))?;
    unplug()?;
    daemons.end_agent(Signal::SIGTERM)?;
    Ok(())
}

fn measure() -> Result<()> {
    let mut daemons = Daemons::prepare(Path::new(DIRECTORY))?;
    let places = Places::prepare(STICK)?;
    plug()?;
    run_all("nothing", &places, Operation::ALL, None)?;
    let mut floor = Floor::start()?;
    for operation in Operation::ALL {
        floor.put_on(operation.hook())?;
        run_all("an empty program", &places, &[*operation], None)?;
    }
    drop(floor);
    unplug()?;

    start(&mut daemons)?;
    println!("{}", state::verifier("10 rules", &daemons)?);
    println!("{}", state::idle("10 rules", &daemons)?);
    run_all("10 rules", &places, &Operation::without_stick(), Some(&daemons))?;
    println!("{}", state::flood("10 rules", &daemons, &places)?);
    println!("{}", state::first_loss("10 rules", &daemons, &places)?);
    plug()?;
    run_all("10 rules, stick", &places, Operation::WITH_STICK, Some(&daemons))?;
    unplug()?;
    daemons.end_collector(Signal::SIGTERM)?;
    run_all("10 rules, to the spool", &places, Operation::RECORDED, Some(&daemons))?;
    daemons.start_collector()?;
    guest::until("everything is delivered", limits::START_TIMEOUT, || {
        Ok(records::number(&daemons.status()?, "/agent/spool/unacknowledged_bytes") == 0)
    })?;
    for rules in [1_000, 10_000] {
        daemons.write_policy(&policy::with_rules(rules))?;
        let setup = format!("{rules} rules");
        reload(&daemons, &setup)?;
        run_all(&setup, &places, &Operation::without_stick(), Some(&daemons))?;
        println!("{}", state::idle(&setup, &daemons)?);
    }
    daemons.end_agent(Signal::SIGTERM)?;
    daemons.end_collector(Signal::SIGTERM)?;
    Ok(())
}

/// Collector and agent with the smallest of the policies, and the guard.
fn start(daemons: &mut Daemons) -> Result<()> {
    daemons.write_policy(&policy::with_rules(10))?;
    daemons.start_collector()?;
    let mut ordinary = daemons.ordinary();
    ordinary.guard = "deny";
    daemons.start_agent(&ordinary)
}

/// By signal: so many rules take longer than a command waits on this machine.
fn reload(daemons: &Daemons, name: &str) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(daemons.agent_pid())?), Signal::SIGHUP)?;
    guest::until("the new policy is in force", limits::START_TIMEOUT, || {
        Ok(records::text(&daemons.status()?, "/agent/policy/name") == name)
    })
}

fn run_all(
    setup: &str,
    places: &Places,
    operations: &[Operation],
    daemons: Option<&Daemons>,
) -> Result<()> {
    for operation in operations {
        let count = operation.count();
        places.run(*operation, BEFORE)?;
        let lost_before = lost(daemons)?;
        let agent = daemons.map(Daemons::agent_pid);
        let collector = daemons.and_then(Daemons::collector_pid);
        let pids: Vec<u32> = agent.into_iter().chain(collector).collect();
        let clocks = Clocks::of(&pids)?;
        let cost: Cost = clocks.cost_of(|| places.run(*operation, count))?;
        // Figures of records that nobody made would look very good.
        let recorded = Operation::RECORDED.contains(operation) && daemons.is_some();
        let part = |index: usize| cost.processes.get(index).copied().unwrap_or(0);
        anyhow::ensure!(!recorded || part(0) > count, "{} left no record", operation.name());
        let each = |total: u64| total as f64 / count as f64;
        println!(
            "{}",
            json!({
                "setup": setup,
                "operation": operation.name(),
                "count": count,
                "kernel": each(cost.kernel),
                "agent": each(part(0)),
                "collector": each(part(1)),
                "lost": lost(daemons)?.zip(lost_before).map(|(after, before)| after - before),
            })
        );
    }
    Ok(())
}

/// Records of any kind that the kernel half had no room for, where there is one to ask.
fn lost(daemons: Option<&Daemons>) -> Result<Option<u64>> {
    let Some(daemons) = daemons else { return Ok(None) };
    let status = daemons.ask()?;
    let counters = status.pointer("/status/counters").and_then(Value::as_array);
    Ok(Some(counters.into_iter().flatten().map(|it| records::number(it, "/lost")).sum()))
}

fn plug() -> Result<()> {
    let output = guest::run("sekimori-stick", &["plug", SERIAL, "64M:vfat"])?;
    crate::check::ok(&output)?;
    guest::mount(SERIAL, STICK).context("the stick")?;
    Ok(())
}

fn unplug() -> Result<()> {
    crate::check::ok(&guest::run("umount", &[STICK])?)?;
    crate::check::ok(&guest::run("sekimori-stick", &["unplug", SERIAL])?)
}
