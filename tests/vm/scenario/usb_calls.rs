//! More calls that put bytes into a file on a stick, and descriptors that change hands.

use anyhow::Result;
use serde_json::{Value, json};

use super::Run;
use super::prepare::PLAIN;
use super::usb_denied::denied;
use super::usb_ways::{closed, nothing_arrived};
use crate::run::World;
use crate::{check, guest};
use guest::{OTHER, OTHER_SERIAL, USB, USB_SERIAL};

pub const ALL: &[(&str, Run)] = &[
    ("aio", aio),
    ("aio-direct-on-ext4", aio_direct),
    ("io-uring-fixed-file-and-buffer", fixed),
    ("io-uring-fixed-file-refused", fixed_refused),
    ("vmsplice-and-splice", vmsplice),
    ("fallocate", fallocate),
    ("fallocate-refused", fallocate_refused),
    ("mprotect", mprotect),
    ("mprotect-refused", mprotect_refused),
    ("descriptor-by-socket", by_socket),
    ("descriptor-by-pidfd", by_pidfd),
];

/// Arguments: path, bytes, and further flags of the open.
const AIO: &str = r#"
size = int(sys.argv[2])
context = ctypes.c_ulong()
same("io_setup", call(206, 4, ctypes.byref(context)), 0)
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | int(sys.argv[3]))
memory = mmap.mmap(-1, size)
memory.write(b"a" * size)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
block = ctypes.create_string_buffer(
    struct.pack("<QIiHhIQQqQII", 7, 0, 0, 1, 0, fd, address, size, 0, 0, 0, 0), 64)
same("io_submit", call(209, context, 1, (ctypes.c_void_p * 1)(ctypes.addressof(block))), 1)
event = (ctypes.c_longlong * 4)()
same("io_getevents", call(208, context, 1, 1, event, None), 1)
same("bytes", event[2], size)
os.close(fd)
"#;

fn aio(world: &mut World) -> Result<()> {
    let path = format!("{USB}/aio.bin");
    check::ok(&guest::calls(AIO, &[&path, "70001", "0"])?)?;
    closed(world, USB_SERIAL, &path, 70_001)
}

/// The write ends in another task than the one that asked for it.
fn aio_direct(world: &mut World) -> Result<()> {
    let policy = World::usual_policy_and("").replace("SEKI0004", OTHER_SERIAL);
    world.policy(&policy)?;
    let path = format!("{OTHER}/aio.bin");
    let direct = nix::libc::O_DIRECT.to_string();
    let output = guest::calls(AIO, &[&path, "131072", &direct])?;
    let size = std::fs::metadata(&path).map(|it| it.len());
    let _ = std::fs::remove_file(&path);
    check::ok(&output)?;
    check::equal("its size", size?, 131_072)?;
    closed(world, OTHER_SERIAL, &path, 131_072)
}

fn fixed(world: &mut World) -> Result<()> {
    let script = r#"
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
data = ctypes.create_string_buffer(b"f" * 6543, 6543)
ring = Ring()
ring.register(0, (ctypes.c_ulong * 2)(ctypes.addressof(data), 6543), 1)
ring.register(2, (ctypes.c_int * 1)(fd), 1)
os.close(fd)
# IORING_OP_WRITE_FIXED with IOSQE_FIXED_FILE: the file is the first of the table.
print(ring.submit(5, 0, 0, ctypes.addressof(data), 6543, flags=1))
"#;
    let path = format!("{USB}/fixed.bin");
    let output = guest::ring(script, &[&path])?;
    check::ok(&output)?;
    check::equal("result of the write", output.text(), "6543".to_owned())?;
    closed(world, USB_SERIAL, &path, 6543)
}

/// A file that is opened right into the ring's table gets no descriptor.
fn fixed_refused(world: &mut World) -> Result<()> {
    let script = r#"
path = ctypes.create_string_buffer(sys.argv[1].encode())
data = ctypes.create_string_buffer(b"leak", 4)
ring = Ring()
ring.register(2, (ctypes.c_int * 1)(-1), 1)
create = os.O_CREAT | os.O_WRONLY
print(ring.submit(18, -100, 0, ctypes.addressof(path), 0o644, how=create, slot=1))
print(ring.submit(23, 0, 0, ctypes.addressof(data), 4, flags=1))
"#;
    let output = guest::ring(script, &[&format!("{OTHER}/new.txt")])?;
    check::ok(&output)?;
    // EPERM, and EBADF for the empty place in the table.
    check::equal("results of open and write", output.text(), "-1\n-9".to_owned())?;
    nothing_arrived()?;
    denied(world, "create", &format!("{OTHER}/new.txt"))
}

fn vmsplice(world: &mut World) -> Result<()> {
    let script = r#"
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
read, write = os.pipe()
memory = mmap.mmap(-1, 8192)
memory.write(b"v" * 8192)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
# SPLICE_F_GIFT: the pages are the kernel's now.
same("vmsplice", call(278, write, (ctypes.c_ulong * 2)(address, 8192), 1, 8), 8192)
done = 0
while done < 8192:
    done += os.splice(read, fd, 8192 - done)
os.close(fd)
"#;
    let path = format!("{USB}/vmsplice.bin");
    check::ok(&guest::calls(script, &[&path])?)?;
    closed(world, USB_SERIAL, &path, 8192)
}

