//! Records on their way: nothing is lost and nothing is stored twice.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::Run;
use crate::run::World;
use crate::{check, guest, limits, records};

pub const ALL: &[(&str, Run)] = &[
    ("collector-stopped-for-a-while", collector_stopped),
    ("collector-killed-during-traffic", collector_killed),
    ("agent-killed-during-traffic", agent_killed),
    ("agent-drains-on-sigterm", drains),
    ("two-agents-on-one-spool", two_agents),
    ("garbage-on-the-port", garbage),
    ("strangers-certificate-refused", stranger),
    ("agent-with-wrong-certificate", wrong_certificate),
    ("unix-socket-of-this-host", unix_socket),
];

/// Launches `count` programs with the marker and a number as arguments, in the background.
fn traffic(marker: &str, count: usize) -> Result<guest::Background> {
    let mut command = Command::new("bash");
    let script = "for ((i = 0; i < $2; i++)); do /bin/true \"$1\" $i; done";
    command.args(["-c", script, "bash", marker, &count.to_string()]);
    guest::Background::start(command, Path::new("/run/traffic.log"))
}

/// How often each number of a marker is stored.
fn stored(world: &World, marker: &str) -> Result<HashMap<String, usize>> {
    let mut times = HashMap::new();
    for record in world.records.search(&["--kind", "exec"])? {
        if records::text(&record, "/process/argv/1") == marker {
            *times.entry(records::text(&record, "/process/argv/2").to_owned()).or_default() += 1;
        }
    }
    Ok(times)
}

fn each_once(world: &World, marker: &str, count: usize) -> Result<()> {
    world.daemons.settle(&world.records)?;
    let times = stored(world, marker)?;
    let missing: Vec<_> =
        (0..count).filter(|number| !times.contains_key(&number.to_string())).collect();
    check::that(missing.is_empty(), format!("{marker}: not stored: {missing:?}"))?;
    check::that(
        times.values().all(|times| *times == 1),
        format!("{marker}: stored more than once: {times:?}"),
    )
}

/// Numbers of the records of one start.
#[derive(Default)]
struct Start {
    numbers: HashSet<u64>,
    /// The first one that is no signature.
    first: Option<u64>,
}

impl Start {
    /// What a record says of the time before the first is cut off by time, and a signature has the
    /// time at which it was made: it can stand before records that are older and are cut off.
    fn is_without_gap(&self) -> bool {
        let Some(first) = self.first else { return true };
        let numbers: Vec<_> = self.numbers.iter().filter(|it| **it >= first).collect();
        let last = numbers.iter().copied().max().copied().unwrap_or(first);
        numbers.len() as u64 == last - first + 1
    }
}

/// No number of a start of the agent is stored twice, and none is missing in between. Both lanes
/// share the numbers, and are delivered each for itself.
fn numbered_without_gap(world: &World) -> Result<()> {
    guest::until("no number is missing", limits::RECORD_TIMEOUT, || {
        let mut starts: HashMap<String, Start> = HashMap::new();
        for record in world.records.search(&[])? {
            let boot = records::text(&record, "/boot").to_owned();
            let sequence = records::number(&record, "/seq");
            let start = starts.entry(boot.clone()).or_default();
            let fresh = start.numbers.insert(sequence);
            check::that(fresh, format!("{boot} has the number {sequence} twice"))?;
            if records::text(&record, "/kind") != "checkpoint" {
                start.first = Some(start.first.map_or(sequence, |first| first.min(sequence)));
            }
        }
        Ok(starts.values().all(Start::is_without_gap))
    })
}

fn collector_stopped(world: &mut World) -> Result<()> {
    check::equal("its exit code", world.daemons.end_collector(Signal::SIGTERM)?, 0)?;
    traffic("marker-stopped", 40)?.wait()?;
    world.daemons.start_collector()?;
    each_once(world, "marker-stopped", 40)?;
    numbered_without_gap(world)
}

fn collector_killed(world: &mut World) -> Result<()> {
    let mut traffic = traffic("marker-collector-killed", 120)?;
    std::thread::sleep(Duration::from_secs(2));
    check::equal("its status", world.daemons.end_collector(Signal::SIGKILL)?, 128 + 9)?;
    world.daemons.start_collector()?;
    check::equal("the traffic", traffic.wait()?, 0)?;
    each_once(world, "marker-collector-killed", 120)?;
    numbered_without_gap(world)
}

fn agent_killed(world: &mut World) -> Result<()> {
    let mut during = traffic("marker-agent-killed", 120)?;
    std::thread::sleep(Duration::from_secs(2));
    check::equal("its status", world.daemons.end_agent(Signal::SIGKILL)?, 128 + 9)?;
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    during.wait()?;
    traffic("marker-after-restart", 10)?.wait()?;
    each_once(world, "marker-after-restart", 10)?;
    let times = stored(world, "marker-agent-killed")?;
    check::that(!times.is_empty(), "nothing from before the end is stored")?;
    check::that(times.values().all(|times| *times == 1), format!("twice: {times:?}"))?;
    world.records.wait("the gap", &["--kind", "agent"], |all| {
        all.iter().any(|it| records::text(it, "/message").contains("did not stop in order"))
    })?;
    numbered_without_gap(world)
}

