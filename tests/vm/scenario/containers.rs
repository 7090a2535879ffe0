//! A container: namespaces of every kind and a root of its own.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::prepare::SECRET;
use super::usb_denied::denied;
use crate::run::World;
use crate::{check, guest};
use guest::OTHER;

pub const ALL: &[(&str, Run)] = &[
    ("write-to-stick-refused", stick),
    ("labelled-file-refused", labelled),
    ("forbidden-program-refused", forbidden),
    ("launch", launch),
    ("connection-refused", connection),
];

/// Runs `command` by busybox in a container that has the directory `shared` as its own `/shared`,
/// and nothing else of the host's.
fn contained(shared: &str, command: &str) -> Result<guest::Output> {
    let inner = "mkdir -p /tmp/container && mount -t tmpfs tmpfs /tmp/container && \
                 cd /tmp/container && mkdir shared old && cp /run/sekimori-bin/busybox . && \
                 mount --bind \"$1\" shared && hostname container && pivot_root . old && \
                 exec /busybox sh -c \"/busybox umount -l /old && $2\"";
    let arguments = [
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--net",
        "--cgroup",
        "--fork",
        "bash",
        "-c",
        inner,
        "bash",
        shared,
        command,
    ];
    guest::run("unshare", &arguments)
}

fn stick(world: &mut World) -> Result<()> {
    check::refused(&contained(OTHER, "/busybox cp /busybox /shared/new.txt")?)?;
    let arrived = Path::new(&format!("{OTHER}/new.txt")).exists();
    check::that(!arrived, "something arrived on the stick")?;
    denied(world, "create", &format!("{OTHER}/new.txt"))
}

fn labelled(world: &mut World) -> Result<()> {
    let output = contained("/srv/secret", "/busybox cat /shared/contained.txt")?;
    check::that(!output.text().contains(SECRET), "the secret was given away")?;
    check::refused(&output)?;
    let fields = [
        ("/file/path", json!("/srv/secret/contained.txt")),
        ("/verdict", json!("denied")),
        ("/rule", json!("secret-no-open")),
        ("/process/comm", json!("busybox")),
        ("/truncated", json!(false)),
    ];
    world.records.expect("file.open", &fields)?;
    check::ok(&contained("/srv/personal", "/busybox cat /shared/a.txt")?)
}

fn forbidden(world: &mut World) -> Result<()> {
    check::refused(&contained("/opt/forbidden", "/shared/tool marker-contained")?)?;
    let fields = [
        ("/verdict", json!("denied")),
        ("/rule", json!("no-forbidden-tools")),
        ("/file/path", json!("/opt/forbidden/tool")),
        ("/errno", json!(1)),
    ];
    world.records.expect("exec", &fields)?;
    Ok(())
}

/// The record has the host's view of it.
fn launch(world: &mut World) -> Result<()> {
    let place = "/srv/outside/container";
    std::fs::create_dir_all(place)?;
    std::fs::copy("/run/sekimori-bin/busybox", format!("{place}/busybox"))?;
    let output = contained(place, "/shared/busybox echo marker-container $$")?;
    check::ok(&output)?;
    // A process number of the container's own.
    check::equal("its output", output.text(), "marker-container 1".to_owned())?;
    let path = format!("{place}/busybox");
    let fields = [
        ("/process/argv", json!(["/shared/busybox", "echo", "marker-container", "1"])),
        ("/file/path", json!(path)),
        ("/process/exe", json!(path)),
        ("/process/uid", json!(0)),
        ("/verdict", json!("allowed")),
    ];
    let record = world.records.expect("exec", &fields)?;
    let pid = crate::records::number(&record, "/process/pid");
    check::that(pid > u64::from(output.pid), format!("its process number is {pid}"))
}

fn connection(world: &mut World) -> Result<()> {
    check::refused(&contained("/srv/personal", "/busybox nc 127.0.0.2 18301")?)?;
    let fields = [
        ("/verdict", json!("denied")),
        ("/rule", json!("no-connect-there")),
        ("/destination/ip", json!("127.0.0.2")),
        ("/destination/port", json!(18_301)),
        ("/process/comm", json!("busybox")),
    ];
    world.records.expect("net.connect", &fields)?;
    Ok(())
}
