//! Several hosts, each in a network of its own, and a collector of their own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::Run;
use crate::guest::Background;
use crate::limits::START_TIMEOUT;
use crate::run::World;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] = &[("three-networks-and-a-collector-that-dies", three_networks)];

const HOSTS: [&str; 3] = ["fleet-1", "fleet-2", "fleet-3"];
const RECORDS: u64 = 6000;
/// The collector's end of the network of host N is 10.93.N.1, the host's 10.93.N.2.
const PORT: u16 = 7993;

const PROTO: [(&str, &str); 4] = [
    ("event.proto", include_str!("../../../proto/sekimori/v1/event.proto")),
    ("fleet.proto", include_str!("../../../proto/sekimori/v1/fleet.proto")),
    ("policy.proto", include_str!("../../../proto/sekimori/v1/policy.proto")),
    ("watch.proto", include_str!("../../../proto/sekimori/v1/watch.proto")),
];
const INGEST: &str = include_str!("../../../proto/sekimori/v1/ingest.proto");

struct Fleet {
    directory: PathBuf,
    collector: Option<Background>,
}

impl Fleet {
    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }

    fn address(&self) -> String {
        format!("unix:{}", self.path("collector.sock"))
    }

    fn start(&mut self, first: bool) -> Result<()> {
        let mut command = Command::new("sekimori-collector");
        command.args(["run", "--listen", &format!("0.0.0.0:{PORT}"), "--dir"]);
        command.args([&self.path("state"), "--socket", &self.path("collector.sock")]);
        let log = self.directory.join(if first { "first.log" } else { "later.log" });
        self.collector = Some(Background::start(command, &log)?);
        let status = ["fleet", "--json", "--collector", &self.address()].map(str::to_owned);
        guest::until("the fleet's collector answers", START_TIMEOUT, || {
            Ok(guest::run("sekimori", &status)?.status == 0)
        })
    }

    fn kill(&mut self) -> Result<()> {
        let mut collector = self.collector.take().context("no collector runs")?;
        kill(Pid::from_raw(i32::try_from(collector.pid())?), Signal::SIGKILL)?;
        collector.wait()?;
        Ok(())
    }

    fn ask(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let address = self.address();
        let all = [arguments, &["--json", "--collector", &address]].concat();
        let output = guest::run("sekimori", &all)?;
        check::ok(&output)?;
        Ok(output.text().lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }
}

/// A pair of network devices, one end of which goes to a namespace of its own.
const NETWORK: &str = "
set -e
n=$1; host=$2
ip netns add $host
ip link add sk$n type veth peer name eth0 netns $host
ip address add 10.93.$n.1/24 dev sk$n
ip link set sk$n up
ip -n $host address add 10.93.$n.2/24 dev eth0
ip -n $host link set eth0 up
ip -n $host link set lo up
";

const NETWORK_AWAY: &str = "ip netns del $2; ip link del sk$1 2>/dev/null; true";

fn three_networks(world: &mut World) -> Result<()> {
    let mut fleet = Fleet { directory: world.daemons.path("fleet"), collector: None };
    let _ = std::fs::remove_dir_all(&fleet.directory);
    std::fs::create_dir_all(fleet.directory.join("sekimori/v1"))?;
    let outcome = with_networks(&mut fleet);
    drop(fleet.collector.take());
    for (number, host) in (1..).zip(HOSTS) {
        guest::bash(NETWORK_AWAY, &[&format!("{number}"), host])?;
    }
    outcome
}

