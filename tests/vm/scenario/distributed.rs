//! Policies that come from the collector.

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::Run;
use crate::daemons::{AgentOptions, HOST};
use crate::limits::{RECORD_TIMEOUT, STOP_TIMEOUT};
use crate::run::World;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] = &[("put-replayed-kept-and-no-way-back", whole_life)];

const WATCHED: &str = "/srv/watched/from-the-collector.txt";
const STRICT: &str = "/run/sekimori-strict.yaml";
const LAX: &str = "/run/sekimori-lax.yaml";
const BAD: &str = "/run/sekimori-bad.yaml";

/// The usual policy, but what is only recorded elsewhere is refused.
fn strict() -> String {
    let text = World::usual_policy_and("").replace("name: scenarios", "name: strict");
    text.replace(
        "when: { label: watched }, action: record",
        "when: { label: watched }, action: deny",
    )
}

fn policy(world: &World, arguments: &[&str]) -> Result<guest::Output> {
    let collector = world.daemons.collector_address();
    let line = [&["policy"], arguments, &["--json", "--collector", &collector]].concat();
    guest::run("sekimori", &line)
}

fn put(world: &World, file: &str, reason: &str) -> Result<u64> {
    let output = policy(world, &["put", file, "--reason", reason])?;
    check::ok(&output)?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    check::equal("hosts that are to run it", records::number(&answer, "/hosts"), 1)?;
    Ok(records::number(&answer, "/epoch"))
}

fn stands(world: &World, epoch: u64, turn: &str) -> Result<Value> {
    let mut found = Value::Null;
    guest::until(&format!("the host is {turn} at epoch {epoch}"), RECORD_TIMEOUT, || {
        let output = policy(world, &["rollout", &epoch.to_string()])?;
        check::ok(&output)?;
        found = serde_json::from_slice(&output.stdout)?;
        let host = records::text(&found, "/each/0/host") == HOST;
        Ok(host && records::text(&found, "/each/0/turn") == turn)
    })?;
    Ok(found)
}

fn collector_again(world: &mut World, between: impl Fn(&World) -> Result<()>) -> Result<()> {
    world.daemons.end_collector(Signal::SIGTERM)?;
    between(world)?;
    world.daemons.start_collector()
}

fn whole_life(world: &mut World) -> Result<()> {
    world.special_agent();
    world.daemons.end_agent(Signal::SIGTERM)?;
    let options = AgentOptions { policy_from: "collector", ..world.daemons.ordinary() };
    world.daemons.start_agent(&options)?;
    world.daemons.settle(&world.records)?;
    guest::write(WATCHED, "a plan\n")?;
    guest::write(STRICT, strict())?;
    guest::write(LAX, World::usual_policy_and("").replace("name: scenarios", "name: lax"))?;
    guest::write(BAD, strict().replace("action: deny, mode: observe", "action: dney"))?;
    let read = || guest::run("cat", &[WATCHED]);
    // The file of the host's own is in force until the first has come.
    check::ok(&read()?)?;
    check::ok(&read()?)?;
    world.records.wait("two opens", &["--kind", "file.open", "--text", WATCHED], |all| {
        all.len() >= 2 && all.iter().all(|it| records::text(it, "/verdict") == "allowed")
    })?;
    replayed(world)?;
    let bad = policy(world, &["put", BAD, "--reason", "a mistake"])?;
    check::equal("exit code of a policy with errors", bad.status, 2)?;
    check::that(bad.text().contains("dney"), format!("{} does not say what is wrong", bad.text()))?;

    let first = put(world, STRICT, "規則を厳しく")?;
    stands(world, first, "running")?;
    check::refused(&read()?)?;
    world.records.wait("that it is in force", &["--kind", "agent"], |all| {
        all.iter().any(|it| {
            let message = records::text(it, "/message");
            records::text(it, "/policy/name") == "strict"
                && message.contains(&format!("epoch {first} of the collector's"))
                && message.contains("規則を厳しく")
        })
    })?;
    world.records.wait("who put it", &["--kind", "operator"], |all| {
        all.iter().any(|it| {
            records::text(it, "/act/method") == "PutPolicy"
                && records::text(it, "/act/question").contains("規則を厳しく")
        })
    })?;
    no_way_back(world, first)?;
    kept_without_collector(world, &options)
}

