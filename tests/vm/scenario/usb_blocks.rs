//! File systems on a stick whose files share blocks, and btrfs, which does not say what it stands
//! on.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::usb_ways::closed;
use crate::run::World;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] = &[("xfs-clone", xfs), ("btrfs", btrfs), ("btrfs-mount", mount)];

const SERIAL: &str = "SEKI0004";
const AT: &str = "/mnt/blocks";

/// Plugs a stick of the company with a file system, mounts it, does something, and unplugs it.
fn with_stick(
    world: &mut World,
    system: &str,
    size: &str,
    work: impl FnOnce(&mut World, &str) -> Result<()>,
) -> Result<()> {
    check::ok(&guest::run("modprobe", &[system])?)?;
    let plugged = guest::run("sekimori-stick", &["plug", SERIAL, &format!("{size}:{system}")])?;
    check::ok(&plugged)?;
    let result = guest::mount(SERIAL, AT).and_then(|_| work(world, plugged.text().trim()));
    let _ = guest::run("umount", &["-l", AT])?;
    check::ok(&guest::run("sekimori-stick", &["unplug", SERIAL])?)?;
    world.policy(&World::usual_policy_and(""))?;
    result
}

/// The stick is no longer on the list.
fn take_off_the_list(world: &mut World, rules: &str) -> Result<()> {
    world.policy(&World::usual_policy_and(rules).replace(", \"SEKI0004\"", ""))
}

fn refused(world: &World, kind: &str, fields: &[records::Field<'_>]) -> Result<()> {
    let common = [("/file/device/serial", json!(SERIAL)), ("/verdict", json!("denied"))];
    world.records.expect(kind, &[&common[..], fields].concat())?;
    Ok(())
}

/// Argument: the directory. FICLONE, FICLONERANGE, copy_file_range and FIDEDUPERANGE.
const CLONES: &str = r#"
import fcntl
os.chdir(sys.argv[1])
data = os.urandom(200001)
for name in "original.bin", "twin.bin":
    with open(name, "wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
source = os.open("original.bin", os.O_RDONLY)
def made(name):
    return os.open(name, os.O_CREAT | os.O_WRONLY)
target = made("clone.bin")
fcntl.ioctl(target, 0x40049409, source)
os.close(target)
target = made("range.bin")
fcntl.ioctl(target, 0x4020940d, struct.pack("=qQQQ", source, 65536, 131072, 0))
os.close(target)
target = made("copied.bin")
done = 0
while done < len(data):
    done += os.copy_file_range(source, target, len(data) - done)
os.close(target)
twin = os.open("twin.bin", os.O_RDWR)
ask = bytearray(struct.pack("=QQHHIqQQiI", 0, 131072, 1, 0, 0, twin, 0, 0, 0, 0))
fcntl.ioctl(source, 0xc0189436, ask)
same("bytes that became one", struct.unpack_from("=Q", ask, 40)[0], 131072)
os.close(twin)
for name in "clone.bin", "copied.bin":
    same(name, open(name, "rb").read() == data, True)
"#;

/// Each way to share blocks is summed once, and what was there already is no write.
fn clones(world: &World) -> Result<()> {
    check::ok(&guest::calls(CLONES, &[AT])?)?;
    for (name, bytes) in [
        ("original.bin", 200_001),
        ("clone.bin", 200_001),
        ("range.bin", 131_072),
        ("copied.bin", 200_001),
        ("twin.bin", 200_001),
        ("twin.bin", 0),
    ] {
        closed(world, SERIAL, &format!("{AT}/{name}"), bytes)?;
    }
    Ok(())
}

/// A clone of a file on the stick is refused with the open of what it would become.
fn clone_refused(world: &World) -> Result<()> {
    let script = "cp --reflink=always \"$1/original.bin\" \"$1/new.bin\"";
    check::refused(&guest::bash(script, &[AT])?)?;
    let path = format!("{AT}/new.bin");
    check::that(!Path::new(&path).exists(), "something arrived on the stick")?;
    refused(world, "usb.write", &[("/operation", json!("create")), ("/file/path", json!(path))])
}

fn xfs(world: &mut World) -> Result<()> {
    with_stick(world, "xfs", "320M", |world, _| {
        clones(world)?;
        let name = format!("{AT}/clone.bin");
        let fields = [("/operation", json!("receipt")), ("/file/path", json!(name))];
        let receipt = world.records.expect("usb.write", &fields)?;
        let source = records::text(&receipt, "/sources/0/path");
        check::equal("its source", source, &format!("{AT}/original.bin"))?;
        check::that(!records::text(&receipt, "/sha256").is_empty(), "it has no hash")?;
        take_off_the_list(world, "")?;
        clone_refused(world)
    })
}

fn btrfs(world: &mut World) -> Result<()> {
    with_stick(world, "btrfs", "128M", |world, _| {
        let from = "/srv/outside/btrfs.bin";
        guest::write(from, vec![b'b'; 300_003])?;
        let script = "btrfs -q subvolume create \"$1/部\" && cp \"$2\" \"$1/部/写し.bin\"";
        check::ok(&guest::bash(script, &[AT, from])?)?;
        let path = format!("{AT}/部/写し.bin");
        closed(world, SERIAL, &path, 300_003)?;
        let fields = [("/operation", json!("receipt")), ("/file/path", json!(path))];
        let receipt = world.records.expect("usb.write", &fields)?;
        check::equal("its source", records::text(&receipt, "/sources/0/path"), from)?;
        let sum = guest::run("sha256sum", &[from])?.text();
        let sum = sum.split(' ').next().unwrap_or_default();
        check::equal("its hash", records::text(&receipt, "/sha256"), sum)?;
        let mount = [
            ("/operation", json!("mount")),
            ("/file/path", json!(AT)),
            ("/file/device/serial", json!(SERIAL)),
            ("/file/device/class", json!("usb")),
        ];
        world.records.expect("usb.mount", &mount)?;
        clones(world)?;
        take_off_the_list(world, "")?;
        clone_refused(world)?;
        check::refused(&guest::bash("mkdir \"$1/directory\"", &[AT])?)?;
        refused(world, "usb.write", &[("/operation", json!("mkdir"))])?;
        check::refused(&guest::bash("echo leak >>\"$1\"", &[&path])?)?;
        refused(world, "usb.write", &[("/operation", json!("open")), ("/file/path", json!(path))])
    })
}

/// What it stands on is known before it can be used.
fn mount(world: &mut World) -> Result<()> {
    with_stick(world, "btrfs", "128M", |world, device| {
        check::ok(&guest::run("umount", &[AT])?)?;
        let rule = "  - { id: no-mount, on: usb.mount, unless: { device: company-stick }, \
            action: deny }\n";
        take_off_the_list(world, rule)?;
        let output = guest::run("mount", &[device, AT])?;
        check::that(output.status != 0, "it was mounted")?;
        refused(world, "usb.mount", &[("/operation", json!("mount")), ("/rule", json!("no-mount"))])
    })
}
