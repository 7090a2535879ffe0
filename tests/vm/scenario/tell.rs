//! The person who was refused is told on the terminal they used.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::Run;
use crate::guest::Background;
use crate::run::World;
use crate::{check, guest, limits, records};

pub const ALL: &[(&str, Run)] =
    &[("the-terminal-says-why", terminal), ("a-flood-is-told-a-few-times", flood)];

const DONE: &str = "/run/told";
const SEEN: &str = "/run/terminal.log";

/// Runs a script on a terminal of its own that stays open until the agent has dealt with so many
/// refusals, and gives back what the person saw.
fn seen(world: &World, script: &str, refusals: u64) -> Result<String> {
    let _ = std::fs::remove_file(DONE);
    let before = told(world)?;
    let inside = format!("{script}; until [ -e {DONE} ]; do sleep 0.2; done; sleep 1");
    let mut command = Command::new("script");
    command.args(["-qec", &inside, "/dev/null"]);
    let mut terminal = Background::start(command, Path::new(SEEN))?;
    let told = guest::until("the person is told", limits::PROGRAM_TIMEOUT, || {
        Ok(told(world)? >= before + refusals)
    });
    guest::write(DONE, "")?;
    terminal.wait()?;
    told?;
    Ok(String::from_utf8_lossy(&std::fs::read(SEEN)?).into_owned())
}

/// Refusals at terminals that the agent has dealt with.
fn told(world: &World) -> Result<u64> {
    let status = world.daemons.status()?;
    let count = |name: &str| records::number(&status, &format!("/agent/told/{name}"));
    Ok(count("written") + count("suppressed") + count("failed"))
}

fn terminal(world: &mut World) -> Result<()> {
    let seen = seen(world, "cat /srv/secret/plan.txt", 1)?;
    for text in [
        check::REFUSED,
        "This file is secret.",
        "このファイルは機密です。",
        "rule secret-no-open",
        "/srv/secret/plan.txt",
    ] {
        check::that(seen.contains(text), format!("the terminal lacks {text:?}: {seen:?}"))?;
    }
    let filters = ["--kind", "file.open", "--verdict", "denied"];
    world.records.wait("a refusal with its terminal", &filters, |all| {
        all.iter().any(|it| records::text(it, "/process/tty").starts_with("pts/"))
    })?;
    Ok(())
}

fn flood(world: &mut World) -> Result<()> {
    let before = suppressed(world)?;
    let script = "for i in {1..200}; do read -r line </srv/secret/plan.txt; done";
    let seen = seen(world, &format!("bash -c '{script}' 2>/dev/null"), 200)?;
    let told = seen.matches("Sekimori: This file is secret.").count();
    check::that((1..50).contains(&told), format!("told {told} times of 200 refusals"))?;
    let suppressed = suppressed(world)? - before;
    check::equal("told and not told", told as u64 + suppressed, 200)
}

fn suppressed(world: &World) -> Result<u64> {
    Ok(records::number(&world.daemons.status()?, "/agent/told/suppressed"))
}
