//! `cargo xtask bench collector`: what the collector bears, on this machine and its disk.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use super::keep;
use super::text::{number, table};
use crate::{build, process};

/// The program of the crate `tests` that loads the collector and measures.
const LOAD: &str = "sekimori-load";
const COLLECTOR: &str = "sekimori-collector";
const FILE: &str = "bench-collector.json";
const MEASUREMENTS: [&str; 9] =
    ["ingest", "limit", "growth", "rtt", "idle", "subscribers", "questions", "archive", "bus"];
/// Texts of a line; everything else in it is a figure.
const MEASUREMENT: &str = "measurement";
const SETUP: &str = "setup";
const NOTE: &str = "note";

/// What to measure.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Only this measurement; may be given several times
    #[arg(long, value_name = "NAME", value_parser = MEASUREMENTS)]
    pub only: Vec<String>,
    /// Stored events that questions are asked about [default: 1000000]
    #[arg(long, value_name = "N")]
    pub rows: Option<u64>,
    /// Take all the time and room that it needs: up to 100 million stored events
    #[arg(long)]
    pub full: bool,
    /// Print the figures as JSON, and nothing else, on stdout
    #[arg(long)]
    pub json: bool,
    /// Use the programs that `cargo xtask build --release` made last, as they are
    #[arg(long)]
    pub no_build: bool,
}

type Line = Map<String, Value>;

/// Builds, measures and prints the tables. The figures go to `target/bench-collector.json` too.
///
/// # Errors
/// When something does not build or a measurement fails.
pub fn run(options: &Options) -> Result<u8> {
    if !options.no_build {
        build::run(build::Options { release: true, ..build::Options::default() })?;
    }
    let (lines, outcome) = measure(options)?;
    let all = Value::Array(lines.iter().cloned().map(Value::Object).collect());
    let path = keep(FILE, &all)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print!("{}", report(&lines));
        println!("\nfigures: {}", path.display());
    }
    outcome.map(|()| 0)
}

/// What was measured before something failed is there.
fn measure(options: &Options) -> Result<(Vec<Line>, Result<()>)> {
    let repository = process::repository()?;
    let programs = repository.join(build::profile_dir(true));
    let mut load = Command::new(programs.join(LOAD));
    load.arg("--collector").arg(programs.join(COLLECTOR));
    load.arg("--dir").arg(repository.join("target"));
    options.only.iter().for_each(|name| {
        load.args(["--only", name]);
    });
    if let Some(rows) = options.rows {
        load.args(["--rows", &rows.to_string()]);
    }
    if options.full {
        load.arg("--full");
    }
    let mut child = load
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", process::line(&load)))?;
    let stdout = child.stdout.take().context("the load has no stdout")?;
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let lines = lines.filter_map(|line| serde_json::from_str(&line).ok()).collect();
    let status = child.wait()?;
    let outcome = || {
        if !status.success() {
            bail!("{LOAD} ended with {status}");
        }
        Ok(())
    };
    Ok((lines, outcome()))
}

/// One table for each measurement, and what is to be said of it below.
fn report(lines: &[Line]) -> String {
    let of = |line: &Line, name: &str| -> String {
        line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut text = String::new();
    for group in lines.chunk_by(|one, next| of(one, MEASUREMENT) == of(next, MEASUREMENT)) {
        let mut header = Vec::new();
        for name in group.iter().flat_map(Map::keys) {
            if ![MEASUREMENT, SETUP, NOTE].contains(&name.as_str()) && !header.contains(name) {
                header.push(name.clone());
            }
        }
        let cell = |line: &Line, name: &String| {
            line.get(name).and_then(Value::as_f64).map_or_else(String::new, number)
        };
        let row = |line: &Line| {
            std::iter::once(of(line, SETUP))
                .chain(header.iter().map(|name| cell(line, name)))
                .collect()
        };
        let rows: Vec<Vec<String>> = group.iter().map(row).collect();
        let title = group.first().map(|line| of(line, MEASUREMENT)).unwrap_or_default();
        let header: Vec<String> = std::iter::once(title).chain(header.iter().cloned()).collect();
        text.push('\n');
        text.push_str(&table(&header, &rows));
        for line in group.iter().filter(|line| line.contains_key(NOTE)) {
            text.push_str(&format!("{}: {}\n", of(line, SETUP), of(line, NOTE)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Line, report};

    #[test]
    fn each_measurement_has_a_table_and_its_notes() {
        let lines = [
            json!({"measurement": "a", "setup": "x", "events/s": 12345.6, "ratio": null}),
            json!({"measurement": "a", "setup": "y", "events/s": 1, "ms": 0.5, "note": "why"}),
            json!({"measurement": "b", "setup": "z", "MiB": 40.25}),
        ];
        let lines: Vec<Line> = lines.iter().filter_map(|it| it.as_object().cloned()).collect();
        let expected = "
| a   | events/s | ratio |   ms |
|-----|---------:|------:|-----:|
| x   |   12,346 |       |      |
| y   |        1 |       | 0.50 |
y: why

| b   |  MiB |
|-----|-----:|
| z   | 40.2 |
";
        assert_eq!(report(&lines), expected);
    }
}
