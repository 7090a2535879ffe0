//! A host that is cut off from the network by order of the collector.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::Run;
use crate::limits::{PROGRAM_TIMEOUT, RECORD_TIMEOUT};
use crate::run::World;
use crate::sink::Sink;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] = &[("cut-off-and-released", cut_off)];

const HOST: &str = "sekimori-guest";
/// An address of this machine that is not the loopback's.
const OUTSIDE: &str = "10.99.0.1";
const PORT: u16 = 18_090;
const GO: &str = "/run/isolation-go";

/// Connects to `sys.argv[1]` and sends; says `refused` when that is what the monitor does.
const TRY: &str = r#"
import errno, socket, sys
try:
    peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
    peer.sendall(b"x" * 100)
    print("sent")
except OSError as error:
    assert error.errno == errno.EPERM, error
    print("refused")
"#;

/// Is connected already, and sends when it is told to.
const OLD: &str = r#"
import errno, os, socket, sys, time
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
print("connected", flush=True)
while not os.path.exists(sys.argv[3]):
    time.sleep(0.1)
try:
    peer.sendall(b"y" * 100)
    print("sent", flush=True)
except OSError as error:
    assert error.errno == errno.EPERM, error
    print("refused", flush=True)
"#;

fn tried(address: &str) -> Result<String> {
    let output = guest::python(TRY, &[address, &PORT.to_string()])?;
    check::ok(&output)?;
    Ok(output.text())
}

fn order(world: &World, command: &str, reason: &str) -> Result<()> {
    let collector = world.daemons.collector_address();
    let line = [command, HOST, "--reason", reason, "--collector", &collector];
    check::ok(&guest::run("sekimori", &line)?)
}

fn host(world: &World) -> Result<Value> {
    let collector = world.daemons.collector_address();
    let output = guest::run("sekimori", &["fleet", HOST, "--json", "--collector", &collector])?;
    check::ok(&output)?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn done(world: &World, isolated: bool) -> Result<()> {
    guest::until("the order is carried out", RECORD_TIMEOUT, || {
        let host = host(world)?;
        let field = |name| host.pointer(name).and_then(Value::as_bool);
        let ordered = (field("/isolation/isolated"), field("/isolation/done"));
        Ok(ordered == (Some(isolated), Some(true)) && field("/state/isolated") == Some(isolated))
    })
}

fn cut_off(world: &mut World) -> Result<()> {
    let tried = cut_off_and_back(world);
    // Whatever happened, the others need a network.
    world.restore_agent()?;
    order(world, "release", "the scenario is over")?;
    done(world, false)?;
    tried
}

fn cut_off_and_back(world: &mut World) -> Result<()> {
    let _ = guest::run("ip", &["address", "add", &format!("{OUTSIDE}/32"), "dev", "lo"])?;
    let _ = std::fs::remove_file(GO);
    let _outside = Sink::start("raw", OUTSIDE, PORT)?;
    let _inside = Sink::start("raw", "127.0.0.1", PORT)?;
    check::equal("before", tried(OUTSIDE)?, "sent".to_owned())?;
    let log = Path::new("/run/isolation-old.log");
    let mut command = Command::new("python3");
    command.args(["-I", "-S", "-c", OLD, OUTSIDE, &PORT.to_string(), GO]);
    let mut old = guest::Background::start(command, log)?;
    guest::until("the old connection is there", PROGRAM_TIMEOUT, || {
        Ok(std::fs::read_to_string(log)?.contains("connected"))
    })?;

    order(world, "isolate", "マルウェアの疑い")?;
    done(world, true)?;
    check::equal("a new connection", tried(OUTSIDE)?, "refused".to_owned())?;
    check::equal("the host itself", tried("127.0.0.1")?, "sent".to_owned())?;
    guest::write(GO, "")?;
    check::equal("the old one ends well", old.wait()?, 0)?;
    let said = std::fs::read_to_string(log)?;
    check::that(said.contains("refused"), format!("the old connection: {said}"))?;
    world.records.expect(
        "net.connect",
        &[("/verdict", json!("denied")), ("/rule", json!("sekimori/isolated"))],
    )?;
    world.records.wait("who ordered it, and why", &["--kind", "host"], |all| {
        all.iter().any(|it| {
            records::text(it, "/host_change/turn") == "isolated"
                && records::text(it, "/host_change/reason") == "マルウェアの疑い"
                && records::text(it, "/host_change/ordered_by") == "admin uid 0"
        })
    })?;

    // Neither another policy nor the agent's death lets it out.
    check::ok(&world.daemons.reload()?)?;
    check::equal("after a reload", tried(OUTSIDE)?, "refused".to_owned())?;
    world.daemons.end_agent(Signal::SIGKILL)?;
    check::equal("without an agent", tried(OUTSIDE)?, "refused".to_owned())?;
    world.restore_agent()?;
    check::equal("with the next agent", tried(OUTSIDE)?, "refused".to_owned())?;
    world.daemons.settle(&world.records)?;

    order(world, "release", "clean")?;
    done(world, false)?;
    check::equal("released", tried(OUTSIDE)?, "sent".to_owned())
}
