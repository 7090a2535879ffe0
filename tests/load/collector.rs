//! The program `sekimori-collector`, on its own processor with a store of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::ProcState;

use crate::bench::Bench;
use crate::cores;
use crate::meter::{self, in_seconds};

/// How long a stop may take before the collector is killed.
const STOP_SECONDS: u64 = 60;
/// What is in the directory of one collector.
const STORE: &str = "events.db";
/// Time between two looks at whether it has ended.
const STOP_PAUSE: Duration = Duration::from_millis(20);
/// Unit of `st_blocks`, whatever the file system.
const BLOCK_BYTES: u64 = 512;

/// A collector that runs; it is killed when this is dropped, and its store removed.
#[derive(Debug)]
pub struct Collector {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    store: PathBuf,
}

/// What is left of a collector that was asked to stop.
#[derive(Debug, Clone, Copy)]
pub struct Stopped {
    /// Seconds of CPU that it spent on stopping.
    pub cpu_s: f64,
    /// Bytes that the store takes on the disk.
    pub store_bytes: u64,
}

impl Collector {
    /// Starts one with an empty store.
    ///
    /// # Errors
    /// When it does not come to listen.
    pub fn start(bench: &Bench, name: &str) -> Result<Self> {
        Self::start_with(bench, name, &[])
    }

    /// The same, with further arguments.
    ///
    /// # Errors
    /// The same.
    pub fn start_with(bench: &Bench, name: &str, arguments: &[&Path]) -> Result<Self> {
        let store = bench.directory().join(format!("store-{name}"));
        std::fs::create_dir(&store).with_context(|| format!("cannot make {}", store.display()))?;
        let mut command = Command::new(&bench.program);
        command.args(["run", "--listen", "127.0.0.1:0", "--dir"]).arg(&bench.pki);
        command.arg("--store").arg(store.join(STORE)).args(arguments).stderr(Stdio::piped());
        // It inherits where we are.
        cores::stay_on(bench.cores.collector)?;
        let child = command.stdin(Stdio::null()).spawn();
        cores::stay_on(bench.cores.load)?;
        let mut child =
            child.with_context(|| format!("cannot start {}", bench.program.display()))?;
        let stderr = child.stderr.take();
        let address = "0.0.0.0:0".parse()?;
        let mut collector = Self { child, address, store };
        let lines = BufReader::new(stderr.context("the collector has no stderr")?);
        collector.address = listens(lines)?;
        Ok(collector)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes that its store takes on the disk now.
    pub fn store_bytes(&self) -> u64 {
        bytes_below(&self.store)
    }

    /// Stops it as a service manager does.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub async fn stop(mut self) -> Result<Stopped> {
        let cpu_s = self.end().await?;
        Ok(Stopped { cpu_s, store_bytes: self.store_bytes() })
    }

    /// The same, and moves its store to where it stays.
    ///
    /// # Errors
    /// The same, and when it cannot be moved.
    pub async fn stop_and_keep(mut self, to: &Path) -> Result<()> {
        self.end().await?;
        let store = self.store.join(STORE);
        std::fs::rename(&store, to).with_context(|| format!("cannot move {}", store.display()))
    }

    /// Seconds of CPU that it spent on stopping.
    async fn end(&mut self) -> Result<f64> {
        let pid = self.pid();
        let before = meter::cpu_s(pid)?;
        kill(Pid::from_raw(pid.try_into()?), Signal::SIGTERM)?;
        let deadline = in_seconds(STOP_SECONDS);
        // Until it is waited for, what it spent can still be read.
        while !has_ended(pid)? {
            if Instant::now() > deadline {
                bail!("the collector does not stop in {STOP_SECONDS} s");
            }
            tokio::time::sleep(STOP_PAUSE).await;
        }
        let cpu_s = meter::cpu_s(pid)? - before;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the collector ended with {status}");
        }
        Ok(cpu_s)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Both fail when it has ended, and then nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.store);
    }
}

fn has_ended(pid: u32) -> Result<bool> {
    let stat = procfs::process::Process::new(pid.try_into()?)?.stat()?;
    Ok(stat.state()? == ProcState::Zombie)
}

/// Reads where it listens, and then on: a full pipe would hold it up. Troubles are shown.
fn listens(mut lines: BufReader<ChildStderr>) -> Result<SocketAddr> {
    let mut seen = String::new();
    let address = loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            bail!("the collector ended at once: {}", seen.trim());
        }
        match line.split_once("listening on ") {
            Some((_, address)) => break address.trim().parse()?,
            None => seen.push_str(&line),
        }
    };
    std::thread::spawn(move || {
        let lines = lines.lines().map_while(std::io::Result::ok);
        lines.filter(|line| line.contains("WARN") || line.contains("ERROR")).for_each(|line| {
            eprintln!("collector: {line}");
        });
    });
    Ok(address)
}

/// What the files below a directory take on the disk.
fn bytes_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.blocks() * BLOCK_BYTES,
        Err(_) => 0,
    });
    bytes.sum()
}
