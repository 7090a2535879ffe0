//! A stick whose file system is a program (`fuseblk`).

use anyhow::Result;
use serde_json::json;

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
    let output = guest::python(include_str!("../fuse.py"), &[disk.as_str(), AT]);
    let _ = guest::run("umount", &["-l", AT])?;
    check::ok(&guest::run("sekimori-stick", &["unplug", serial])?)?;
    let output = output?;
    check::ok(&output)?;
    Ok(output.text())
}

fn recorded(world: &World, operation: &str, serial: &str, verdict: &str) -> Result<()> {
    let fields = [
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

/// The names and the opens are on record; how many bytes went through is not.
fn write(world: &mut World) -> Result<()> {
    let serial = "SEKI0004";
    check::equal("result and bytes", written(serial)?, "0 5003".to_owned())?;
    for operation in ["create", "open", "close"] {
        recorded(world, operation, serial, "allowed")?;
    }
    let mount = [("/file/path", json!(AT)), ("/file/device/serial", json!(serial))];
    world.records.expect("usb.mount", &mount)?;
    Ok(())
}

fn refused(world: &mut World) -> Result<()> {
    let serial = "SEKI0005";
    check::equal("result and bytes", written(serial)?, "-1 0".to_owned())?;
    recorded(world, "create", serial, "denied")
}
