//! What the traffic calls its destinations, and what is plugged in.

use anyhow::Result;
use serde_json::{Value, json};

use super::Run;
use crate::run::World;
use crate::sink::Sink;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] = &[
    ("dns-answer", dns),
    ("tls-server-name", tls),
    ("tls-server-name-in-two-segments", split),
    ("quic-server-name", quic),
    ("http-request", http),
    ("smtp-envelope", smtp),
    ("nothing-is-named", unnamed),
    ("devices-come-and-go", devices),
];

/// The record of the end of an upload to `ip`.
fn closed(world: &World, ip: &str, port: u16) -> Result<Value> {
    super::net::uploaded(world, "close", ip, port, &[])
}

fn names(record: &Value) -> Vec<(String, String)> {
    let list = record.pointer("/destination/names").and_then(Value::as_array);
    let part = |it: &Value, name| records::text(it, name).to_owned();
    list.into_iter().flatten().map(|it| (part(it, "/name"), part(it, "/source"))).collect()
}

fn name(name: &str, source: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), source.to_owned())]
}

/// Answers one question about addresses, by way of an alias.
const DNS: &str = r#"
import socket, struct, subprocess, sys, threading
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.54", 53))
def label(name):
    return b"".join(bytes([len(part)]) + part for part in name.split(b".")) + b"\0"
def serve():
    while True:
        question, who = server.recvfrom(4096)
        end = question.index(b"\0", 12) + 5
        alias = label(b"edge.cdn.example")
        kind = question[end - 4:end - 2]
        answers = [b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, len(alias)) + alias]
        if kind == b"\0\x01":
            answers.append(alias + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton("127.0.0.77"))
        head = question[:2] + b"\x81\x80" + struct.pack("!HHHH", 1, len(answers), 0, 0)
        server.sendto(head + question[12:end] + b"".join(answers), who)
threading.Thread(target=serve, daemon=True).start()
listener = socket.create_server(("127.0.0.77", 18301))
with open("/etc/resolv.conf", "w") as file:
    file.write("nameserver 127.0.0.54\n")
client = subprocess.run(["python3", "-I", "-S", "-c", """
import socket
peer = socket.create_connection(("Upload.Example", 18301))
peer.sendall(b"\\0 no protocol that is known")
peer.close()
"""], check=True)
"#;

fn dns(world: &mut World) -> Result<()> {
    check::ok(&guest::python::<&str>(DNS, &[])?)?;
    let to = [("/destination/ip", json!("127.0.0.77")), ("/destination/port", json!(18_301))];
    let connect = world.records.expect("net.connect", &to)?;
    check::equal("names", names(&connect), name("upload.example", "dns"))?;
    let close = closed(world, "127.0.0.77", 18_301)?;
    check::equal("names", names(&close), name("upload.example", "dns"))
}

fn tls(world: &mut World) -> Result<()> {
    let _sink = Sink::start("raw", "127.0.0.78", 18_302)?;
    let url = "https://files.example:18302/secret?token=1";
    let resolve = "files.example:18302:127.0.0.78";
    // The server does not answer.
    let output = guest::run("curl", &["-sS", "-m", "2", "--resolve", resolve, url])?;
    check::that(output.status != 0, "curl succeeded")?;
    let close = closed(world, "127.0.0.78", 18_302)?;
    check::equal("names", names(&close), name("files.example", "tls"))
}

fn split(world: &mut World) -> Result<()> {
    let _sink = Sink::start("raw", "127.0.0.79", 18_303)?;
    let script = r#"
import socket, ssl
out = ssl.MemoryBIO()
context = ssl.create_default_context()
session = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="split.example")
try:
    session.do_handshake()
except ssl.SSLWantReadError:
    pass
hello = out.read()
at = hello.index(b"split.example") + 5
peer = socket.create_connection(("127.0.0.79", 18303))
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
peer.sendall(hello[:7])
peer.sendmsg([hello[7:at]])
peer.sendall(hello[at:])
peer.close()
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    let close = closed(world, "127.0.0.79", 18_303)?;
    check::equal("names", names(&close), name("split.example", "tls"))
}

/// The first packet of a client; its server name is `quic.example`.
const INITIAL: &str = include_str!("../initial.hex");

