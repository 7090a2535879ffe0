//! A stick whose file system is a program (`fuseblk`).

use anyhow::Result;
use serde_json::{Value, json};

use super::Run;
use crate::run::World;
use crate::{check, guest};

pub const ALL: &[(&str, Run)] = &[("write", write), ("write-refused", refused)];

const AT: &str = "/mnt/fuse";

/// Plugs a stick and writes to it through such a file system. Answers the result of the write and
/// how many bytes that program got.
fn written(serial: &str) -> Result<String> {
    // A part of newer kernels.
    let _ = guest::run("modprobe", &["fuse"])?;
    std::fs::create_dir_all(AT)?;
    check::ok(&guest::run("sekimori-stick", &["plug", serial, "64M:vfat"])?)?;
    let disk = guest::run("sekimori-stick", &["device", serial])?.text();
    let link = super::shares::link()?;
    let arguments = [disk.as_str(), AT, &link.to_string_lossy()];
    let output = guest::python(include_str!("../fuse.py"), &arguments);
    let _ = guest::run("umount", &["-l", AT])?;
    check::ok(&guest::run("sekimori-stick", &["unplug", serial])?)?;
    let output = output?;
    check::ok(&output)?;
    Ok(output.text())
}

fn recorded(
    world: &World,
    operation: &str,
    serial: &str,
    verdict: &str,
    bytes: Value,
) -> Result<()> {
    let fields = [
        ("/bytes", bytes),
        ("/operation", json!(operation)),
        ("/file/path", json!(format!("{AT}/new.bin"))),
        ("/file/device/serial", json!(serial)),
        ("/file/device/class", json!("usb")),
        ("/verdict", json!(verdict)),
        ("/process/comm", json!("python3")),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}

/// Names, opens and bytes are on record.
fn write(world: &mut World) -> Result<()> {
    let serial = "SEKI0004";
    check::equal("result and bytes", written(serial)?, "0 5003".to_owned())?;
    for (operation, bytes) in [
        ("create", Value::Null),
        ("open", Value::Null),
        ("write", json!(5003)),
        ("close", json!(5003)),
    ] {
        recorded(world, operation, serial, "allowed", bytes)?;
    }
    let mount = [("/file/path", json!(AT)), ("/file/device/serial", json!(serial))];
    world.records.expect("usb.mount", &mount)?;
    Ok(())
}

fn refused(world: &mut World) -> Result<()> {
    let serial = "SEKI0005";
    check::equal("result and bytes", written(serial)?, "-1 0".to_owned())?;
    recorded(world, "create", serial, "denied", Value::Null)
}
