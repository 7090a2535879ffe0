//! What the agent reads at its next start, and what it has not delivered yet.

use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::Run;
use super::attacks::guarded;
use crate::run::World;
use crate::{check, guest, limits, records};

pub const ALL: &[(&str, Run)] = &[
    ("policy-overwritten", policy),
    ("program-replaced", program),
    ("certificate-removed", certificate),
    ("directory-moved", directory),
    ("spool-moved-or-removed", spool),
    ("agent-itself-raises-nothing", agent_itself),
    ("nothing-without-a-guard", unguarded),
];

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn alerts(world: &World, path: &str) -> Result<Vec<Value>> {
    world.records.all(
        "tamper",
        &[
            ("/operation", json!("replace")),
            ("/verdict", json!("alerted")),
            ("/file/path", json!(path)),
        ],
    )
}

fn alerted(world: &World, path: &str) -> Result<Value> {
    let mut found = None;
    guest::until(&format!("an alert of {path}"), limits::RECORD_TIMEOUT, || {
        found = alerts(world, path)?.pop();
        Ok(found.is_some())
    })?;
    Ok(found.unwrap_or_default())
}

/// In place, by another file, and then that file in place.
fn policy(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    world.policy_was_changed();
    let policy = text(&world.daemons.path("policy.yaml"));
    let before = std::fs::read_to_string(&policy)?;
    let output = guest::bash("echo '# more' >>\"$1\"", &[&policy])?;
    check::ok(&output)?;
    check::equal("the file", std::fs::read_to_string(&policy)?, format!("{before}# more\n"))?;
    let record = alerted(world, &policy)?;
    check::equal("pid", records::number(&record, "/process/pid"), output.pid.into())?;
    world.records.forget()?;

    check::ok(&guest::bash("cp \"$1\" \"$1.new\" && mv \"$1.new\" \"$1\"", &[&policy])?)?;
    let record = alerted(world, &format!("{policy}.new"))?;
    check::equal("its new name", records::text(&record, "/file/new_path"), policy.as_str())?;
    world.records.forget()?;

    // The agent looks what is in their places once a second.
    guest::until("an alert of the new file", limits::STOP_TIMEOUT, || {
        check::ok(&guest::bash("echo '# more' >>\"$1\"", &[&policy])?)?;
        Ok(!alerts(world, &policy)?.is_empty())
    })
}

fn program(world: &mut World) -> Result<()> {
    // Where the programs of the guest lie, nothing can be written.
    let program = "/srv/outside/sekimori-agent";
    let copy = "cp \"$(command -v sekimori-agent)\" \"$1\"";
    check::ok(&guest::bash(copy, &[program])?)?;
    world.special_agent();
    world.daemons.end_agent(Signal::SIGTERM)?;
    let mut options = world.daemons.ordinary();
    (options.program, options.guard) = (program, "alert");
    world.daemons.start_agent(&options)?;
    world.records.forget()?;
    let output = guest::bash("cp \"$1\" \"$1.new\" && mv \"$1.new\" \"$1\"", &[program])?;
    check::ok(&output)?;
    let record = alerted(world, &format!("{program}.new"))?;
    check::equal("its new name", records::text(&record, "/file/new_path"), program)
}

fn certificate(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let path = world.daemons.path("tls").join(name);
        let kept = std::fs::read(&path)?;
        check::ok(&guest::run("rm", &[&path])?)?;
        check::that(!path.exists(), "it is still there")?;
        guest::write(&path, kept)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        alerted(world, &text(&path))?;
    }
    Ok(())
}

fn directory(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    let tls = text(&world.daemons.path("tls"));
    check::ok(&guest::bash("mv \"$1\" \"$1.away\" && mv \"$1.away\" \"$1\"", &[&tls])?)?;
    let record = alerted(world, &tls)?;
    check::equal("its new name", records::text(&record, "/file/new_path"), &format!("{tls}.away"))
}

fn spool(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    let file = world.daemons.path("spool").join("put-there");
    let outside = world.daemons.path("put-elsewhere");
    guest::write(&outside, "x")?;
    check::ok(&guest::run("mv", &[&outside, &file])?)?;
    let record = alerted(world, &text(&outside))?;
    check::equal("its new name", records::text(&record, "/file/new_path"), &text(&file))?;
    world.records.forget()?;
    check::ok(&guest::run("rm", &[&file])?)?;
    alerted(world, &text(&file))?;
    Ok(())
}

/// It writes its spool all the time, and reads the others.
fn agent_itself(world: &mut World) -> Result<()> {
    guarded(world, "deny")?;
    world.daemons.settle(&world.records)?;
    check::ok(&world.daemons.reload()?)?;
    check::ok(&guest::run("cat", &[world.daemons.path("policy.yaml")])?)?;
    world.daemons.settle(&world.records)?;
    let all = world.records.all("tamper", &[("/operation", json!("replace"))])?;
    check::that(all.is_empty(), format!("recorded: {all:?}"))
}

fn unguarded(world: &mut World) -> Result<()> {
    let policy = world.daemons.path("policy.yaml");
    world.policy_was_changed();
    check::ok(&guest::bash("echo '# more' >>\"$1\"", &[&text(&policy)])?)?;
    world.daemons.settle(&world.records)?;
    let all = world.records.all("tamper", &[])?;
    check::that(all.is_empty(), format!("recorded: {all:?}"))
}
