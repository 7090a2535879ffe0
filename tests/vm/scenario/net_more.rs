//! Destinations that are refused.

use anyhow::Result;
use serde_json::{Value, json};

use super::Run;
use crate::run::World;
use crate::sink::Sink;
use crate::{check, guest};

pub const ALL: &[(&str, Run)] = &[
    ("refused-by-address", address),
    ("refused-by-port", port),
    ("refused-by-program", program),
    ("refused-as-mapped-address", mapped),
    ("refused-on-ipv6", ipv6),
    ("refused-without-connect", datagram),
    ("connect-rule-refuses-datagram", datagram_by_connect_rule),
    ("connect-rule-refuses-fast-open", fast_open),
    ("address-without-a-family", no_family),
    ("upload-rule-refuses-connection", upload),
    ("decoy-does-not-open-the-way", decoy),
];

/// Python that tries to reach something; `arguments` are address, port and how.
const TRY: &str = r#"
import errno, socket, sys
address, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sort = socket.SOCK_DGRAM if how == "datagram" else socket.SOCK_STREAM
peer = socket.socket(family, sort)
try:
    if how == "datagram":
        peer.sendto(b"leak", (address, port))
    elif how == "fast-open":
        peer.sendto(b"leak", socket.MSG_FASTOPEN, (address, port))
    else:
        peer.connect((address, port))
        peer.sendall(b"leak")
except OSError as error:
    assert error.errno == errno.EPERM, error
else:
    sys.exit("it was not refused")
"#;

/// The record of a refusal.
pub(super) fn refused(world: &World, kind: &str, rule: &str, ip: &str, port: u16) -> Result<Value> {
    let fields = [
        ("/verdict", json!("denied")),
        ("/rule", json!(rule)),
        ("/destination/ip", json!(ip)),
        ("/destination/port", json!(port)),
        ("/errno", json!(1)),
    ];
    world.records.expect(kind, &fields)
}

fn address(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.2", 18_101)?;
    check::ok(&guest::python(TRY, &["127.0.0.2", "18101", "stream"])?)?;
    let curl = guest::run("curl", &["-sS", "http://127.0.0.2:18101/"])?;
    check::that(curl.status != 0, "curl connected")?;
    check::equal("connections", sink.received()?, Vec::new())?;
    refused(world, "net.connect", "no-connect-there", "127.0.0.2", 18_101)?;
    Ok(())
}

fn port(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.1", 4444)?;
    check::ok(&guest::python(TRY, &["127.0.0.1", "4444", "stream"])?)?;
    check::equal("connections", sink.received()?, Vec::new())?;
    refused(world, "net.connect", "no-port", "127.0.0.1", 4444)?;
    Ok(())
}

fn program(world: &mut World) -> Result<()> {
    let sink = Sink::start("http", "127.0.0.3", 18_102)?;
    let url = "http://127.0.0.3:18102/";
    let talker = guest::run("/opt/talkers/curl", &["-sS", url])?;
    check::that(talker.status != 0, "the forbidden program connected")?;
    check::equal("connections", sink.received()?, Vec::new())?;
    refused(world, "net.connect", "talkers-stay-home", "127.0.0.3", 18_102)?;
    check::ok(&guest::run("curl", &["-sS", url])?)
}

fn mapped(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.2", 18_103)?;
    check::ok(&guest::python(TRY, &["::ffff:127.0.0.2", "18103", "stream"])?)?;
    check::equal("connections", sink.received()?, Vec::new())?;
    refused(world, "net.connect", "no-connect-there", "127.0.0.2", 18_103)?;
    Ok(())
}

fn ipv6(world: &mut World) -> Result<()> {
    check::ok(&guest::python(TRY, &["fd00::1", "18104", "stream"])?)?;
    refused(world, "net.connect", "no-connect-there", "fd00::1", 18_104)?;
    Ok(())
}

