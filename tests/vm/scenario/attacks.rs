//! root lays hands on the monitor itself.

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::Run;
use crate::run::World;
use crate::{check, guest, limits, records};

pub const ALL: &[(&str, Run)] = &[
    ("signals-refused", signals),
    ("limits-refused", limits_on_it),
    ("debuggers-refused", debuggers),
    ("maps-refused", maps),
    ("pins-refused", pins),
    ("links-stay", links),
    ("hooks-off-refused", hooks_off),
    ("freezing-refused", freezing),
    ("hooks-off-noticed", canary),
    ("guard-ends-with-the-agent", guard_ends),
    ("doctor-tries-them", doctor),
    ("missing-hook-put-back", link_removed),
    ("missing-programs-noticed", programs_removed),
];

const PLAN: &str = "/srv/secret/plan.txt";
const SWITCH: &str = "/proc/sys/kernel/ftrace_enabled";

/// Starts the agent once more, with a guard.
pub(super) fn guarded(world: &mut World, guard: &'static str) -> Result<()> {
    world.special_agent();
    world.daemons.end_agent(Signal::SIGTERM)?;
    let mut options = world.daemons.ordinary();
    options.guard = guard;
    world.daemons.start_agent(&options)?;
    world.records.forget()
}

fn tampered(world: &World, operation: &str, verdict: &str) -> Result<Value> {
    world
        .records
        .expect("tamper", &[("/operation", operation.into()), ("/verdict", verdict.into())])
}

fn signals(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    let pid = world.daemons.agent_pid().to_string();
    for signal in ["KILL", "STOP", "SEGV", "QUIT"] {
        let output = guest::run("/bin/kill", &["-s", signal, &pid])?;
        check::that(output.status != 0, format!("SIG{signal} was sent"))?;
        check::that(output.errors().contains("not permitted"), output.errors())?;
    }
    let killed = tampered(world, "signal", "denied")?;
    check::that(records::number(&killed, "/signal") > 0, format!("no signal in {killed}"))?;
    check::equal("uid", records::number(&killed, "/process/uid"), 0)?;
    check::that(world.daemons.agent_lives(), "the agent ended")?;
    check::equal("pid", world.daemons.agent_pid().to_string(), pid.clone())?;
    // What it answers in order goes through.
    check::ok(&guest::run("/bin/kill", &["-s", "HUP", &pid])?)?;
    check::ok(&guest::run("/bin/kill", &["-0", &pid])?)
}

fn limits_on_it(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    let pid = world.daemons.agent_pid().to_string();
    for limit in ["--cpu=1:1", "--nofile=8:8", "--as=1000000:1000000"] {
        let output = guest::run("prlimit", &["--pid", &pid, limit])?;
        check::that(output.status != 0, format!("{limit} was set"))?;
        check::that(output.errors().contains("not permitted"), output.errors())?;
        tampered(world, "limit", "denied")?;
        world.records.forget()?;
    }
    // Others' are nobody's business.
    check::ok(&guest::run("prlimit", &["--cpu=100:100", "true"])?)?;
    check::that(world.daemons.agent_lives(), "the agent ended")
}

fn debuggers(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    let script = r#"
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
def refused(what, call):
    ctypes.set_errno(0)
    if call() != -1 or ctypes.get_errno() not in (errno.EPERM, errno.EACCES):
        sys.exit(f"{what}: {ctypes.get_errno()}")
PTRACE_ATTACH, PTRACE_SEIZE, PIDFD_OPEN, PIDFD_GETFD = 16, 0x4206, 434, 438
refused("attach", lambda: libc.ptrace(PTRACE_ATTACH, pid, 0, 0))
refused("seize", lambda: libc.ptrace(PTRACE_SEIZE, pid, 0, 0))
pidfd = libc.syscall(PIDFD_OPEN, pid, 0)
refused("getfd", lambda: libc.syscall(PIDFD_GETFD, pidfd, 3, 0))
try:
    open(f"/proc/{pid}/mem", "r+b").close()
    sys.exit("mem was opened")
except PermissionError:
    pass
"#;
    check::ok(&guest::python(script, &[world.daemons.agent_pid().to_string()])?)?;
    tampered(world, "trace", "denied")?;
    check::that(world.daemons.agent_lives(), "the agent ended")
}

