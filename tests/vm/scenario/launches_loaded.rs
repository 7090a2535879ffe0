//! Programs and libraries that are loaded without being launched, and what tells the loader to.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Run;
use crate::run::World;
use crate::{check, guest, limits, records};

pub const ALL: &[(&str, Run)] = &[
    ("program-by-loader-refused", by_loader),
    ("preloaded-library-refused", preloaded),
    ("opened-library-refused", opened),
    ("made-executable-refused", made_executable),
    ("noticed-library-alerts", noticed),
    ("other-libraries-not-recorded", others),
    ("hooks-follow-the-policy", follow_the_policy),
    ("environment-on-record", environment),
    ("environment-behind-others", behind_others),
    ("long-environment-is-flagged", long_environment),
];

/// The x86-64 ABI's.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const LIBRARY: &str = "/lib/x86_64-linux-gnu/libm.so.6";

/// A library of that name in that directory.
fn library(directory: &str) -> Result<String> {
    let path = format!("{directory}/library.so");
    guest::write(&path, std::fs::read(LIBRARY).context(LIBRARY)?)?;
    Ok(path)
}

fn refused_load(world: &World, path: &str) -> Result<Value> {
    world.records.expect(
        "exec",
        &[
            ("/operation", json!("load")),
            ("/verdict", json!("denied")),
            ("/rule", json!("no-forbidden-tools")),
            ("/file/path", json!(path)),
            ("/errno", json!(1)),
        ],
    )
}

fn by_loader(world: &mut World) -> Result<()> {
    check::ok(&guest::run(LOADER, &["/bin/true"])?)?;
    let output = guest::run(LOADER, &["/opt/forbidden/tool"])?;
    check::fails_with(&output, "/opt/forbidden/tool")?;
    let record = refused_load(world, "/opt/forbidden/tool")?;
    check::equal("pid", records::number(&record, "/process/pid"), output.pid.into())?;
    let argv = record.pointer("/process/argv").unwrap_or(&Value::Null);
    check::equal("argv", argv, &json!([LOADER, "/opt/forbidden/tool"]))
}

fn preloaded(world: &mut World) -> Result<()> {
    let path = library("/opt/forbidden")?;
    let output = guest::bash("LD_PRELOAD=$1 exec /bin/true marker-preload", &[&path])?;
    // The loader goes on without it.
    check::ok(&output)?;
    check::that(output.errors().contains("cannot be preloaded"), output.errors())?;
    let record = refused_load(world, &path)?;
    check::equal("pid", records::number(&record, "/process/pid"), output.pid.into())?;
    let argument = record.pointer("/process/argv/1").unwrap_or(&Value::Null);
    check::equal("argument", argument, &json!("marker-preload"))
}

fn opened(world: &mut World) -> Result<()> {
    let path = library("/opt/forbidden")?;
    let script = "import ctypes, sys\nctypes.CDLL(sys.argv[1])";
    check::fails_with(&guest::python(script, &[&path])?, "failed to map segment")?;
    let record = refused_load(world, &path)?;
    check::equal("who", records::text(&record, "/process/comm"), "python3")
}

/// Reads of it are nobody's business here; that it can be executed is.
const MAP: &str = r#"
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
READ, EXEC, PRIVATE, SHARED, SIZE = 1, 4, 2, 1, 4096
FAILED = ctypes.c_void_p(-1).value
def map(path, protection, how):
    fd = os.open(path, os.O_RDONLY)
    address = libc.mmap(None, SIZE, protection, how, fd, 0)
    return -ctypes.get_errno() if address == FAILED else address
for path in sys.argv[1:]:
    for how in (PRIVATE, SHARED):
        same("map", map(path, READ | EXEC, how), -errno.EPERM)
        address = map(path, READ, how)
        if address < 0:
            sys.exit(f"{path} cannot be mapped: {address}")
        for protection in (EXEC, READ | EXEC):
            if libc.mprotect(address, SIZE, protection) != -1 or ctypes.get_errno() != errno.EPERM:
                sys.exit(f"{path} was made executable")
