//! Opens of labelled files, by every program and every way.

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::prepare::{PLAIN, SECRET};
use crate::run::World;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] = &[
    ("refused-for-every-program", every_program),
    ("refused-for-python-open-and-openat2", python_opens),
    ("refused-by-io-uring", io_uring),
    ("refused-through-path-descriptor", path_descriptor),
    ("refused-through-other-names", other_names),
    ("refused-in-japanese-directory", japanese),
    ("refused-below-the-walk", deep),
    ("exempted-program-reads", exempted),
    ("user-condition-honours-login-uid", user_condition),
    ("observe-mode-lets-pass", observed),
    ("alert-rule", alerting),
    ("record-rule", watched),
    ("record-every-open", every_open),
];

const PLAN: &str = "/srv/secret/plan.txt";

fn denied(world: &World, path: &str) -> Result<serde_json::Value> {
    let fields = [
        ("/file/path", json!(path)),
        ("/verdict", json!("denied")),
        ("/rule", json!("secret-no-open")),
        ("/operation", json!("open")),
        ("/errno", json!(1)),
    ];
    world.records.expect("file.open", &fields)
}

fn every_program(world: &mut World) -> Result<()> {
    let programs = [
        ("cat", "cat /srv/secret/plan.txt"),
        ("cp", "cp /srv/secret/plan.txt /tmp/leak-cp"),
        ("dd", "dd if=/srv/secret/plan.txt of=/tmp/leak-dd"),
        ("tar", "tar cf /tmp/leak.tar /srv/secret/plan.txt"),
        ("busybox", "busybox cat /srv/secret/plan.txt"),
        ("bash", "read -r line </srv/secret/plan.txt; status=$?; echo $line; exit $status"),
        ("bash", "echo over >>/srv/secret/plan.txt"),
        ("curl", "curl -sS file:///srv/secret/plan.txt"),
    ];
    for (program, script) in programs {
        let output = guest::bash(script, &[])?;
        check::that(output.status != 0, format!("`{script}` succeeded: {}", output.text()))?;
        check::that(!output.text().contains(SECRET), format!("`{script}` read the secret"))?;
        // curl says it in its own words.
        if program != "curl" {
            check::refused(&output)?;
        }
    }
    let leaked = guest::bash("cat /tmp/leak-* /tmp/leak.tar 2>/dev/null", &[])?;
    check::that(!leaked.text().contains(SECRET), "the secret is in a copy")?;
    let what = "a refusal for every program";
    let found =
        world.records.wait(what, &["--kind", "file.open", "--verdict", "denied"], |all| {
            programs.iter().all(|(program, _)| {
                all.iter().any(|it| {
                    records::text(it, "/file/path") == PLAN
                        && records::text(it, "/process/comm") == *program
                        && records::text(it, "/rule") == "secret-no-open"
                })
            })
        })?;
    check::that(found.len() >= programs.len(), format!("{} records", found.len()))
}

fn python_opens(world: &mut World) -> Result<()> {
    let script = r#"
import ctypes, errno, os, sys
path = sys.argv[1].encode()
def expect(what, call):
    try:
        fd = call()
    except OSError as error:
        assert error.errno == errno.EPERM, (what, error)
    else:
        sys.exit(what + " was not refused: " + repr(os.read(fd, 99)))
libc = ctypes.CDLL(None, use_errno=True)
def oldest():
    fd = libc.syscall(2, path, os.O_RDONLY, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "open")
    return fd
def openat2():
    how = (ctypes.c_uint64 * 3)(os.O_RDONLY, 0, 0)
    fd = libc.syscall(437, -100, path, how, ctypes.sizeof(how))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "openat2")
    return fd
expect("open", oldest)
expect("openat", lambda: os.open(path, os.O_RDONLY))
expect("open for write", lambda: os.open(path, os.O_WRONLY))
expect("open with truncation", lambda: os.open(path, os.O_RDWR | os.O_TRUNC))
expect("openat2", openat2)
"#;
    check::ok(&guest::python(script, &[PLAN])?)?;
    let what = "five refusals of python";
    world.records.wait(what, &["--kind", "file.open", "--verdict", "denied"], |all| {
        all.iter().filter(|it| records::text(it, "/file/path") == PLAN).count() >= 5
    })?;
    Ok(())
}

/// One `IORING_OP_OPENAT`, by hand: no library is needed.
fn io_uring(world: &mut World) -> Result<()> {
    let script = r#"
path = ctypes.create_string_buffer(sys.argv[1].encode())
print(submit(18, -100, 0, ctypes.addressof(path), 0))
"#;
    let output = guest::ring(script, &[PLAN])?;
    check::ok(&output)?;
    check::equal("result of the open by io_uring", output.text(), "-1".to_owned())?;
    denied(world, PLAN)?;
    let plain = guest::ring(script, &["/srv/personal/a.txt"])?;
    check::that(plain.text().parse().is_ok_and(|fd: i32| fd > 0), "io_uring opens nothing at all")
}

