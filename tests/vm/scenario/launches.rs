//! Programs that start, are refused, and end.

use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::Run;
use crate::run::World;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] = &[
    ("arguments-and-place", arguments),
    ("login-uid-and-user", login_uid),
    ("long-arguments-are-flagged", long_arguments),
    ("forbidden-program-refused", forbidden),
    ("forbidden-script-refused", script),
    ("forbidden-interpreter-refused", interpreter),
    ("older-program-is-known", older),
    ("program-in-memory", in_memory),
    ("exit-code", exit_code),
    ("ended-by-signal", signal),
    ("alert-rule", alert),
];

fn arguments(world: &mut World) -> Result<()> {
    let place = "/tmp/作業 場所";
    std::fs::create_dir_all(place)?;
    let mut command = Command::new("/usr/bin/printf");
    let given = ["%s", "two words", "社外秘", "", "tab\tand 'quotes'"];
    command.args(given).current_dir(place);
    check::ok(&guest::run_command(command)?)?;
    let mut argv = vec!["/usr/bin/printf"];
    argv.extend(given);
    let record = world.records.expect("exec", &[("/process/argv", json!(argv))])?;
    let expected = [
        ("/verdict", json!("allowed")),
        ("/process/exe", json!("/usr/bin/printf")),
        ("/file/path", json!("/usr/bin/printf")),
        ("/process/cwd", json!(place)),
        ("/process/uid", json!(0)),
        ("/process/user", json!("root")),
        ("/truncated", json!(false)),
        ("/process/parent/pid", json!(std::process::id())),
    ];
    for (name, value) in expected {
        check::equal(name, record.pointer(name).unwrap_or(&Value::Null), &value)?;
    }
    let parent = records::text(&record, "/process/parent/exe");
    check::that(parent.ends_with("/sekimori-scenarios"), format!("parent exe is {parent:?}"))
}

fn login_uid(world: &mut World) -> Result<()> {
    let script = "echo 4242 >/proc/self/loginuid && exec setpriv --reuid 65534 --regid 65534 \
                  --clear-groups /bin/echo marker-login-uid";
    check::ok(&guest::bash(script, &[])?)?;
    world.records.expect(
        "exec",
        &[
            ("/process/argv", json!(["/bin/echo", "marker-login-uid"])),
            ("/process/login_uid", json!(4242)),
            ("/process/uid", json!(65534)),
            ("/process/gid", json!(65534)),
            ("/process/user", json!("nobody")),
        ],
    )?;
    Ok(())
}

fn long_arguments(world: &mut World) -> Result<()> {
    let script = "import os, sys\n\
        sys.exit(os.spawnv(os.P_WAIT, '/bin/true', ['true', 'marker-long'] + ['x' * 104858] * 10))";
    check::ok(&guest::python::<&str>(script, &[])?)?;
    let record = world.records.expect(
        "exec",
        &[
            ("/process/argv/0", json!("true")),
            ("/process/argv/1", json!("marker-long")),
            ("/truncated", json!(true)),
        ],
    )?;
    let kept: usize = record
        .pointer("/process/argv")
        .and_then(Value::as_array)
        .map_or(0, |argv| argv.iter().filter_map(Value::as_str).map(str::len).sum());
    check::that((1000..=4096).contains(&kept), format!("{kept} bytes of 1 MB were kept"))
}

fn forbidden(world: &mut World) -> Result<()> {
    let output = guest::bash("/opt/forbidden/tool marker-forbidden", &[])?;
    check::refused(&output)?;
    check::equal("the shell's status", output.status, 126)?;
    let fields = [
        ("/verdict", json!("denied")),
        ("/rule", json!("no-forbidden-tools")),
        ("/file/path", json!("/opt/forbidden/tool")),
        ("/operation", json!("exec")),
        ("/errno", json!(1)),
    ];
    let record = world.records.expect("exec", &fields)?;
    let exe = records::text(&record, "/process/exe");
    check::that(exe.ends_with("bash"), format!("who tried was {exe:?}"))?;
    let started = [("/verdict", json!("allowed")), ("/file/path", json!("/opt/forbidden/tool"))];
    check::equal("launches of it", world.records.all("exec", &started)?.len(), 0)
}

fn script(world: &mut World) -> Result<()> {
    let output = guest::bash("/opt/forbidden/script.sh", &[])?;
    check::refused(&output)?;
    check::equal("its output", output.text(), String::new())?;
    denied_exec(world, "/opt/forbidden/script.sh")
}

fn interpreter(world: &mut World) -> Result<()> {
    // bash tries to read such a script itself; env says what the kernel said.
    let output = guest::run("env", &["/srv/outside/asks-for-forbidden.sh"])?;
    check::refused(&output)?;
    denied_exec(world, "/opt/forbidden/tool")
}

fn denied_exec(world: &World, path: &str) -> Result<()> {
    let fields = [
        ("/verdict", json!("denied")),
        ("/rule", json!("no-forbidden-tools")),
        ("/file/path", json!(path)),
    ];
    world.records.expect("exec", &fields)?;
    Ok(())
}

fn older(world: &mut World) -> Result<()> {
    check::equal("the older program's status", world.older.wake_program()?, 0)?;
    let fields = [("/file/path", json!("/srv/watched/older.txt"))];
    let record = world.records.expect("file.open", &fields)?;
    check::equal(
        "argument 5",
        record.pointer("/process/argv/5").unwrap_or(&Value::Null),
        &json!("引数 二"),
    )?;
    let exe = records::text(&record, "/process/exe");
    check::that(exe.ends_with("bash"), format!("its program is {exe:?}"))?;
    let parent = records::text(&record, "/process/parent/exe");
    check::that(parent.ends_with("/sekimori-scenarios"), format!("its parent is {parent:?}"))
}

fn exit_code(world: &mut World) -> Result<()> {
    let output = guest::bash("exit 37", &["marker-exit"])?;
    check::equal("its status", output.status, 37)?;
    let fields = [("/process/pid", json!(output.pid)), ("/exit_code", json!(37))];
    world.records.expect("exit", &fields)?;
    Ok(())
}

fn signal(world: &mut World) -> Result<()> {
    let output = guest::bash("kill -KILL $$", &[])?;
    check::equal("its status", output.status, 128 + 9)?;
    let fields = [("/process/pid", json!(output.pid)), ("/signal", json!(9))];
    world.records.expect("exit", &fields)?;
    Ok(())
}

fn alert(world: &mut World) -> Result<()> {
    check::ok(&guest::run("/opt/noticed/tool", &["marker-noticed"])?)?;
    let fields = [
        ("/verdict", json!("alerted")),
        ("/rule", json!("noticed-launch")),
        ("/file/path", json!("/opt/noticed/tool")),
        ("/process/argv", json!(["/opt/noticed/tool", "marker-noticed"])),
    ];
    world.records.expect("exec", &fields)?;
    Ok(())
}

/// A program that lies in no file system, started by its descriptor (`execveat`).
fn in_memory(world: &mut World) -> Result<()> {
    let script = r#"
import os
fd = os.memfd_create("hidden")
os.write(fd, open("/bin/true", "rb").read())
os.execve(fd, ["true", "marker-memory"], {})
"#;
    check::ok(&guest::python::<&str>(script, &[])?)?;
    let fields = [
        ("/process/argv/1", json!("marker-memory")),
        ("/process/exe", json!("/memfd:hidden")),
        ("/file/unlinked", json!(true)),
    ];
    world.records.expect("exec", &fields)?;
    Ok(())
}
