//! Programs without a name, and programs with another's rights.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::Run;
use crate::run::World;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] = &[
    ("deleted-program", deleted),
    ("deleted-before-the-launch", unlinked),
    ("deleted-forbidden-program-refused", unlinked_forbidden),
    ("by-descriptor-refused", by_descriptor),
    ("set-uid-program", set_uid),
    ("fork-bomb", fork_bomb),
    ("set-uid-program-is-its-user", set_uid_reads),
];

/// It takes its own name away and goes on; what it does is still known to be its doing.
fn deleted(world: &mut World) -> Result<()> {
    let path = "/srv/outside/gone";
    std::fs::copy("/bin/bash", path)?;
    let script = "rm /srv/outside/gone && read -r line </srv/secret/plan.txt; exit 3";
    let output = guest::run(path, &["-c", script])?;
    check::refused(&output)?;
    check::that(!Path::new(path).exists(), "the program is still there")?;
    let pid = ("/process/pid", json!(output.pid));
    let launch = [pid.clone(), ("/file/path", json!(path)), ("/process/exe", json!(path))];
    let record = world.records.expect("exec", &launch)?;
    check::equal("unlinked", record.pointer("/file/unlinked"), None::<&Value>)?;
    let open = [
        pid.clone(),
        ("/verdict", json!("denied")),
        ("/file/path", json!("/srv/secret/plan.txt")),
        ("/process/exe", json!(path)),
    ];
    world.records.expect("file.open", &open)?;
    let end = [pid, ("/exit_code", json!(3)), ("/process/exe", json!(path))];
    world.records.expect("exit", &end)?;
    Ok(())
}

/// Arguments: path and mark. Starts what it names by a descriptor, after its name is gone.
const BY_DESCRIPTOR: &str = r#"
fd = os.open(sys.argv[1], os.O_RDONLY)
os.unlink(sys.argv[1])
os.set_inheritable(fd, True)
argv = [b"gone", sys.argv[2].encode(), None]
call(322, fd, b"", (ctypes.c_char_p * 3)(*argv), None, 0x1000)
sys.exit(os.strerror(ctypes.get_errno()))
"#;

fn unlinked(world: &mut World) -> Result<()> {
    let path = "/srv/outside/gone-too";
    std::fs::copy("/bin/true", path)?;
    check::ok(&guest::calls(BY_DESCRIPTOR, &[path, "marker-gone"])?)?;
    let fields = [
        ("/process/argv", json!(["gone", "marker-gone"])),
        ("/file/path", json!(path)),
        ("/file/unlinked", json!(true)),
        ("/verdict", json!("allowed")),
    ];
    world.records.expect("exec", &fields)?;
    Ok(())
}

fn unlinked_forbidden(world: &mut World) -> Result<()> {
    let path = "/opt/forbidden/gone";
    std::fs::copy("/bin/true", path)?;
    check::refused(&guest::calls(BY_DESCRIPTOR, &[path, "marker-gone-too"])?)?;
    check::that(!Path::new(path).exists(), "the program is still there")?;
    let fields = [
        ("/verdict", json!("denied")),
        ("/rule", json!("no-forbidden-tools")),
        ("/file/path", json!(path)),
        ("/file/unlinked", json!(true)),
    ];
    world.records.expect("exec", &fields)?;
    Ok(())
}

/// `execveat` of a descriptor, of one that is only a path, and of a name below a directory.
fn by_descriptor(world: &mut World) -> Result<()> {
    let script = r#"
argv = (ctypes.c_char_p * 2)(b"tool", None)
tool, path = (os.open("/opt/forbidden/tool", how) for how in (os.O_RDONLY, os.O_PATH))
directory = os.open("/opt/forbidden", os.O_PATH)
for fd, name, flags in ((tool, b"", 0x1000), (path, b"", 0x1000), (directory, b"tool", 0)):
    same("execveat", call(322, fd, name, argv, None, flags), -errno.EPERM)
"#;
    check::ok(&guest::calls::<&str>(script, &[])?)?;
    let fields = [
        ("/verdict", json!("denied")),
        ("/rule", json!("no-forbidden-tools")),
        ("/file/path", json!("/opt/forbidden/tool")),
        ("/process/comm", json!("python3")),
    ];
    world.records.wait("three refusals", &["--kind", "exec"], |all| {
        all.iter().filter(|record| records::fits(record, &fields)).count() == 3
    })?;
    Ok(())
}