# What no rule names, and memory without a file.
address = map("/bin/true", READ, PRIVATE)
same("mprotect", libc.mprotect(address, SIZE, READ | EXEC), 0)
anonymous = libc.mmap(None, SIZE, READ | EXEC, PRIVATE | 0x20, -1, 0)
if anonymous == FAILED:
    sys.exit("no memory")
"#;

/// On the guest's root, which is an overlay, and on a file system without one.
fn made_executable(world: &mut World) -> Result<()> {
    let (above, plain) = ("/opt/forbidden/tool", "/opt/forbidden/mounted/tool");
    std::fs::create_dir_all("/opt/forbidden/mounted")?;
    check::ok(&guest::run("mount", &["-t", "tmpfs", "tmpfs", "/opt/forbidden/mounted"])?)?;
    std::fs::copy("/bin/true", plain)?;
    let output = guest::calls(MAP, &[above, plain]);
    check::ok(&guest::run("umount", &["-l", "/opt/forbidden/mounted"])?)?;
    check::ok(&output?)?;
    for path in [above, plain] {
        world.records.wait(path, &["--kind", "exec", "--verdict", "denied"], |all| {
            let fields = [("/operation", json!("load")), ("/file/path", json!(path))];
            all.iter().filter(|record| records::fits(record, &fields)).count() == 6
        })?;
    }
    Ok(())
}

fn noticed(world: &mut World) -> Result<()> {
    let path = library("/opt/noticed")?;
    let output = guest::bash("LD_PRELOAD=$1 exec /opt/noticed/tool marker-noticed", &[&path])?;
    check::ok(&output)?;
    let pid = ("/process/pid", json!(output.pid));
    let fields = [
        pid.clone(),
        ("/operation", json!("load")),
        ("/verdict", json!("alerted")),
        ("/rule", json!("noticed-launch")),
        ("/file/path", json!(path)),
        ("/process/exe", json!("/opt/noticed/tool")),
    ];
    world.records.expect("exec", &fields)?;
    // What it loads does not make it another program.
    let end = [pid.clone(), ("/process/exe", json!("/opt/noticed/tool"))];
    world.records.expect("exit", &end)?;
    // The launch maps the program itself, and that is no record of its own.
    let own = [pid, ("/file/path", json!("/opt/noticed/tool"))];
    let all = world.records.all("exec", &own)?;
    check::equal("records of the launch", all.len(), 1)?;
    check::equal("operation", records::text(&all[0], "/operation"), "exec")
}

fn others(world: &mut World) -> Result<()> {
    let path = library("/srv/outside")?;
    check::ok(&guest::bash("LD_PRELOAD=$1 exec /bin/true", &[&path])?)?;
    world.daemons.settle(&world.records)?;
    let loads = world.records.all("exec", &[("/operation", json!("load"))])?;
    check::that(loads.is_empty(), format!("recorded: {loads:?}"))
}

/// Without a rule that could name what is loaded, nothing looks at it.
fn follow_the_policy(world: &mut World) -> Result<()> {
    let set = super::outlives::sets()?;
    let set = set.first().context("no programs are pinned")?;
    let links = ["file_mapped", "mapping_made_executable"]
        .map(|name| Path::new("/sys/fs/bpf/sekimori").join(set).join("links").join(name));
    let stand = || links.iter().filter(|link| link.exists()).count();
    check::equal("programs on their hooks", stand(), 2)?;
    let usual = World::usual_policy_and("");
    let without: Vec<&str> = usual.lines().filter(|line| !line.contains("on: exec")).collect();
    check::that(without.len() < usual.lines().count(), "no rule was left out")?;
    world.policy(&without.join("\n"))?;
    guest::until("they leave their hooks", limits::STOP_TIMEOUT, || Ok(stand() == 0))?;
    check::ok(&guest::run(LOADER, &["/opt/forbidden/tool"])?)?;
    world.policy(&usual)?;
    check::equal("programs back on their hooks", stand(), 2)?;
    check::fails_with(&guest::run(LOADER, &["/opt/forbidden/tool"])?, "/opt/forbidden/tool")
}

