//! What stands between a program and the stick: partitions, layers, and rules on mounts.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::usb_ways::closed;
use crate::run::World;
use crate::{check, guest};
use guest::{OTHER, OTHER_SERIAL};

pub const ALL: &[(&str, Run)] = &[
    ("mount-refused", mount_refused),
    ("new-mount-calls-refused", new_calls_refused),
    ("partition", partition),
    ("partition-refused", partition_refused),
    ("overlay", overlay),
    ("overlay-refused", overlay_refused),
];

/// Lets the stick that is on no list be written.
pub(super) fn permit_other(world: &mut World) -> Result<()> {
    world.policy(&World::usual_policy_and("").replace("SEKI0004", OTHER_SERIAL))
}

/// Runs `attempt` while a rule refuses mounts of the stick that is on no list.
fn with_mounts_refused(
    world: &mut World,
    attempt: impl FnOnce(&str) -> Result<guest::Output>,
) -> Result<()> {
    let rule =
        "  - { id: no-mount, on: usb.mount, unless: { device: company-stick }, action: deny }\n";
    let device = guest::run("sekimori-stick", &["device", OTHER_SERIAL])?.text();
    world.policy(&World::usual_policy_and(rule))?;
    check::ok(&guest::run("umount", &[OTHER])?)?;
    let output = attempt(&device);
    let mounted = guest::run("findmnt", &["--source", &device])?;
    world.policy(&World::usual_policy_and(""))?;
    guest::mount(OTHER_SERIAL, OTHER)?;
    let output = output?;
    check::that(mounted.status != 0, format!("it is mounted: {}", mounted.text()))?;
    let fields = [
        ("/operation", json!("mount")),
        ("/file/device/serial", json!(OTHER_SERIAL)),
        ("/verdict", json!("denied")),
        ("/rule", json!("no-mount")),
        ("/errno", json!(1)),
        ("/process/pid", json!(output.pid)),
    ];
    world.records.expect("usb.mount", &fields)?;
    check::that(output.status == 0, format!("{}: {}", output.command, output.errors()))
}

fn mount_refused(world: &mut World) -> Result<()> {
    with_mounts_refused(world, |device| {
        let script = r#"
device, at = (name.encode() for name in sys.argv[1:])
same("mount", call(165, device, at, b"ext4", 0, None), -errno.EPERM)
same("mount to read", call(165, device, at, b"ext4", 1, None), -errno.EPERM)
"#;
        let tool = guest::run("mount", &[device, OTHER])?;
        check::that(tool.status != 0, "mount said that it went well")?;
        guest::calls(script, &[device, OTHER])
    })
}

/// `fsopen`, `fsconfig`, `fsmount`.
fn new_calls_refused(world: &mut World) -> Result<()> {
    with_mounts_refused(world, |device| {
        let script = r#"
context = call(430, b"ext4", 0)
same("the source", call(431, context, 1, b"source", sys.argv[1].encode(), 0), 0)
same("the creation", call(431, context, 6, None, None, 0), -errno.EPERM)
mount = call(432, context, 0, 0)
if mount >= 0:
    sys.exit("it could be mounted all the same")
"#;
        guest::calls(script, &[device])
    })
}

/// Arguments: the disk. One partition of type FAT32 from its second megabyte to its end.
const TABLE: &str = r#"
import os, struct, sys
with open(sys.argv[1], "r+b") as disk:
    sectors = disk.seek(0, os.SEEK_END) // 512
    disk.seek(0)
    chs = b"\xfe\xff\xff"
    entry = b"\0" + chs + b"\x0c" + chs + struct.pack("<II", 2048, sectors - 2048)
    disk.write(b"\0" * 446 + entry + b"\0" * 48 + b"\x55\xaa")
    os.fsync(disk.fileno())
"#;

/// Plugs a stick, gives it a partition while every stick may be written, and writes to that.
fn written_to_partition(world: &mut World, serial: &str, at: &str) -> Result<guest::Output> {
    let all = World::usual_policy_and("").replace("\"SEKI0003\"", "\"SEKI0003\", \"SEKI0005\"");
    world.policy(&all)?;
    check::ok(&guest::run("sekimori-stick", &["plug", serial, "64M:vfat"])?)?;
    let written = (|| {
        let disk = guest::run("sekimori-stick", &["device", serial])?.text();
        check::ok(&guest::python(TABLE, &[&disk])?)?;
        check::ok(&guest::run("blockdev", &["--rereadpt", &disk])?)?;
        let part = format!("{disk}1");
        check::ok(&guest::run("mkfs.vfat", &["-F", "32", &part])?)?;
        std::fs::create_dir_all(at)?;
        check::ok(&guest::run("mount", &[part.as_str(), at])?)?;
        world.policy(&World::usual_policy_and(""))?;
        let output = guest::bash("head -c 12345 /dev/zero >\"$1/new.bin\"", &[at]);
        let arrived = Path::new(&format!("{at}/new.bin")).exists();
        check::ok(&guest::run("umount", &[at])?)?;
        let output = output?;
        check::equal("whether it arrived", arrived, output.status == 0)?;
        Ok(output)
    })();
    check::ok(&guest::run("sekimori-stick", &["unplug", serial])?)?;
    written
}

