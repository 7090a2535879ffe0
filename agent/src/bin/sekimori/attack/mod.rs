//! `sekimori doctor --attack`: tries ways around the monitor on this very machine, and looks whether
//! it saw them.
//!
//! Only what harms nobody is tried: on files of its own below a scratch directory and, if one is
//! given, on a mounted stick, over loopback, and against the agent such things as change nothing when
//! they succeed. Whether something was seen is read off the kernel programs' counters, which other
//! programs move too: on a busy machine a way that is not seen can look seen, never the reverse. So
//! does the question to the agent itself, which is a connection: what it moves is subtracted.

mod tries;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use comfy_table::Table;
use sekimori_agent::control::KindCounters;
use serde::Serialize;

use self::tries::{Outcome, Scratch, Try};
use crate::doctor::{json_of, table_of};
use crate::failure::Failure;
use crate::status::agent;

/// Questions to the agent by which is found out what a question moves.
const QUESTIONS: usize = 4;

/// Without a guard nobody looks at attacks on the agent.
const GUARD_OFF: &str = "is `guard` off in agent.yaml?";

/// What one try came to.
#[derive(Debug, Serialize)]
struct Row {
    channel: &'static str,
    tried: &'static str,
    /// The word of a policy that it falls under.
    kind: &'static str,
    result: Found,
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Found {
    /// Sekimori refused it.
    Refused,
    /// It happened and is on record.
    Recorded,
    /// It happened; hooks saw it, and neither a rule nor the configuration asks for a record.
    Seen,
    /// It happened and no hook saw it.
    Unseen,
    /// Something else refused it, or it could not be tried here.
    NotTried,
}

impl Found {
    const fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Recorded => "recorded",
            Self::Seen => "seen, not recorded",
            Self::Unseen => "NOT SEEN",
            Self::NotTried => "not tried",
        }
    }
}

/// Tries everything and prints what it came to.
pub fn run(socket: &Path, stick: Option<PathBuf>, json: bool) -> Result<(), Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::permission("ways around the monitor are tried as root: use sudo"));
    }
    let scratch = Scratch::make(agent(socket)?.pid, stick)
        .map_err(|error| Failure::failed(format!("no scratch directory: {error}")))?;
    let rows = tries::ALL.iter().map(|it| attempt(it, &scratch, socket));
    let rows: Vec<Row> = rows.collect::<Result<_, _>>()?;
    let unseen = rows.iter().filter(|row| row.result == Found::Unseen).count();
    let mut out = anstream::stdout().lock();
    if json {
        writeln!(out, "{}", json_of(&rows)?)?;
    } else {
        writeln!(out, "{}", table(&rows))?;
        writeln!(out, "{}", verdict(&rows, unseen))?;
    }
    if unseen == 0 { Ok(()) } else { Err(Failure::told(1)) }
}

fn attempt(what: &Try, scratch: &Scratch, socket: &Path) -> Result<Row, Failure> {
    let asking = asking(socket, what.kind)?;
    let before = counters(socket, what.kind)?;
    let outcome = (what.run)(scratch);
    let Moved { seen, emitted, denied } = Moved::between(&before, &counters(socket, what.kind)?);
    let (result, detail) = match outcome {
        Outcome::Happened if emitted > asking.emitted => (Found::Recorded, String::new()),
        Outcome::Happened if seen > asking.seen => (Found::Seen, String::new()),
        Outcome::Happened if what.kind == "tamper" => (Found::Unseen, GUARD_OFF.to_owned()),
        Outcome::Happened => (Found::Unseen, String::new()),
        Outcome::Failed(error) if denied > 0 => (Found::Refused, error.to_string()),
        Outcome::Failed(error) => (Found::NotTried, error.to_string()),
        Outcome::NotTried(why) => (Found::NotTried, why.to_owned()),
    };
    Ok(Row { channel: what.channel, tried: what.tried, kind: what.kind, result, detail })
}

/// By how much counters went up.
struct Moved {
    seen: u64,
    emitted: u64,
    denied: u64,
}

impl Moved {
    const fn between(before: &KindCounters, after: &KindCounters) -> Self {
        Self {
            seen: after.seen.saturating_sub(before.seen),
            emitted: after.emitted.saturating_sub(before.emitted),
            denied: after.denied.saturating_sub(before.denied),
        }
    }
}

/// What a question to the agent moves. Others can only move more, so the least is taken.
fn asking(socket: &Path, kind: &str) -> Result<Moved, Failure> {
    let asked: Vec<KindCounters> =
        (0..QUESTIONS).map(|_| counters(socket, kind)).collect::<Result<_, _>>()?;
    let moved: Vec<Moved> = asked
        .iter()
        .zip(asked.iter().skip(1))
        .map(|(before, after)| Moved::between(before, after))
        .collect();
    let least = |part: fn(&Moved) -> u64| moved.iter().map(part).min().unwrap_or(0);
    Ok(Moved {
        seen: least(|it| it.seen),
        emitted: least(|it| it.emitted),
        denied: least(|it| it.denied),
    })
}

fn counters(socket: &Path, kind: &str) -> Result<KindCounters, Failure> {
    let counters = agent(socket)?.counters;
    Ok(counters.into_iter().find(|it| it.kind == kind).unwrap_or_default())
}

fn table(rows: &[Row]) -> Table {
    let mut table = table_of(["channel", "tried", "kind", "result", "detail"]);
    for row in rows {
        table.add_row([row.channel, row.tried, row.kind, row.result.word(), row.detail.as_str()]);
    }
    table
}

fn verdict(rows: &[Row], unseen: usize) -> String {
    let count = |result| rows.iter().filter(|row| row.result == result).count();
    let tried = rows.len() - count(Found::NotTried);
    if unseen > 0 {
        return format!("{unseen} of {tried} tries were not seen: see the rows marked NOT SEEN.");
    }
    format!(
        "Of {tried} tries {} were refused and {} recorded; all were seen.",
        count(Found::Refused),
        count(Found::Recorded)
    )
}