fn path_descriptor(world: &mut World) -> Result<()> {
    let script = r#"
import errno, os, sys
def refused(what, call):
    try:
        fd = call()
    except OSError as error:
        assert error.errno == errno.EPERM, (what, error)
    else:
        sys.exit(what + " was not refused: " + repr(os.read(fd, 99)))
fd = os.open("/srv/secret/plan.txt", os.O_PATH)
refused("reopening", lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))
directory = os.open("/srv/secret", os.O_PATH)
refused("openat", lambda: os.open("plan.txt", os.O_RDONLY, dir_fd=directory))
os.chdir("/srv")
refused("a relative path", lambda: os.open("secret/../secret/./plan.txt", os.O_RDONLY))
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    let what = "three refusals";
    world.records.wait(what, &["--kind", "file.open", "--verdict", "denied"], |all| {
        all.iter().filter(|it| records::text(it, "/file/path") == PLAN).count() >= 3
    })?;
    Ok(())
}

fn other_names(world: &mut World) -> Result<()> {
    for (name, path) in [
        ("/srv/outside/symlink.txt", PLAN),
        ("/proc/self/root/srv/secret/linked.txt", "/srv/secret/linked.txt"),
        ("/proc/self/cwd/srv/secret/directory/inner.txt", "/srv/secret/directory/inner.txt"),
    ] {
        check::refused(&guest::bash("cd /; cat \"$1\"", &[name])?)?;
        denied(world, path)?;
    }
    Ok(())
}

fn japanese(world: &mut World) -> Result<()> {
    let path = "/home/tanaka/機密/計画書.txt";
    check::refused(&guest::run("cat", &[path])?)?;
    denied(world, path)?;
    Ok(())
}

/// The walk does not reach the root: nobody can say that the file is not secret.
fn deep(world: &mut World) -> Result<()> {
    for place in ["secret", "outside"] {
        let directory = format!("/srv/{place}/{}", "d/".repeat(60));
        let output = guest::bash("cat \"$1\"", &[&format!("{directory}deep.txt")])?;
        check::refused(&output)?;
        check::that(!output.text().contains(SECRET), "the deep secret was read")?;
        // What is judged is the walk; the record has the kernel's own words.
        let fields = [
            ("/verdict", json!("denied")),
            ("/rule", json!("sekimori/path-too-deep")),
            ("/file/path", json!(format!("{directory}deep.txt"))),
        ];
        world.records.expect("file.open", &fields)?;
    }
    Ok(())
}

fn exempted(_: &mut World) -> Result<()> {
    let output = guest::run("/opt/backup/cat", &[PLAN])?;
    check::ok(&output)?;
    check::equal("what the backup read", output.text(), SECRET.to_owned())
}

fn user_condition(world: &mut World) -> Result<()> {
    let path = "/srv/personal/a.txt";
    check::ok(&guest::run("cat", &[path])?)?;
    let script = "echo 4242 >/proc/self/loginuid && cat /srv/personal/a.txt";
    check::refused(&guest::bash(script, &[])?)?;
    let fields = [
        ("/file/path", json!(path)),
        ("/verdict", json!("denied")),
        ("/rule", json!("personal-not-for-outsiders")),
        ("/process/login_uid", json!(4242)),
        ("/process/uid", json!(0)),
    ];
    world.records.expect("file.open", &fields)?;
    let uid = "setpriv --reuid 4242 --regid 4242 --clear-groups cat /srv/personal/a.txt";
    check::refused(&guest::bash(uid, &[])?)
}

fn observed(world: &mut World) -> Result<()> {
    let output = guest::run("cat", &["/srv/observed/a.txt"])?;
    check::ok(&output)?;
    check::equal("what was read", output.text(), PLAIN.to_owned())?;
    rule_gives(world, "/srv/observed/a.txt", "observed-opens", "would-deny")
}

fn alerting(world: &mut World) -> Result<()> {
    check::ok(&guest::run("cat", &["/srv/alerting/a.txt"])?)?;
    rule_gives(world, "/srv/alerting/a.txt", "alerting-opens", "alerted")
}

fn watched(world: &mut World) -> Result<()> {
    check::ok(&guest::run("cat", &["/srv/watched/a.txt"])?)?;
    rule_gives(world, "/srv/watched/a.txt", "watched-opens", "allowed")
}

fn rule_gives(world: &World, path: &str, rule: &str, verdict: &str) -> Result<()> {
    let fields =
        [("/file/path", json!(path)), ("/rule", json!(rule)), ("/verdict", json!(verdict))];
    world.records.expect("file.open", &fields)?;
    Ok(())
}

fn every_open(world: &mut World) -> Result<()> {
    let policy = World::usual_policy_and("  - { id: all, on: file.open, action: record }\n");
    world.policy(&policy)?;
    guest::write("/tmp/uninteresting.txt", PLAIN)?;
    check::ok(&guest::run("cat", &["/tmp/uninteresting.txt"])?)?;
    rule_gives(world, "/tmp/uninteresting.txt", "all", "allowed")?;
    // The stronger rule still wins.
    check::refused(&guest::run("cat", &[PLAN])?)?;
    denied(world, PLAN)?;
    Ok(())
}
