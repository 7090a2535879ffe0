//! `sekimori doctor --attack`: tries ways around the monitor on this very machine, and looks whether
//! it saw them.
//!
//! Only what harms nobody is tried: on files of its own below a scratch directory and, if one is
//! given, on a mounted stick, over loopback, and against the agent such things as change nothing when
//! they succeed. Whether something was seen is read off the kernel programs' counters, which other
//! programs move too: on a busy machine a way that is not seen can look seen, never the reverse.

mod tries;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use sekimori_agent::control::{self, ControlError, KindCounters, Request, Status};
use serde::Serialize;

use self::tries::{Outcome, Scratch, Try};
use crate::failure::Failure;

/// Without a guard nobody looks at attacks on the agent.
const GUARD_OFF: &str = "is `guard` off in agent.yaml?";

/// What one try came to.
#[derive(Debug, Serialize)]
struct Row {
    channel: &'static str,
    tried: &'static str,
    /// The word of a policy that it falls under.
    kind: &'static str,
    result: Result,
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Result {
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

impl Result {
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
pub fn run(socket: &Path, stick: Option<PathBuf>, json: bool) -> std::result::Result<(), Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::permission("ways around the monitor are tried as root: use sudo"));
    }
    let agent = ask(socket)?.pid;
    let scratch = Scratch::make(agent, stick)
        .map_err(|error| Failure::failed(format!("no scratch directory: {error}")))?;
    let rows = tries::ALL.iter().map(|it| attempt(it, &scratch, socket));
    let rows: Vec<Row> = rows.collect::<std::result::Result<_, _>>()?;
    let unseen = rows.iter().filter(|row| row.result == Result::Unseen).count();
    let mut out = anstream::stdout().lock();
    if json {
        let text = serde_json::to_string(&rows)
            .map_err(|error| Failure::failed(format!("cannot write the report: {error}")))?;
        writeln!(out, "{text}")?;
    } else {
        writeln!(out, "{}", table(&rows))?;
        writeln!(out, "{}", verdict(&rows, unseen))?;
    }
    if unseen == 0 { Ok(()) } else { Err(Failure::told(1)) }
}

fn attempt(what: &Try, scratch: &Scratch, socket: &Path) -> std::result::Result<Row, Failure> {
    let before = counters(socket, what.kind)?;
    let outcome = (what.run)(scratch);
    let after = counters(socket, what.kind)?;
    let denied = after.denied > before.denied;
    let (result, detail) = match outcome {
        Outcome::Happened if after.emitted > before.emitted => (Result::Recorded, String::new()),
        Outcome::Happened if after.seen > before.seen => (Result::Seen, String::new()),
        Outcome::Happened if what.kind == "tamper" => (Result::Unseen, GUARD_OFF.to_owned()),
        Outcome::Happened => (Result::Unseen, String::new()),
        Outcome::Failed(error) if denied => (Result::Refused, error.to_string()),
        Outcome::Failed(error) => (Result::NotTried, error.to_string()),
        Outcome::NotTried(why) => (Result::NotTried, why.to_owned()),
    };
    Ok(Row { channel: what.channel, tried: what.tried, kind: what.kind, result, detail })
}

fn ask(socket: &Path) -> std::result::Result<Box<Status>, Failure> {
    let answer = control::ask(socket, Request::Status).map_err(|error| match error {
        ControlError::Permission { .. } => Failure::permission(error.to_string()),
        _ => Failure::failed(error.to_string()),
    })?;
    answer.status.ok_or_else(|| Failure::failed("the agent answered without a status"))
}

fn counters(socket: &Path, kind: &str) -> std::result::Result<KindCounters, Failure> {
    let status = ask(socket)?;
    Ok(status.counters.into_iter().find(|it| it.kind == kind).unwrap_or_default())
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    if let Some((columns, _)) = terminal_size::terminal_size() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns.0);
    }
    table.set_header(["channel", "tried", "kind", "result", "detail"]);
    for row in rows {
        table.add_row([row.channel, row.tried, row.kind, row.result.word(), row.detail.as_str()]);
    }
    table
}

fn verdict(rows: &[Row], unseen: usize) -> String {
    let count = |result| rows.iter().filter(|row| row.result == result).count();
    let tried = rows.len() - count(Result::NotTried);
    if unseen > 0 {
        return format!("{unseen} of {tried} tries were not seen: see the rows marked NOT SEEN.");
    }
    format!(
        "Of {tried} tries {} were refused and {} recorded; all were seen.",
        count(Result::Refused),
        count(Result::Recorded)
    )
}
