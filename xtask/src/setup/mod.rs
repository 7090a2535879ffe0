//! `cargo xtask setup`: everything that building and testing need and the machine lacks.

pub mod apt;
mod bucket;
mod bus;
pub mod kernels;
mod python;
mod reader;
pub mod rust_src;
mod schemas;
pub mod tools;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use crate::cache;

/// What to set up.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Look for newer kernels on the mirror
    #[arg(long)]
    pub refresh: bool,
    /// Only this kernel series; may be given several times
    #[arg(long, value_name = "SERIES")]
    pub kernel: Vec<String>,
}

/// Does every step that is still to be done, and records the versions in the cache.
///
/// # Errors
/// When a step fails. The steps after it are tried all the same, and the error names them all.
pub fn run(options: &Options) -> Result<()> {
    let mut used = Map::new();
    let mut failures = Vec::new();
    match rust_src::ensure() {
        Ok(version) => note(&mut used, "rust-src", &version),
        Err(error) => failures.push(format!("rust-src: {error:#}")),
    }
    match tools::ensure_packages() {
        Ok(count) => println!("ok     {count} programs"),
        Err(error) => failures.push(format!("{error:#}")),
    }
    if let Err(error) = tools::ensure_crates(|name, version| note(&mut used, name, version)) {
        failures.push(format!("{error:#}"));
    }
    if let Err(error) = schemas::ensure(|name, version| note(&mut used, name, version)) {
        failures.push(format!("{error:#}"));
    }
    for package in [reader::READER, bucket::SERVER] {
        match package.ensure() {
            Ok(version) => note(&mut used, package.name, &version),
            Err(error) => failures.push(format!("{}: {error:#}", package.name)),
        }
    }
    match bus::ensure() {
        Ok(version) => note(&mut used, "nats-server", &version),
        Err(error) => failures.push(format!("nats-server: {error:#}")),
    }
    kernels(options, &mut used, &mut failures)?;
    let record = cache::directory()?.join("setup.json");
    std::fs::write(&record, serde_json::to_string_pretty(&used)?)?;
    println!("used   {}", Value::Object(used));
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{} steps failed\n{}", failures.len(), failures.join("\n"));
}

fn kernels(
    options: &Options,
    used: &mut Map<String, Value>,
    failures: &mut Vec<String>,
) -> Result<()> {
    let matrix = kernels::Matrix::read()?;
    for name in &options.kernel {
        matrix.series(Some(name))?;
    }
    if options.refresh
        && let Err(error) = apt::PrivateApt::open(true)
    {
        failures.push(format!("refresh: {error:#}"));
    }
    let wanted = |series: &&kernels::Series| {
        options.kernel.is_empty() || options.kernel.contains(&series.series)
    };
    for series in matrix.kernel.iter().filter(wanted) {
        match series.ensure(options.refresh) {
            Ok(kernel) => {
                println!("ok     linux {} ({})", kernel.version, kernel.release);
                used.insert(format!("linux {}", series.series), json!(kernel.version));
            }
            Err(error) => failures.push(format!(
                "linux {}: {error:#}\n  it comes from the Debian mirror in the machine's apt sources: \
                 run `cargo xtask setup` again where the mirror can be reached",
                series.series
            )),
        }
    }
    Ok(())
}

fn note(used: &mut Map<String, Value>, name: &str, version: &str) {
    println!("ok     {name} {version}");
    used.insert(name.to_owned(), json!(version));
}