fn with_networks(fleet: &mut Fleet) -> Result<()> {
    for (name, text) in PROTO.into_iter().chain([("ingest.proto", INGEST)]) {
        std::fs::write(fleet.directory.join("sekimori/v1").join(name), text)?;
    }
    let files = "cd \"$1\" && protoc -I . --python_out . sekimori/v1/*.proto";
    check::ok(&guest::bash(files, &[&fleet.path("")])?)?;
    let state = fleet.path("state");
    let mut init = vec!["init".to_owned(), "--dir".to_owned(), state.clone()];
    for number in 1..=HOSTS.len() {
        init.extend(["--name".to_owned(), format!("10.93.{number}.1")]);
    }
    check::ok(&guest::run("sekimori-collector", &init)?)?;
    for (number, host) in (1..).zip(HOSTS) {
        check::ok(&guest::bash(NETWORK, &[&format!("{number}"), host])?)?;
    }
    fleet.start(true)?;
    for (number, host) in (1..).zip(HOSTS) {
        enroll(fleet, number, host)?;
    }
    let hosts = HOSTS.len() as u64;
    let mut agents = Vec::new();
    for (number, host) in (1..).zip(HOSTS) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", host, "/usr/bin/python3", "-c"]);
        command.arg(include_str!("../agent.py")).arg(fleet.path("")).arg(fleet.path(host));
        command.arg(format!("10.93.{number}.1:{PORT}")).arg(RECORDS.to_string());
        agents.push(Background::start(command, &fleet.directory.join(format!("{host}.log")))?);
    }
    let stored = |fleet: &Fleet| -> Result<u64> {
        let groups = fleet.ask(&["top", "--by", "host", "--kind", "exec"])?;
        Ok(groups.iter().map(|it| records::number(it, "/count")).sum())
    };
    for turn in 1..=3 {
        guest::until("some more is stored", START_TIMEOUT, || {
            Ok(stored(fleet)? >= turn * hosts * RECORDS / 5)
        })?;
        // The second time a host's cable is pulled as well.
        if turn == 2 {
            check::ok(&guest::bash("ip link set sk2 down; sleep 3; ip link set sk2 up", &[])?)?;
        }
        fleet.kill()?;
        fleet.start(false)?;
    }
    let mut breaks = 0;
    for (agent, host) in agents.iter_mut().zip(HOSTS) {
        let log = || std::fs::read_to_string(fleet.directory.join(format!("{host}.log")));
        check::equal("the agent's exit code", agent.wait()?, 0)
            .with_context(|| format!("{:?}", log()))?;
        // The client's own complaints come before it.
        let told = log()?;
        let own: u32 = told.lines().last().unwrap_or("").parse().with_context(|| told.clone())?;
        breaks += own;
    }
    check::that(breaks >= 3, format!("the streams were interrupted {breaks} times only"))?;
    for group in fleet.ask(&["top", "--by", "host", "--kind", "exec"])? {
        check::equal("records of a host", records::number(&group, "/count"), RECORDS)?;
    }
    check::equal("records in all", stored(fleet)?, hosts * RECORDS)?;
    let known = fleet.ask(&["fleet"])?;
    let names: Vec<_> = known.iter().map(|it| records::text(it, "/host")).collect();
    check::equal("hosts", names, HOSTS.to_vec())?;
    let enrolled = fleet.ask(&["search", "--kind", "host", "--limit", "0"])?;
    let enrolled =
        enrolled.iter().filter(|it| records::text(it, "/host_change/turn") == "enrolled");
    check::equal("enrolments on record", enrolled.count(), HOSTS.len())?;
    let verified = fleet.ask(&["verify"])?;
    let problems =
        verified.iter().filter(|it| it.pointer("/finding/problem") == Some(&json!(true)));
    check::equal("problems", problems.collect::<Vec<_>>(), Vec::new())
}

/// With a token, from the host's own network.
fn enroll(fleet: &Fleet, number: usize, host: &str) -> Result<()> {
    let state = fleet.path("state");
    let token = guest::run("sekimori-collector", &["token", host, "--dir", &state])?;
    check::ok(&token)?;
    let (file, own) = (fleet.path(&format!("{host}.token")), fleet.path(host));
    std::fs::create_dir_all(&own)?;
    guest::write(&file, token.text())?;
    check::ok(&guest::run("chmod", &["600", &file])?)?;
    let address = format!("https://10.93.{number}.1:{PORT}");
    let config = fleet.path(&format!("{host}.yaml"));
    let text = format!(
        "policy: /etc/sekimori/policy.yaml\ncollector:\n  address: {address}\n  ca: {own}/ca.pem\n  \
         cert: {own}/cert.pem\n  key: {own}/key.pem\n"
    );
    guest::write(&config, text)?;
    let enroll = [
        "netns",
        "exec",
        host,
        "sekimori-agent",
        "enroll",
        "--config",
        &config,
        "--token-file",
        &file,
    ];
    check::ok(&guest::run("ip", &enroll)?)
}