/// Opens every map there is, by its id and by its pin, for write.
const OPEN_MAPS: &str = r#"
import ctypes, errno, glob, struct
libc = ctypes.CDLL(None, use_errno=True)
BPF, OBJ_GET, MAP_GET_NEXT_ID, MAP_GET_FD_BY_ID = 321, 7, 12, 14
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 128)
    return libc.syscall(BPF, command, buffer, 128), buffer.raw
opened = refused = 0
at = 0
while True:
    result, answer = bpf(MAP_GET_NEXT_ID, struct.pack("II", at, 0))
    if result != 0:
        break
    at = struct.unpack_from("I", answer, 4)[0]
    result, _ = bpf(MAP_GET_FD_BY_ID, struct.pack("III", at, 0, 0))
    opened += result >= 0
    refused += result < 0
pins = glob.glob("/sys/fs/bpf/sekimori/*/maps/*")
for pin in pins:
    path = ctypes.create_string_buffer(pin.encode())
    result, _ = bpf(OBJ_GET, struct.pack("QII", ctypes.addressof(path), 0, 0))
    opened += result >= 0
    refused += result < 0
print(opened, refused, len(pins))
"#;

fn maps(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    let output = guest::python(OPEN_MAPS, &[] as &[&str])?;
    check::ok(&output)?;
    let text = output.text();
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|it| it.parse().ok()).collect();
    let [opened, refused, pins] = numbers[..] else {
        anyhow::bail!("it said {text:?}");
    };
    check::that(pins > 20, format!("only {pins} maps are pinned"))?;
    check::that(refused >= 2 * pins, format!("{opened} opened, {refused} refused of {pins}"))?;
    tampered(world, "map-open", "denied")?;
    check::refused(&guest::run("cat", &[PLAN])?)
}

fn pins(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    let before = guest::bash("cd /sys/fs/bpf/sekimori && find . | sort", &[])?;
    let onto = "link=$(echo /sys/fs/bpf/sekimori/*/links/file_open); \
                map=$(echo /sys/fs/bpf/sekimori/*/lost); mv \"$map\" /sys/fs/bpf/; mv -T $link /sys/fs/bpf/x";
    let tries: [(&str, &[&str]); 6] = [
        ("bash", &["-c", onto]),
        ("rm", &["-rf", "/sys/fs/bpf/sekimori"]),
        ("mv", &["/sys/fs/bpf/sekimori", "/sys/fs/bpf/gone"]),
        ("umount", &["/sys/fs/bpf"]),
        ("umount", &["-l", "/sys/fs/bpf"]),
        ("umount", &["-l", "/sys"]),
    ];
    for (program, arguments) in tries {
        let output = guest::run(program, arguments)?;
        check::that(output.status != 0, format!("{program} {arguments:?} went through"))?;
    }
    let after = guest::bash("cd /sys/fs/bpf/sekimori && find . | sort", &[])?;
    check::that(before.text().lines().count() > 100, before.text())?;
    check::equal("the pins", after.text(), before.text())?;
    for operation in ["unpin", "unmount"] {
        tampered(world, operation, "denied")?;
    }
    check::refused(&guest::run("cat", &[PLAN])?)
}

/// Takes hold of every link there is by its id, and tries to take its program off the hook.
const DETACH: &str = r#"
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
BPF, GET_FD_BY_ID, GET_NEXT_ID, DETACH = 321, 30, 31, 34
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 128)
    return libc.syscall(BPF, command, buffer, 128), buffer.raw
held = detached = at = 0
while True:
    result, answer = bpf(GET_NEXT_ID, struct.pack("II", at, 0))
    if result != 0:
        break
    at = struct.unpack_from("I", answer, 4)[0]
    link, _ = bpf(GET_FD_BY_ID, struct.pack("III", at, 0, 0))
    if link >= 0:
        held += 1
        detached += bpf(DETACH, struct.pack("I", link))[0] == 0
