//! Other ways onto a stick: other calls, other file systems, other mounts.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::usb_denied::denied;
use crate::run::World;
use crate::{check, guest};
use guest::{OTHER, OTHER_SERIAL, USB, USB_SERIAL};

pub const ALL: &[(&str, Run)] = &[
    ("pwritev2-and-splice", vectors),
    ("io-uring-write", io_uring),
    ("exfat", exfat),
    ("tmpfile-refused", tmpfile),
    ("remount-refused", remount),
    ("new-mount-calls-refused", new_mount_calls),
    ("chroot-refused", other_root),
    ("pid-and-user-namespace-refused", namespaces),
];

/// The sum over a file on a stick.
pub(super) fn closed(world: &World, serial: &str, path: &str, bytes: u64) -> Result<()> {
    let fields = [
        ("/operation", json!("close")),
        ("/file/path", json!(path)),
        ("/file/device/serial", json!(serial)),
        ("/bytes", json!(bytes)),
        ("/verdict", json!("allowed")),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}

/// The stick that is on no list has no new file.
pub(super) fn nothing_arrived() -> Result<()> {
    let arrived = Path::new(&format!("{OTHER}/new.txt")).exists();
    check::that(!arrived, "something arrived on the stick")
}

fn vectors(world: &mut World) -> Result<()> {
    let script = r#"
import os, sys
fd = os.open(sys.argv[1] + "/pwritev2.bin", os.O_CREAT | os.O_WRONLY)
os.pwritev(fd, [b"a" * 700, b"b" * 77], 0, os.RWF_SYNC)
os.close(fd)
fd = os.open(sys.argv[1] + "/splice.bin", os.O_CREAT | os.O_WRONLY)
read, write = os.pipe()
os.write(write, b"s" * 5000)
done = 0
while done < 5000:
    done += os.splice(read, fd, 5000 - done)
os.close(fd)
"#;
    check::ok(&guest::python(script, &[USB])?)?;
    closed(world, USB_SERIAL, &format!("{USB}/pwritev2.bin"), 777)?;
    closed(world, USB_SERIAL, &format!("{USB}/splice.bin"), 5000)
}

/// One `IORING_OP_WRITE`, by hand: no library is needed.
fn io_uring(world: &mut World) -> Result<()> {
    let script = r#"
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
data = ctypes.create_string_buffer(b"u" * 4321)
result = submit(23, fd, 0, ctypes.addressof(data), 4321)
assert result == 4321, result
os.close(fd)
"#;
    let path = format!("{USB}/io-uring.bin");
    check::ok(&guest::ring(script, &[&path])?)?;
    closed(world, USB_SERIAL, &path, 4321)
}

fn exfat(world: &mut World) -> Result<()> {
    let (serial, at) = ("SEKI0004", "/mnt/exfat");
    check::ok(&guest::run("sekimori-stick", &["plug", serial, "64M:exfat"])?)?;
    guest::mount(serial, at)?;
    let path = format!("{at}/見積書.bin");
    let script = "head -c 200001 /dev/urandom >/tmp/exfat.bin && cp /tmp/exfat.bin \"$1\"";
    let output = guest::bash(script, &[&path])?;
    check::ok(&guest::run("umount", &[at])?)?;
    check::ok(&guest::run("sekimori-stick", &["unplug", serial])?)?;
    check::ok(&output)?;
    closed(world, serial, &path, 200_001)
}

/// A file without a name, which a link would give one.
fn tmpfile(world: &mut World) -> Result<()> {
    let script = r#"
import errno, os, sys
try:
    fd = os.open(sys.argv[1], os.O_TMPFILE | os.O_WRONLY)
except OSError as error:
    assert error.errno == errno.EPERM, error
else:
    sys.exit("it was not refused")
"#;
    check::ok(&guest::python(script, &[OTHER])?)?;
    let fields = [
        ("/operation", json!("open")),
        ("/file/device/serial", json!(OTHER_SERIAL)),
        ("/verdict", json!("denied")),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}

fn remount(world: &mut World) -> Result<()> {
    let script = "mount -o remount,ro \"$1\" && mount -o remount,rw \"$1\" && \
                  cp /srv/personal/a.txt \"$1/new.txt\"";
    check::refused(&guest::bash(script, &[OTHER])?)?;
    nothing_arrived()?;
    denied(world, "create", &format!("{OTHER}/new.txt"))
}

/// `fsopen`, `fsconfig`, `fsmount` and `move_mount`, by their numbers.
fn new_mount_calls(world: &mut World) -> Result<()> {
    let device = guest::run("sekimori-stick", &["device", OTHER_SERIAL])?.text();
    let script = r#"
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        sys.exit(f"{arguments[0]}: {os.strerror(ctypes.get_errno())}")
    return result
device, at = (name.encode() for name in sys.argv[1:])
context = call(430, b"ext4", 0)
call(431, context, 1, b"source", device, 0)
call(431, context, 6, None, None, 0)
mount = call(432, context, 0, 0)
os.makedirs(at, exist_ok=True)
call(429, mount, b"", -100, at, 4)
try:
    open(at + b"/new.txt", "w")
except OSError as error:
    assert error.errno == errno.EPERM, error
else:
    sys.exit("it was not refused")
"#;
    let at = "/mnt/new-calls";
    check::ok(&guest::run("umount", &[OTHER])?)?;
    let output = guest::python(script, &[&device, at]);
    let arrived = Path::new(&format!("{at}/new.txt")).exists();
    let _ = guest::run("umount", &[at])?;
    guest::mount(OTHER_SERIAL, OTHER)?;
    check::ok(&output?)?;
    check::that(!arrived, "something arrived on the stick")?;
    denied(world, "create", &format!("{at}/new.txt"))?;
    let fields = [
        ("/file/device/serial", json!(OTHER_SERIAL)),
        ("/file/path", json!(at)),
        ("/process/comm", json!("python3")),
    ];
    world.records.expect("usb.mount", &fields)?;
    Ok(())
}

fn other_root(world: &mut World) -> Result<()> {
    let script = "cp /run/sekimori-bin/busybox /mnt/busybox && \
                  chroot /mnt /busybox cp /busybox /other/new.txt";
    check::refused(&guest::bash(script, &[])?)?;
    nothing_arrived()?;
    denied(world, "create", &format!("{OTHER}/new.txt"))
}

fn namespaces(world: &mut World) -> Result<()> {
    let script = "unshare --user --map-root-user --mount --pid --fork \
                  cp /srv/personal/a.txt \"$1/new.txt\"";
    check::refused(&guest::bash(script, &[OTHER])?)?;
    nothing_arrived()?;
    denied(world, "create", &format!("{OTHER}/new.txt"))
}