fn partition(world: &mut World) -> Result<()> {
    let (serial, at) = ("SEKI0004", "/mnt/partition");
    check::ok(&written_to_partition(world, serial, at)?)?;
    closed(world, serial, &format!("{at}/new.bin"), 12_345)?;
    let fields = [("/file/device/serial", json!(serial)), ("/file/path", json!(at))];
    world.records.expect("usb.mount", &fields)?;
    Ok(())
}

fn partition_refused(world: &mut World) -> Result<()> {
    let (serial, at) = ("SEKI0005", "/mnt/partition");
    check::refused(&written_to_partition(world, serial, at)?)?;
    let fields = [
        ("/operation", json!("create")),
        ("/file/path", json!(format!("{at}/new.bin"))),
        ("/file/device/serial", json!(serial)),
        ("/file/device/class", json!("usb")),
        ("/rule", json!("usb-only-company")),
        ("/verdict", json!("denied")),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}

/// An overlay at `/mnt/overlay` whose upper layer lies on the ext4 stick, which must be permitted.
fn mount_overlay() -> Result<()> {
    let script = "mkdir -p /mnt/overlay \"$1/upper\" \"$1/work\" && mount -t overlay overlay \
                  -o lowerdir=/srv/personal,upperdir=\"$1/upper\",workdir=\"$1/work\" /mnt/overlay";
    check::ok(&guest::bash(script, &[OTHER])?)
}

/// What the upper layer held; nothing of it is left.
fn remove_overlay(world: &mut World) -> Result<String> {
    let _ = guest::run("umount", &["/mnt/overlay"])?;
    permit_other(world)?;
    let script = "cd \"$1\" && ls upper && rm -r upper work";
    let output = guest::bash(script, &[OTHER])?;
    check::ok(&output)?;
    Ok(output.text())
}

/// The real file is opened by overlayfs itself, in a second call.
fn overlay(world: &mut World) -> Result<()> {
    permit_other(world)?;
    mount_overlay()?;
    let output = guest::bash("head -c 5003 /dev/zero >/mnt/overlay/new.bin", &[]);
    let number = std::fs::metadata(format!("{OTHER}/upper/new.bin")).map(|it| it.ino());
    check::equal("the upper layer", remove_overlay(world)?, "new.bin".to_owned())?;
    check::ok(&output?)?;
    let file = [
        ("/file/inode", json!(number?)),
        ("/file/device/serial", json!(OTHER_SERIAL)),
        ("/process/comm", json!("bash")),
        ("/verdict", json!("allowed")),
    ];
    let open =
        [("/operation", json!("open")), ("/file/path", json!(format!("{OTHER}/upper/new.bin")))];
    world.records.expect("usb.write", &[&file[..], &open].concat())?;
    let close = [
        ("/operation", json!("close")),
        ("/file/path", json!(format!("{OTHER}/upper/new.bin"))),
        ("/bytes", json!(5003)),
    ];
    world.records.expect("usb.write", &[&file[..], &close].concat())?;
    Ok(())
}

/// The overlay is older than the rule.
fn overlay_refused(world: &mut World) -> Result<()> {
    permit_other(world)?;
    mount_overlay()?;
    check::ok(&guest::bash("echo before >/mnt/overlay/before.txt", &[])?)?;
    world.policy(&World::usual_policy_and(""))?;
    world.records.forget()?;
    let tries = [
        "echo leak >/mnt/overlay/new.txt",
        "echo leak >>/mnt/overlay/a.txt",
        "echo leak >>/mnt/overlay/before.txt",
    ];
    let outputs: Result<Vec<_>> = tries.iter().map(|script| guest::bash(script, &[])).collect();
    let content = std::fs::read_to_string(format!("{OTHER}/upper/before.txt"));
    check::equal("the upper layer", remove_overlay(world)?, "before.txt".to_owned())?;
    check::equal("the older file", content?, "before\n".to_owned())?;
    for output in outputs? {
        check::refused(&output)?;
    }
    let fields = [
        ("/operation", json!("open")),
        ("/file/path", json!(format!("{OTHER}/upper/before.txt"))),
        ("/file/device/serial", json!(OTHER_SERIAL)),
        ("/rule", json!("usb-only-company")),
        ("/verdict", json!("denied")),
        ("/process/comm", json!("bash")),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}