fn datagram(world: &mut World) -> Result<()> {
    let sink = Sink::start("datagram", "127.0.0.2", 18_105)?;
    check::ok(&guest::python(TRY, &["127.0.0.2", "18105", "datagram"])?)?;
    refused(world, "net.upload", "no-datagram-there", "127.0.0.2", 18_105)?;
    check::ok(&guest::python(TRY, &["::ffff:127.0.0.2", "18105", "datagram"])?)?;
    check::equal("datagrams", sink.received()?, Vec::new())
}

/// A message that names its own address does what a connect does.
fn datagram_by_connect_rule(world: &mut World) -> Result<()> {
    let sink = Sink::start("datagram", "127.0.0.6", 4444)?;
    check::ok(&guest::python(TRY, &["127.0.0.6", "4444", "datagram"])?)?;
    refused(world, "net.connect", "no-port", "127.0.0.6", 4444)?;
    check::equal("datagrams", sink.received()?, Vec::new())
}

fn fast_open(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.7", 4444)?;
    check::ok(&guest::python(TRY, &["127.0.0.7", "4444", "fast-open"])?)?;
    refused(world, "net.connect", "no-port", "127.0.0.7", 4444)?;
    check::equal("connections", sink.received()?, Vec::new())
}

/// IPv4 sends a datagram to an address whose family is AF_UNSPEC as if it were AF_INET.
fn no_family(world: &mut World) -> Result<()> {
    let sink = Sink::start("datagram", "127.0.0.2", 18_108)?;
    let script = r#"
import ctypes, errno, socket, struct, sys
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
port = int(sys.argv[1])
address = struct.pack("=HH4s8x", 0, socket.htons(port), socket.inet_aton("127.0.0.2"))
libc = ctypes.CDLL(None, use_errno=True)
sent = libc.sendto(peer.fileno(), b"leak", 4, 0, address, len(address))
if sent != -1 or ctypes.get_errno() != errno.EPERM:
    sys.exit(f"it was not refused: {sent} {ctypes.get_errno()}")
"#;
    check::ok(&guest::python(script, &["18108"])?)?;
    refused(world, "net.upload", "no-datagram-there", "127.0.0.2", 18_108)?;
    check::equal("datagrams", sink.received()?, Vec::new())
}

/// A peer that nothing may be sent to needs no connection.
fn upload(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.4", 18_106)?;
    check::ok(&guest::python(TRY, &["127.0.0.4", "18106", "stream"])?)?;
    check::equal("bytes that arrived", sink.received()?, Vec::new())?;
    refused(world, "net.upload", "no-upload-there", "127.0.0.4", 18_106)?;
    Ok(())
}

/// The connection is older than the rule; a message that names a permitted address does not help.
fn decoy(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.5", 18_107)?;
    let script = r#"
import errno, os, socket, sys, time
peer = socket.create_connection(("127.0.0.5", 18107))
peer.send(b"before")
open("/run/decoy-connected", "w").close()
end = time.monotonic() + 60
while not os.path.exists("/run/decoy-go") and time.monotonic() < end:
    time.sleep(0.05)
try:
    peer.sendmsg([b"leak"], [], 0, ("127.0.0.1", 9))
except OSError as error:
    assert error.errno == errno.EPERM, error
else:
    sys.exit("it was not refused")
"#;
    for name in ["/run/decoy-go", "/run/decoy-connected"] {
        let _ = std::fs::remove_file(name);
    }
    let mut command = std::process::Command::new("python3");
    command.args(["-I", "-S", "-c", script]);
    let log = std::path::Path::new("/run/decoy.log");
    let mut sender = guest::Background::start(command, log)?;
    guest::until("the sender is connected", crate::limits::PROGRAM_TIMEOUT, || {
        Ok(std::path::Path::new("/run/decoy-connected").exists())
    })?;
    let policy = World::usual_policy_and("").replace("127.0.0.4/32", "127.0.0.5/32");
    world.policy(&policy)?;
    guest::write("/run/decoy-go", "")?;
    let status = sender.wait()?;
    let said = std::fs::read_to_string(log)?;
    check::that(status == 0, format!("the sender ended with {status}: {said}"))?;
    check::equal("bytes that arrived", sink.first()?, 6)?;
    refused(world, "net.upload", "no-upload-there", "127.0.0.5", 18_107)?;
    Ok(())
}