print(held, detached)
"#;

/// The kernel has no way to detach such links; this would show one that comes.
fn links(_: &mut World) -> Result<()> {
    let output = guest::python(DETACH, &[] as &[&str])?;
    check::ok(&output)?;
    let text = output.text();
    let (held, detached) = text.split_once(' ').context("two numbers")?;
    check::that(held.parse::<u64>()? > 20, format!("only {held} links were found"))?;
    check::equal("detached", detached, "0")?;
    check::refused(&guest::run("cat", &[PLAN])?)
}

fn hooks_off(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    std::fs::create_dir_all("/mnt/other-proc")?;
    check::ok(&guest::run("mount", &["-t", "proc", "proc", "/mnt/other-proc"])?)?;
    for proc in ["/proc", "/mnt/other-proc"] {
        let switch = format!("{proc}/sys/kernel/ftrace_enabled");
        check::refused(&guest::bash("echo 0 > \"$1\"", &[&switch])?)?;
        tampered(world, "hooks-off", "denied")?;
        world.records.forget()?;
    }
    check::ok(&guest::run("umount", &["/mnt/other-proc"])?)?;
    check::equal("the switch", std::fs::read_to_string(SWITCH)?.trim(), "1")?;
    check::refused(&guest::run("cat", &[PLAN])?)
}

/// Its own control group and the one above, which it is moved to while it runs; not the one beside.
fn freezing(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    let groups = "/sys/fs/cgroup";
    for group in ["above/own", "above/beside"] {
        std::fs::create_dir_all(format!("{groups}/{group}"))?;
    }
    let pid = world.daemons.agent_pid().to_string();
    guest::write(format!("{groups}/above/own/cgroup.procs"), &pid)?;
    for file in ["own/cgroup.freeze", "own/cgroup.kill", "cgroup.freeze", "cgroup.kill"] {
        let path = format!("{groups}/above/{file}");
        check::refused(&guest::bash("echo 1 >\"$1\"", &[&path])?)?;
        let denied = tampered(world, "freeze", "denied")?;
        check::equal("file", records::text(&denied, "/file/path"), path.as_str())?;
        world.records.forget()?;
    }
    for file in ["beside/cgroup.freeze", "beside/cgroup.kill"] {
        check::ok(&guest::bash("echo 1 >\"$1\"", &[&format!("{groups}/above/{file}")])?)?;
    }
    check::ok(&guest::bash("cat \"$1\"", &[&format!("{groups}/above/cgroup.freeze")])?)?;
    guest::write(format!("{groups}/cgroup.procs"), &pid)?;
    check::that(world.daemons.agent_lives(), "the agent ended")?;
    // Nobody of it is there any more.
    check::ok(&guest::bash("echo 1 >\"$1\"", &[&format!("{groups}/above/cgroup.freeze")])?)?;
    for group in ["above/own", "above/beside", "above"] {
        std::fs::remove_dir(format!("{groups}/{group}"))?;
    }
    world.daemons.settle(&world.records)?;
    let others = world.records.all("tamper", &[])?;
    check::that(others.is_empty(), format!("recorded: {others:?}"))
}

fn canary(world: &mut World) -> Result<()> {
    guarded(world, "alert")?;
    let output = guest::bash("echo 0 > \"$1\"", &[SWITCH])?;
    tampered(world, "hooks-off", "alerted")?;
    if output.status != 0 {
        // From 7.x on the kernel itself keeps it on while programs stand on their hooks.
        check::that(output.errors().contains("not supported"), output.errors())?;
    } else {
        world.records.wait("the alert", &["--kind", "agent", "--verdict", "alerted"], |all| {
            all.iter().any(|it| records::text(it, "/message").contains("enforced again"))
        })?;
    }
    guest::until("the switch is on", limits::STOP_TIMEOUT, || {
        Ok(std::fs::read_to_string(SWITCH)?.trim() == "1")
    })?;
    check::refused(&guest::run("cat", &[PLAN])?)
}

