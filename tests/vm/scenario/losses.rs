//! What is lost is counted.

use anyhow::Result;
use serde_json::json;

use super::Run;
use crate::run::World;
use crate::{check, guest, limits, records};

pub const ALL: &[(&str, Run)] = &[("burst-of-opens", burst)];

const OPENS: u64 = 20_000;

/// Every open of a burst is stored or counted as lost.
fn burst(world: &mut World) -> Result<()> {
    let label = "{ name: watched, paths: [\"/srv/watched/**\"";
    let policy = World::usual_policy_and("").replace(label, &format!("{label}, \"/tmp/burst\""));
    guest::write("/tmp/burst", "x")?;
    world.policy(&policy)?;
    let script = "import os, sys\n\
        for _ in range(int(sys.argv[1])): os.close(os.open('/tmp/burst', os.O_RDONLY))";
    let output = guest::python(script, &[OPENS.to_string()])?;
    check::ok(&output)?;
    let settled = guest::until("the burst is delivered", limits::START_TIMEOUT, || {
        let status = world.daemons.status()?;
        Ok(records::number(&status, "/agent/spool/unacknowledged_bytes") == 0)
    });
    settled?;
    // Losses are counted once a second.
    std::thread::sleep(std::time::Duration::from_secs(3));
    world.daemons.settle()?;
    let filters = ["--kind", "file.open", "--text", "/tmp/burst"];
    let found = world.records.search(&filters)?;
    let pid = json!(output.pid);
    let stored = found
        .iter()
        .filter(|it| it.pointer("/process/pid") == Some(&pid))
        .count() as u64;
    let lost: u64 = world
        .records
        .all("loss", &[("/loss/kind", json!("file.open"))])?
        .iter()
        .map(|it| records::number(it, "/loss/count"))
        .sum();
    check::equal("stored and lost opens", stored + lost, OPENS)
}
