//! What is scarce is used up: places in tables, and memory.

use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::json;

use super::Run;
use super::outlives::{refusals_recorded, still_refused};
use super::prepare::SECRET;
use crate::run::World;
use crate::{check, guest, limits, records};
use guest::{Background, OTHER, OTHER_SERIAL};

pub const ALL: &[(&str, Run)] = &[("mounts-of-a-user", mounts), ("out-of-memory", out_of_memory)];

/// Three times as many file systems as the tables of mounts and of devices have places.
const FILE_SYSTEMS: &str = "3072";

/// Arguments: how many, and what is made when they are there. Each has a file that is opened.
const MOUNTS: &str = r#"
for turn in range(int(sys.argv[1])):
    at = b"/mnt/%d" % turn
    os.mkdir(at)
    same("mount", call(165, b"tmpfs", at, b"tmpfs", 0, b"nr_inodes=9"), 0)
    open(at + b"/file", "w").close()
refused("from within", lambda: os.open("/srv/secret/filled.txt", os.O_RDONLY))
open(sys.argv[2], "w").close()
sys.stdin.read()
"#;

fn mounts(world: &mut World) -> Result<()> {
    let ready = "/tmp/tables-are-full";
    let _ = std::fs::remove_file(ready);
    check::ok(&guest::run("chmod", &["1777", "/tmp"])?)?;
    let script = format!("{}{MOUNTS}", include_str!("../calls.py"));
    let inner = "mount -t tmpfs tmpfs /mnt && sleep 100000 | python3 -I -S -c \"$1\" \"$2\" \"$3\"";
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.args(["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", inner, "bash"]);
    command.args([&script, FILE_SYSTEMS, ready]);
    let log = Path::new("/run/sekimori-mounts.log");
    let program = Background::start(command, log)?;
    let there = guest::until("the file systems are there", limits::PROGRAM_TIMEOUT, || {
        Ok(Path::new(ready).exists())
    });
    let said = std::fs::read_to_string(log)?;
    there.map_err(|error| error.context(said))?;

    for path in ["/srv/secret/filled-too.txt", "/srv/secret/plan.txt"] {
        let output = guest::run("cat", &[path])?;
        check::that(!output.text().contains(SECRET), "the secret was given away")?;
        check::refused(&output)?;
    }
    check::refused(&guest::bash("echo x >\"$1/new.txt\"", &[OTHER])?)?;
    check::that(!Path::new(&format!("{OTHER}/new.txt")).exists(), "something arrived")?;
    drop(program);
    for name in ["filled.txt", "filled-too.txt", "plan.txt"] {
        let fields = [
            ("/file/path", json!(format!("/srv/secret/{name}"))),
            ("/verdict", json!("denied")),
            ("/rule", json!("secret-no-open")),
            ("/truncated", json!(false)),
        ];
        world.records.expect("file.open", &fields)?;
    }
    let fields = [
        ("/operation", json!("create")),
        ("/file/path", json!(format!("{OTHER}/new.txt"))),
        ("/file/device/serial", json!(OTHER_SERIAL)),
        ("/verdict", json!("denied")),
    ];
    world.records.expect("usb.write", &fields)?;
    Ok(())
}

/// The kernel ends the agent because its control group has no memory left.
fn out_of_memory(world: &mut World) -> Result<()> {
    let (root, group) = ("/sys/fs/cgroup", "/sys/fs/cgroup/tight");
    guest::write(format!("{root}/cgroup.subtree_control"), "+memory")?;
    std::fs::create_dir_all(group)?;
    world.special_agent();
    world.daemons.end_agent(Signal::SIGTERM)?;
    // Memory counts where it was taken first: the agent has to be born there.
    let own = std::process::id().to_string();
    guest::write(format!("{group}/cgroup.procs"), &own)?;
    let ordinary = world.daemons.ordinary();
    let started = world.daemons.start_agent(&ordinary);
    guest::write(format!("{root}/cgroup.procs"), &own)?;
    started?;
    guest::write(format!("{group}/memory.max"), "256K")?;
    guest::until("the agent ends", limits::STOP_TIMEOUT, || Ok(!world.daemons.agent_lives()))?;
    let _ = world.daemons.end_agent(Signal::SIGKILL);
    let events = std::fs::read_to_string(format!("{group}/memory.events"))?;
    check::that(events.contains("oom_kill 1"), format!("it ended otherwise: {events:?}"))?;
    world.records.forget()?;
    still_refused("out-of-memory")?;
    world.daemons.start_agent(&ordinary)?;
    refusals_recorded(world)?;
    world.records.wait("what happened meanwhile", &["--kind", "agent"], |all| {
        all.iter().any(|it| records::text(it, "/message").contains("the policy stayed in force"))
    })?;
    still_refused("started")
}
