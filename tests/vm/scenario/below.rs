//! Below the file system: raw devices, and devices that stand on others.

use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::json;

use super::Run;
use super::prepare::PLAIN;
use crate::run::World;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] = &[
    ("raw-device-recorded", raw_recorded),
    ("raw-device-refused", raw_refused),
    ("raw-device-without-agent", raw_without_agent),
    ("generic-and-usb-nodes-refused", other_nodes),
    ("luks", luks),
    ("volume-on-luks", volume),
    ("memory-card", card),
    ("memory-card-by-serial", card_by_serial),
    ("memory-card-refused", card_refused),
];

/// A stick of the company, and one that is on no list.
pub(super) const LISTED: &str = "SEKI0003";
pub(super) const UNLISTED: &str = "SEKI0006";

/// Plugs a stick, does something with its node, and unplugs it.
pub(super) fn with_stick(serial: &str, work: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let plugged = guest::run("sekimori-stick", &["plug", serial, "64M:vfat"])?;
    check::ok(&plugged)?;
    let result = work(plugged.text().trim());
    check::ok(&guest::run("sekimori-stick", &["unplug", serial])?)?;
    result
}

pub(super) fn denied(world: &World, serial: &str, path: &str) -> Result<()> {
    denied_as(world, "open", serial, path)
}