/// A collector that goes back to what it had before, as one that is in wrong hands may.
fn no_way_back(world: &mut World, first: u64) -> Result<()> {
    let database = world.daemons.path("collector/store/policies.db");
    let saved = world.daemons.path("policies.db.saved");
    let (from, to) = (database.clone(), saved.clone());
    collector_again(world, move |_| std::fs::copy(&from, &to).map(drop).context("no database"))?;
    let second = put(world, LAX, "zu streng")?;
    check::equal("the next epoch", second, first + 1)?;
    stands(world, second, "running")?;
    check::ok(&guest::run("cat", &[WATCHED])?)?;
    collector_again(world, move |_| std::fs::copy(&saved, &database).map(drop).context("no copy"))?;
    let refused = stands(world, first, "refused")?;
    let reason = records::text(&refused, "/each/0/refusal");
    check::that(reason.contains("is not higher than"), format!("refused because: {reason}"))?;
    check::ok(&guest::run("cat", &[WATCHED])?)?;
    world.records.wait("an alert", &["--kind", "agent"], |all| {
        all.iter().any(|it| {
            records::text(it, "/verdict") == "alerted"
                && records::text(it, "/message").contains("lax stays in force")
        })
    })?;
    // It goes on behind what the host has had.
    let third = put(world, STRICT, "und doch")?;
    check::equal("the epoch behind the host's", third, second + 1)?;
    stands(world, third, "running")?;
    check::refused(&guest::run("cat", &[WATCHED])?)
}

/// Neither the collector nor the kernel knows it any more, and the host's own file says otherwise.
fn kept_without_collector(world: &mut World, options: &AgentOptions) -> Result<()> {
    world.daemons.end_collector(Signal::SIGTERM)?;
    world.daemons.end_agent(Signal::SIGTERM)?;
    let config = world.daemons.path("agent.yaml");
    let config = config.to_string_lossy();
    let release = ["release", "--config", &config, "--reason", "the scenario"];
    check::ok(&guest::run("sekimori-agent", &release)?)?;
    // The kernel frees a link a moment after its last holder.
    guest::until("nothing is refused", STOP_TIMEOUT, || {
        Ok(guest::run("cat", &[WATCHED])?.status == 0)
    })?;
    world.daemons.start_agent(options)?;
    check::refused(&guest::run("cat", &[WATCHED])?)?;
    check::ok(&world.daemons.reload()?)?;
    check::refused(&guest::run("cat", &[WATCHED])?)?;
    let status = world.daemons.ask()?;
    check::equal("its name", records::text(&status, "/status/policy/name"), "strict")?;
    world.daemons.start_collector()
}

/// What the strict policy would have stopped, before it is put.
fn replayed(world: &World) -> Result<()> {
    let line =
        ["replay", STRICT, "--since", "1 hour ago", "--kind", "file.open", "--text", WATCHED];
    let output = policy(world, &line)?;
    check::ok(&output)?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    check::that(records::number(&answer, "/stopped") >= 2, format!("replayed: {answer}"))?;
    check::equal("stopped then", records::number(&answer, "/stopped_then"), 0)?;
    let group = [
        ("/user", json!("root")),
        ("/rule", json!("watched-opens")),
        ("/verdict", json!("denied")),
        ("/verdict_then", json!("allowed")),
    ];
    let groups = answer.pointer("/groups").and_then(Value::as_array).context("no groups")?;
    check::that(
        groups.iter().any(|it| records::fits(it, &group)),
        format!("no group for root: {answer}"),
    )
}
