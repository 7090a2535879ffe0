//! `cargo xtask fuzz`: any bytes into what reads bytes from outside, guided by coverage.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{build, cache, process};

/// The programs of `tests/fuzz`.
const TARGETS: [&str; 10] = [
    "record",
    "record_fields",
    "btf",
    "flow",
    "policy",
    "ingest",
    "expression",
    "bundle",
    "case",
    "csr",
];
const MANIFEST: &str = "tests/fuzz/Cargo.toml";
/// Everything that fuzzing makes, below the repository: programs, inputs, findings, logs.
const DIRECTORY: &str = "target/fuzz";
/// Named, so that the flags below are not for build scripts.
const MACHINE: &str = "x86_64-unknown-linux-gnu";
/// What libFuzzer asks of the compiler. There is no sanitizer: those need another toolchain, and
/// the code behind the rings has no `unsafe`.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// An input that takes longer is a finding, as a panic is.
const INPUT_TIMEOUT: Duration = Duration::from_secs(10);
/// So is one that takes more memory.
const MEMORY_MB_MAX: u32 = 2048;
/// Lines of libFuzzer's log that are shown with a finding.
const LINES_SHOWN: usize = 30;

/// What to fuzz.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Only this target
    #[arg(value_name = "TARGET", value_parser = TARGETS)]
    pub target: Option<String>,
    /// Time for each target
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub seconds: u32,
}

/// Builds the targets and runs one after the other. Inputs that led somewhere new are kept in
/// `target/fuzz/corpus` for the next run. Returns 1 when something was found.
///
/// # Errors
/// When the C++ compiler is missing, or the targets do not build or start.
pub fn run(options: &Options) -> Result<u8> {
    let repository = process::repository()?;
    build(&repository)?;
    let chosen = |target: &&&str| options.target.as_deref().is_none_or(|it| it == **target);
    let mut found = 0;
    for target in TARGETS.iter().filter(chosen) {
        println!("fuzz   {target} for {} s", options.seconds);
        found += u8::from(!fuzz(&repository, target, options.seconds)?);
    }
    Ok(found.min(1))
}

fn build(repository: &Path) -> Result<()> {
    if std::env::var_os("CXX").is_none() && process::find_program("c++").is_none() {
        bail!("c++ is missing, which libFuzzer is built with: run `apt-get install g++`");
    }
    println!("build  fuzz targets");
    let mut cargo = build::cargo(repository);
    cargo
        .args(["build", "--manifest-path", MANIFEST, "--target", MACHINE])
        .args(["--target-dir", DIRECTORY])
        .env("RUSTFLAGS", FLAGS);
    process::run(&mut cargo).context("the fuzz targets did not build")
}

/// Answers whether all went well.
fn fuzz(repository: &Path, target: &str, seconds: u32) -> Result<bool> {
    let directory = repository.join(DIRECTORY);
    let (corpus, findings) = (directory.join("corpus").join(target), directory.join("findings"));
    cache::make(&corpus)?;
    cache::make(&findings)?;
    let log = directory.join(format!("{target}.log"));
    let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    let program = directory.join(MACHINE).join("debug").join(target);
    let mut command = Command::new(&program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={}", INPUT_TIMEOUT.as_secs()))
        .arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"))
        .arg(format!("-artifact_prefix={}/{target}-", findings.display()))
        .arg("-print_final_stats=1")
        .arg(&corpus)
        .env("SEKIMORI_FUZZ_SEEDS", &corpus)
        .env("RUST_BACKTRACE", "1")
        .stdout(file.try_clone()?)
        .stderr(file);
    let status =
        command.status().with_context(|| format!("cannot start {}", process::line(&command)))?;
    let said = std::fs::read(&log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    if status.success() {
        println!("ok     {target}: {}", summary(&said));
        return Ok(true);
    }
    let lines: Vec<_> = said.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN)).for_each(|it| println!("  {it}"));
    println!("FOUND  {target}: {status}; the whole log is {}", log.display());
    match finding(&said) {
        Some(input) => println!("again  {} {input}", program.display()),
        None => println!("it left no input behind"),
    }
    Ok(false)
}

/// How much was done, from libFuzzer's log: `#1234 DONE cov: 56 ft: 78 …` and
/// `stat::number_of_executed_units: 1234`.
fn summary(log: &str) -> String {
    let runs = log.lines().find_map(|it| it.strip_prefix("stat::number_of_executed_units:"));
    let done = log.lines().rev().find(|line| line.contains("cov: "));
    let places = done.and_then(|line| line.split("cov: ").nth(1)?.split_whitespace().next());
    let known = |it: Option<&str>| it.map_or_else(|| "?".to_owned(), |it| it.trim().to_owned());
    format!("{} inputs, {} places reached", known(runs), known(places))
}

/// The input that libFuzzer wrote down: `Test unit written to PATH`.
fn finding(log: &str) -> Option<&str> {
    log.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::{finding, summary};

    const LOG: &str = "\
        #9\tNEW    cov: 300 ft: 400 corp: 5/20Kb\n\
        #1234\tDONE   cov: 567 ft: 890 corp: 12/34Kb lim: 4096\n\
        stat::number_of_executed_units: 1234\n";

    #[test]
    fn a_log_is_summed_up() {
        assert_eq!(summary(LOG), "1234 inputs, 567 places reached");
        assert_eq!(summary(""), "? inputs, ? places reached");
    }

    #[test]
    fn an_input_that_was_found_is_named() {
        assert_eq!(finding(LOG), None);
        let log = "artifact_prefix='/x/'; Test unit written to /x/record-crash-0a\nBase64: AA==\n";
        assert_eq!(finding(log), Some("/x/record-crash-0a"));
    }
}