/// Arguments: a mark and a Python expression for the environment, in its order.
fn with_environment(mark: &str, environment: &str) -> Result<()> {
    let script = "import os, sys\nos.execve('/bin/true', ['true', sys.argv[1]], eval(sys.argv[2]))";
    check::ok(&guest::python(script, &[mark, environment])?)
}

fn launched(world: &World, mark: &str) -> Result<Value> {
    world.records.expect("exec", &[("/process/argv", json!(["true", mark]))])
}

fn environment_of(record: &Value) -> Value {
    record.pointer("/process/environment").cloned().unwrap_or(Value::Null)
}

fn environment(world: &mut World) -> Result<()> {
    let path = library("/srv/outside/ライブラリ")?;
    let expression = format!(
        "{{'A': '1', 'LD_PRELOAD': '{path}', 'XLD_PRELOAD': 'x', 'LD_PRELOADX': 'x', \
         'LD_LIBRARY_PATH': '/srv/outside:/tmp', 'LD_AUDIT': '', 'Z': 'LD_AUDIT=x'}}"
    );
    with_environment("marker-environment", &expression)?;
    let record = launched(world, "marker-environment")?;
    let expected =
        json!([format!("LD_PRELOAD={path}"), "LD_LIBRARY_PATH=/srv/outside:/tmp", "LD_AUDIT="]);
    check::equal("environment", environment_of(&record), expected)?;
    let flagged = record.pointer("/process/environment_truncated");
    check::equal("flagged", flagged, None)?;
    with_environment("marker-plain", "{'A': '1', 'PATH': '/bin'}")?;
    let record = launched(world, "marker-plain")?;
    check::equal("environment", environment_of(&record), Value::Null)?;
    with_environment("marker-none", "{}")?;
    let record = launched(world, "marker-none")?;
    check::equal("environment", environment_of(&record), Value::Null)?;
    let flagged = record.pointer("/process/environment_truncated");
    check::equal("flagged", flagged, None)
}

/// Behind many variables, behind long ones, and not within one.
fn behind_others(world: &mut World) -> Result<()> {
    let many = "{**{f'V{i}': 'x' * 40 for i in range(200)}, 'LD_PRELOAD': '/nowhere/a.so'}";
    with_environment("marker-many", many)?;
    let record = launched(world, "marker-many")?;
    check::equal("environment", environment_of(&record), json!(["LD_PRELOAD=/nowhere/a.so"]))?;
    // The second piece of a long one begins with its 256th byte.
    for length in 250..260 {
        let expression = format!(
            "{{'A': 'x' * {length} + 'LD_AUDIT=no', 'B': 'x' * 9000, 'LD_PRELOAD': '/nowhere/b.so'}}"
        );
        with_environment(&format!("marker-{length}"), &expression)?;
    }
    for length in 250..260 {
        let record = launched(world, &format!("marker-{length}"))?;
        check::equal("environment", environment_of(&record), json!(["LD_PRELOAD=/nowhere/b.so"]))?;
        let flagged = record.pointer("/process/environment_truncated");
        check::equal("flagged", flagged, None)?;
    }
    Ok(())
}

fn long_environment(world: &mut World) -> Result<()> {
    let hidden = "{**{f'V{i}': '' for i in range(300)}, 'LD_PRELOAD': '/nowhere/a.so'}";
    with_environment("marker-hidden", hidden)?;
    let record = launched(world, "marker-hidden")?;
    check::equal("environment", environment_of(&record), Value::Null)?;
    let flagged =
        |record: &Value| record.pointer("/process/environment_truncated") == Some(&json!(true));
    check::that(flagged(&record), format!("not flagged: {record}"))?;
    with_environment(
        "marker-long",
        "{'LD_LIBRARY_PATH': '/x' * 1500, 'LD_PRELOAD': '/nowhere/a.so'}",
    )?;
    let record = launched(world, "marker-long")?;
    check::that(flagged(&record), format!("not flagged: {record}"))?;
    let kept = records::text(&record, "/process/environment/0");
    check::equal("bytes of the long one", kept.len(), 1023)?;
    let second = records::text(&record, "/process/environment/1");
    check::equal("the one behind it", second, "LD_PRELOAD=/nowhere/a.so")
}
