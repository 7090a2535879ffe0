//! 32-bit system calls, made from a 64-bit program by `int 0x80`.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::below::{UNLISTED, denied_as, with_stick};
use super::prepare::{PLAIN, SECRET};
use super::usb_denied::denied;
use crate::run::World;
use crate::sink::Sink;
use crate::{check, guest};
use guest::OTHER;

pub const ALL: &[(&str, Run)] = &[
    ("opens-refused", opens),
    ("write-to-stick-refused", stick),
    ("connection-refused", connection),
    ("launch-refused", launch),
    ("command-to-stick-refused", command),
];

/// `low` keeps bytes where 32 bits reach them, `call32` makes a call.
const CALL32: &str = r#"
page = mmap.mmap(-1, 65536, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40, prot=7)
start = ctypes.addressof(ctypes.c_char.from_buffer(page))
assert start + 65536 < 1 << 31, hex(start)
used = 4096
def low(data):
    global used
    at, used = used, used + len(data) + 1
    page[at:at + len(data)] = data
    return start + at
def call32(number, *arguments):
    # Into ebx, ecx, edx, esi, edi and eax; ebx is the caller's.
    values = (list(arguments) + [0] * 5)[:5] + [number]
    moves = zip(b"\xbb\xb9\xba\xbe\xbf\xb8", values)
    code = b"\x53" + b"".join(struct.pack("<Bi", move, value) for move, value in moves)
    code += b"\xcd\x80\x5b\xc3"
    page[0:len(code)] = code
    return ctypes.CFUNCTYPE(ctypes.c_int)(start)()
"#;

fn run(script: &str, arguments: &[&str]) -> Result<String> {
    let output = guest::calls(&format!("{CALL32}{script}"), arguments)?;
    check::ok(&output)?;
    Ok(output.text())
}

/// `open`, `openat` and `openat2`.
fn opens(world: &mut World) -> Result<()> {
    let script = r#"
path, how = low(sys.argv[1].encode()), low(struct.pack("<QQQ", 0, 0, 0))
for fd in call32(5, path), call32(295, -100, path), call32(437, -100, path, how, 24):
    print(fd if fd < 0 else os.read(fd, 99).decode())
"#;
    let path = "/srv/secret/compat.txt";
    let got = run(script, &[path])?;
    check::that(!got.contains(SECRET), "the secret was given away")?;
    check::equal("the results", got, "-1\n-1\n-1".to_owned())?;
    let fields = [
        ("/file/path", json!(path)),
        ("/verdict", json!("denied")),
        ("/rule", json!("secret-no-open")),
        ("/process/comm", json!("python3")),
    ];
    world.records.wait("three refusals", &["--kind", "file.open"], |all| {
        all.iter().filter(|record| crate::records::fits(record, &fields)).count() == 3
    })?;
    let plain = run(script, &["/srv/personal/a.txt"])?;
    check::equal("another file", plain, [PLAIN; 3].join("\n"))
}

/// `creat` and `mkdir`.
fn stick(world: &mut World) -> Result<()> {
    let script = r#"
path = low(sys.argv[1].encode())
print(call32(8, path, 0o644), call32(39, path, 0o755))
"#;
    let path = format!("{OTHER}/new.txt");
    check::equal("the results", run(script, &[&path])?, "-1 -1".to_owned())?;
    check::that(!Path::new(&path).exists(), "something arrived on the stick")?;
    denied(world, "create", &path)?;
    denied(world, "mkdir", &path)
}

/// `socketcall` and `connect`.
fn connection(world: &mut World) -> Result<()> {
    let sink = Sink::start("raw", "127.0.0.2", 18_302)?;
    let script = r#"
peer = socket.socket()
address = low(struct.pack("=HH4s8x", 2, socket.htons(18302), socket.inet_aton("127.0.0.2")))
arguments = low(struct.pack("<III", peer.fileno(), address, 16))
print(call32(102, 3, arguments), call32(362, peer.fileno(), address, 16))
"#;
    check::equal("the results", run(script, &[])?, "-1 -1".to_owned())?;
    let fields = [
        ("/verdict", json!("denied")),
        ("/rule", json!("no-connect-there")),
        ("/destination/ip", json!("127.0.0.2")),
        ("/destination/port", json!(18_302)),
    ];
    world.records.expect("net.connect", &fields)?;
    check::equal("connections", sink.received()?, Vec::new())
}

/// `ioctl` with SG_IO on a node that is open for reading: an inquiry, and a write.
fn command(world: &mut World) -> Result<()> {
    with_stick(UNLISTED, |device| {
        let script = r#"
fd = os.open(sys.argv[1], os.O_RDONLY)
data, sense = low(b"leak" * 128), low(bytes(64))
def command(direction, length, cdb):
    header = struct.pack("=iiBBHIIIIIIiIBBBBHHiII", ord("S"), direction, len(cdb), 64, 0, length,
        data, low(cdb), sense, 20000, 0, 0, 0, *[0] * 9)
    return call32(54, fd, 0x2285, low(header))
write = struct.pack(">BBIBHB", 0x2a, 0, 1000, 0, 1, 0)
print(command(-3, 96, bytes([0x12, 0, 0, 0, 96, 0])), command(-2, 512, write))
"#;
        check::equal("the results", run(script, &[device])?, "0 -1".to_owned())?;
        denied_as(world, "command", UNLISTED, device)
    })
}

/// `execve` and `execveat`.
fn launch(world: &mut World) -> Result<()> {
    let script = r#"
path, argument = low(b"/opt/forbidden/tool\0"), low(b"marker-compat\0")
argv = low(struct.pack("<III", path, argument, 0))
print(call32(11, path, argv, 0), call32(358, -100, path, argv, 0), flush=True)
# Another program does start.
call32(11, low(b"/bin/true\0"), argv, 0)
sys.exit("it came back")
"#;
    check::equal("the results", run(script, &[])?, "-1 -1".to_owned())?;
    let refused = [
        ("/file/path", json!("/opt/forbidden/tool")),
        ("/verdict", json!("denied")),
        ("/rule", json!("no-forbidden-tools")),
    ];
    world.records.wait("two refusals", &["--kind", "exec"], |all| {
        all.iter().filter(|record| crate::records::fits(record, &refused)).count() == 2
    })?;
    let started = [
        ("/process/argv", json!(["/opt/forbidden/tool", "marker-compat"])),
        ("/file/path", json!("/usr/bin/true")),
        ("/verdict", json!("allowed")),
    ];
    world.records.expect("exec", &started)?;
    Ok(())
}
