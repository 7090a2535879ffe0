//! `cargo xtask vm`: a command in a guest that has this machine's userland, another kernel, and
//! USB sticks.

mod channel;
mod image;
mod init;
mod initramfs;
mod qemu;
mod qmp;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use channel::{Lines, Show};
pub use image::Stick;
pub use qemu::Accelerator;

use crate::setup::kernels::{Kernel, Matrix};
use crate::{build, process};

/// A guest that has not come up by then will not.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
/// KVM boots in a second or not at all.
const KVM_BOOT_TIMEOUT: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const LOG_TAIL_LINES: usize = 40;

/// How to boot, and what to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Kernel series, from tests/vm/kernels.toml
    #[arg(long, value_name = "SERIES")]
    pub kernel: Option<String>,
    /// A USB stick that is plugged from the start; may be given several times
    #[arg(long = "stick", value_name = "SIZE:SERIAL[:vfat|ext4|exfat|xfs|btrfs]")]
    pub sticks: Vec<Stick>,
    /// Start collector and agent with this policy before the command
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Mount the first stick here
    #[arg(long, value_name = "DIR")]
    pub mount: Option<PathBuf>,
    /// Use the programs as they were built before
    #[arg(long)]
    pub no_build: bool,
    /// End the guest after this many seconds (0: never)
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
    /// What executes the guest
    #[arg(long, value_enum, default_value_t)]
    pub accel: Accelerator,
    /// The command, run by root; a shell when there is none
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// What one boot is asked to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// Kernel series; the default one when there is none.
    pub kernel: Option<String>,
    /// Sticks plugged from the start.
    pub sticks: Vec<Stick>,
    /// Policy to start the agent with.
    pub policy: Option<PathBuf>,
    /// Where the first stick is mounted.
    pub mount: Option<PathBuf>,
    /// When to give up; never when there is none.
    pub timeout: Option<Duration>,
    /// For how long the command may say nothing, where its lines are kept.
    pub silence: Option<Duration>,
    /// What executes the guest.
    pub accelerator: Accelerator,
    /// Take the programs of `cargo xtask build --release`.
    pub release: bool,
    /// The command and its arguments; a shell on our terminal when empty.
    pub command: Vec<String>,
    /// How its output is shown.
    pub show: Show,
}

impl Request {
    /// A shell on this kernel, with nothing else asked for.
    #[must_use]
    pub fn new(kernel: String, sticks: Vec<Stick>, show: Show) -> Self {
        Self {
            kernel: Some(kernel),
            sticks,
            show,
            policy: None,
            mount: None,
            timeout: None,
            silence: None,
            accelerator: Accelerator::Tcg,
            release: false,
            command: Vec::new(),
        }
    }

    /// Whether the guest gets our terminal.
    #[must_use]
    pub fn interactive(&self) -> bool {
        self.command.is_empty()
    }
}

/// How a guest ended.
#[derive(Debug)]
pub struct Outcome {
    /// The command's exit status.
    pub status: u8,
    /// From the start of QEMU to the start of the command.
    pub boot: Duration,
}

/// Builds, boots and runs the command; returns its exit status.
///
/// # Errors
/// When something cannot be built, or the guest does not come up, hangs or dies.
pub fn run(options: Options) -> Result<u8> {
    if !options.no_build {
        build::run(build::Options::default())?;
    }
    let outcome = boot(&Request {
        kernel: options.kernel,
        sticks: options.sticks,
        policy: options.policy,
        mount: options.mount,
        timeout: (options.timeout > 0).then(|| Duration::from_secs(options.timeout)),
        silence: None,
        accelerator: options.accel,
        release: false,
        command: options.command,
        show: Show::AsIs,
    })?;
    Ok(outcome.status)
}

/// Boots one guest and runs its command.
///
/// # Errors
/// When the guest does not come up, hangs, dies, or ends without a status.
pub fn boot(request: &Request) -> Result<Outcome> {
    let kernel = Matrix::read()?.series(request.kernel.as_deref())?.ensure(false)?;
    match attempt(request, &kernel, request.accelerator) {
        Err(error) if error.is::<NotBooted>() && request.accelerator == Accelerator::Kvm => {
            eprintln!("vm: {error:#}; using the translator instead of KVM");
            attempt(request, &kernel, Accelerator::Tcg)
        }
        outcome => outcome,
    }
}

/// The guest never got as far as its command.
#[derive(Debug, thiserror::Error)]
#[error("the guest did not come up within {} s", .0.as_secs())]
struct NotBooted(Duration);

fn attempt(request: &Request, kernel: &Kernel, accelerator: Accelerator) -> Result<Outcome> {
    let directory = run_directory()?;
    let share = directory.path().join("share");
    let programs = copy_programs(&process::repository()?, request.release, directory.path())?;
    init::write_share(&share, request, kernel)?;
    for stick in &request.sticks {
        stick.make(directory.path())?;
    }
    let machine = qemu::Machine {
        kernel,
        initramfs: initramfs::build(kernel, directory.path())?,
        directory: directory.path(),
        share: share.clone(),
        programs: &programs,
        sticks: &request.sticks,
        accelerator,
        interactive: request.interactive(),
    };
    let outcome = follow(&machine, request, &share);
    if outcome.as_ref().map_or(true, |outcome| outcome.status != 0) {
        let keep_tail = outcome.is_err();
        if let Err(error) = keep_logs(&machine, &share, keep_tail) {
            eprintln!("vm: the kernel log could not be kept: {error:#}");
        }
    }
    outcome
}

