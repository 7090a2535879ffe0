//! What is made of sticks: volumes of LVM, a mirror, and swap.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::below::{LISTED, closed, denied};
use super::prepare::PLAIN;
use crate::run::World;
use crate::{check, guest};

pub const ALL: &[(&str, Run)] =
    &[("lvm", lvm), ("raid", raid), ("swap-device", swap_device), ("swap-file", swap_file)];

const AT: &str = "/mnt/volume";
const FILE: &str = "/mnt/volume/見積書.txt";

/// Plugs a stick, runs `make` with its device as `$1`, does something, and runs `undo`.
fn with(
    world: &mut World,
    (make, undo): (&str, &str),
    work: impl FnOnce(&mut World, &str) -> Result<()>,
) -> Result<()> {
    let plugged = guest::run("sekimori-stick", &["plug", LISTED, "64M:ext4"])?;
    check::ok(&plugged)?;
    let device = plugged.text().trim().to_owned();
    let made = guest::bash(&format!("set -e; mkdir -p {AT}; {make}"), &[&device]);
    let result = made.and_then(|made| check::ok(&made)).and_then(|()| work(world, &device));
    world.policy(&World::usual_policy_and(""))?;
    let _ = guest::bash(undo, &[&device])?;
    check::ok(&guest::run("sekimori-stick", &["unplug", LISTED])?)?;
    result
}

/// From here on no stick may be written.
fn forbid(world: &mut World) -> Result<()> {
    world.policy(&World::usual_policy_and("").replace("\"SEKI0003\", ", ""))
}

/// Makes a file system on the volume and writes to both, first allowed, then not.
fn written_then_refused(world: &mut World, node: &str) -> Result<()> {
    let script = "mkfs.vfat \"$1\" && mount \"$1\" \"$2\" && cp /srv/personal/a.txt \"$3\"";
    check::ok(&guest::bash(script, &[node, AT, FILE])?)?;
    closed(world, LISTED, FILE, u64::try_from(PLAIN.len())?)?;
    forbid(world)?;
    check::refused(&guest::bash("echo x >>\"$1\"", &[FILE])?)?;
    denied(world, LISTED, FILE)?;
    check::refused(&guest::bash("cat /srv/personal/a.txt >\"$1\"", &[node])?)?;
    denied(world, LISTED, node)?;
    let new = format!("{AT}/new.txt");
    let script = "umount \"$2\" && mount \"$1\" \"$2\" && touch \"$3\"";
    check::refused(&guest::bash(script, &[node, AT, &new])?)?;
    check::that(!Path::new(&new).exists(), "something arrived on the stick")
}

/// Nobody makes nodes but LVM itself.
const CONFIG: &str = "devices { use_devicesfile=0 external_device_info_source=\"none\" \
                      obtain_device_list_from_udev=0 } activation { udev_sync=0 udev_rules=0 \
                      verify_udev_operations=0 monitoring=0 } backup { backup=0 archive=0 }";

fn lvm(world: &mut World) -> Result<()> {
    let make = format!(
        "config='{CONFIG}'; pvcreate --config \"$config\" -y -ff \"$1\"; \
         vgcreate --config \"$config\" sekimori \"$1\"; \
         lvcreate --config \"$config\" -y -Wn -Zn -L 40M -n volume sekimori"
    );
    let undo = format!("umount {AT}; vgchange --config '{CONFIG}' -an sekimori");
    with(world, (&make, &undo), |world, _| {
        written_then_refused(world, "/dev/mapper/sekimori-volume")
    })
}

/// A mirror of which the other half is missing.
fn raid(world: &mut World) -> Result<()> {
    let make = "modprobe raid1; mdadm --create /dev/md5 --run --force --level=1 --metadata=1.2 \
                --raid-devices=2 \"$1\" missing";
    let undo = format!("umount {AT}; mdadm --stop /dev/md5");
    with(world, (make, &undo), |world, _| written_then_refused(world, "/dev/md5"))
}

/// The kernel opens what is swapped to, in the name of who asks for it.
fn swap(world: &mut World, path: &str) -> Result<()> {
    check::ok(&guest::run("swapon", &[path])?)?;
    check::ok(&guest::run("swapoff", &[path])?)?;
    let fields = [
        ("/operation", json!("open")),
        ("/file/path", json!(path)),
        ("/file/device/serial", json!(LISTED)),
        ("/process/comm", json!("swapon")),
        ("/verdict", json!("allowed")),
    ];
    world.records.expect("usb.write", &fields)?;
    forbid(world)?;
    check::refused(&guest::run("swapon", &[path])?)?;
    denied(world, LISTED, path)?;
    let swaps = std::fs::read_to_string("/proc/swaps")?;
    check::that(!swaps.contains(path), format!("it is swapped to: {swaps}"))
}

fn swap_device(world: &mut World) -> Result<()> {
    with(world, ("mkswap \"$1\"", "swapoff -a"), swap)
}

fn swap_file(world: &mut World) -> Result<()> {
    let file = format!("{AT}/swap");
    let make = format!(
        "mount \"$1\" {AT}; dd if=/dev/zero of={file} bs=1M count=8; chmod 600 {file}; \
         mkswap {file}"
    );
    let undo = format!("swapoff -a; umount {AT}");
    with(world, (&make, &undo), |world, _| swap(world, &file))
}
