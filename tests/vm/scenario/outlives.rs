//! What the policy forbids stays forbidden without the agent, until somebody ends it and says why.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::Run;
use super::prepare::{PLAIN, SECRET};
use crate::guest::{OTHER, OTHER_SERIAL, USB, USB_SERIAL};
use crate::run::World;
use crate::{check, guest, limits, records};

pub const ALL: &[(&str, Run)] = &[
    ("killed-agent", killed),
    ("stopped-agent", stopped),
    ("frozen-agent", frozen),
    ("released", released),
    ("upgrade-without-gap", upgraded),
    ("hooks-follow-the-stick", follow_the_stick),
];

const PLAN: &str = "/srv/secret/plan.txt";

/// Everything that the policy forbids, tried with one program each.
pub(super) fn still_refused(mark: &str) -> Result<()> {
    check::refused(&guest::run("cat", &[PLAN])?)?;
    let target = format!("{OTHER}/{mark}");
    check::refused(&guest::run("cp", &["/etc/hostname", &target])?)?;
    check::refused(&guest::run("mkdir", &[&target])?)?;
    check::that(!Path::new(&target).exists(), format!("{target} is there"))?;
    let connect = "import socket; socket.create_connection(('127.0.0.2', 9), 2)";
    let output = guest::python(connect, &[] as &[&str])?;
    check::that(output.errors().contains("not permitted"), output.errors())
}

/// The refusals are on record, with the names of their rules.
pub(super) fn refusals_recorded(world: &World) -> Result<()> {
    for (kind, rule) in [
        ("file.open", "secret-no-open"),
        ("usb.write", "usb-only-company"),
        ("net.connect", "no-connect-there"),
    ] {
        world.records.wait(rule, &["--kind", kind, "--verdict", "denied"], |all| {
            all.iter().any(|it| records::text(it, "/rule") == rule)
        })?;
    }
    Ok(())
}

fn killed(world: &mut World) -> Result<()> {
    check::equal("its status", world.daemons.end_agent(Signal::SIGKILL)?, 128 + 9)?;
    still_refused("killed")?;
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    refusals_recorded(world)?;
    still_refused("started")?;
    world.records.wait("what happened meanwhile", &["--kind", "agent"], |all| {
        all.iter().any(|it| records::text(it, "/message").contains("the policy stayed in force"))
    })?;
    Ok(())
}

fn stopped(world: &mut World) -> Result<()> {
    check::equal("its exit code", world.daemons.end_agent(Signal::SIGTERM)?, 0)?;
    world.records.forget()?;
    still_refused("stopped")?;
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    refusals_recorded(world)?;
    world.records.wait("that it took over", &["--kind", "agent"], |all| {
        all.iter().any(|it| records::text(it, "/message").contains("were at work all along"))
    })?;
    Ok(())
}

fn frozen(world: &mut World) -> Result<()> {
    let group = "/sys/fs/cgroup/agent";
    std::fs::create_dir_all(group)?;
    guest::write(format!("{group}/cgroup.procs"), world.daemons.agent_pid().to_string())?;
    guest::write(format!("{group}/cgroup.freeze"), "1")?;
    let refused = still_refused("frozen");
    guest::write(format!("{group}/cgroup.freeze"), "0")?;
    refused?;
    refusals_recorded(world)?;
    guest::write(format!("{group}/cgroup.kill"), "1")?;
    guest::until("the agent ends", limits::STOP_TIMEOUT, || Ok(!world.daemons.agent_lives()))?;
    let _ = world.daemons.end_agent(Signal::SIGTERM);
    still_refused("group-killed")?;
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)
}

fn released(world: &mut World) -> Result<()> {
    let config = world.daemons.path("agent.yaml");
    let config = config.to_string_lossy().into_owned();
    let release = ["release", "--config", &config, "--reason", "緊急 ticket 4711"];
    let output = guest::run("sekimori-agent", &release)?;
    check::that(output.status != 0, "enforcement was ended under a running agent")?;
    check::that(output.errors().contains("in use"), output.errors())?;
    check::refused(&guest::run("cat", &[PLAN])?)?;

    check::equal("its exit code", world.daemons.end_agent(Signal::SIGTERM)?, 0)?;
    check::refused(&guest::run("cat", &[PLAN])?)?;
    check::ok(&guest::run("sekimori-agent", &release)?)?;
    // The kernel frees a link a moment after its last holder.
    guest::until("the secret can be read", limits::STOP_TIMEOUT, || {
        Ok(guest::run("cat", &[PLAN])?.text() == SECRET)
    })?;
    let output = guest::run("sekimori-agent", &release)?;
    check::that(output.text().contains("nothing was in force"), output.text())?;

    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    check::refused(&guest::run("cat", &[PLAN])?)?;
    world.records.wait("who ended it and why", &["--kind", "agent"], |all| {
        all.iter().any(|it| {
            let message = records::text(it, "/message");
            message.contains("enforcement was ended by uid 0")
                && message.contains("緊急 ticket 4711")
        })
    })?;
    Ok(())
}

