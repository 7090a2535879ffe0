//! Failed opens, moves of labelled files, and strange names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::prepare::{PLAIN, SECRET};
use crate::run::World;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] = &[
    ("failed-opens-recorded", failed_opens),
    ("failed-opens-of-nobody", failed_as_nobody),
    ("failed-opens-elsewhere-not-recorded", failed_elsewhere),
    ("rename-out-refused", rename_out),
    ("rename-of-parent-refused", rename_parent),
    ("rename-inside-allowed", rename_inside),
    ("link-out-refused", link_out),
    ("older-hard-link", older_hard_link),
    ("name-of-255-bytes", long_name),
    ("name-that-is-not-utf-8", strange_name),
    ("path-of-4000-bytes", long_path),
];

const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups";

fn failed(world: &World, path: &str, errno: i32) -> Result<serde_json::Value> {
    let fields = [
        ("/file/path", json!(path)),
        ("/errno", json!(errno)),
        ("/verdict", json!("allowed")),
        ("/operation", json!("open")),
    ];
    world.records.expect("file.open", &fields)
}

fn failed_opens(world: &mut World) -> Result<()> {
    check::fails_with(&guest::run("cat", &["/srv/watched/missing.txt"])?, "No such file")?;
    failed(world, "/srv/watched/missing.txt", 2)?;
    let relative = guest::bash("cd /srv/watched && cat closed/../missing-too.txt", &[])?;
    check::fails_with(&relative, "No such file")?;
    failed(world, "/srv/watched/missing-too.txt", 2)?;
    check::fails_with(&guest::run("cat", &["/srv/secret/無い.txt"])?, "No such file")?;
    failed(world, "/srv/secret/無い.txt", 2)?;
    Ok(())
}

fn failed_as_nobody(world: &mut World) -> Result<()> {
    let absolute = format!("{NOBODY} cat /srv/watched/closed/x.txt");
    check::fails_with(&guest::bash(&absolute, &[])?, "Permission denied")?;
    let record = failed(world, "/srv/watched/closed/x.txt", 13)?;
    check::equal("user", records::text(&record, "/process/user"), "nobody")?;
    let relative = format!("cd /srv/watched && {NOBODY} cat closed/y.txt");
    check::fails_with(&guest::bash(&relative, &[])?, "Permission denied")?;
    failed(world, "/srv/watched/closed/y.txt", 13)?;
    Ok(())
}

fn failed_elsewhere(world: &mut World) -> Result<()> {
    check::fails_with(&guest::run("cat", &["/srv/watched-not/missing.txt"])?, "No such file")?;
    // What comes later is stored later.
    check::fails_with(&guest::run("cat", &["/srv/watched/mark.txt"])?, "No such file")?;
    failed(world, "/srv/watched/mark.txt", 2)?;
    let unwanted = [("/file/path", json!("/srv/watched-not/missing.txt"))];
    check::equal("records of it", world.records.all("file.open", &unwanted)?.len(), 0)
}

fn moved(world: &World, operation: &str, from: &str, to: &str) -> Result<()> {
    let fields = [
        ("/operation", json!(operation)),
        ("/file/path", json!(from)),
        ("/file/new_path", json!(to)),
        ("/verdict", json!("denied")),
        ("/rule", json!("secret-no-open")),
        ("/errno", json!(1)),
    ];
    world.records.expect("file.open", &fields)?;
    Ok(())
}

fn rename_out(world: &mut World) -> Result<()> {
    let (from, to) = ("/srv/secret/move.txt", "/srv/outside/moved.txt");
    check::refused(&guest::run("mv", &[from, to])?)?;
    check::that(Path::new(from).exists() && !Path::new(to).exists(), "the file was moved")?;
    moved(world, "rename", from, to)
}

fn rename_parent(world: &mut World) -> Result<()> {
    let (from, to) = ("/srv/secret", "/srv/harmless");
    check::refused(&guest::run("mv", &["-T", from, to])?)?;
    check::that(Path::new(from).exists() && !Path::new(to).exists(), "the directory was moved")?;
    moved(world, "rename", from, to)?;
    check::refused(&guest::run("mv", &["-T", "/srv", "/harmless"])?)?;
    check::that(!Path::new("/harmless").exists(), "the directory above was moved")
}

fn rename_inside(_: &mut World) -> Result<()> {
    let (from, to) = ("/srv/secret/inside.txt", "/srv/secret/directory/still-inside.txt");
    check::ok(&guest::run("mv", &[from, to])?)?;
    check::refused(&guest::run("cat", &[to])?)
}

fn link_out(world: &mut World) -> Result<()> {
    let (from, to) = ("/srv/secret/plan.txt", "/srv/outside/linked.txt");
    check::refused(&guest::run("ln", &[from, to])?)?;
    check::that(!Path::new(to).exists(), "the link was made")?;
    moved(world, "link", from, to)
}

/// The file has two names since before the agent; the policy speaks of one of them. Opened under
/// it, the file is refused; from then on it is the file that is known, whatever its name.
fn older_hard_link(_: &mut World) -> Result<()> {
    check::refused(&guest::run("cat", &["/srv/secret/linked.txt"])?)?;
    let output = guest::run("cat", &["/srv/outside/hardlink.txt"])?;
    check::that(!output.text().contains(SECRET), "the other name gives the secret away")?;
    check::refused(&output)
}

fn long_name(world: &mut World) -> Result<()> {
    let name = "長".repeat(85);
    check::equal("bytes of the name", name.len(), 255)?;
    record_of(world, name.as_bytes(), &name)
}

fn strange_name(world: &mut World) -> Result<()> {
    record_of(world, b"\xff\xfe-\xe7\x94 \\ \x01\n.txt", "\\xff\\xfe-\\xe7\\x94 \\\\ \u{1}\n.txt")
}

fn record_of(world: &World, name: &[u8], shown: &str) -> Result<()> {
    let path = Path::new("/srv/watched").join(OsStr::from_bytes(name));
    guest::write(&path, PLAIN)?;
    check::ok(&guest::run("cat", &[&path])?)?;
    let fields = [
        ("/file/path", json!(format!("/srv/watched/{shown}"))),
        ("/process/comm", json!("cat")),
        ("/truncated", json!(false)),
    ];
    let record = world.records.expect("file.open", &fields)?;
    let argument = records::text(&record, "/process/argv/1");
    check::equal("the argument", argument, &format!("/srv/watched/{shown}"))
}

/// 4,000 bytes in as few components as there can be: the walk is long enough, the record too.
fn long_path(world: &mut World) -> Result<()> {
    let mut path = "/srv/watched".to_owned();
    while path.len() + 201 < 4000 {
        path.push('/');
        path.push_str(&"p".repeat(200));
    }
    let rest = 4000 - path.len() - 1;
    path.push('/');
    path.push_str(&"q".repeat(rest));
    check::equal("bytes of the path", path.len(), 4000)?;
    guest::write(&path, PLAIN)?;
    check::ok(&guest::run("cat", &[&path])?)?;
    let fields = [
        ("/file/path", json!(path)),
        ("/process/comm", json!("cat")),
        ("/truncated", json!(false)),
    ];
    world.records.expect("file.open", &fields)?;
    Ok(())
}