/// Starts the guest and stays with it to its end.
fn follow(machine: &qemu::Machine, request: &Request, share: &Path) -> Result<Outcome> {
    let started = Instant::now();
    let mut guest = machine.start()?;
    let output = channel::copy_output(guest.output.try_clone()?, request.show.clone(), false);
    let errors = channel::copy_output(guest.errors.try_clone()?, request.show.clone(), true);
    let (booted, booting) = channel();
    channel::serve(
        guest.control.try_clone()?,
        guest.qmp.try_clone()?,
        machine.directory.to_path_buf(),
        booted,
    );
    let limit = match machine.accelerator {
        Accelerator::Kvm => KVM_BOOT_TIMEOUT,
        Accelerator::Tcg | Accelerator::Count => BOOT_TIMEOUT,
    };
    let boot = wait_for_boot(&mut guest, &booting, started, limit)?;
    let mut said = (request.show.lines(), Instant::now());
    loop {
        if guest.ended()?.is_some() {
            break;
        }
        if let Some(timeout) = request.timeout.filter(|timeout| started.elapsed() > *timeout) {
            bail!("the guest was ended after {} s", timeout.as_secs());
        }
        if said.0 != request.show.lines() {
            said = (request.show.lines(), Instant::now());
        }
        if let Some(silence) = request.silence.filter(|silence| said.1.elapsed() > *silence) {
            bail!("the guest was ended: it has said nothing for {} s", silence.as_secs());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    let _ = output.join();
    let _ = errors.join();
    let status = std::fs::read_to_string(share.join("status"))
        .context("the guest died before its command ended")?;
    let status =
        status.trim().parse().with_context(|| format!("the guest's status is {status:?}"))?;
    Ok(Outcome { status, boot })
}

fn wait_for_boot(
    guest: &mut qemu::Qemu,
    booting: &Receiver<()>,
    started: Instant,
    limit: Duration,
) -> Result<Duration> {
    loop {
        match booting.recv_timeout(POLL_INTERVAL) {
            Ok(()) => return Ok(started.elapsed()),
            Err(RecvTimeoutError::Disconnected) if guest.ended()?.is_none() => {
                std::thread::sleep(POLL_INTERVAL);
            }
            Err(_) => {}
        }
        if guest.ended()?.is_some() {
            bail!("the guest died while it booted");
        }
        if started.elapsed() > limit {
            return Err(NotBooted(limit).into());
        }
    }
}

/// Copies the logs out of the run's directory and says where they are.
fn keep_logs(machine: &qemu::Machine, share: &Path, show_tail: bool) -> Result<()> {
    let kept = process::repository()?.join("target/vm");
    crate::cache::make(&kept)?;
    let serial = std::fs::read(machine.kernel_log()).unwrap_or_default();
    let buffer = std::fs::read(share.join("dmesg.log")).unwrap_or_default();
    let log = if buffer.is_empty() { serial } else { buffer };
    let text = String::from_utf8_lossy(&log);
    let path = kept.join(format!("kernel-{}.log", machine.kernel.series));
    std::fs::write(&path, text.as_bytes())?;
    for name in ["agent", "collector"] {
        let from = share.join(format!("{name}.log"));
        if from.is_file() {
            std::fs::copy(from, kept.join(format!("{name}-{}.log", machine.kernel.series)))?;
        }
    }
    if show_tail {
        let lines: Vec<_> = text.lines().collect();
        let tail = lines.len().saturating_sub(LOG_TAIL_LINES);
        for line in lines.iter().skip(tail) {
            eprintln!("kernel | {line}");
        }
    }
    eprintln!("vm: logs: {} and beside it", path.display());
    Ok(())
}

/// The guest runs copies, so that a build meanwhile does not change programs under its feet.
fn copy_programs(repository: &Path, release: bool, directory: &Path) -> Result<PathBuf> {
    let built = repository.join(build::profile_dir(release));
    let copies = directory.join("programs");
    crate::cache::make(&copies)?;
    for name in build::GUEST_PROGRAMS {
        let from = built.join(name);
        std::fs::copy(&from, copies.join(name))
            .with_context(|| format!("{} is missing: run `cargo xtask build`", from.display()))?;
    }
    Ok(copies)
}

/// A directory for one run; those of runs that were killed are removed on the way.
fn run_directory() -> Result<tempfile::TempDir> {
    const PREFIX: &str = "sekimori-vm-";
    let parent = std::env::temp_dir();
    for entry in std::fs::read_dir(&parent)?.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in(&parent)
        .with_context(|| format!("cannot make a directory in {}", parent.display()))
}
