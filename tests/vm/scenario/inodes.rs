//! What is remembered of an inode: it ends with the inode, and a label outlives its memory.
//!
//! On the ext4 stick: the guest's own root is an overlay over a file system without handles, whose
//! inodes never leave memory.

use std::os::unix::fs::MetadataExt as _;

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::prepare::{PLAIN, SECRET};
use crate::run::World;
use crate::{check, guest};
use guest::{OTHER, OTHER_SERIAL};

pub const ALL: &[(&str, Run)] = &[
    ("label-across-eviction", eviction),
    ("label-across-unmount", unmount),
    ("number-of-a-labelled-file-used-again", reused_outside),
    ("number-of-a-plain-file-used-again", reused_inside),
    ("open-by-handle-refused", handle),
    ("open-by-handle-after-eviction-refused", cold_handle),
];

/// Only the first of the two carries a label.
const LABELLED: &str = "/mnt/other/inodes/labelled";
const FREE: &str = "/mnt/other/inodes/free";
const SECRET_FILE: &str = "/mnt/other/inodes/labelled/secret.txt";
const PLAIN_FILE: &str = "/mnt/other/inodes/free/plain.txt";

/// Runs `attempt` while the stick may be written and `LABELLED` carries the label `secret`.
fn with_labels(world: &mut World, attempt: fn(&World) -> Result<()>) -> Result<()> {
    let permitted = World::usual_policy_and("").replace("SEKI0004", OTHER_SERIAL);
    world.policy(&permitted)?;
    guest::write(SECRET_FILE, SECRET)?;
    guest::write(PLAIN_FILE, PLAIN)?;
    let label = "paths: [\"/srv/secret/**\"";
    world.policy(&permitted.replace(label, &format!("{label}, \"{LABELLED}/**\"")))?;
    let outcome = attempt(world);
    world.policy(&permitted)?;
    check::ok(&guest::run("rm", &["-r", &format!("{OTHER}/inodes")])?)?;
    outcome
}

fn refused(world: &World, path: &str, times: usize) -> Result<()> {
    let output = guest::run("cat", &[path])?;
    check::that(!output.text().contains(SECRET), "the secret was given away")?;
    check::refused(&output)?;
    let fields = [
        ("/file/path", json!(path)),
        ("/verdict", json!("denied")),
        ("/rule", json!("secret-no-open")),
        ("/process/comm", json!("cat")),
        ("/truncated", json!(false)),
    ];
    let what = format!("refusal {times} of {path}");
    world.records.wait(&what, &["--kind", "file.open"], |all| {
        all.iter().filter(|record| crate::records::fits(record, &fields)).count() == times
    })?;
    Ok(())
}

fn eviction(world: &mut World) -> Result<()> {
    with_labels(world, |world| {
        refused(world, SECRET_FILE, 1)?;
        for kind in ["2", "3"] {
            check::ok(&guest::bash("sync; echo \"$1\" >/proc/sys/vm/drop_caches", &[kind])?)?;
        }
        refused(world, SECRET_FILE, 2)?;
        check::equal("the other file", guest::run("cat", &[PLAIN_FILE])?.text(), PLAIN.to_owned())
    })
}

fn unmount(world: &mut World) -> Result<()> {
    with_labels(world, |world| {
        refused(world, SECRET_FILE, 1)?;
        check::ok(&guest::run("umount", &[OTHER])?)?;
        guest::mount(OTHER_SERIAL, OTHER)?;
        refused(world, SECRET_FILE, 2)?;
        check::equal("the other file", guest::run("cat", &[PLAIN_FILE])?.text(), PLAIN.to_owned())
    })
}

/// Arguments: a file to remove and a directory, in which files are made until one has its number.
/// `mknod`, because an open for write in a labelled place is refused.
const USE_AGAIN: &str = r#"
import os, stat, sys
number = os.stat(sys.argv[1]).st_ino
os.unlink(sys.argv[1])
for turn in range(4000):
    path = f"{sys.argv[2]}/{turn}"
    os.mknod(path, stat.S_IFREG | 0o644)
    if os.stat(path).st_ino == number:
        print(path, end="")
        sys.exit()
sys.exit(f"the number {number} did not come back")
"#;

fn used_again(old: &str, directory: &str) -> Result<String> {
    let output = guest::python(USE_AGAIN, &[old, directory])?;
    check::ok(&output)?;
    Ok(output.text())
}

fn reused_outside(world: &mut World) -> Result<()> {
    with_labels(world, |world| {
        refused(world, SECRET_FILE, 1)?;
        let path = used_again(SECRET_FILE, FREE)?;
        guest::write(&path, PLAIN)?;
        check::equal("what was read", guest::run("cat", &[&path])?.text(), PLAIN.to_owned())
    })
}

fn reused_inside(world: &mut World) -> Result<()> {
    with_labels(world, |world| {
        check::ok(&guest::run("cat", &[PLAIN_FILE])?)?;
        let path = used_again(PLAIN_FILE, LABELLED)?;
        refused(world, &path, 1)
    })
}

/// Arguments: path, its mount, and whether to forget it before it is opened. Prints the result.
const BY_HANDLE: &str = r#"
handle, mount_id = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136), ctypes.c_int()
path = sys.argv[1].encode()
same("handle", call(303, -100, path, handle, ctypes.byref(mount_id), 0), 0)
mount = os.open(sys.argv[2], os.O_RDONLY | os.O_DIRECTORY)
if sys.argv[3] == "cold":
    os.sync()
    open("/proc/sys/vm/drop_caches", "w").write("3")
fd = call(304, mount, handle, os.O_RDONLY)
print(fd if fd < 0 else os.read(fd, 99).decode())
"#;

fn by_handle(path: &str, how: &str) -> Result<String> {
    let output = guest::calls(BY_HANDLE, &[path, OTHER, how])?;
    check::ok(&output)?;
    Ok(output.text())
}

fn handle(world: &mut World) -> Result<()> {
    with_labels(world, |world| {
        check::equal("what came of it", by_handle(SECRET_FILE, "warm")?, "-1".to_owned())?;
        check::equal("the other file", by_handle(PLAIN_FILE, "warm")?, PLAIN.to_owned())?;
        let fields = [
            ("/file/path", json!(SECRET_FILE)),
            ("/verdict", json!("denied")),
            ("/rule", json!("secret-no-open")),
            ("/process/comm", json!("python3")),
        ];
        world.records.expect("file.open", &fields)?;
        Ok(())
    })
}

/// Nobody knows the names above a file that is found by its number alone: it may be a secret one.
fn cold_handle(world: &mut World) -> Result<()> {
    with_labels(world, |world| {
        for path in [SECRET_FILE, PLAIN_FILE] {
            let number = std::fs::metadata(path)?.ino();
            check::equal("what came of it", by_handle(path, "cold")?, "-1".to_owned())?;
            let fields = [
                ("/verdict", json!("denied")),
                ("/operation", json!("open")),
                ("/rule", json!("sekimori/path-too-deep")),
                ("/process/comm", json!("python3")),
                ("/file/inode", json!(number)),
                ("/truncated", json!(true)),
            ];
            world.records.expect("file.open", &fields)?;
            // By its name it is what it was.
            let output = guest::run("cat", &[path])?;
            check::equal("its status by name", output.status == 0, path == PLAIN_FILE)?;
        }
        Ok(())
    })
}
