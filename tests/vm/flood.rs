//! A flood of every kind, of which is known what it did.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::guest::{self, Background, USB, USB_SERIAL};
use crate::{check, limits, records};

const SCRIPT: &str = concat!(include_str!("calls.py"), include_str!("flood.py"));
const LOG: &str = "/run/sekimori-flood.log";
const HALF: &str = "/run/sekimori-flood-half";
const PLACE: &str = "/mnt/flood";

/// A flood that goes on in the background.
#[derive(Debug)]
pub struct Flood(Background);

/// What it did.
#[derive(Debug)]
pub struct Done {
    /// Operations that make a record, by kind.
    pub counts: BTreeMap<String, u64>,
    /// The processes that did them.
    pub pids: HashSet<u64>,
    /// Receipts that the agent made of it, where that is known: one for each file that was written,
    /// as long as no close was lost and no agent killed.
    pub receipts: u64,
}

impl Flood {
    /// What must be there before. Making it makes records.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn prepare() -> Result<()> {
        let source =
            format!("/srv/outside/{}/source.txt", ["s".repeat(250).as_str(); 11].join("/"));
        guest::write(source, "x")?;
        guest::write(format!("{USB}/flood.bin"), "flood")?;
        std::fs::create_dir_all(PLACE).context("a place to mount the stick")
    }

    /// Starts. Each round does a few operations of each kind, and `sources` opens that fill the
    /// ring and are not stored.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(device: &str, rounds: u64, sources: u64) -> Result<Self> {
        let _ = std::fs::remove_file(HALF);
        let mut command = Command::new("python3");
        command.args(["-I", "-S", "-c", SCRIPT, &rounds.to_string(), &sources.to_string()]);
        command.args([USB, device, PLACE, HALF]);
        Ok(Self(Background::start(command, Path::new(LOG))?))
    }

    /// The device of the stick that it writes to and mounts.
    ///
    /// # Errors
    /// When it is not plugged in.
    pub fn device() -> Result<String> {
        let output = guest::run("sekimori-stick", &["device", USB_SERIAL])?;
        check::ok(&output)?;
        Ok(output.text())
    }

    /// Waits until half of it is done.
    ///
    /// # Errors
    /// When it does not come so far.
    pub fn half(&self) -> Result<()> {
        let half = Path::new(HALF);
        guest::until("half of the flood", limits::PROGRAM_TIMEOUT, || Ok(half.exists()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When an operation failed that should not.
    pub fn end(mut self) -> Result<Done> {
        let status = self.0.wait()?;
        let said = std::fs::read_to_string(LOG)?;
        check::that(status == 0, format!("the flood ended with {status}: {said}"))?;
        let said: Value = serde_json::from_str(said.trim()).context(said)?;
        let counts = said.get("done").and_then(Value::as_object).context("no counts")?;
        let counts = counts.iter().map(|(kind, count)| (kind.clone(), count.as_u64().unwrap_or(0)));
        let receipts = records::number(&said, "/receipts");
        let pids = said.get("pids").and_then(Value::as_array).context("no processes")?;
        let pids = pids.iter().filter_map(Value::as_u64).collect();
        Ok(Done { counts: counts.collect(), pids, receipts })
    }
}

impl Done {
    /// Nobody knows how many receipts there are.
    #[must_use]
    pub fn without_receipts(self) -> Self {
        Self { receipts: 0, ..self }
    }

    /// Whether it was the flood that made this record.
    #[must_use]
    pub fn made(&self, record: &Value) -> bool {
        self.pids.contains(&records::number(record, "/process/pid"))
    }
}
