//! Conservation: what was done = what is stored + what is accounted as lost, exactly, kind by kind,
//! whatever happens on the way.

use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Run;
use crate::disk::Disk;
use crate::flood::{Done, Flood};
use crate::ledger::{Kinds, Ledger, each_once};
use crate::run::World;
use crate::{check, guest, records};
use guest::{OTHER, OTHER_SERIAL};

pub const ALL: &[(&str, Run)] = &[
    ("flood", flood),
    ("ring-overflows", ring),
    ("agent-killed", agent_killed),
    ("agent-killed-while-a-mount-waits", mount_waits),
    ("collector-killed", collector_killed),
    ("spool-full", spool_full),
    ("power-lost", power_lost),
];

/// Rounds of a flood that the agent keeps up with.
const ROUNDS: u64 = 12;
/// With so many sources each, the ring overflows in the middle of them.
const SOURCES: u64 = 320;

fn nothing(_: &mut World, _: &Flood) -> Result<()> {
    Ok(())
}

/// A flood, something that happens meanwhile, and the account.
fn account(
    world: &mut World,
    rounds: u64,
    kinds: Kinds,
    meanwhile: impl FnOnce(&mut World, &Flood) -> Result<()>,
) -> Result<()> {
    Flood::prepare()?;
    let device = Flood::device()?;
    let ledger = Ledger::open(world)?;
    let flood = Flood::start(&device, rounds, 1)?;
    meanwhile(world, &flood)?;
    let done = flood.end()?;
    let done = if kinds == Kinds::Known { done } else { done.without_receipts() };
    ledger.close(world, &done, kinds)
}

fn flood(world: &mut World) -> Result<()> {
    account(world, ROUNDS, Kinds::Known, nothing)
}

fn ring(world: &mut World) -> Result<()> {
    let agent = Pid::from_raw(i32::try_from(world.daemons.agent_pid())?);
    Flood::prepare()?;
    let device = Flood::device()?;
    let ledger = Ledger::open(world)?;
    kill(agent, Signal::SIGSTOP)?;
    let done = Flood::start(&device, ROUNDS, SOURCES).and_then(Flood::end);
    kill(agent, Signal::SIGCONT)?;
    ledger.close(world, &done?.without_receipts(), Kinds::Known)?;
    lost_at(world, "ring")
}

/// What was meant to overflow did.
fn lost_at(world: &World, stage: &str) -> Result<()> {
    let losses = world.records.all("loss", &[("/loss/stage", stage.into())])?;
    check::that(!losses.is_empty(), format!("nothing was lost at {stage}: the flood was too small"))
}

fn agent_killed(world: &mut World) -> Result<()> {
    account(world, 2 * ROUNDS, Kinds::Lost, |world, flood| {
        flood.half()?;
        check::equal("its status", world.daemons.end_agent(Signal::SIGKILL)?, 128 + 9)?;
        let ordinary = world.daemons.ordinary();
        world.daemons.start_agent(&ordinary)
    })
}

/// A file system is made known and mounted nowhere, so that its record waits for a place. The agent
/// has read it when it is killed.
fn mount_waits(world: &mut World) -> Result<()> {
    let script = r#"
context = call(430, b"ext4", 0)
same("the source", call(431, context, 1, b"source", sys.argv[1].encode(), 0), 0)
same("the creation", call(431, context, 6, None, None, 0), 0)
"#;
    let device = guest::run("sekimori-stick", &["device", OTHER_SERIAL])?.text();
    check::ok(&guest::run("umount", &[OTHER])?)?;
    let ledger = Ledger::open(world)?;
    let output = guest::calls(script, &[device]);
    std::thread::sleep(Duration::from_millis(300));
    world.daemons.end_agent(Signal::SIGKILL)?;
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    let output = output?;
    check::ok(&output)?;
    let counts = [("usb.mount".to_owned(), 1)].into();
    let done = Done { counts, pids: [output.pid.into()].into(), receipts: 0 };
    let outcome = ledger.close(world, &done, Kinds::Lost);
    guest::mount(OTHER_SERIAL, OTHER)?;
    outcome
}

fn collector_killed(world: &mut World) -> Result<()> {
    account(world, 2 * ROUNDS, Kinds::Known, |world, flood| {
        flood.half()?;
        check::equal("its status", world.daemons.end_collector(Signal::SIGKILL)?, 128 + 9)?;
        world.daemons.start_collector()
    })
}