/// A copy of a program that runs with root's rights, whoever starts it.
fn with_set_uid(from: &str, to: &str) -> Result<()> {
    guest::write(to, std::fs::read(from)?)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o4755))?;
    Ok(())
}

fn set_uid(world: &mut World) -> Result<()> {
    let path = "/opt/set-uid/id";
    with_set_uid("/usr/bin/id", path)?;
    let script = "echo 4242 >/proc/self/loginuid && exec setpriv --reuid 65534 --regid 65534 \
                  --clear-groups \"$1\" --user --zero";
    let output = guest::bash(script, &[path])?;
    check::ok(&output)?;
    check::equal("its effective uid", output.text(), "0\0".to_owned())?;
    let fields = [
        ("/process/argv", json!([path, "--user", "--zero"])),
        ("/file/path", json!(path)),
        // Who started it, and not whose rights it has.
        ("/process/uid", json!(65_534)),
        ("/process/user", json!("nobody")),
        ("/process/login_uid", json!(4242)),
    ];
    let record = world.records.expect("exec", &fields)?;
    // S_ISUID.
    check::equal("mode", records::number(&record, "/file/mode") & 0o4777, 0o4755)
}

/// Root's rights do not make another person of them.
fn set_uid_reads(world: &mut World) -> Result<()> {
    let path = "/opt/set-uid/cat";
    with_set_uid("/bin/cat", path)?;
    let script = "exec setpriv --reuid 4242 --regid 4242 --clear-groups \"$1\" \"$2\"";
    check::refused(&guest::bash(script, &[path, "/srv/personal/a.txt"])?)?;
    check::ok(&guest::bash(script, &[path, "/etc/shadow"])?)?;
    let fields = [
        ("/file/path", json!("/srv/personal/a.txt")),
        ("/verdict", json!("denied")),
        ("/rule", json!("personal-not-for-outsiders")),
        ("/process/exe", json!(path)),
        ("/process/uid", json!(4242)),
    ];
    world.records.expect("file.open", &fields)?;
    Ok(())
}

/// Processes double nine times, and every end is on record or counted as lost.
fn fork_bomb(world: &mut World) -> Result<()> {
    // Each leaves a byte: some may not have come to be.
    let traces = "/run/fork-bomb";
    guest::write(traces, "")?;
    let script = "bomb() { printf x >>/run/fork-bomb; \
                  [ \"$1\" = 0 ] || { bomb $(($1 - 1)) & bomb $(($1 - 1)) & wait; }; }; \
                  printf fork-bomb >/proc/self/comm; bomb 9";
    check::ok(&guest::run("busybox", &["sh", "-c", script])?)?;
    let made = std::fs::metadata(traces)?.len();
    check::that(made > 500, format!("only {made} processes came to be"))?;
    check::refused(&guest::run("cat", &["/srv/secret/plan.txt"])?)?;
    world.daemons.settle(&world.records)?;
    // Losses are counted once a second and travel on a lane of their own.
    std::thread::sleep(std::time::Duration::from_secs(3));
    world.daemons.settle(&world.records)?;
    let bomb = [("/process/comm", json!("fork-bomb"))];
    let stored = world.records.all("exit", &bomb)?.len() as u64;
    let lost: u64 = world
        .records
        .all("loss", &[("/loss/kind", json!("exit"))])?
        .iter()
        .map(|it| records::number(it, "/loss/count"))
        .sum();
    // Something else may have ended meanwhile, too.
    let all = stored <= made && stored + lost >= made && (lost > 0 || stored == made);
    check::that(all, format!("of {made} ends {stored} are stored and {lost} lost"))?;
    check::that(world.daemons.agent_lives(), "the agent ended")
}
