//! Loop devices: what a file on the stick holds is on the stick.

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::below::{LISTED, closed, denied};
use super::prepare::PLAIN;
use crate::run::World;
use crate::{check, guest};

pub const ALL: &[(&str, Run)] = &[
    ("file-system", file_system),
    ("direct", direct),
    ("raw-device", raw_device),
    ("image-in-an-image", nested),
    ("encrypted", encrypted),
    ("device-as-image", device),
    ("elsewhere-is-not-the-stick", elsewhere),
];

/// Where the stick is mounted, and what its image holds.
const STICK: &str = "/mnt/image-stick";
const INSIDE: &str = "/mnt/image";
const FILE: &str = "/mnt/image/見積書.txt";

/// Plugs a stick, makes an image on it, runs `make` with the image as `$1`, which prints a loop
/// device, and does something with that.
fn with_image(
    world: &mut World,
    make: &str,
    work: impl FnOnce(&mut World, &str) -> Result<()>,
) -> Result<()> {
    let plugged = guest::run("sekimori-stick", &["plug", LISTED, "96M:ext4"])?;
    check::ok(&plugged)?;
    let script = format!(
        "set -e; mkdir -p {STICK} {INSIDE}; mount \"$1\" {STICK}; \
         truncate -s 32M {STICK}/image; set -- {STICK}/image \"$1\"; {make}"
    );
    let made = guest::bash(&script, &[plugged.text().trim()]);
    let result = made.and_then(|made| {
        check::ok(&made)?;
        let lines = made.text();
        work(world, lines.lines().last().unwrap_or_default())
    });
    let script = format!(
        "umount {INSIDE}; cryptsetup close sekimori-image; losetup --detach-all; umount {STICK}; \
         losetup --detach-all"
    );
    let _ = guest::bash(&script, &[])?;
    check::ok(&guest::run("sekimori-stick", &["unplug", LISTED])?)?;
    result
}

/// From here on no stick may be written.
fn forbid(world: &mut World) -> Result<()> {
    world.policy(&World::usual_policy_and("").replace("\"SEKI0003\", ", ""))
}

/// Copies a file into the file system, first allowed, then not.
fn copied_then_refused(world: &mut World) -> Result<()> {
    check::ok(&guest::run("cp", &["/srv/personal/a.txt", FILE])?)?;
    closed(world, LISTED, FILE, u64::try_from(PLAIN.len())?)?;
    forbid(world)?;
    for script in ["cp /srv/personal/a.txt \"$1/new.txt\"", "mkdir \"$1/new.txt\""] {
        check::refused(&guest::bash(script, &[INSIDE])?)?;
    }
    check::refused(&guest::bash("echo x >>\"$1\"", &[FILE])?)?;
    denied(world, LISTED, FILE)?;
    let arrived = std::path::Path::new(&format!("{INSIDE}/new.txt")).exists();
    check::that(!arrived, "something arrived on the stick")
}

fn file_system(world: &mut World) -> Result<()> {
    let make = format!(
        "mkfs.ext4 -q -F \"$1\"; mount -o loop \"$1\" {INSIDE}; findmnt -no SOURCE {INSIDE}"
    );
    with_image(world, &make, |world, _| {
        let fields = [("/file/path", json!(INSIDE)), ("/file/device/serial", json!(LISTED))];
        world.records.expect("usb.mount", &fields)?;
        copied_then_refused(world)
    })
}

/// Past the cache of the file system that the image lies on.
fn direct(world: &mut World) -> Result<()> {
    let make = format!(
        "mkfs.ext4 -q -F \"$1\"; device=$(losetup --find --show --direct-io=on \"$1\"); \
         test \"$(cat /sys/block/${{device#/dev/}}/loop/dio)\" = 1; \
         mount $device {INSIDE}; echo $device"
    );
    with_image(world, &make, |world, _| copied_then_refused(world))
}

fn raw_device(world: &mut World) -> Result<()> {
    with_image(world, "losetup --find --show \"$1\"", |world, device| {
        let script = "dd if=/dev/urandom of=\"$1\" bs=4096 count=10 conv=notrunc,fsync";
        check::ok(&guest::bash(script, &[device])?)?;
        closed(world, LISTED, device, 40_960)?;
        forbid(world)?;
        let sum = || guest::bash("sha256sum <\"$1\"", &[device]);
        let before = sum()?.text();
        for script in ["mkfs.ext4 -q -F \"$1\"", "cat /srv/personal/a.txt >\"$1\""] {
            check::refused(&guest::bash(script, &[device])?)?;
        }
        denied(world, LISTED, device)?;
        check::equal("what is in the image", sum()?.text(), before)
    })
}

fn nested(world: &mut World) -> Result<()> {
    let make = format!(
        "mkfs.ext4 -q -F \"$1\"; mkdir -p /mnt/outer; mount -o loop \"$1\" /mnt/outer; \
         truncate -s 8M /mnt/outer/image; mkfs.ext4 -q -F /mnt/outer/image; \
         mount -o loop /mnt/outer/image {INSIDE}; findmnt -no SOURCE {INSIDE}"
    );
    with_image(world, &make, |world, _| {
        let result = copied_then_refused(world);
        let _ = guest::bash("umount \"$1\"; umount /mnt/outer", &[INSIDE])?;
        result
    })
}

/// LUKS in the image, and its raw volume.
fn encrypted(world: &mut World) -> Result<()> {
    let key = "--batch-mode --key-file /run/luks-key";
    let volume = "/dev/mapper/sekimori-image";
    let make = format!(
        "echo 鍵 >/run/luks-key; device=$(losetup --find --show \"$1\"); \
         cryptsetup luksFormat {key} --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $device >&2; \
         cryptsetup open {key} $device sekimori-image >&2; \
         mkfs.ext4 -q -F {volume}; mount {volume} {INSIDE}; echo $device"
    );
    with_image(world, &make, |world, _| {
        copied_then_refused(world)?;
        check::refused(&guest::bash("cat /srv/personal/a.txt >\"$1\"", &[volume])?)?;
        denied(world, LISTED, volume)
    })
}

/// The node of the stick in place of a file on it.
fn device(world: &mut World) -> Result<()> {
    // Whoever hashes what was written may keep it busy for a moment.
    let make = format!(
        "until umount {STICK}; do sleep 0.1; done; device=$(losetup --find --show \"$2\"); mount $device {INSIDE}; \
         echo $device"
    );
    with_image(world, &make, |world, _| copied_then_refused(world))
}

/// The same loop device with a file that lies elsewhere.
fn elsewhere(world: &mut World) -> Result<()> {
    let make = "device=$(losetup --find --show \"$1\"); losetup --detach $device; \
                fallocate -l 8M /tmp/image; losetup $device /tmp/image; echo $device";
    with_image(world, make, |world, device| {
        forbid(world)?;
        let script = format!("mkfs.ext4 -q -F \"$1\" && mount \"$1\" {INSIDE} && touch {FILE}");
        check::ok(&guest::bash(&script, &[device])?)?;
        let of_it = world.records.all("usb.write", &[("/file/path", json!(device))])?;
        check::equal("records of its node", of_it.len(), 0)
    })
}