/// Room is made, but nothing is written into it.
fn fallocate(world: &mut World) -> Result<()> {
    let path = format!("{USB}/room.bin");
    check::ok(&guest::run("fallocate", &["--length", "300000", &path])?)?;
    check::equal("its size", std::fs::metadata(&path)?.len(), 300_000)?;
    closed(world, USB_SERIAL, &path, 0)
}

fn fallocate_refused(world: &mut World) -> Result<()> {
    let (new, there) = (format!("{OTHER}/new.txt"), format!("{OTHER}/there.txt"));
    check::refused(&guest::run("fallocate", &["--length", "300000", &new])?)?;
    nothing_arrived()?;
    denied(world, "create", &new)?;
    check::refused(&guest::run("fallocate", &["--length", "300000", &there])?)?;
    check::equal("its size", std::fs::metadata(&there)?.len(), PLAIN.len() as u64)?;
    denied(world, "open", &there)
}

/// Arguments: path, flags of the open, kind of the mapping, result of mprotect. A store follows.
const MPROTECT: &str = r#"
libc.mmap.restype = ctypes.c_void_p
fd = os.open(sys.argv[1], int(sys.argv[2]))
address = libc.mmap(None, ctypes.c_long(4096), mmap.PROT_READ, int(sys.argv[3]), fd, ctypes.c_long(0))
if address == ctypes.c_void_p(-1).value:
    sys.exit("mmap failed")
result = call(10, address, 4096, mmap.PROT_READ | mmap.PROT_WRITE)
same("mprotect", result, int(sys.argv[4]))
if result == 0:
    ctypes.memmove(address, b"leak!", 5)
"#;
/// `O_RDONLY` and `O_RDWR`; `MAP_SHARED` and `MAP_PRIVATE`; what mprotect answers.
const READ: &str = "0";
const READ_AND_WRITE: &str = "2";
const SHARED: &str = "1";
const PRIVATE: &str = "2";
const EACCES: &str = "-13";

fn mprotect(world: &mut World) -> Result<()> {
    let path = format!("{USB}/protected.txt");
    guest::write(&path, "0123456789")?;
    check::ok(&guest::calls(MPROTECT, &[&path, READ_AND_WRITE, SHARED, "0"])?)?;
    check::equal("the content", std::fs::read_to_string(&path)?, "leak!56789".to_owned())?;
    let fields = [
        ("/operation", json!("open")),
        ("/file/path", json!(path)),
        ("/file/device/serial", json!(USB_SERIAL)),
        ("/process/comm", json!("python3")),
        ("/verdict", json!("allowed")),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}

/// Reading is permitted, and nothing more comes of it.
fn mprotect_refused(world: &mut World) -> Result<()> {
    let there = format!("{OTHER}/there.txt");
    check::ok(&guest::calls(MPROTECT, &[&there, READ, SHARED, EACCES])?)?;
    check::ok(&guest::calls(MPROTECT, &[&there, READ, PRIVATE, "0"])?)?;
    check::refused(&guest::calls(MPROTECT, &[&there, READ_AND_WRITE, SHARED, "0"])?)?;
    check::ok(&guest::bash("sync; echo 3 >/proc/sys/vm/drop_caches", &[])?)?;
    check::equal("the content", std::fs::read_to_string(&there)?, PLAIN.to_owned())?;
    denied(world, "open", &there)
}

/// Argument: path. The child gets the descriptor as `receive` says, and writes.
fn passed(world: &World, name: &str, receive: &str, bytes: u64) -> Result<()> {
    let path = format!("{USB}/{name}");
    let script = format!(
        r#"
def named(name):
    open("/proc/self/comm", "w").write(name)
named("opener")
opened = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
ours, theirs = socket.socketpair()
opener, child = os.getpid(), os.fork()
if child == 0:
    named("receiver")
    os.close(opened)
{receive}
    os.write(fd, b"p" * {bytes})
    os._exit(0)
socket.send_fds(ours, [b"."], [opened])
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(opener, child)
sys.exit(status)
"#
    );
    let output = guest::calls(&script, &[&path])?;
    check::ok(&output)?;
    check::equal("its size", std::fs::metadata(&path)?.len(), bytes)?;
    let text = output.text();
    let opener: Option<u32> = text.split_whitespace().next().and_then(|it| it.parse().ok());
    let fields = [
        ("/operation", json!("close")),
        ("/file/path", json!(path)),
        ("/bytes", json!(bytes)),
        ("/process/comm", json!("opener")),
        ("/process/pid", json!(opener)),
    ];
    let record = world.records.expect("usb.write", &fields)?;
    let by_receiver = [("/file/path", json!(path)), ("/process/comm", json!("receiver"))];
    check::equal("records of who wrote", world.records.all("usb.write", &by_receiver)?.len(), 0)?;
    check::equal("late", record.pointer("/late"), None::<&Value>)
}

/// Who opened the file answers for what is written to it.
fn by_socket(world: &mut World) -> Result<()> {
    passed(world, "by-socket.bin", "    fd = socket.recv_fds(theirs, 9, 1)[1][0]", 4321)
}

fn by_pidfd(world: &mut World) -> Result<()> {
    // The number that the parent has it under.
    let receive = "    fd = call(438, os.pidfd_open(opener), opened, 0)\n    assert fd > 0, fd";
    passed(world, "by-pidfd.bin", receive, 1234)
}