fn drains(world: &mut World) -> Result<()> {
    traffic("marker-drain", 30)?.wait()?;
    check::equal("exit code after SIGTERM", world.daemons.end_agent(Signal::SIGTERM)?, 0)?;
    let times = stored(world, "marker-drain")?;
    check::equal("stored launches", times.len(), 30)?;
    world.records.wait("its farewell", &["--kind", "agent"], |all| {
        all.iter().any(|it| records::text(it, "/message").contains("sekimori-agent stopped"))
    })?;
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    let gap = world.records.search(&["--kind", "agent"])?;
    let told = gap.iter().any(|it| records::text(it, "/message").contains("did not stop"));
    check::that(!told, "a start after an orderly stop tells of a gap")
}

fn two_agents(world: &mut World) -> Result<()> {
    let config = std::fs::read_to_string(world.daemons.path("agent.yaml"))?;
    let path = world.daemons.path("second.yaml");
    guest::write(&path, config.replace("agent.sock", "second.sock"))?;
    let output = guest::run("sekimori-agent", &["run", "--config", &path.to_string_lossy()])?;
    check::equal("exit code", output.status, 1)?;
    let said = output.errors();
    check::that(said.contains("spool"), format!("the second agent said {said:?}"))?;
    check::that(world.daemons.agent_lives(), "the first agent ended")
}

fn garbage(world: &mut World) -> Result<()> {
    let script = r#"
import os, socket
pieces = [b"GET / HTTP/1.1\r\n\r\n", os.urandom(100000), b"\x16\x03\x01\xff\xff" + b"\0" * 70000,
          b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 5000, b""]
for piece in pieces * 4:
    peer = socket.create_connection(("127.0.0.1", 7443))
    try:
        peer.sendall(piece)
        peer.shutdown(socket.SHUT_WR)
        peer.settimeout(5)
        while peer.recv(65536):
            pass
    except OSError:
        pass
    peer.close()
"#;
    let mut meanwhile = traffic("marker-garbage", 20)?;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    meanwhile.wait()?;
    each_once(world, "marker-garbage", 20)
}

/// A question over TLS with the certificates in `directory`.
fn ask(directory: &Path, ca: &Path) -> Result<guest::Output> {
    let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let ca = ca.to_string_lossy().into_owned();
    let mut arguments = vec!["search", "--collector", "https://localhost:7443", "--limit", "1"];
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    arguments.extend(["--ca", &ca, "--cert", &cert, "--key", &key]);
    guest::run("sekimori", &arguments)
}

/// Certificates of an authority that our collector has never heard of.
fn strangers_certificates(world: &World) -> Result<std::path::PathBuf> {
    let (state, out) = (world.daemons.path("stranger"), world.daemons.path("stranger-tls"));
    if !out.exists() {
        let (dir, to) = (state.to_string_lossy(), out.to_string_lossy());
        check::ok(&guest::run("sekimori-collector", &["init", "--dir", &dir])?)?;
        let enroll = ["enroll", "sekimori-guest", "--dir", &dir, "--out", &to];
        check::ok(&guest::run("sekimori-collector", &enroll)?)?;
    }
    Ok(out)
}

fn stranger(world: &mut World) -> Result<()> {
    let ca = world.daemons.path("tls/ca.pem");
    let stranger = strangers_certificates(world)?;
    check::equal("a stranger's exit code", ask(&stranger, &ca)?.status, 1)?;
    // An agent may deliver, not read.
    let agent = ask(&world.daemons.path("tls"), &ca)?;
    check::that(agent.status != 0, "an agent's certificate may read")?;
    let (state, out) = (world.daemons.path("collector"), world.daemons.path("reader"));
    let (state, to) = (state.to_string_lossy(), out.to_string_lossy());
    let enroll = ["enroll", "reader", "--role", "analyst", "--dir", &state, "--out", &to];
    check::ok(&guest::run("sekimori-collector", &enroll)?)?;
    check::ok(&ask(&out, &ca)?)
}

/// What it records stays on disk, and is delivered once the certificate is right.
fn wrong_certificate(world: &mut World) -> Result<()> {
    check::equal("exit code", world.daemons.end_agent(Signal::SIGTERM)?, 0)?;
    let mut options = world.daemons.ordinary();
    options.certificates = Some(strangers_certificates(world)?);
    world.daemons.start_agent(&options)?;
    world.special_agent();
    traffic("marker-wrong-certificate", 5)?.wait()?;
    let error = |status: &Value| records::text(status, "/agent/collector/last_error").to_owned();
    guest::until("status says why", crate::limits::RECORD_TIMEOUT, || {
        Ok(!error(&world.daemons.status()?).is_empty())
    })?;
    let status = world.daemons.status()?;
    check::equal(
        "connected",
        status.pointer("/agent/collector/connected"),
        Some(&Value::Bool(false)),
    )?;
    check::equal("launches stored", stored(world, "marker-wrong-certificate")?.len(), 0)?;
    world.daemons.end_agent(Signal::SIGTERM)?;
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    each_once(world, "marker-wrong-certificate", 5)
}

/// On the collector's own host root needs no certificate: the kernel says who is on the socket.
fn unix_socket(world: &mut World) -> Result<()> {
    world.special_agent();
    world.daemons.end_agent(Signal::SIGTERM)?;
    let mut options = world.daemons.ordinary();
    options.certificates = None;
    world.daemons.start_agent(&options)?;
    check::ok(&guest::run("/bin/true", &["marker-unix"])?)?;
    let fields = [("/process/argv/1", json!("marker-unix")), ("/host", json!("sekimori-guest"))];
    world.records.expect("exec", &fields)?;
    Ok(())
}