/// The record of something else than an open that was refused.
pub(super) fn denied_as(world: &World, operation: &str, serial: &str, path: &str) -> Result<()> {
    let fields = [
        ("/operation", json!(operation)),
        ("/file/path", json!(path)),
        ("/file/device/class", json!("usb")),
        ("/file/device/serial", json!(serial)),
        ("/verdict", json!("denied")),
        ("/rule", json!("usb-only-company")),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}

pub(super) fn closed(world: &World, serial: &str, path: &str, bytes: u64) -> Result<()> {
    let fields = [
        ("/operation", json!("close")),
        ("/file/path", json!(path)),
        ("/file/device/class", json!("usb")),
        ("/file/device/serial", json!(serial)),
        ("/bytes", json!(bytes)),
        ("/verdict", json!("allowed")),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}

const CARD: &str = "KARTE1";
pub(super) const CARD_AT: &str = "/mnt/card";

/// Puts a card into the slot, mounts it, does something, and takes it out.
pub(super) fn with_card(work: impl FnOnce() -> Result<()>) -> Result<()> {
    check::ok(&guest::run("modprobe", &["-a", "sdhci_pci", "mmc_block"])?)?;
    let inserted = guest::run("sekimori-stick", &["insert", CARD, "64M:vfat"])?;
    check::ok(&inserted)?;
    std::fs::create_dir_all(CARD_AT)?;
    check::ok(&guest::run("mount", &[inserted.text().trim(), CARD_AT])?)?;
    let result = work();
    check::ok(&guest::run("umount", &[CARD_AT])?)?;
    check::ok(&guest::run("sekimori-stick", &["eject", CARD])?)?;
    result
}

fn card(world: &mut World) -> Result<()> {
    // The agent looks at the modules while the policy changes.
    check::ok(&guest::run("modprobe", &["-a", "sdhci_pci", "mmc_block"])?)?;
    let policy = World::usual_policy_and("");
    let listed = "usb: { serials: [\"SEKI0001\"] } }\n  - { name: company-card, class: [sd] }";
    let policy = policy
        .replace("usb: { serials: [\"SEKI0001\", \"SEKI0003\", \"SEKI0004\"] } }", listed)
        .replacen("unless: { device: company-stick }", "unless: { device: company-card }", 1);
    world.policy(&policy)?;
    let path = format!("{CARD_AT}/写真.jpg");
    with_card(|| check::ok(&guest::run("cp", &["/srv/personal/a.txt", &path])?))?;
    let size = std::fs::metadata("/srv/personal/a.txt")?.len();
    let fields = |operation| {
        [
            ("/operation", json!(operation)),
            ("/file/path", json!(path)),
            ("/file/device/class", json!("sd")),
            ("/bytes", json!(size)),
            ("/verdict", json!("allowed")),
        ]
    };
    let mut serials = Vec::new();
    for operation in ["close", "receipt"] {
        let record = world.records.expect("usb.write", &fields(operation))?;
        serials.push(records::text(&record, "/file/device/serial").to_owned());
    }
    for operation in ["plug", "unplug"] {
        let fields = [("/operation", json!(operation)), ("/device/class", json!("sd"))];
        let record = world.records.expect("device", &fields)?;
        let serial = records::text(&record, "/device/serial");
        check::that(serial.starts_with("0x"), format!("the serial is {serial:?}"))?;
        check::equal("the serial of what was written", &serials, &vec![serial.to_owned(); 2])?;
    }
    Ok(())
}

/// A rule that knows the one card by its serial, which is that of all cards of QEMU.
fn card_by_serial(world: &mut World) -> Result<()> {
    check::ok(&guest::run("modprobe", &["-a", "sdhci_pci", "mmc_block"])?)?;
    world.policy(&World::usual_policy_and("").replace("SEKI0003", "0xdeadbeef"))?;
    let path = format!("{CARD_AT}/listed.txt");
    with_card(|| check::ok(&guest::run("cp", &["/srv/personal/a.txt", &path])?))?;
    world.policy(&World::usual_policy_and("").replace("SEKI0003", "0xdeadbeee"))?;
    with_card(|| check::refused(&guest::run("cp", &["/srv/personal/a.txt", &path])?))?;
    for verdict in ["allowed", "denied"] {
        let fields = [
            ("/file/path", json!(path)),
            ("/file/device/class", json!("sd")),
            ("/file/device/serial", json!("0xdeadbeef")),
            ("/verdict", json!(verdict)),
        ];
        world.records.expect("usb.write", &fields)?;
    }
    nothing_is_unknown(world)
}

/// An agent that starts while the modules are there knows what their devices are.
fn nothing_is_unknown(world: &mut World) -> Result<()> {
    world.daemons.end_agent(Signal::SIGTERM)?;
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    world.daemons.settle(&world.records)?;
    let alerts = world.records.search(&["--kind", "agent", "--verdict", "alerted"])?;
    let unknown =
        alerts.iter().find(|it| records::text(it, "/message").contains("may not be known"));
    check::that(unknown.is_none(), format!("the agent says {unknown:?}"))
}

fn card_refused(world: &mut World) -> Result<()> {
    let path = format!("{CARD_AT}/refused.txt");
    with_card(|| check::refused(&guest::run("cp", &["/srv/personal/a.txt", &path])?))?;
    let fields = [
        ("/file/path", json!(path)),
        ("/file/device/class", json!("sd")),
        ("/verdict", json!("denied")),
        ("/rule", json!("usb-only-company")),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}

fn raw_recorded(world: &mut World) -> Result<()> {
    with_stick(LISTED, |device| {
        let script = "dd if=/dev/urandom of=\"$1\" bs=4096 count=10 conv=notrunc,fsync";
        check::ok(&guest::bash(script, &[device])?)?;
        closed(world, LISTED, device, 40_960)
    })
}

fn raw_refused(world: &mut World) -> Result<()> {
    with_stick(UNLISTED, |device| {
        let sum = || guest::bash("head -c 1M \"$1\" | sha256sum", &[device]);
        let before = sum()?.text();
        for script in [
            "dd if=/srv/personal/a.txt of=\"$1\" conv=notrunc",
            "dd if=/dev/zero of=\"$1\" oflag=direct bs=4096 count=1",
            "cat /srv/personal/a.txt >\"$1\"",
            "mkfs.ext4 -q -F \"$1\"",
        ] {
            check::refused(&guest::bash(script, &[device])?)?;
        }
        denied(world, UNLISTED, device)?;
        let own = "/srv/私のノード";
        let script = "rm -f \"$2\"; numbers=$(stat -c '0x%t 0x%T' \"$1\") && \
                      mknod \"$2\" b $numbers && ! cat /srv/personal/a.txt >\"$2\"";
        check::ok(&guest::bash(script, &[device, own])?)?;
        denied(world, UNLISTED, own)?;
        check::equal("what is on the stick", sum()?.text(), before)
    })
}

/// A stick that comes while nobody reads sysfs.
fn raw_without_agent(world: &mut World) -> Result<()> {
    check::equal("its exit code", world.daemons.end_agent(Signal::SIGTERM)?, 0)?;
    let mut node = String::new();
    let refused = with_stick(UNLISTED, |device| {
        device.clone_into(&mut node);
        check::refused(&guest::bash("cat /srv/personal/a.txt >\"$1\"", &[device])?)
    });
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    refused?;
    denied(world, UNLISTED, &node)
}

/// The nodes by which commands go past the block layer: SCSI generic and the USB device itself.
fn other_nodes(world: &mut World) -> Result<()> {
    with_stick(UNLISTED, |device| {
        let name = Path::new(device).file_name().and_then(|it| it.to_str()).unwrap_or_default();
        let script = r#"
import errno, os, sys
disk = os.path.realpath("/sys/block/" + sys.argv[1] + "/device")
nodes = ["/dev/" + name for name in os.listdir(disk + "/scsi_generic")]
usb = disk
while not os.path.exists(usb + "/idVendor"):
    usb = os.path.dirname(usb)
number = lambda name: int(open(usb + "/" + name).read())
nodes.append("/dev/bus/usb/%03d/%03d" % (number("busnum"), number("devnum")))
for node in nodes:
    os.close(os.open(node, os.O_RDONLY))
    try:
        os.open(node, os.O_RDWR)
    except OSError as error:
        assert error.errno == errno.EPERM, error
    else:
        sys.exit(node + " was not refused")
    print(node)
"#;
        let output = guest::python(script, &[name])?;
        check::ok(&output)?;
        let nodes = output.text();
        check::equal("nodes", nodes.lines().count(), 2)?;
        nodes.lines().try_for_each(|node| denied(world, UNLISTED, node))
    })
}

const KEY: &str = "--batch-mode --key-file /run/luks-key";

/// An encrypted stick with a file system on `$name`: first allowed, then not.
fn encrypted(world: &mut World, below: &str, name: &str) -> Result<()> {
    let plugged = guest::run("sekimori-stick", &["plug", LISTED, "64M:vfat"])?;
    check::ok(&plugged)?;
    let device = plugged.text();
    let result = copied_then_refused(world, below, device.trim(), name);
    let script =
        format!("umount /mnt/luks; dmsetup remove --retry {name}; cryptsetup close sekimori-luks");
    let _ = guest::bash(&script, &[])?;
    check::ok(&guest::run("sekimori-stick", &["unplug", LISTED])?)?;
    world.policy(&World::usual_policy_and(""))?;
    result
}

fn copied_then_refused(world: &mut World, below: &str, device: &str, name: &str) -> Result<()> {
    let node = format!("/dev/mapper/{name}");
    let script = format!(
        "set -e; echo 鍵 >/run/luks-key; mkdir -p /mnt/luks; \
         cryptsetup luksFormat {KEY} --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \"$1\"; \
         cryptsetup open {KEY} \"$1\" sekimori-luks; {below} \
         mkfs.vfat \"$2\" >/run/mkfs.log; mount \"$2\" /mnt/luks; \
         cp /srv/personal/a.txt /mnt/luks/見積書.txt"
    );
    check::ok(&guest::bash(&script, &[device, &node])?)?;
    let bytes = u64::try_from(PLAIN.len())?;
    closed(world, LISTED, "/mnt/luks/見積書.txt", bytes)?;
    world.policy(&World::usual_policy_and("").replace("\"SEKI0003\", ", ""))?;
    for (script, path) in [
        ("cp /srv/personal/a.txt /mnt/luks/new.txt", None),
        ("echo x >>/mnt/luks/見積書.txt", Some("/mnt/luks/見積書.txt")),
        ("dd if=/srv/personal/a.txt of=\"$1\" conv=notrunc", None),
        ("umount /mnt/luks && mount \"$1\" /mnt/luks && touch /mnt/luks/new.txt", None),
    ] {
        check::refused(&guest::bash(script, &[&node])?)?;
        if let Some(path) = path {
            denied(world, LISTED, path)?;
        }
    }
    let arrived = Path::new("/mnt/luks/new.txt").exists();
    check::that(!arrived, "something arrived on the stick")
}

fn luks(world: &mut World) -> Result<()> {
    encrypted(world, "", "sekimori-luks")
}

/// A device on a device on the stick, as LVM makes them.
fn volume(world: &mut World) -> Result<()> {
    let below = "size=$(blockdev --getsz /dev/mapper/sekimori-luks); \
                 dmsetup create sekimori-volume \
                     --table \"0 $size linear /dev/mapper/sekimori-luks 0\"; \
                 dmsetup mknodes;";
    encrypted(world, below, "sekimori-volume")
}
