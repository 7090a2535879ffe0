//! Writes to a stick that is on the list: allowed, and every byte on record.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Run;
use crate::run::World;
use crate::{check, guest, records};
use guest::{OTHER, OTHER_SERIAL, USB, USB_SERIAL};

pub const ALL: &[(&str, Run)] = &[
    ("file-open-before-the-agent", late),
    ("mount-record", mount_record),
    ("cp", copy),
    ("dd-block-sizes", dd_sizes),
    ("dd-direct", dd_direct),
    ("append", append),
    ("names", names),
    ("links-on-ext4", links),
    ("dd-direct-on-ext4", direct_on_ext4),
    ("tar", tar),
    ("sendfile-and-copy-file-range", kernel_copies),
    ("mmap-is-seen-as-open-for-write", mapped),
    ("pulled-out-during-a-write", pulled_out),
    ("another-stick-in-its-place", replugged),
];

/// A record about `path` on the permitted stick.
fn expect(
    world: &World,
    operation: &str,
    path: &str,
    more: &[records::Field<'_>],
) -> Result<Value> {
    let mut fields = vec![
        ("/operation", json!(operation)),
        ("/file/path", json!(path)),
        ("/file/device/serial", json!(USB_SERIAL)),
        ("/file/device/class", json!("usb")),
        ("/verdict", json!("allowed")),
    ];
    fields.extend_from_slice(more);
    world.records.expect("usb.write", &fields)
}

fn late(world: &mut World) -> Result<()> {
    check::equal("the older writer's status", world.older.wake_writer()?, 0)?;
    let path = format!("{USB}/late.bin");
    let sums = [("/bytes", json!(5000)), ("/late", json!(true)), ("/calls", json!(1))];
    expect(world, "close", &path, &sums)?;
    Ok(())
}

fn mount_record(world: &mut World) -> Result<()> {
    check::ok(&guest::run("umount", &[OTHER])?)?;
    guest::mount(OTHER_SERIAL, OTHER)?;
    let fields = [
        ("/file/device/serial", json!(OTHER_SERIAL)),
        ("/file/path", json!(OTHER)),
        ("/operation", json!("mount")),
        ("/process/comm", json!("mount")),
        ("/verdict", json!("allowed")),
    ];
    let record = world.records.expect("usb.mount", &fields)?;
    for name in ["/file/device/vendor", "/file/device/product"] {
        let id = records::text(&record, name);
        let good = id.len() == 4 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        check::that(good, format!("{name} is {id:?}"))?;
    }
    Ok(())
}

fn copy(world: &mut World) -> Result<()> {
    let to = format!("{USB}/見積書.bin");
    let script = "head -c 300001 /dev/urandom >/tmp/copy.bin && cp /tmp/copy.bin \"$1\"";
    check::ok(&guest::bash(script, &[&to])?)?;
    let size = std::fs::metadata(&to)?.len();
    check::equal("size on the stick", size, 300_001)?;
    let who = [("/process/user", json!("root")), ("/process/exe", json!("/usr/bin/cp"))];
    expect(world, "create", &to, &who)?;
    expect(world, "open", &to, &who)?;
    expect(world, "write", &to, &who)?;
    let close = expect(world, "close", &to, &[("/bytes", json!(size)), who[0].clone()])?;
    check::that(records::number(&close, "/calls") >= 1, "no call was counted")?;
    check::equal("who", records::text(&close, "/process/exe"), "/usr/bin/cp")
}

fn dd_sizes(world: &mut World) -> Result<()> {
    for (block, count) in [(1, 7), (512, 40), (4096, 25), (65_536, 8), (1_048_576, 3)] {
        let to = format!("{USB}/dd-{block}.bin");
        let arguments = [
            "if=/dev/zero".to_owned(),
            format!("of={to}"),
            format!("bs={block}"),
            format!("count={count}"),
        ];
        check::ok(&guest::run("dd", &arguments)?)?;
        let sums = [("/bytes", json!(block * count)), ("/calls", json!(count))];
        expect(world, "close", &to, &sums)?;
    }
    Ok(())
}

fn dd_direct(world: &mut World) -> Result<()> {
    let to = format!("{USB}/direct.bin");
    let of = format!("of={to}");
    let arguments = ["if=/dev/zero", &of, "bs=65536", "count=6", "oflag=direct"];
    check::ok(&guest::run("dd", &arguments)?)?;
    expect(world, "close", &to, &[("/bytes", json!(6 * 65_536)), ("/calls", json!(6))])?;
    Ok(())
}

fn append(world: &mut World) -> Result<()> {
    let to = format!("{USB}/append.txt");
    guest::write(&to, "0123456789")?;
    check::ok(&guest::bash("printf abcde >>\"$1\"", &[&to])?)?;
    let bash = ("/process/comm", json!("bash"));
    expect(world, "close", &to, &[("/bytes", json!(5)), bash])?;
    check::equal("the content", std::fs::read_to_string(&to)?, "0123456789abcde".to_owned())
}

fn names(world: &mut World) -> Result<()> {
    let script = "cd \"$1\" && mkdir 資料 && echo x >資料/a.txt && mv 資料/a.txt 資料/b.txt \
        && truncate -s 1 資料/b.txt && rm 資料/b.txt && rmdir 資料";
    check::ok(&guest::bash(script, &[USB])?)?;
    let directory = format!("{USB}/資料");
    let (a, b) = (format!("{directory}/a.txt"), format!("{directory}/b.txt"));
    expect(world, "mkdir", &directory, &[])?;
    expect(world, "create", &a, &[])?;
    expect(world, "rename", &a, &[("/file/new_path", json!(b))])?;
    expect(world, "truncate", &b, &[])?;
    expect(world, "unlink", &b, &[])?;
    expect(world, "rmdir", &directory, &[])?;
    Ok(())
}

/// Links need ext4; for a moment the other stick is on the list.
fn links(world: &mut World) -> Result<()> {
    let policy = World::usual_policy_and("").replace("SEKI0004", "SEKI0002");
    world.policy(&policy)?;
    let script = "cd \"$1\" && echo x >a && ln a b && ln -s /srv/secret/plan.txt c && rm a b c";
    check::ok(&guest::bash(script, &[OTHER])?)?;
    let link = [
        ("/operation", json!("link")),
        ("/file/path", json!(format!("{OTHER}/a"))),
        ("/file/new_path", json!(format!("{OTHER}/b"))),
        ("/file/device/serial", json!(guest::OTHER_SERIAL)),
    ];
    world.records.expect("usb.write", &link)?;
    let symlink = [
        ("/operation", json!("symlink")),
        ("/file/path", json!(format!("{OTHER}/c"))),
        ("/file/new_path", json!("/srv/secret/plan.txt")),
    ];
    world.records.expect("usb.write", &symlink)?;
    Ok(())
}

/// ext4 writes directly by a way of its own.
fn direct_on_ext4(world: &mut World) -> Result<()> {
    let policy = World::usual_policy_and("").replace("SEKI0004", "SEKI0002");
    world.policy(&policy)?;
    let path = format!("{OTHER}/direct.bin");
    let direct = format!("of={path}");
    let arguments = ["if=/dev/zero", &direct, "bs=65536", "count=4", "oflag=direct"];
    let output = guest::run("dd", &arguments)?;
    std::fs::remove_file(&path).context("tidying up")?;
    check::ok(&output)?;
    let sums = [
        ("/operation", json!("close")),
        ("/file/path", json!(path)),
        ("/bytes", json!(4 * 65_536)),
        ("/calls", json!(4)),
    ];
    world.records.expect("usb.write", &sums)?;
    Ok(())
}

fn tar(world: &mut World) -> Result<()> {
    let to = format!("{USB}/archive.tar");
    check::ok(&guest::run("tar", &["cf", &to, "-C", "/srv", "personal", "observed"])?)?;
    let size = std::fs::metadata(&to)?.len();
    expect(world, "close", &to, &[("/bytes", json!(size)), ("/process/comm", json!("tar"))])?;
    Ok(())
}

fn kernel_copies(world: &mut World) -> Result<()> {
    let script = r#"
import os, sys
source = open("/tmp/kernel-copy.bin", "w+b")
source.write(b"k" * 123457)
source.flush()
near = open(sys.argv[1] + "/source.bin", "w+b")
near.write(b"n" * 123457)
near.flush()
def out(name):
    return os.open(sys.argv[1] + "/" + name, os.O_CREAT | os.O_WRONLY)
to = out("sendfile.bin")
done = 0
while done < 123457:
    done += os.sendfile(to, source.fileno(), done, 123457 - done)
os.close(to)
to = out("range.bin")
done = 0
while done < 123457:
    done += os.copy_file_range(near.fileno(), to, 123457 - done, offset_src=done)
os.close(to)
to = out("vector.bin")
os.writev(to, [b"a" * 1000, b"b" * 234])
os.pwrite(to, b"c" * 11, 5000)
os.close(to)
"#;
    check::ok(&guest::python(script, &[USB])?)?;
    for (name, bytes) in [("sendfile", 123_457), ("range", 123_457), ("vector", 1245)] {
        let path = format!("{USB}/{name}.bin");
        expect(world, "close", &path, &[("/bytes", json!(bytes))])?;
    }
    Ok(())
}

/// Stores through a mapping are not counted in this version, but the open that they need is there.
fn mapped(world: &mut World) -> Result<()> {
    let script = r#"
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
os.ftruncate(fd, 4096)
view = mmap.mmap(fd, 4096)
view[0:5] = b"leak!"
view.close()
os.close(fd)
"#;
    let path = format!("{USB}/mapped.bin");
    check::ok(&guest::python(script, &[&path])?)?;
    expect(world, "open", &path, &[])?;
    expect(world, "truncate", &path, &[])?;
    Ok(())
}

fn pulled_out(world: &mut World) -> Result<()> {
    check::ok(&guest::run("sekimori-stick", &["plug", "SEKI0003", "64M:vfat"])?)?;
    guest::mount("SEKI0003", "/mnt/pulled")?;
    let script = r#"
import os, sys, time
fd = os.open("/mnt/pulled/victim.bin", os.O_CREAT | os.O_WRONLY)
done = 0
end = time.monotonic() + 40
try:
    while time.monotonic() < end and not os.path.exists("/run/pulled-enough"):
        done += os.write(fd, b"v" * 4096)
        if done >= 40960 and not os.path.exists("/run/pulled-started"):
            open("/run/pulled-started", "w").close()
        os.fsync(fd) if done % 409600 == 0 else time.sleep(0.002)
except OSError as error:
    print("the stick is gone:", error)
try:
    os.close(fd)
except OSError:
    pass
"#;
    let mut command = std::process::Command::new("python3");
    command.args(["-I", "-S", "-c", script]);
    let mut writer = guest::Background::start(command, Path::new("/run/pulled.log"))?;
    guest::until("the writer has begun", crate::limits::PROGRAM_TIMEOUT, || {
        Ok(Path::new("/run/pulled-started").exists())
    })?;
    check::ok(&guest::run("sekimori-stick", &["unplug", "SEKI0003"])?)?;
    guest::write("/run/pulled-enough", "")?;
    writer.wait()?;
    let fields = [
        ("/operation", json!("close")),
        ("/file/path", json!("/mnt/pulled/victim.bin")),
        ("/file/device/serial", json!("SEKI0003")),
    ];
    let outcome = world.records.expect("usb.write", &fields);
    check::ok(&guest::run("umount", &["-l", "/mnt/pulled"])?)?;
    let close = outcome?;
    check::that(records::number(&close, "/bytes") >= 40_960, "bytes before the end are missing")?;
    check::that(world.daemons.agent_lives(), "the agent ended")
}

/// The new stick gets the number of the one that was pulled out: the serial must be its own.
fn replugged(world: &mut World) -> Result<()> {
    let serials = ["SEKI0004", "SEKI0005"];
    let mut devices = Vec::new();
    for (serial, verdict) in serials.into_iter().zip(["allowed", "denied"]) {
        check::ok(&guest::run("sekimori-stick", &["plug", serial, "64M:vfat"])?)?;
        devices.push(guest::mount(serial, "/mnt/replugged")?);
        let path = format!("/mnt/replugged/{serial}.txt");
        let output = guest::bash("echo x >\"$1\"", &[&path])?;
        let fields = [
            ("/operation", json!("create")),
            ("/file/path", json!(path)),
            ("/file/device/serial", json!(serial)),
            ("/verdict", json!(verdict)),
        ];
        let outcome = world.records.expect("usb.write", &fields);
        check::ok(&guest::run("umount", &["/mnt/replugged"])?)?;
        check::ok(&guest::run("sekimori-stick", &["unplug", serial])?)?;
        outcome?;
        if verdict == "denied" { check::refused(&output)? } else { check::ok(&output)? }
    }
    check::equal("the second stick's device", devices.last(), devices.first())
}
