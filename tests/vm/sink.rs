//! Small servers on loopback addresses that say how many bytes they got.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::guest::{self, Background};
use crate::limits::PROGRAM_TIMEOUT;

const SCRIPT: &str = include_str!("sink.py");

/// A server; it ends when this is dropped.
#[derive(Debug)]
pub struct Sink {
    log: PathBuf,
    _server: Background,
}

impl Sink {
    /// Starts a server of `kind` (`raw`, `http` or `datagram`) and waits until it listens.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(kind: &str, address: &str, port: u16) -> Result<Self> {
        let log = PathBuf::from(format!("/run/sekimori-sink-{kind}-{port}.log"));
        let mut command = Command::new("python3");
        command.args(["-I", "-S", "-c", SCRIPT, kind, address, &port.to_string()]);
        let server = Background::start(command, &log)?;
        let sink = Self { log, _server: server };
        guest::until("a server listens", PROGRAM_TIMEOUT, || Ok(sink.lines()?.contains("ready")))
            .with_context(|| format!("{kind} {address} {port}: {:?}", sink.lines()))?;
        Ok(sink)
    }

    fn lines(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Bytes that came with each connection or datagram so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn received(&self) -> Result<Vec<u64>> {
        let lines = self.lines()?;
        let numbers = lines.lines().filter_map(|line| line.strip_prefix("bytes "));
        Ok(numbers.filter_map(|number| number.parse().ok()).collect())
    }

    /// Waits for the first connection or datagram and answers its bytes.
    ///
    /// # Errors
    /// When nothing comes.
    pub fn first(&self) -> Result<u64> {
        guest::until("a server receives", PROGRAM_TIMEOUT, || Ok(!self.received()?.is_empty()))?;
        self.received()?.first().copied().context("nothing came")
    }
}
