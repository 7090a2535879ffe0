//! A stick that is on no list: nothing arrives on it, by whatever way.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::prepare::PLAIN;
use crate::run::World;
use crate::{check, guest};
use guest::{OTHER, OTHER_SERIAL};

pub const ALL: &[(&str, Run)] = &[
    ("copies-refused", copies),
    ("changes-refused", changes),
    ("reading-works", reading),
    ("bind-mount-refused", bind_mount),
    ("mount-namespace-refused", namespace),
];

/// The record of a refused change of `path` on the stick that is on no list.
pub(super) fn denied(world: &World, operation: &str, path: &str) -> Result<()> {
    let fields = [
        ("/operation", json!(operation)),
        ("/file/path", json!(path)),
        ("/file/device/serial", json!(OTHER_SERIAL)),
        ("/verdict", json!("denied")),
        ("/rule", json!("usb-only-company")),
        ("/errno", json!(1)),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}

fn copies(world: &mut World) -> Result<()> {
    for script in [
        "cp /srv/personal/a.txt \"$1/new.txt\"",
        "dd if=/dev/zero of=\"$1/new.txt\" count=1",
        "tar cf \"$1/new.txt\" /srv/personal",
        "echo x >\"$1/new.txt\"",
        "busybox cp /srv/personal/a.txt \"$1/new.txt\"",
        "mv /tmp/to-be-moved \"$1/new.txt\"",
    ] {
        guest::write("/tmp/to-be-moved", PLAIN)?;
        check::refused(&guest::bash(script, &[OTHER])?)?;
        let arrived = Path::new(&format!("{OTHER}/new.txt")).exists();
        check::that(!arrived, format!("something arrived by `{script}`"))?;
    }
    denied(world, "create", &format!("{OTHER}/new.txt"))?;
    check::refused(&guest::bash("echo x >>\"$1/there.txt\"", &[OTHER])?)?;
    denied(world, "open", &format!("{OTHER}/there.txt"))
}

fn changes(world: &mut World) -> Result<()> {
    let there = format!("{OTHER}/there.txt");
    let cases = [
        ("mkdir", "mkdir \"$1/new\"", format!("{OTHER}/new")),
        ("rename", "mv \"$1/there.txt\" \"$1/elsewhere.txt\"", there.clone()),
        ("unlink", "rm -f \"$1/there.txt\"", there.clone()),
        ("link", "ln \"$1/there.txt\" \"$1/link.txt\"", there.clone()),
        ("symlink", "ln -s /etc/passwd \"$1/symlink\"", format!("{OTHER}/symlink")),
        ("rmdir", "rmdir \"$1/directory\"", format!("{OTHER}/directory")),
        ("mknod", "mkfifo \"$1/fifo\"", format!("{OTHER}/fifo")),
    ];
    for (operation, script, path) in &cases {
        check::refused(&guest::bash(script, &[OTHER])?)?;
        denied(world, operation, path)?;
    }
    let script = "import os, sys\nos.truncate(sys.argv[1], 0)";
    check::refused(&guest::python(script, &[&there])?)?;
    denied(world, "truncate", &there)?;
    check::equal("the content", std::fs::read_to_string(&there)?, PLAIN.to_owned())?;
    let left = guest::bash("cd \"$1\" && ls", &[OTHER])?.text();
    let expected = "directory\nlost+found\nthere-too.txt\nthere.txt";
    check::equal("what is on the stick", left, expected.to_owned())
}

fn reading(_: &mut World) -> Result<()> {
    let output = guest::run("cat", &[format!("{OTHER}/there.txt")])?;
    check::ok(&output)?;
    check::equal("what was read", output.text(), PLAIN.to_owned())
}

fn bind_mount(world: &mut World) -> Result<()> {
    let script = "mkdir -p /mnt/bound && mount --bind \"$1\" /mnt/bound \
        && echo x >/mnt/bound/new.txt";
    let output = guest::bash(script, &[OTHER])?;
    let arrived = Path::new("/mnt/bound/new.txt").exists();
    check::ok(&guest::run("umount", &["/mnt/bound"])?)?;
    check::refused(&output)?;
    check::that(!arrived, "something arrived through the bind mount")?;
    let fields = [
        ("/verdict", json!("denied")),
        ("/rule", json!("usb-only-company")),
        ("/file/device/serial", json!(OTHER_SERIAL)),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}

fn namespace(world: &mut World) -> Result<()> {
    let script = "exec unshare -m bash -c 'mkdir -p /mnt/private && mount \"$1\" /mnt/private \
        && echo x >/mnt/private/new.txt' bash \"$1\"";
    let device = guest::run("sekimori-stick", &["device", OTHER_SERIAL])?.text();
    check::refused(&guest::bash(script, &[&device])?)?;
    let arrived = Path::new(&format!("{OTHER}/new.txt")).exists();
    check::that(!arrived, "something arrived from another mount namespace")?;
    let fields = [
        ("/verdict", json!("denied")),
        ("/operation", json!("create")),
        ("/file/device/serial", json!(OTHER_SERIAL)),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}
