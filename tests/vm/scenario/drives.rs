//! What is no disk and takes files all the same: optical drives and phones.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::below::{LISTED, UNLISTED, denied};
use super::below_commands::COMMANDS;
use crate::run::World;
use crate::{check, guest, limits};

pub const ALL: &[(&str, Run)] = &[
    ("optical", optical),
    ("optical-refused", optical_refused),
    ("phone", phone),
    ("phone-refused", phone_refused),
];

/// The drive of the guest, which is empty.
const DRIVE: &str = "/dev/sr0";

fn load_drive() -> Result<()> {
    check::ok(&guest::run("modprobe", &["-a", "ata_piix", "sr_mod"])?)?;
    guest::until("the drive is there", limits::PROGRAM_TIMEOUT, || Ok(Path::new(DRIVE).exists()))
}

/// Opens each node of the drive for write, and sends a write by one that is open for reading.
fn burn(script: &str) -> Result<Vec<String>> {
    let output = guest::calls(&format!("{COMMANDS}{script}"), &[DRIVE])?;
    check::ok(&output)?;
    let nodes: Vec<String> = output.text().lines().map(str::to_owned).collect();
    check::equal("nodes", nodes.len(), 3)?;
    Ok(nodes)
}

fn recorded(world: &World, operation: &str, node: &str, verdict: &str) -> Result<()> {
    let fields = [
        ("/operation", json!(operation)),
        ("/file/path", json!(node)),
        ("/file/device/class", json!("optical")),
        ("/verdict", json!(verdict)),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}

fn optical(world: &mut World) -> Result<()> {
    load_drive()?;
    let listed = "usb: { serials: [\"SEKI0001\"] } }\n  - { name: burner, class: [optical] }";
    let policy = World::usual_policy_and("")
        .replace("usb: { serials: [\"SEKI0001\", \"SEKI0003\", \"SEKI0004\"] } }", listed)
        .replacen("unless: { device: company-stick }", "unless: { device: burner }", 1);
    world.policy(&policy)?;
    let script = r#"
for node, bsg in nodes(sys.argv[1]):
    try:
        os.close(os.open(node, os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        # A drive that only reads says so after it was allowed.
        same("the open of " + node, error.errno, errno.EROFS)
    if write10(node, 16, b"leak", bsg) == -errno.EPERM:
        sys.exit("the command was refused")
    print(node)
"#;
    for node in burn(script)? {
        recorded(world, "open", &node, "allowed")?;
        recorded(world, "command", &node, "allowed")?;
    }
    Ok(())
}

fn optical_refused(world: &mut World) -> Result<()> {
    load_drive()?;
    world.policy(&World::usual_policy_and(""))?;
    let script = r#"
for node, bsg in nodes(sys.argv[1]):
    refused("an open of " + node, lambda: os.open(node, os.O_RDWR | os.O_NONBLOCK))
    same("inquiry at " + node, inquiry(node, bsg), 0)
    same("write at " + node, write10(node, 16, b"leak", bsg), -errno.EPERM)
    print(node)
"#;
    for node in burn(script)? {
        recorded(world, "open", &node, "denied")?;
        recorded(world, "command", &node, "denied")?;
    }
    Ok(())
}

/// Connects a phone, does something with its USB node, and takes it away.
fn with_phone(serial: &str, work: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let connected = guest::run("sekimori-stick", &["connect", serial])?;
    check::ok(&connected)?;
    let result = work(connected.text().trim());
    check::ok(&guest::run("sekimori-stick", &["disconnect", serial])?)?;
    result
}

fn phone(world: &mut World) -> Result<()> {
    with_phone(LISTED, |node| {
        let script = "mtp-sendfile /srv/personal/a.txt 見積書.txt && mtp-files";
        let output = guest::bash(script, &[])?;
        check::ok(&output)?;
        check::that(output.text().contains("見積書.txt"), output.text())?;
        let fields = [
            ("/operation", json!("open")),
            ("/file/path", json!(node)),
            ("/file/device/class", json!("usb")),
            ("/file/device/serial", json!(LISTED)),
            ("/process/comm", json!("mtp-sendfile")),
            ("/verdict", json!("allowed")),
        ];
        world.records.expect("usb.write", &fields)?;
        let fields = [("/operation", json!("plug")), ("/device/serial", json!(LISTED))];
        let record = world.records.expect("device", &fields)?;
        let functions = record.pointer("/device/functions").cloned();
        check::equal("what it is for", functions, Some(json!(["imaging"])))
    })
}

fn phone_refused(world: &mut World) -> Result<()> {
    with_phone(UNLISTED, |node| {
        let output = guest::bash("mtp-sendfile /srv/personal/a.txt leak.txt", &[])?;
        let said = format!("{}{}", output.text(), output.errors());
        check::that(!said.contains("New file ID"), said)?;
        check::refused(&guest::bash("exec 5<>\"$1\"", &[node])?)?;
        denied(world, UNLISTED, node)
    })
}
