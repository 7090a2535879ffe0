//! What the daemons cost while nothing is measured: memory, idling, losses; and the verifier's work.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::clock;
use super::operations::{Operation, Places};
use crate::daemons::Daemons;
use crate::{guest, limits, records};

/// Long enough for several polls.
const IDLE: Duration = Duration::from_secs(20);
/// Recorded opens, as fast as one CPU can that the agent has to share.
const FLOOD: u64 = 50_000;

/// One line: what the agent and the collector use when nothing happens.
pub fn idle(setup: &str, daemons: &Daemons) -> Result<Value> {
    let agent = daemons.agent_pid();
    let instructions = clock::idle(agent, IDLE)?;
    Ok(json!({
        "state": "idle",
        "setup": setup,
        "agent_percent": instructions as f64 / IDLE.as_nanos() as f64 * 100.0,
        "agent_resident_kib": memory(agent, "VmRSS")?,
        // Of that, what is its own, and the rings and tables that it maps.
        "agent_anonymous_kib": memory(agent, "RssAnon")?,
        "agent_shared_kib": memory(agent, "RssShmem")?,
        "agent_peak_kib": memory(agent, "VmHWM")?,
        "collector_resident_kib": daemons.collector_pid().map(|pid| memory(pid, "VmRSS")).transpose()?,
    }))
}

/// One line: what is left of a flood of recorded opens, and the agent's memory after it.
pub fn flood(setup: &str, daemons: &Daemons, places: &Places) -> Result<Value> {
    let agent = daemons.agent_pid();
    // Forgets what it took to load (proc(5), clear_refs).
    std::fs::write(format!("/proc/{agent}/clear_refs"), "5")?;
    let before = opens(&daemons.status()?);
    places.run(Operation::OpenLabelled, FLOOD)?;
    delivered(daemons)?;
    let after = opens(&daemons.status()?);
    Ok(json!({
        "state": "flood",
        "setup": setup,
        "opens": FLOOD,
        "emitted": after.0 - before.0,
        "lost": after.1 - before.1,
        "agent_peak_kib": memory(agent, "VmHWM")?,
    }))
}

/// Programs that open files at once, until something is lost.
const WRITERS: [u64; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// Opens of each.
const EACH: u64 = 2_000;

/// One line: with how many programs at once, each as fast as it can and all on the agent's CPU, the
/// first record of an open is lost. That is counted, exactly.
pub fn first_loss(setup: &str, daemons: &Daemons, places: &Places) -> Result<Value> {
    let mut rounds = Vec::new();
    for writers in WRITERS {
        let before = opens(&daemons.status()?);
        std::thread::scope(|scope| {
            let work = || places.run(Operation::OpenLabelled, EACH);
            let all: Vec<_> = (0..writers).map(|_| scope.spawn(work)).collect();
            all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("it panicked")))
        })?;
        delivered(daemons)?;
        let after = opens(&daemons.status()?);
        let (emitted, lost) = (after.0 - before.0, after.1 - before.1);
        let opens = writers * EACH;
        ensure!(emitted + lost == opens, "of {opens} opens, {emitted} are reported, {lost} lost");
        rounds.push(json!({ "writers": writers, "opens": opens, "lost": lost }));
        if lost > 0 {
            break;
        }
    }
    Ok(json!({ "state": "first_loss", "setup": setup, "rounds": rounds }))
}

fn delivered(daemons: &Daemons) -> Result<()> {
    guest::until("the flood is delivered", limits::START_TIMEOUT, || {
        Ok(records::number(&daemons.status()?, "/agent/spool/unacknowledged_bytes") == 0)
    })
}

/// One line: how many instructions the verifier looked at, program by program.
pub fn verifier(setup: &str, daemons: &Daemons) -> Result<Value> {
    let status = daemons.status()?;
    let features = status.pointer("/agent/features").and_then(Value::as_array);
    let verified = features.into_iter().flatten().filter_map(|feature| {
        let detail = records::text(feature, "/detail");
        let number = detail.split_whitespace().find_map(|word| word.parse::<u64>().ok())?;
        Some((records::text(feature, "/hook").to_owned(), number))
    });
    let mut verified: Vec<(String, u64)> = verified.collect();
    verified.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    Ok(json!({ "state": "verifier", "setup": setup, "verified": verified }))
}

/// Opens that the kernel half reported, and those that were lost.
fn opens(status: &Value) -> (u64, u64) {
    let counters = status.pointer("/agent/counters").and_then(Value::as_array);
    let opens = |it: &&Value| records::text(it, "/kind") == "file.open";
    let found = counters.into_iter().flatten().find(opens);
    found.map_or((0, 0), |it| (records::number(it, "/emitted"), records::number(it, "/lost")))
}

/// A size in `/proc/PID/status`, in KiB.
fn memory(pid: u32, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with(name)).context("no such line")?;
    let number = line.split_whitespace().nth(1).context("no number")?;
    Ok(number.parse()?)
}