fn upgraded(world: &mut World) -> Result<()> {
    let (stop, log) = (Path::new("/run/upgrade-stop"), Path::new("/run/upgrade-loop.log"));
    let _ = std::fs::remove_file(stop);
    let mut command = Command::new("bash");
    // A small pause, or the start of the agent takes minutes.
    let script = "mkfifo /run/upgrade-pause; exec 3<>/run/upgrade-pause; rm /run/upgrade-pause; \
        tries=0; leaks=0; while [ ! -e /run/upgrade-stop ]; do tries=$((tries + 1)); \
        if read -r line </srv/secret/plan.txt; then leaks=$((leaks + 1)); fi 2>/dev/null; \
        if [ -n \"$line\" ]; then leaks=$((leaks + 1)); line=; fi; \
        if mkdir /mnt/other/upgraded; then leaks=$((leaks + 1)); rmdir /mnt/other/upgraded; fi \
        2>/dev/null; read -r -t 0.2 -u 3; done; echo \"tries=$tries leaks=$leaks\"";
    command.args(["-c", script]);
    let mut attempts = guest::Background::start(command, log)?;
    let before = sets()?;
    // Programs that log are another build for the kernel.
    let mut other = world.daemons.ordinary();
    other.arguments = &["--program-logs"];
    check::equal("its exit code", world.daemons.end_agent(Signal::SIGTERM)?, 0)?;
    world.daemons.start_agent(&other)?;
    let after = sets()?;
    check::equal("its exit code", world.daemons.end_agent(Signal::SIGTERM)?, 0)?;
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    guest::write(stop, "")?;
    attempts.wait()?;
    let said = std::fs::read_to_string(log)?;
    let said = said.lines().last().unwrap_or("");
    check::that(said.ends_with(" leaks=0"), format!("the secret was read: {said}"))?;
    check::that(!said.starts_with("tries=0 ") && said.len() > 15, format!("it said {said}"))?;
    check::equal("builds before", before.len(), 1)?;
    check::equal("builds after", after.len(), 1)?;
    check::that(before != after, "it is the same build")?;
    check::equal("builds at the end", sets()?, before)
}

/// Names of the builds whose programs are pinned.
pub(super) fn sets() -> Result<Vec<std::ffi::OsString>> {
    let entries = std::fs::read_dir("/sys/fs/bpf/sekimori")?;
    let mut names =
        entries.map(|it| it.map(|it| it.file_name())).collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn follow_the_stick(world: &mut World) -> Result<()> {
    let link = Path::new("/sys/fs/bpf/sekimori")
        .join(sets()?.first().context("no programs are pinned")?)
        .join("links/buffered_write");
    check::that(link.exists(), "writes are not watched while sticks are plugged in")?;
    for (serial, place) in [(USB_SERIAL, USB), (OTHER_SERIAL, OTHER)] {
        // A program that is older than the agent may still have a file open there.
        check::ok(&guest::run("umount", &["-l", place])?)?;
        check::ok(&guest::run("sekimori-stick", &["unplug", serial])?)?;
    }
    let gone =
        guest::until("the programs leave their hooks", limits::STOP_TIMEOUT, || Ok(!link.exists()));
    for (serial, place) in [(USB_SERIAL, USB), (OTHER_SERIAL, OTHER)] {
        check::ok(&guest::run("sekimori-stick", &["plug", serial])?)?;
        guest::mount(serial, place)?;
    }
    gone?;
    guest::until("the programs are back", limits::STOP_TIMEOUT, || Ok(link.exists()))?;
    check::refused(&guest::run("mkdir", &[format!("{OTHER}/followed")])?)?;
    let path = format!("{USB}/followed.txt");
    check::ok(&guest::bash("echo nothing special > \"$1\"", &[&path])?)?;
    check::equal("on the stick", std::fs::read_to_string(&path)?.trim(), PLAIN)?;
    world.records.expect(
        "usb.write",
        &[
            ("/operation", "close".into()),
            ("/file/path", path.as_str().into()),
            ("/bytes", 16.into()),
        ],
    )?;
    Ok(())
}
