//! The person who was refused is told on the terminal they used.

use anyhow::Result;

use super::Run;
use crate::run::World;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] =
    &[("the-terminal-says-why", terminal), ("a-flood-is-told-a-few-times", flood)];

/// Runs a script on a terminal of its own that stays open for a while, and gives back what the
/// person saw.
fn seen(script: &str) -> Result<String> {
    let inside = format!("{script}; sleep 6");
    Ok(guest::run("script", &["-qec", &inside, "/dev/null"])?.text())
}

fn terminal(world: &mut World) -> Result<()> {
    let seen = seen("cat /srv/secret/plan.txt")?;
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
    let seen = seen(&format!("bash -c '{script}' 2>/dev/null"))?;
    let told = seen.matches("Sekimori: This file is secret.").count();
    check::that((1..50).contains(&told), format!("told {told} times of 200 refusals"))?;
    let suppressed = suppressed(world)? - before;
    check::equal("told and not told", told as u64 + suppressed, 200)
}

fn suppressed(world: &World) -> Result<u64> {
    Ok(records::number(&world.daemons.status()?, "/agent/told/suppressed"))
}
