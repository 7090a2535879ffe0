//! What an event takes in the store, and in the archive that is made of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::agents::{Agents, Pace};
use crate::bench::{Bench, HOSTS};
use crate::collector::Collector;
use crate::figures::Figures;
use crate::meter::seconds_of_children;

/// Events of the store, unless more are wanted.
const EVENTS: u64 = 500_000;
const STEP_NS: i64 = 50_000_000;

pub async fn measure(bench: &Bench) -> Result<()> {
    let collector = Collector::start(bench, "archive")?;
    let mut agents = Agents::connect(bench, collector.address, 0..HOSTS, STEP_NS).await?;
    let pace = Pace { each: EVENTS / HOSTS, until: None, batch: 1000, in_flight: 2 };
    let stored = agents.deliver(pace).await?;
    drop(agents);
    let store = bench.directory().join("store-kept");
    collector.stop_and_keep(&store).await?;
    let file = only_file(&store)?;
    let store_bytes = fs::metadata(&file)?.len();
    // Behind a newer one it is not written to any more.
    fs::write(store.join("999999-2999-12-31.db"), "")?;
    let to = bench.directory().join("archive");
    let mut command = Command::new(&bench.program);
    command.arg("archive").arg("--store").arg(&store).arg("--to").arg(&to);
    let before = seconds_of_children()?;
    let output = command.output().context("cannot start the collector")?;
    let cpu_s = seconds_of_children()? - before;
    if !output.status.success() {
        bail!("archive: {}", String::from_utf8_lossy(&output.stderr));
    }
    let line: Value = serde_json::from_slice(&fs::read(to.join("manifest.jsonl"))?)?;
    let figure = |name: &str| line.get(name).and_then(Value::as_u64).context("no such figure");
    let (rows, bytes) = (figure("rows")?, figure("bytes")?);
    ensure!(rows >= stored, "{stored} events were stored and {rows} are in the archive");
    Figures::new("archive", &format!("{rows} events"))
        .number("store B/event", store_bytes as f64 / rows as f64)
        .number("Parquet B/event", bytes as f64 / rows as f64)
        .number("of the store", bytes as f64 / store_bytes as f64)
        .number("CPU µs/event", cpu_s * 1e6 / rows as f64)
        .note("each event is there as columns, and as the bytes that were signed")
        .print();
    fs::remove_dir_all(&store)?;
    fs::remove_dir_all(&to)?;
    Ok(())
}

fn only_file(store: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(store)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        // What is known of hosts, policies and alerts lies beside them.
        if name.ends_with(".db") && name.starts_with(|first: char| first.is_ascii_digit()) {
            found.push(path);
        }
    }
    match found.as_slice() {
        [file] => Ok(file.clone()),
        _ => bail!("{} files of the store: the day ended meanwhile; measure again", found.len()),
    }
}
