//! Sockets that somebody else connected, and datagrams as QUIC sends them.

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::net::uploaded;
use super::net_more::refused;
use crate::run::World;
use crate::sink::Sink;
use crate::{check, guest};

pub const ALL: &[(&str, Run)] = &[
    ("accepted-connection-refused", accepted),
    ("socket-by-socket-refused", passed),
    ("socket-by-socket-older-than-the-rule", older_than_the_rule),
    ("unconnected-socket-by-socket-refused", unconnected),
    ("quic", quic),
    ("quic-refused-by-port", quic_refused),
];

/// The peer made the connection; nothing may be sent back to it.
fn accepted(world: &mut World) -> Result<()> {
    let script = r#"
server = socket.create_server(("127.0.0.1", 18211))
client = socket.create_connection(("127.0.0.1", 18211), source_address=("127.0.0.4", 18212))
peer, _ = server.accept()
refused("send", lambda: peer.send(b"leak"))
refused("write", lambda: os.write(peer.fileno(), b"leak"))
refused("sendmsg", lambda: peer.sendmsg([b"leak"]))
peer.close()
same("what arrived", client.recv(99), b"")
"#;
    check::ok(&guest::calls::<&str>(script, &[])?)?;
    refused(world, "net.upload", "no-upload-there", "127.0.0.4", 18_212)?;
    Ok(())
}

/// Arguments: address, port, program of the receiver, kind, and what the send should come to. The
/// socket waits for a file `/run/passed-go` before it is sent.
const PASS: &str = r#"
import subprocess, time
address, port, program, kind, expected = sys.argv[1:]
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM)
if kind == "stream":
    peer.connect((address, int(port)))
open("/run/passed-ready", "w").close()
end = time.monotonic() + 60
while not os.path.exists("/run/passed-go") and time.monotonic() < end:
    time.sleep(0.05)
receiver = r'''
import os, socket, sys
way = socket.socket(fileno=0)
peer = socket.socket(fileno=socket.recv_fds(way, 9, 1)[1][0])
try:
    if sys.argv[3] == "stream":
        print(peer.send(b"leak"))
    else:
        print(peer.sendto(b"leak", (sys.argv[1], int(sys.argv[2]))))
except OSError as error:
    print(-error.errno)
'''
ours, theirs = socket.socketpair()
child = subprocess.Popen([program, "-I", "-S", "-c", receiver, address, port, kind],
                         stdin=theirs, stdout=subprocess.PIPE)
socket.send_fds(ours, [b"."], [peer.fileno()])
peer.close()
same("the send", child.communicate()[0].decode().strip(), expected)
"#;
const READY: &str = "/run/passed-ready";
const GO: &str = "/run/passed-go";

/// A Python that the policy counts among the talkers.
fn talker() -> Result<&'static str> {
    std::fs::copy("/usr/bin/python3", "/opt/talkers/python3")?;
    Ok("/opt/talkers/python3")
}

fn older_than_the_rule(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.9", 18_213)?;
    for name in [READY, GO] {
        let _ = std::fs::remove_file(name);
    }
    let mut command = std::process::Command::new("python3");
    let script = format!("{}{PASS}", include_str!("../calls.py"));
    let receiver = "/usr/bin/python3";
    command.args(["-I", "-S", "-c", &script, "127.0.0.9", "18213", receiver, "stream", "-1"]);
    let log = std::path::Path::new("/run/passed.log");
    let mut passer = guest::Background::start(command, log)?;
    guest::until("the passer is connected", crate::limits::PROGRAM_TIMEOUT, || {
        Ok(std::path::Path::new(READY).exists())
    })?;
    world.policy(&World::usual_policy_and("").replace("127.0.0.4/32", "127.0.0.9/32"))?;
    guest::write(GO, "")?;
    let status = passer.wait()?;
    let said = std::fs::read_to_string(log)?;
    check::that(status == 0, format!("the passer said {said:?}"))?;
    refused(world, "net.upload", "no-upload-there", "127.0.0.9", 18_213)?;
    check::equal("bytes that arrived", sink.first()?, 0)
}

