//! `cargo xtask bench`: what the monitor costs, counted in instructions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::setup::kernels::Matrix;
use crate::vm::{self, Accelerator, Lines, Request, Show};
use crate::{build, process, setup, test};

const TIMEOUT: Duration = Duration::from_secs(3600);
/// The setup that others are compared with.
const BASE: &str = "nothing";
/// Setups in the order of the table's columns.
const SETUPS: [&str; 4] = ["10 rules", "1000 rules", "10000 rules", "10 rules, stick"];

/// The agent's work without delivery.
const TO_THE_SPOOL: &str = "10 rules, to the spool";

/// Which measurements to take.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Kernel series [default: the matrix's default]
    #[arg(long, value_name = "SERIES")]
    pub kernel: Option<String>,
    /// Use the programs that `cargo xtask build --release` made last, as they are
    #[arg(long)]
    pub no_build: bool,
}

/// Instructions for one operation in one setup.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Measured {
    setup: String,
    operation: String,
    /// How often it was done.
    count: u64,
    /// Instructions each, in the operation's own context.
    kernel: f64,
    /// Instructions each of the agent.
    agent: f64,
    /// Instructions each of the collector.
    collector: f64,
}

/// What the daemons need beside the operations.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum State {
    Idle {
        setup: String,
        /// Of one CPU.
        agent_percent: f64,
        agent_resident_kib: u64,
        agent_anonymous_kib: u64,
        agent_shared_kib: u64,
        agent_peak_kib: u64,
        collector_resident_kib: Option<u64>,
    },
    Flood {
        setup: String,
        opens: u64,
        emitted: u64,
        lost: u64,
        agent_peak_kib: u64,
    },
    Verifier {
        setup: String,
        /// Hook and instructions, most first.
        verified: Vec<(String, u64)>,
    },
}

/// Boots a guest that counts its instructions, measures there, and prints the table. The figures go
/// to `target/bench-SERIES.json` too.
///
/// # Errors
/// When the guest does not come up or a measurement fails.
pub fn run(options: &Options) -> Result<u8> {
    let kernel = match &options.kernel {
        Some(kernel) => kernel.clone(),
        None => Matrix::read()?.default,
    };
    if !options.no_build {
        setup::run(&setup::Options { refresh: false, kernel: vec![kernel.clone()] })?;
        build::run(build::Options { release: true, ..build::Options::default() })?;
    }
    println!("bench  linux {kernel} in a VM that counts instructions; this takes minutes");
    let lines = Lines::default();
    let outcome = vm::boot(&Request {
        timeout: Some(TIMEOUT),
        accelerator: Accelerator::Count,
        release: true,
        command: vec![test::SCENARIOS.to_owned(), "bench".to_owned()],
        ..Request::new(
            kernel.clone(),
            Vec::new(),
            Show::Prefixed(format!("{kernel} | "), Arc::clone(&lines)),
        )
    })?;
    let lines = lines.lock().map_err(|_| anyhow::anyhow!("the output was lost"))?;
    let measured: Vec<Measured> =
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if outcome.status != 0 || measured.is_empty() {
        bail!("the measurements in the guest failed with status {}", outcome.status);
    }
    let states: Vec<State> =
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let path = process::repository()?.join("target").join(format!("bench-{kernel}.json"));
    let all = serde_json::json!({ "operations": measured, "states": states });
    std::fs::write(&path, serde_json::to_string_pretty(&all)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    print!("{}", table(&measured));
    states.iter().for_each(|state| println!("{}", sentence(state)));
    println!("figures: {}", path.display());
    Ok(0)
}

/// Added instructions: the operation's own, and with agent and collector.
fn table(measured: &[Measured]) -> String {
    let mut operations: Vec<&str> = Vec::new();
    let mut by_name = BTreeMap::new();
    for one in measured {
        if !operations.contains(&one.operation.as_str()) {
            operations.push(&one.operation);
        }
        by_name.insert((one.operation.as_str(), one.setup.as_str()), one);
    }
    let mut text = format!("| instructions | {BASE} |");
    SETUPS.iter().for_each(|setup| text.push_str(&format!(" {setup} |")));
    text.push_str(" agent to the spool | agent | collector |\n|---|---:|");
    text.push_str(&"---:|".repeat(SETUPS.len() + 3));
    text.push('\n');
    for operation in operations {
        let Some(base) = by_name.get(&(operation, BASE)) else { continue };
        text.push_str(&format!("| {operation} | {} |", whole(base.kernel)));
        for setup in SETUPS {
            let added = by_name.get(&(operation, setup)).map(|one| one.kernel - base.kernel);
            text.push_str(
                &added.map_or_else(|| "  |".to_owned(), |it| format!(" {} |", signed(it))),
            );
        }
        let first = SETUPS.iter().find_map(|setup| by_name.get(&(operation, *setup)));
        let (agent, collector) = first.map_or((0.0, 0.0), |one| (one.agent, one.collector));
        let to_the_spool = by_name
            .get(&(operation, TO_THE_SPOOL))
            .map_or_else(String::new, |one| signed(one.agent));
        text.push_str(&format!(" {to_the_spool} | {} | {} |\n", signed(agent), signed(collector)));
    }
    text
}

fn sentence(state: &State) -> String {
    let mib = |kib: u64| format!("{:.0} MiB", kib as f64 / 1024.0);
    match state {
        State::Idle {
            setup,
            agent_percent,
            agent_resident_kib,
            agent_anonymous_kib,
            agent_peak_kib,
            ..
        } => format!(
            "{setup}: the idle agent takes {agent_percent:.2} % of a CPU and {} ({} of its own; at most {} so far)",
            mib(*agent_resident_kib),
            mib(*agent_anonymous_kib),
            mib(*agent_peak_kib)
        ),
        State::Flood { setup, opens, emitted, lost, agent_peak_kib } => format!(
            "{setup}: of a flood of {} recorded opens {} were reported and {} lost; agent at most {}",
            whole(*opens as f64),
            whole(*emitted as f64),
            whole(*lost as f64),
            mib(*agent_peak_kib)
        ),
        State::Verifier { setup, verified } => {
            let most = verified.iter().take(3);
            let most = most.map(|(hook, number)| format!("{hook} {}", whole(*number as f64)));
            let most: Vec<String> = most.collect();
            format!("{setup}: most instructions verified: {}", most.join(", "))
        }
    }
}

fn signed(number: f64) -> String {
    let sign = if number < -0.5 { '-' } else { '+' };
    format!("{sign}{}", whole(number.abs()))
}

/// A whole number with commas between thousands.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Measured, signed, table, whole};

    #[test]
    fn numbers_read_well() {
        assert_eq!(whole(1_234_567.4), "1,234,567");
        assert_eq!(whole(999.6), "1,000");
        assert_eq!(signed(-12.0), "-12");
        assert_eq!(signed(0.2), "+0");
    }

    #[test]
    fn what_is_added_is_shown() {
        let one = |setup: &str, kernel, agent| Measured {
            setup: setup.to_owned(),
            operation: "stat".to_owned(),
            count: 1,
            kernel,
            agent,
            collector: 0.0,
        };
        let text = table(&[one("nothing", 3000.0, 0.0), one("10 rules", 3120.0, 50.0)]);
        assert!(text.ends_with("| stat | 3,000 | +120 |  |  |  |  | +50 | +0 |\n"), "{text}");
    }
}
