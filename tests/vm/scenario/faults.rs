//! Bounds, a full disk and a clock that is set.

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::Run;
use crate::run::World;
use crate::{check, guest, records};
use guest::USB;

pub const ALL: &[(&str, Run)] = &[
    ("full-spool-drops-the-oldest", full_spool),
    ("full-disk-is-survived", full_disk),
    ("clock-step-is-recorded", clock_step),
];

/// Renames on the stick: nobody else makes such records, and each of them is several KB because
/// of the program's arguments.
const RENAMES: u64 = 2000;

/// Restarts the agent with this spool and no collector, makes many records, brings the collector
/// back, and compares.
fn flood(world: &mut World, spool: String, reason: &str) -> Result<()> {
    world.daemons.end_agent(Signal::SIGTERM)?;
    world.daemons.end_collector(Signal::SIGTERM)?;
    let mut options = world.daemons.ordinary();
    options.spool = spool;
    world.special_agent();
    world.daemons.start_agent(&options)?;
    let script = r#"
import os, sys
os.mkdir(sys.argv[1] + "/flood")
names = [sys.argv[1] + "/flood", sys.argv[1] + "/flood-again"]
for turn in range(int(sys.argv[2])):
    os.rename(names[turn % 2], names[(turn + 1) % 2])
os.rmdir(names[0])
"#;
    let padding = "p".repeat(3600);
    let output = guest::python(script, &[USB, &RENAMES.to_string(), &padding])?;
    check::ok(&output)?;
    check::that(world.daemons.agent_lives(), "the agent ended")?;
    world.daemons.start_collector()?;
    world.daemons.settle(&world.records)?;
    let of_flood = |it: &&Value| it.pointer("/process/pid") == Some(&json!(output.pid));
    let kept = world.records.search(&["--kind", "usb.write"])?;
    let kept: Vec<_> = kept.iter().filter(of_flood).collect();
    let wanted = |it: &&Value| it.pointer("/loss/kind") == Some(&json!("usb.write"));
    let losses = world.records.wait("a loss", &["--kind", "loss"], |all| {
        // Losses have a lane of their own: wait for all of them.
        let lost: u64 = all.iter().filter(wanted).map(count).sum();
        kept.len() as u64 + lost >= RENAMES + 2
    })?;
    let losses: Vec<_> = losses.iter().filter(wanted).collect();
    let lost: u64 = losses.iter().copied().map(count).sum();
    check::that(lost > 0, "nothing was lost: the flood was too small")?;
    check::equal("kept and lost", kept.len() as u64 + lost, RENAMES + 2)?;
    let reasons: Vec<_> = losses.iter().map(|it| records::text(it, "/loss/reason")).collect();
    check::that(reasons.iter().any(|it| it.contains(reason)), format!("reasons: {reasons:?}"))?;
    let newest = kept.iter().any(|it| records::text(it, "/operation") == "rmdir");
    check::that(newest, "the newest record was dropped, not the oldest")
}

fn count(loss: &Value) -> u64 {
    records::number(loss, "/loss/count")
}

fn full_spool(world: &mut World) -> Result<()> {
    let directory = world.daemons.path("small-spool");
    let spool = format!(
        "  directory: {}\n  telemetry_bytes_max: 4194304\n  alert_bytes_max: 4194304\n  \
         segment_bytes_max: 1048576\n",
        directory.display()
    );
    flood(world, spool, "spool full")
}

fn full_disk(world: &mut World) -> Result<()> {
    let directory = world.daemons.path("small-disk");
    std::fs::create_dir_all(&directory)?;
    let place = directory.to_string_lossy().into_owned();
    check::ok(&guest::run("mount", &["-t", "tmpfs", "-o", "size=3m", "tmpfs", &place])?)?;
    let spool = format!("  directory: {place}/spool\n  segment_bytes_max: 1048576\n");
    let outcome = flood(world, spool, "disk full");
    world.daemons.end_agent(Signal::SIGTERM)?;
    check::ok(&guest::run("umount", &[&place])?)?;
    outcome
}

fn clock_step(world: &mut World) -> Result<()> {
    let everything = world.records.everything();
    let from = everything.search(&["--newest", "--limit", "1"])?;
    let from = from.first().and_then(records::cursor).unwrap_or(0);
    for (step, sign) in [("+3600 seconds", "+3"), ("-3600 seconds", "-3")] {
        check::ok(&guest::run("date", &["-s", step])?)?;
        let said = everything.wait("a record about the clock", &["--kind", "agent"], |all| {
            let text = format!("the wall clock was set by {sign}");
            all.iter().any(|it| {
                let message = records::text(it, "/message");
                records::cursor(it) > Some(from) && message.starts_with(&text)
            })
        });
        if said.is_err() && step.starts_with('+') {
            guest::run("date", &["-s", "-3600 seconds"])?;
        }
        said?;
    }
    let mut newest = std::collections::HashMap::new();
    let mut all = world.records.search(&[])?;
    all.retain(|it| records::cursor(it) > Some(from));
    all.sort_by_key(records::cursor);
    for record in &all {
        let lane = (records::text(record, "/boot").to_owned(), records::number(record, "/lane"));
        let sequence = records::number(record, "/seq");
        let before = newest.insert(lane, sequence).unwrap_or(0);
        check::that(sequence > before, format!("number {sequence} was stored after {before}"))?;
    }
    Ok(())
}
