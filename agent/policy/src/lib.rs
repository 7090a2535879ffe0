//! Policies: YAML text in, kernel tables out.
//!
//! The way of a policy: [`yaml`](mod@yaml) tree with positions → [`parse`] to the [`model`] → checks
//! across sections → [`compile`](mod@compile) to [`Tables`]. Every step adds to one list of
//! [`Finding`]s, so that an author sees all mistakes at once, each with its line and column.
//! Nothing here knows the kernel loader; [`explain`](mod@explain) and tests judge with the same
//! decision function and the same tables as the kernel programs.
#![forbid(unsafe_code)]

pub mod bundle;
mod check;
mod compile;
mod directory;
mod explain;
mod finding;
mod isolation;
pub mod limits;
pub mod model;
mod parse;
mod pattern;
mod replay;
mod tables;
mod yaml;

pub use compile::{Compiled, DIRECTORY_TOO_MIXED, Names, PATH_TOO_DEEP, RuleFacts};
pub use directory::{Directory, NoDirectory, SystemDirectory};
pub use explain::{CandidateReport, Check, Explanation, Peer, PluggedDevice, Question, explain};
pub use finding::{Finding, Position, Severity};
pub use isolation::Isolation;
pub use model::{Action, AlertLevel, Mode, RESERVED, Word};
pub use pattern::{Component, Pattern};
pub use replay::{Judged, Replay, Seen, Unknown};
pub use tables::{DevicePattern, Tables};

use finding::Findings;

/// Everything that is wrong or doubtful in a policy, sorted by position. Empty: the policy is fine.
/// Login names are not looked up, so the answer is the same on every machine.
pub fn lint(source: &str) -> Vec<Finding> {
    let mut findings = Findings::default();
    if let Some(policy) = read(source, &mut findings) {
        compile::compile(&policy, None, 0, &mut findings);
    }
    findings.sorted()
}

/// As [`lint`], for a file's bytes.
pub fn lint_bytes(source: &[u8]) -> Vec<Finding> {
    match text(source) {
        Ok(text) => lint(text),
        Err(finding) => vec![finding],
    }
}

/// A policy ready for the kernel and the warnings that came with it.
///
/// `generation` is the number that records of this policy will carry.
///
/// # Errors
/// All findings, warnings included, when at least one of them is an error.
pub fn load(
    source: &str,
    directory: &dyn Directory,
    generation: u32,
) -> Result<(Compiled, Vec<Finding>), Vec<Finding>> {
    load_isolated(source.as_bytes(), directory, generation, None)
}

/// As [`load`], for a file's bytes, and with the host cut off if there is an isolation.
///
/// # Errors
/// As [`load`]; also bytes that are not UTF-8, and no room for the rules of the isolation.
pub fn load_isolated(
    source: &[u8],
    directory: &dyn Directory,
    generation: u32,
    isolation: Option<&Isolation>,
) -> Result<(Compiled, Vec<Finding>), Vec<Finding>> {
    let source = text(source).map_err(|finding| vec![finding])?;
    let mut findings = Findings::default();
    let compiled = read(source, &mut findings).map(|mut policy| {
        if let Some(isolation) = isolation {
            isolation::isolate(&mut policy, isolation);
        }
        compile::compile(&policy, Some(directory), generation, &mut findings)
    });
    match compiled {
        Some(compiled) if !findings.has_errors() => Ok((compiled, findings.sorted())),
        _ => Err(findings.sorted()),
    }
}

/// As [`load`], for a file's bytes.
///
/// # Errors
/// As [`load`]; also bytes that are not UTF-8.
pub fn load_bytes(
    source: &[u8],
    directory: &dyn Directory,
    generation: u32,
) -> Result<(Compiled, Vec<Finding>), Vec<Finding>> {
    load_isolated(source, directory, generation, None)
}

fn text(source: &[u8]) -> Result<&str, Finding> {
    std::str::from_utf8(source).map_err(|error| {
        let good = source.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        let last = good.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let column = 1 + String::from_utf8_lossy(last).chars().count();
        Finding {
            severity: Severity::Error,
            line,
            column,
            message: "the policy is not UTF-8 text from here on".to_owned(),
            hint: Some("save the file as UTF-8".to_owned()),
        }
    })
}

/// The policy's model when the text is without errors; mistakes go to `findings`. Compiling half a
/// policy would report errors that are not there.
fn read(source: &str, findings: &mut Findings) -> Option<model::Policy> {
    let tree = yaml::parse(source, findings)?;
    let policy = parse::policy(&tree, findings)?;
    check::check(&policy, findings);
    (!findings.has_errors()).then_some(policy)
}
