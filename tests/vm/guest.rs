//! Programs, files and sticks of the guest.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::limits::{POLL_INTERVAL, PROGRAM_TIMEOUT};

/// What a program gave back.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code, or 128 and the signal.
    pub status: i32,
    /// Its output.
    pub stdout: Vec<u8>,
    /// Its complaints.
    pub stderr: Vec<u8>,
    /// Its process id.
    pub pid: u32,
}

impl Output {
    /// The output as text, without the end of the last line.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// The complaints as text.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started or does not end.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command)
}

/// Runs a bash script to its end. `$1` and so on are `arguments`.
///
/// # Errors
/// When it does not end.
pub fn bash(script: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]).args(arguments);
    run_command(command)
}

/// Runs a Python script to its end. `sys.argv[1]` and so on are `arguments`.
///
/// # Errors
/// When it does not end.
pub fn python<S: AsRef<OsStr>>(script: &str, arguments: &[S]) -> Result<Output> {
    let mut command = Command::new("python3");
    command.args(["-I", "-S", "-c", script]).args(arguments);
    run_command(command)
}

/// Runs a Python script that has `call`, `same` and `refused` of `calls.py` to its end.
///
/// # Errors
/// When it does not end.
pub fn calls<S: AsRef<OsStr>>(script: &str, arguments: &[S]) -> Result<Output> {
    python(&format!("{}{script}", include_str!("calls.py")), arguments)
}

/// Runs a Python script that has `Ring` and `submit` of `ring.py` to its end.
///
/// # Errors
/// When it does not end.
pub fn ring<S: AsRef<OsStr>>(script: &str, arguments: &[S]) -> Result<Output> {
    python(&format!("{}{script}", include_str!("ring.py")), arguments)
}

/// Runs a prepared command to its end.
///
/// # Errors
/// When it cannot be started or does not end.
pub fn run_command(mut command: Command) -> Result<Output> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| shortened(&word.to_string_lossy()))
        .collect();
    let text = words.join(" ");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.env("LC_ALL", "C.UTF-8");
    let mut child = command.spawn().with_context(|| format!("cannot start {text}"))?;
    let pid = child.id();
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let started = Instant::now();
    let status = loop {
        // What it has left behind may still hold its output.
        if let Some(status) = child.try_wait()?
            && stdout.is_finished()
            && stderr.is_finished()
        {
            break status;
        }
        if started.elapsed() > PROGRAM_TIMEOUT {
            kill_group(&mut child);
            bail!("`{text}` did not end within {} s", PROGRAM_TIMEOUT.as_secs());
        }
        std::thread::sleep(POLL_INTERVAL / 5);
    };
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    let (stdout, stderr) = (joined(stdout), joined(stderr));
    Ok(Output { command: text, status, stdout, stderr, pid })
}

fn shortened(word: &str) -> String {
    word.chars().take(160).collect()
}

fn reader(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn joined(handle: JoinHandle<Vec<u8>>) -> Vec<u8> {
    handle.join().unwrap_or_default()
}

fn kill_group(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.wait();
}

/// A program in the background; it and its children end when this is dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
}

impl Background {
    /// Starts `command`; its output goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let out = std::fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        let child = command.spawn().context("cannot start a program in the background")?;
        Ok(Self { child })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// When the kernel does not know it.
    pub fn lives(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Asks it to end, as Ctrl-C does.
    ///
    /// # Errors
    /// When it has ended and was waited for.
    pub fn interrupt(&self) -> Result<()> {
        Ok(killpg(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGINT)?)
    }

    /// Waits for its end; the exit code, or 128 and the signal.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait(&mut self) -> Result<i32> {
        let mut status = None;
        until("a program in the background ends", PROGRAM_TIMEOUT, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        let status = status.context("no status")?;
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        kill_group(&mut self.child);
    }
}

/// Waits until `ready` answers yes.
///
/// # Errors
/// When it does not within `patience`, or fails.
pub fn until(
    what: &str,
    patience: std::time::Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    while !ready()? {
        if started.elapsed() > patience {
            bail!("waited {} s in vain: {what}", patience.as_secs());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Writes a file and the directories above it.
///
/// # Errors
/// When that is refused.
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
    let path = path.as_ref();
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Where the permitted stick is mounted.
pub const USB: &str = "/mnt/usb";
/// Where the stick is mounted that is on no list.
pub const OTHER: &str = "/mnt/other";
/// The permitted stick, vfat.
pub const USB_SERIAL: &str = "SEKI0001";
/// The stick that is on no list, ext4.
pub const OTHER_SERIAL: &str = "SEKI0002";

/// Mounts a plugged stick.
///
/// # Errors
/// When it is not there or mount fails.
pub fn mount(serial: &str, at: &str) -> Result<PathBuf> {
    let device = run("sekimori-stick", &["device", serial])?;
    std::fs::create_dir_all(at)?;
    // The host may have mounted it already.
    let _ = run("umount", &[at])?;
    let mounted = run("mount", &[device.text().as_str(), at])?;
    if mounted.status != 0 {
        bail!("cannot mount {serial} at {at}: {} {}", device.errors(), mounted.errors());
    }
    Ok(device.text().into())
}