/// Nothing of theirs goes to 127.0.0.11, and yet others may send there.
const TALKERS_SEND_NOTHING: &str = "  - id: talkers-send-nothing\n    on: net.upload\n    \
    when: { destination: no-upload, program: talkers }\n    action: deny\n";

fn talkers_send_nothing(world: &mut World) -> Result<()> {
    let upload = "  - { id: no-upload-there, on: net.upload, when: { destination: no-upload }, \
                  action: deny }\n";
    let usual = World::usual_policy_and("");
    check::that(usual.contains(upload), "the usual policy has another rule")?;
    let policy = usual.replace("127.0.0.4/32", "127.0.0.11/32").replace(upload, "");
    world.policy(&format!("{policy}{TALKERS_SEND_NOTHING}"))
}

/// Who connects may send; who gets the socket may not.
fn passed(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.11", 18_214)?;
    talkers_send_nothing(world)?;
    guest::write(GO, "")?;
    let output = guest::calls(PASS, &["127.0.0.11", "18214", talker()?, "stream", "-1"])?;
    check::ok(&output)?;
    refused(world, "net.upload", "talkers-send-nothing", "127.0.0.11", 18_214)?;
    check::equal("bytes that arrived", sink.first()?, 0)
}

fn unconnected(world: &mut World) -> Result<()> {
    let sink = Sink::start("datagram", "127.0.0.11", 18_215)?;
    talkers_send_nothing(world)?;
    guest::write(GO, "")?;
    let output = guest::calls(PASS, &["127.0.0.11", "18215", talker()?, "datagram", "-1"])?;
    check::ok(&output)?;
    refused(world, "net.upload", "talkers-send-nothing", "127.0.0.11", 18_215)?;
    check::equal("datagrams", sink.received()?, Vec::new())
}

/// A connected datagram socket, one packet a call, and then three by one call (`UDP_SEGMENT`).
fn quic(world: &mut World) -> Result<()> {
    let sink = Sink::start("datagram", "127.0.0.1", 443)?;
    let script = r#"
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.connect(("127.0.0.1", 443))
peer.send(b"\xc0" * 1200)
peer.setsockopt(17, 103, 1200)
peer.send(b"\xc1" * 3600)
peer.close()
"#;
    check::ok(&guest::calls::<&str>(script, &[])?)?;
    guest::until("all datagrams are there", crate::limits::PROGRAM_TIMEOUT, || {
        Ok(sink.received()?.len() >= 4)
    })?;
    check::equal("datagrams", sink.received()?, vec![1200; 4])?;
    let udp = ("/destination/protocol", json!("udp"));
    uploaded(world, "close", "127.0.0.1", 443, &[("/bytes", json!(4800)), udp.clone()])?;
    let fields = [
        ("/destination/ip", json!("127.0.0.1")),
        ("/destination/port", json!(443)),
        ("/verdict", json!("allowed")),
        udp,
    ];
    world.records.expect("net.connect", &fields)?;
    Ok(())
}

fn quic_refused(world: &mut World) -> Result<()> {
    let sink = Sink::start("datagram", "127.0.0.12", 443)?;
    let policy = World::usual_policy_and("").replace("ports: [4444]", "ports: [4444, 443]");
    world.policy(&policy)?;
    let script = r#"
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
refused("connect", lambda: peer.connect(("127.0.0.12", 443)) or 0)
refused("sendto", lambda: peer.sendto(b"leak", ("127.0.0.12", 443)))
"#;
    check::ok(&guest::calls::<&str>(script, &[])?)?;
    let fields = [
        ("/verdict", json!("denied")),
        ("/rule", json!("no-port")),
        ("/destination/ip", json!("127.0.0.12")),
        ("/destination/port", json!(443)),
        ("/destination/protocol", json!("udp")),
    ];
    world.records.wait("both refusals", &["--kind", "net.connect"], |all| {
        all.iter().filter(|record| crate::records::fits(record, &fields)).count() == 2
    })?;
    check::equal("datagrams", sink.received()?, Vec::new())
}
