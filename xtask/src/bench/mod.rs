//! `cargo xtask bench`: what the monitor costs, counted in instructions; and what the collector
//! bears, measured on this machine.

mod collector;
mod figures;
mod marks;
mod peers;
mod report;
mod text;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::figures::Figures;
use crate::setup::kernels::{Matrix, Series};
use crate::vm::{self, Accelerator, Lines, Request, Show};
use crate::{build, process, setup, test};

const TIMEOUT: Duration = Duration::from_secs(7200);

/// Which measurements to take.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    pub part: Option<Part>,
    /// Kernel series [default: the matrix's default; with --verifier all of them]
    #[arg(long, value_name = "SERIES")]
    pub kernel: Option<String>,
    /// Use the programs that `cargo xtask build --release` made last, as they are
    #[arg(long)]
    pub no_build: bool,
    /// Only tell how many instructions the verifier of each kernel looks at
    #[arg(long)]
    pub verifier: bool,
    /// Only measure auditd and the tools of libbpf-tools, the same way
    #[arg(long, conflicts_with = "verifier")]
    pub peers: bool,
    /// Only operations with this in their name, and only with few rules
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["verifier", "peers"])]
    pub operation: Option<String>,
}

/// What is measured without a VM.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Part {
    /// Measure here what the collector bears: ingest, memory, disk, questions
    Collector(collector::Options),
}

/// Boots a guest that counts its instructions, measures there, and prints the tables. The figures
/// go to `target/bench-SERIES.json` too.
///
/// # Errors
/// When the guest does not come up or a measurement fails.
pub fn run(options: &Options) -> Result<u8> {
    if let Some(Part::Collector(options)) = &options.part {
        return collector::run(options);
    }
    let matrix = Matrix::read()?;
    let series: Vec<Series> = match &options.kernel {
        None if options.verifier => matrix.kernel,
        kernel => vec![matrix.series(kernel.as_deref())?.clone()],
    };
    if !options.no_build {
        let kernel = series.iter().map(|one| one.series.clone()).collect();
        setup::run(&setup::Options { refresh: false, kernel })?;
        build::run(build::Options { release: true, ..build::Options::default() })?;
    }
    if options.verifier {
        verifier::run(&series)?;
        return Ok(0);
    }
    let kernel = &series.first().context("tests/vm/kernels.toml has no kernel")?.series;
    if options.peers {
        return peers(kernel);
    }
    if let Some(text) = &options.operation {
        return measure(kernel, &["--operation", text]).1.map(|()| 0);
    }
    let (figures, outcome) = measure(kernel, &[]);
    let mut all = serde_json::to_value(&figures)?;
    if let Some(fields) = all.as_object_mut() {
        fields.insert("marks".to_owned(), serde_json::to_value(marks::of(&figures))?);
    }
    let path = keep(&format!("bench-{kernel}.json"), &all)?;
    print!("{}", report::report(&figures));
    println!("\nfigures: {}", path.display());
    outcome.map(|()| 0)
}

fn peers(kernel: &str) -> Result<u8> {
    let packages = peers::unpack()?;
    let (figures, outcome) = measure(kernel, &["--peers", &packages.to_string_lossy()]);
    let path = keep(&format!("bench-peers-{kernel}.json"), &serde_json::to_value(&figures)?)?;
    print!("\nAdded by other monitors, their own work counted:\n\n{}", peers::report(&figures));
    println!("\nfigures: {}", path.display());
    outcome.map(|()| 0)
}

/// Writes figures below `target`.
fn keep(name: &str, figures: &serde_json::Value) -> Result<PathBuf> {
    let path = process::repository()?.join("target").join(name);
    std::fs::write(&path, serde_json::to_string_pretty(figures)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// What was measured before something failed is there.
fn measure(kernel: &str, arguments: &[&str]) -> (Figures, Result<()>) {
    println!("bench  linux {kernel} in a VM that counts instructions; this takes minutes");
    let lines = Lines::default();
    let outcome = guest(kernel, arguments, &lines);
    let mut figures = Figures::default();
    if let Ok(lines) = lines.lock() {
        figures.add(&lines);
    }
    (figures, outcome)
}

fn guest(kernel: &str, arguments: &[&str], lines: &Lines) -> Result<()> {
    let show = Show::Prefixed(format!("{kernel} | "), Arc::clone(lines));
    let command = [test::SCENARIOS, "bench"].iter().chain(arguments);
    let outcome = vm::boot(&Request {
        timeout: Some(TIMEOUT),
        accelerator: Accelerator::Count,
        release: true,
        command: command.map(|&it| it.to_owned()).collect(),
        ..Request::new(kernel.to_owned(), Vec::new(), show)
    })?;
    if outcome.status != 0 {
        bail!("the measurements in the guest failed with status {}", outcome.status);
    }
    Ok(())
}