fn spool_full(world: &mut World) -> Result<()> {
    let directory = world.daemons.path("conservation-spool");
    let mut options = world.daemons.ordinary();
    options.spool = format!(
        "  directory: {}\n  telemetry_bytes_max: 4194304\n  alert_bytes_max: 4194304\n  \
         segment_bytes_max: 1048576\n",
        directory.display()
    );
    world.special_agent();
    world.daemons.end_agent(Signal::SIGTERM)?;
    world.daemons.start_agent(&options)?;
    Flood::prepare()?;
    let device = Flood::device()?;
    let ledger = Ledger::open(world)?;
    world.daemons.end_collector(Signal::SIGTERM)?;
    let done = Flood::start(&device, 4 * ROUNDS, 1)?.end()?;
    world.daemons.start_collector()?;
    ledger.close(world, &done, Kinds::Known)?;
    lost_at(world, "spool")
}

/// As near to a power cut as it gets without another boot: both daemons end at once, the disk with
/// spool and store forgets what was not synced, and the kernel's half is gone.
fn power_lost(world: &mut World) -> Result<()> {
    let store = world.daemons.path("collector");
    let disk = Disk::make()?;
    world.special_agent();
    world.daemons.end_agent(Signal::SIGTERM)?;
    world.daemons.end_collector(Signal::SIGTERM)?;
    let place = disk.path("collector");
    move_store(&store, &place)?;
    std::fs::remove_dir_all(&store)?;
    symlink(&place, &store)?;
    let outcome = survive(world, &disk);
    // What did not come up has ended already.
    let _ = world.daemons.end_agent(Signal::SIGTERM);
    let _ = world.daemons.end_collector(Signal::SIGTERM);
    std::fs::remove_file(&store)?;
    move_store(&place, &store)?;
    outcome
}

fn move_store(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    check::ok(&guest::run("cp", &["-a".as_ref(), from.as_os_str(), to.as_os_str()])?)?;
    check::ok(&guest::run::<&str>("sync", &[])?)
}

fn survive(world: &mut World, disk: &Disk) -> Result<()> {
    let mut options = world.daemons.ordinary();
    options.spool = format!("  directory: {}\n", disk.path("spool").display());
    world.daemons.start_collector()?;
    world.records.forget()?;
    let records = world.records.clone();
    world.daemons.start_agent(&options)?;

    Flood::prepare()?;
    let device = Flood::device()?;
    let flood = Flood::start(&device, 2 * ROUNDS, 1)?;
    flood.half()?;
    let status = world.daemons.ask()?;
    world.daemons.end_agent(Signal::SIGKILL)?;
    world.daemons.end_collector(Signal::SIGKILL)?;
    disk.lose_power()?;
    let done = flood.end()?;
    forget_the_kernels_half()?;
    world.daemons.start_collector()?;
    world.daemons.start_agent(&options)?;
    check::ok(&guest::run("umount", &[BOOT])?)?;

    world.daemons.settle(&world.records)?;
    let stored = records.search(&[])?;
    each_once(&stored)?;
    let boot = records::text(&status, "/status/boot").replace('-', "");
    let of_boot = |it: &&Value| records::text(it, "/boot").replace('-', "") == boot;
    let before = stored.iter().filter(of_boot).count() as u64;
    let acknowledged = records::number(&status, "/status/collector/acknowledged");
    check::that(acknowledged > 0, "nothing was acknowledged before the cut")?;
    check::that(
        before >= acknowledged,
        format!("{acknowledged} were acknowledged, and {before} are stored"),
    )?;
    check::that(stored.iter().any(|it| done.made(it)), "nothing of the flood is stored")?;
    world.records.wait("the gap", &["--kind", "agent"], |all| {
        let gap = "until now nothing was recorded or enforced";
        all.iter().any(|it| records::text(it, "/message").contains(gap))
    })?;
    account(world, ROUNDS, Kinds::Known, nothing)
}

const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Programs, rings and counters go, and the boot gets another name.
fn forget_the_kernels_half() -> Result<()> {
    std::fs::remove_dir_all("/sys/fs/bpf/sekimori")?;
    let other = "/run/sekimori-boot-id";
    guest::write(other, "01234567-89ab-cdef-0123-456789abcdef\n")?;
    check::ok(&guest::run("mount", &["--bind", other, BOOT])?)
}