fn quic(world: &mut World) -> Result<()> {
    let _sink = Sink::start("datagram", "127.0.0.80", 18_304)?;
    let script = r#"
import socket, sys
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.sendto(bytes.fromhex(sys.argv[1]), ("127.0.0.80", 18304))
peer.close()
"#;
    check::ok(&guest::python(script, &[&INITIAL.replace('\n', "")])?)?;
    let close = closed(world, "127.0.0.80", 18_304)?;
    check::equal("names", names(&close), name("quic.example", "quic"))
}

fn http(world: &mut World) -> Result<()> {
    let _sink = Sink::start("http", "127.0.0.81", 18_305)?;
    guest::write("/tmp/report.txt", "報告")?;
    let url = "http://web.example:18305/shared/%E5%A0%B1%E5%91%8A.txt?password=hunter2";
    let resolve = "web.example:18305:127.0.0.81";
    check::ok(&guest::run("curl", &["-sS", "--resolve", resolve, "-T", "/tmp/report.txt", url])?)?;
    let close = closed(world, "127.0.0.81", 18_305)?;
    check::equal("names", names(&close), name("web.example", "http"))?;
    check::equal("method", records::text(&close, "/destination/http/method"), "PUT")?;
    let path = records::text(&close, "/destination/http/path");
    check::equal("path", path, "/shared/%E5%A0%B1%E5%91%8A.txt")
}

/// A server that says yes to everything, and a client.
const SMTP: &str = r#"
import smtplib, socket, threading
server = socket.create_server(("127.0.0.82", 18306))
def serve():
    peer, _ = server.accept()
    lines = peer.makefile("rb")
    peer.sendall(b"220 mail.example ready\r\n")
    while True:
        line = lines.readline()
        if not line:
            return
        if line.upper().startswith(b"DATA"):
            peer.sendall(b"354 go on\r\n")
            while lines.readline() not in (b".\r\n", b""):
                pass
        peer.sendall(b"250 ok\r\n")
threading.Thread(target=serve, daemon=True).start()
client = smtplib.SMTP("127.0.0.82", 18306)
client.sendmail("clerk@example.jp", ["rival@example.com", "friend@example.net"],
                "Subject: plans\r\n\r\nsecret\r\n")
client.close()
"#;

fn smtp(world: &mut World) -> Result<()> {
    check::ok(&guest::python::<&str>(SMTP, &[])?)?;
    let close = closed(world, "127.0.0.82", 18_306)?;
    let envelope = close.pointer("/destination/smtp").cloned().unwrap_or_default();
    let to = ["rival@example.com", "friend@example.net"];
    let expected = json!({ "from": "clerk@example.jp", "to": to, "more": false });
    check::equal("envelope", envelope, expected)
}

/// What says no name has none, and the record says so by having none.
fn unnamed(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.83", 18_307)?;
    let script = r#"
import socket
peer = socket.create_connection(("127.0.0.83", 18307))
peer.sendall(bytes(range(256)) * 40)
peer.close()
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    check::equal("bytes that arrived", sink.first()?, 10_240)?;
    let close = closed(world, "127.0.0.83", 18_307)?;
    check::equal("names", names(&close), Vec::new())?;
    check::equal("bytes", records::number(&close, "/bytes"), 10_240)
}

/// Two of the same model: each is told by its serial and its port.
fn devices(world: &mut World) -> Result<()> {
    let serials = ["SEKI0008", "SEKI0009"];
    for serial in serials {
        check::ok(&guest::run("sekimori-stick", &["plug", serial, "8M:vfat"])?)?;
    }
    let mut ports = Vec::new();
    for serial in serials {
        let fields = [("/operation", json!("plug")), ("/device/serial", json!(serial))];
        let record = world.records.expect("device", &fields)?;
        check::equal("class", records::text(&record, "/device/class"), "usb")?;
        let functions = record.pointer("/device/functions").cloned();
        check::equal("functions", functions, Some(json!(["storage"])))?;
        check::equal("late", record.pointer("/late").cloned(), None)?;
        let plugs = world.records.search(&["--kind", "device", "--text", serial])?;
        check::equal("records", plugs.len(), 1)?;
        ports.push(records::text(&record, "/device/port").to_owned());
    }
    check::that(ports.first() != ports.last(), format!("both are at {ports:?}"))?;
    for serial in serials {
        check::ok(&guest::run("sekimori-stick", &["unplug", serial])?)?;
        let fields = [("/operation", json!("unplug")), ("/device/serial", json!(serial))];
        world.records.expect("device", &fields)?;
    }
    Ok(())
}
