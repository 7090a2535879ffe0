//! Policies: checked, changed while the agent runs, and never absent.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Run;
use super::prepare::{PLAIN, SECRET};
use crate::run::World;
use crate::{check, guest, limits, records};

pub const ALL: &[(&str, Run)] = &[
    ("lint-says-line-and-column", lint),
    ("bad-reload-keeps-the-last-good", bad_reload),
    ("good-reload-changes-the-verdict", good_reload),
    ("hangup-reloads", hangup),
    ("no-instant-without-policy", atomic),
    ("ten-thousand-rules", ten_thousand),
];

const PLAN: &str = "/srv/secret/plan.txt";

fn lint(_: &mut World) -> Result<()> {
    let bad = World::usual_policy_and("").replace("action: deny, mode: observe", "action: dney");
    guest::write("/tmp/bad.yaml", &bad)?;
    let (line, text) = bad
        .lines()
        .enumerate()
        .find_map(|(index, line)| line.contains("dney").then_some((index + 1, line)))
        .context("the bad line is not there")?;
    let column = text.find("dney").context("no column")? + 1;
    let output = guest::run("sekimori", &["policy", "lint", "/tmp/bad.yaml"])?;
    check::equal("exit code", output.status, 2)?;
    let all = output.text() + &output.errors();
    let place = format!("/tmp/bad.yaml:{line}:{column}:");
    check::that(all.contains(&place), format!("{place} is not in {all:?}"))?;
    guest::write("/tmp/good.yaml", World::usual_policy_and(""))?;
    check::ok(&guest::run("sekimori", &["policy", "lint", "/tmp/good.yaml"])?)
}

fn bad_reload(world: &mut World) -> Result<()> {
    world.policy_was_changed();
    world.daemons.write_policy("apiVersion: sekimori/v1\nkind: Policy\nrules: [x]\n")?;
    let output = world.daemons.reload()?;
    check::that(output.status != 0, format!("the bad policy was taken: {}", output.text()))?;
    check::refused(&guest::run("cat", &[PLAN])?)?;
    world.records.wait("an agent record", &["--kind", "agent"], |all| {
        all.iter().any(|it| {
            let message = records::text(it, "/message");
            message.contains("refused") && message.contains("scenarios stays in force")
        })
    })?;
    let status = world.daemons.status()?;
    let reason = records::text(&status, "/agent/policy/refused");
    check::that(!reason.is_empty(), "status does not say that the policy was refused")
}

fn good_reload(world: &mut World) -> Result<()> {
    check::refused(&guest::run("cat", &[PLAN])?)?;
    check::ok(&guest::run("cat", &["/srv/personal/a.txt"])?)?;
    let other = World::usual_policy_and("").replace("/srv/secret/**", "/srv/personal/*");
    world.policy(&other)?;
    let output = guest::run("cat", &[PLAN])?;
    check::equal("what was read", output.text(), SECRET.to_owned())?;
    check::refused(&guest::run("cat", &["/srv/personal/a.txt"])?)?;
    world.policy(&World::usual_policy_and(""))?;
    check::refused(&guest::run("cat", &[PLAN])?)?;
    let output = guest::run("cat", &["/srv/personal/a.txt"])?;
    check::equal("what was read", output.text(), PLAIN.to_owned())
}

fn hangup(world: &mut World) -> Result<()> {
    world.policy_was_changed();
    let policy = World::usual_policy_and("").replace("name: scenarios }", "name: after-hangup }");
    world.daemons.write_policy(&policy)?;
    reload_by_signal(world, "after-hangup")
}

fn reload_by_signal(world: &World, name: &str) -> Result<()> {
    let pid = i32::try_from(world.daemons.agent_pid())?;
    kill(Pid::from_raw(pid), Signal::SIGHUP)?;
    guest::until("the new policy is in force", limits::START_TIMEOUT, || {
        let status = world.daemons.status()?;
        Ok(records::text(&status, "/agent/policy/name") == name)
    })
}

fn atomic(world: &mut World) -> Result<()> {
    let (stop, log) = (Path::new("/run/reload-stop"), Path::new("/run/reload-loop.log"));
    let _ = std::fs::remove_file(stop);
    let mut command = Command::new("bash");
    // A small pause: this is about the swap, not about a flood.
    let script = "mkfifo /run/reload-pause; exec 3<>/run/reload-pause; rm /run/reload-pause; \
        tries=0; leaks=0; while [ ! -e /run/reload-stop ]; do tries=$((tries + 1)); \
        if read -r line </srv/secret/plan.txt; then leaks=$((leaks + 1)); fi 2>/dev/null; \
        if [ -n \"$line\" ]; then leaks=$((leaks + 1)); line=; fi; read -r -t 0.004 -u 3; done; \
        echo \"tries=$tries leaks=$leaks\"";
    command.args(["-c", script]);
    let mut attempts = guest::Background::start(command, log)?;
    let more = "  - { id: more, on: file.open, when: { label: watched }, action: alert }\n";
    for turn in 0..50 {
        world.policy(&World::usual_policy_and(if turn % 2 == 0 { more } else { "" }))?;
    }
    guest::write(stop, "")?;
    attempts.wait()?;
    let said = std::fs::read_to_string(log)?;
    let said = said.lines().last().unwrap_or("");
    let tries: u64 = said
        .strip_prefix("tries=")
        .and_then(|rest| rest.split(' ').next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("the loop said {said:?}"))?;
    check::that(said.ends_with(" leaks=0"), format!("the secret was read: {said}"))?;
    check::that(tries > 200, format!("only {tries} tries during 50 reloads"))
}

fn ten_thousand(world: &mut World) -> Result<()> {
    const COUNT: usize = 10_000;
    let (labels, rules) = (COUNT - 15, COUNT - 15);
    let policy = World::usual_policy_and("");
    let (head, tail) = policy.split_once("\ndevices:").context("no devices")?;
    let mut text = head.replace("name: scenarios }", "name: large }");
    for number in 0..labels {
        text.push_str(&format!("\n  - {{ name: l{number}, paths: [/srv/many/{number}/**] }}"));
    }
    text.push_str("\n\ndevices:");
    text.push_str(tail);
    for number in 0..rules {
        text.push_str(&format!(
            "  - {{ id: r{number}, on: file.open, when: {{ label: l{number} }}, action: deny }}\n"
        ));
    }
    guest::write("/srv/many/9000/a.txt", SECRET)?;
    guest::write("/srv/many/none/a.txt", PLAIN)?;
    world.policy_was_changed();
    world.daemons.write_policy(&text)?;
    reload_by_signal(world, "large")?;
    let status = world.daemons.status()?;
    check::equal("rules", records::number(&status, "/agent/policy/rules"), COUNT as u64)?;
    check::refused(&guest::run("cat", &["/srv/many/9000/a.txt"])?)?;
    check::refused(&guest::run("cat", &[PLAN])?)?;
    check::ok(&guest::run("cat", &["/srv/many/none/a.txt"])?)
}