/// Killed in a way that nothing refuses, it can be started again, and enforcement can be ended.
fn guard_ends(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    // The switch was opened before the group was the agent's.
    let group = "/sys/fs/cgroup/prepared";
    std::fs::create_dir_all(group)?;
    let script = r#"
import os, sys
group, agent = sys.argv[1:]
switch = os.open(f"{group}/cgroup.kill", os.O_WRONLY)
with open(f"{group}/cgroup.procs", "w") as members:
    members.write(agent)
os.write(switch, b"1")
"#;
    let pid = world.daemons.agent_pid().to_string();
    check::ok(&guest::python(script, &[group, pid.as_str()])?)?;
    guest::until("the agent ends", limits::STOP_TIMEOUT, || Ok(!world.daemons.agent_lives()))?;
    let _ = world.daemons.end_agent(Signal::SIGTERM);
    check::refused(&guest::run("cat", &[PLAN])?)?;
    let mut options = world.daemons.ordinary();
    options.guard = "deny";
    world.daemons.start_agent(&options)?;
    check::refused(&guest::run("cat", &[PLAN])?)?;
    let output = guest::run("rm", &["-r", "/sys/fs/bpf/sekimori"])?;
    check::that(output.errors().contains("not permitted"), output.errors())
}

/// The agent starts, enforces, and says this.
fn starts_with_alert(world: &mut World, text: &str) -> Result<()> {
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    check::refused(&guest::run("cat", &[PLAN])?)?;
    world.records.wait("the alert", &["--kind", "agent", "--verdict", "alerted"], |all| {
        all.iter().any(|it| records::text(it, "/message").contains(text))
    })?;
    Ok(())
}

fn link_removed(world: &mut World) -> Result<()> {
    check::equal("its exit code", world.daemons.end_agent(Signal::SIGTERM)?, 0)?;
    check::ok(&guest::bash("rm /sys/fs/bpf/sekimori/*/links/file_open", &[])?)?;
    guest::until("the secret can be read", limits::STOP_TIMEOUT, || {
        Ok(guest::run("cat", &[PLAN])?.status == 0)
    })?;
    starts_with_alert(world, "off its hook: Lsm file_open")
}

fn programs_removed(world: &mut World) -> Result<()> {
    check::equal("its exit code", world.daemons.end_agent(Signal::SIGTERM)?, 0)?;
    check::ok(&guest::run("rm", &["-r", "/sys/fs/bpf/sekimori"])?)?;
    starts_with_alert(world, "somebody removed them")
}

/// Every harmless way around is refused or on record, and is so by what was done, not by chance.
fn doctor(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    let socket = world.daemons.path("agent.sock");
    let socket = socket.to_string_lossy();
    let arguments = ["doctor", "--attack", "--json", "--stick", guest::USB, "--socket", &socket];
    let output = guest::run("sekimori", &arguments)?;
    check::ok(&output)?;
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    check::equal("tries", rows.len(), 23)?;
    for row in &rows {
        let kind = records::text(row, "/kind");
        let tried = records::text(row, "/tried");
        // vfat has neither links nor, in a guest, IPv6 everywhere.
        if ["hard link", "symbolic link", "TCP over IPv6"].contains(&tried) {
            continue;
        }
        let expected = if kind == "tamper" { "refused" } else { "recorded" };
        check::equal(tried, records::text(row, "/result"), expected)
            .with_context(|| row.to_string())?;
    }
    let fields = [("/operation", json!("rename")), ("/process/comm", json!("sekimori"))];
    world.records.expect("usb.write", &fields)?;
    let left: Vec<_> = std::fs::read_dir(guest::USB)?.flatten().map(|it| it.file_name()).collect();
    let ours = left.iter().any(|name| name.to_string_lossy().starts_with("sekimori-attack"));
    check::that(!ours, format!("left behind: {left:?}"))
}
