//! Connections and uploads: what is on record.

use anyhow::Result;
use serde_json::{Value, json};

use super::Run;
use crate::run::World;
use crate::sink::Sink;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] = &[
    ("curl-upload", curl),
    ("exact-bytes", exact),
    ("ipv6", ipv6),
    ("sendto-without-connect", datagram),
    ("unix-socket", unix),
    ("sendfile-to-socket", sendfile),
    ("message-with-another-address", decoy),
    ("connected-again", connected_again),
];

/// A record about bytes sent to `ip`.
pub(super) fn uploaded(
    world: &World,
    operation: &str,
    ip: &str,
    port: u16,
    more: &[records::Field<'_>],
) -> Result<Value> {
    let mut fields = vec![
        ("/operation", json!(operation)),
        ("/destination/ip", json!(ip)),
        ("/destination/port", json!(port)),
        ("/verdict", json!("allowed")),
    ];
    fields.extend_from_slice(more);
    world.records.expect("net.upload", &fields)
}

fn curl(world: &mut World) -> Result<()> {
    let sink = Sink::start("http", "127.0.0.1", 18_001)?;
    guest::write("/tmp/upload.bin", vec![b'u'; 200_003])?;
    let url = "http://127.0.0.1:18001/upload";
    check::ok(&guest::run("curl", &["-sS", "-T", "/tmp/upload.bin", url])?)?;
    let received = sink.first()?;
    check::that(received >= 200_003, format!("{received} bytes arrived"))?;
    let connect = [
        ("/operation", json!("connect")),
        ("/destination/ip", json!("127.0.0.1")),
        ("/destination/port", json!(18_001)),
        ("/destination/protocol", json!("tcp")),
        ("/process/comm", json!("curl")),
        ("/verdict", json!("allowed")),
    ];
    world.records.expect("net.connect", &connect)?;
    uploaded(world, "write", "127.0.0.1", 18_001, &[("/process/comm", json!("curl"))])?;
    let close = uploaded(world, "close", "127.0.0.1", 18_001, &[("/bytes", json!(received))])?;
    let answered = records::number(&close, "/bytes_in") > 50;
    check::that(answered, format!("the answer was not counted: {close}"))?;
    check::equal("program", records::text(&close, "/process/exe"), "/usr/bin/curl")
}

fn exact(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.1", 18_002)?;
    let script = r#"
import socket
peer = socket.create_connection(("127.0.0.1", 18002))
peer.sendall(b"a" * 70001)
peer.sendmsg([b"b" * 1000, b"c" * 23])
peer.send(b"d")
peer.close()
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    check::equal("bytes that arrived", sink.first()?, 71_025)?;
    uploaded(world, "close", "127.0.0.1", 18_002, &[("/bytes", json!(71_025))])?;
    Ok(())
}

fn ipv6(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "::1", 18_003)?;
    let script = r#"
import socket
peer = socket.create_connection(("::1", 18003))
peer.sendall(b"6" * 6001)
peer.close()
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    check::equal("bytes that arrived", sink.first()?, 6001)?;
    uploaded(world, "close", "::1", 18_003, &[("/bytes", json!(6001))])?;
    Ok(())
}

fn datagram(world: &mut World) -> Result<()> {
    let sink = Sink::start("datagram", "127.0.0.1", 18_004)?;
    let script = r#"
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.sendto(b"u" * 1234, ("127.0.0.1", 18004))
sender.sendto(b"v" * 66, ("127.0.0.1", 18004))
sender.close()
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    check::equal("bytes of the first datagram", sink.first()?, 1234)?;
    let sums =
        [("/bytes", json!(1300)), ("/calls", json!(2)), ("/destination/protocol", json!("udp"))];
    uploaded(world, "close", "127.0.0.1", 18_004, &sums)?;
    Ok(())
}

fn unix(world: &mut World) -> Result<()> {
    let script = r#"
import socket
for name in ["/run/名前.sock", b"\0abstract\0name"]:
    server = socket.socket(socket.AF_UNIX)
    server.bind(name)
    server.listen(1)
    client = socket.socket(socket.AF_UNIX)
    client.connect(name)
"#;
    let output = guest::python::<&str>(script, &[])?;
    let _ = std::fs::remove_file("/run/名前.sock");
    check::ok(&output)?;
    for path in ["/run/名前.sock", "@abstract\0name"] {
        let fields = [
            ("/destination/protocol", json!("unix")),
            ("/destination/path", json!(path)),
            ("/destination/ip", Value::Null),
            ("/verdict", json!("allowed")),
        ];
        world.records.expect("net.connect", &fields)?;
    }
    Ok(())
}

fn sendfile(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.1", 18_005)?;
    let script = r#"
import os, socket
source = open("/tmp/sendfile.bin", "w+b")
source.write(b"s" * 150001)
source.flush()
peer = socket.create_connection(("127.0.0.1", 18005))
done = 0
while done < 150001:
    done += os.sendfile(peer.fileno(), source.fileno(), done, 150001 - done)
peer.close()
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    check::equal("bytes that arrived", sink.first()?, 150_001)?;
    uploaded(world, "close", "127.0.0.1", 18_005, &[("/bytes", json!(150_001))])?;
    Ok(())
}

/// A connected TCP socket ignores the address in a message: the real peer counts.
fn decoy(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.1", 18_006)?;
    let script = r#"
import socket
peer = socket.create_connection(("127.0.0.1", 18006))
peer.sendmsg([b"n" * 321], [], 0, ("127.0.0.2", 9))
peer.close()
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    check::equal("bytes that arrived", sink.first()?, 321)?;
    uploaded(world, "close", "127.0.0.1", 18_006, &[("/bytes", json!(321))])?;
    Ok(())
}

/// Each connection of a socket has its own sum, and a connect that the kernel refuses changes none.
fn connected_again(world: &mut World) -> Result<()> {
    let _first = Sink::start("datagram", "127.0.0.1", 18_007)?;
    let _second = Sink::start("datagram", "127.0.0.1", 18_008)?;
    let _third = Sink::start("raw", "127.0.0.1", 18_009)?;
    let _fourth = Sink::start("raw", "127.0.0.1", 18_010)?;
    let script = r#"
import ctypes, socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.connect(("127.0.0.1", 18007))
sender.send(b"a" * 1001)
sender.send(b"a" * 1002)
sender.connect(("127.0.0.1", 18008))
sender.send(b"b" * 503)
sender.close()

peer = socket.create_connection(("127.0.0.1", 18009))
peer.sendall(b"c" * 70001)
try:
    peer.connect(("127.0.0.2", 9))
except OSError:
    pass
peer.sendall(b"c" * 2)
unspecified = (ctypes.c_char * 16)()
libc = ctypes.CDLL(None, use_errno=True)
assert libc.connect(peer.fileno(), unspecified, 16) == 0, ctypes.get_errno()
peer.connect(("127.0.0.1", 18010))
peer.sendall(b"d" * 4004)
peer.close()
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    for (port, bytes) in [(18_007, 2003), (18_008, 503), (18_009, 70_003), (18_010, 4004)] {
        uploaded(world, "close", "127.0.0.1", port, &[("/bytes", json!(bytes))])?;
    }
    let refused = [("/operation", json!("close")), ("/destination/port", json!(9))];
    let ends = world.records.all("net.upload", &refused)?;
    check::that(ends.is_empty(), format!("an end of what never began: {ends:?}"))
}
