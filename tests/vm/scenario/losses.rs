//! What is lost is counted.

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::Run;
use crate::run::World;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] =
    &[("burst-of-opens", burst), ("status-answers-during-a-flood", flood)];

/// Records of 1.4 KB each: together more than the ring holds.
const OPENS: u64 = 8000;

/// Every open of a burst is stored or counted as lost. The agent is held meanwhile, so that the
/// ring does overflow.
fn burst(world: &mut World) -> Result<()> {
    let label = "{ name: watched, paths: [\"/srv/watched/**\"";
    let policy = World::usual_policy_and("").replace(label, &format!("{label}, \"/tmp/burst/**\""));
    let path = format!("/tmp/burst/{}", ["長".repeat(80).as_str(); 4].join("/"));
    guest::write(&path, "x")?;
    world.policy(&policy)?;
    let script = "import os, sys\n\
        for _ in range(int(sys.argv[2])): os.close(os.open(sys.argv[1], os.O_RDONLY))";
    let agent = Pid::from_raw(i32::try_from(world.daemons.agent_pid())?);
    kill(agent, Signal::SIGSTOP)?;
    let output = guest::python(script, &[&path, &OPENS.to_string()]);
    kill(agent, Signal::SIGCONT)?;
    let output = output?;
    check::ok(&output)?;
    world.daemons.settle(&world.records)?;
    // Losses are counted once a second and travel on a lane of their own.
    std::thread::sleep(std::time::Duration::from_secs(3));
    world.daemons.settle(&world.records)?;
    let filters = ["--kind", "file.open", "--text", "/tmp/burst"];
    let found = world.records.search(&filters)?;
    let pid = json!(output.pid);
    let stored = found.iter().filter(|it| it.pointer("/process/pid") == Some(&pid)).count() as u64;
    let lost: u64 = world
        .records
        .all("loss", &[("/loss/kind", json!("file.open"))])?
        .iter()
        .map(|it| records::number(it, "/loss/count"))
        .sum();
    check::that(lost > 0, "nothing was lost: the burst was too small")?;
    check::equal("stored and lost opens", stored + lost, OPENS)
}

/// Whoever floods the agent with refusals does not keep the operator out.
fn flood(world: &mut World) -> Result<()> {
    let script = "import time\n\
        end = time.monotonic() + 25\n\
        while time.monotonic() < end:\n\
        \x20 try: open('/srv/secret/plan.txt')\n\
        \x20 except PermissionError: pass";
    let mut command = std::process::Command::new("python3");
    command.args(["-I", "-S", "-c", script]);
    let mut flood = guest::Background::start(command, std::path::Path::new("/run/flood.log"))?;
    std::thread::sleep(std::time::Duration::from_secs(8));
    let status = world.daemons.status();
    flood.wait()?;
    let status = status?;
    let name = records::text(&status, "/agent/policy/name");
    let error = records::text(&status, "/agent_error");
    check::that(name == "scenarios", format!("during the flood status said {error:?}"))?;
    world.daemons.settle(&world.records)?;
    let fields = [("/file/path", json!("/srv/secret/plan.txt")), ("/verdict", json!("denied"))];
    world.records.expect("file.open", &fields)?;
    Ok(())
}
