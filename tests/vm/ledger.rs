//! Conservation: what the kernel reported is stored or accounted as lost, exactly, kind by kind.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::flood::Done;
use crate::limits::{RECORD_TIMEOUT, SEARCH_INTERVAL};
use crate::run::World;
use crate::{check, records};

/// Two turns of the agent's count of losses.
const COUNTED: Duration = Duration::from_secs(2);
/// Only the flood makes records of these.
const QUIET: [&str; 3] = ["file.open", "usb.write", "usb.mount"];

/// An account that begins and ends with a question to the agent. The record of the question itself
/// tells what came before it.
#[derive(Debug)]
pub struct Ledger {
    before: Reported,
}

/// Records that the kernel programs made or had to drop, by kind, since they were loaded.
type Reported = BTreeMap<String, u64>;

/// What is known of the kinds of what was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// All of them: each kind comes even by itself.
    Known,
    /// The agent was killed with records in its hands, of which their number is known. They may
    /// have been some that only feed the agent, as forks do.
    Lost,
}

/// The whole account.
#[derive(Debug)]
struct Account {
    rows: BTreeMap<String, Row>,
    /// What is accounted as lost without a kind.
    unknown: u64,
    /// What the kernel programs reported and nobody stores.
    fed: u64,
}

/// One kind's account.
#[derive(Debug, Default)]
struct Row {
    /// What the flood did.
    done: u64,
    /// What the kernel programs reported.
    reported: u64,
    /// What is stored of the flood.
    stored: u64,
    /// What is stored of others.
    others: u64,
    /// What is accounted as lost.
    lost: u64,
    /// Calls that the kernel skipped: as many records at most.
    skipped: u64,
}

impl Ledger {
    /// Begins an account, when everything that was recorded is stored.
    ///
    /// # Errors
    /// When the daemons do not answer.
    pub fn open(world: &mut World) -> Result<Self> {
        world.daemons.settle(&world.records)?;
        world.records.forget()?;
        Ok(Self { before: reported(world)? })
    }

    /// Ends it: waits until it is even.
    ///
    /// # Errors
    /// When it does not come even; the message has all of it.
    pub fn close(&self, world: &World, done: &Done, kinds: Kinds) -> Result<()> {
        // The ring may be full: what tells the end must not be lost.
        world.daemons.settle(&world.records)?;
        let after = reported(world)?;
        world.daemons.settle(&world.records)?;
        // Losses are counted once a second: one that is counted twice must have time to show.
        std::thread::sleep(COUNTED);
        let started = Instant::now();
        loop {
            let stored = world.records.search(&[])?;
            each_once(&stored)?;
            let account = self.account(&after, &stored, done)?;
            let outcome = account.is_even(kinds);
            if outcome.is_ok() || started.elapsed() > RECORD_TIMEOUT {
                return outcome.with_context(|| shown(&account, &stored));
            }
            std::thread::sleep(SEARCH_INTERVAL);
        }
    }

    fn account(&self, after: &Reported, stored: &[Value], done: &Done) -> Result<Account> {
        let (from, until) = asked(stored).context("a question to the agent is not stored")?;
        let counts = |it: &Value| done.receipts > 0 || !is_receipt(it);
        let within = |it: &&Value| counts(it) && time(it) > from && time(it) <= until;
        let reported = |kind: &str| {
            let at = |reported: &Reported| reported.get(kind).copied().unwrap_or(0);
            at(after) - at(&self.before)
        };
        let mut rows = BTreeMap::new();
        for (kind, count) in &done.counts {
            let mut row = Row { done: *count, reported: reported(kind), ..Row::default() };
            if kind == "usb.write" {
                row.done += done.receipts;
                row.reported += done.receipts;
            }
            let records = stored.iter().filter(|it| records::text(it, "/kind") == kind);
            for record in records.filter(within) {
                *(if done.made(record) { &mut row.stored } else { &mut row.others }) += 1;
            }
            (row.lost, row.skipped) = (lost(stored, kind, false), lost(stored, kind, true));
            rows.insert(kind.clone(), row);
        }
        let fed = reported("fork") + reported("note");
        Ok(Account { rows, unknown: lost(stored, "", false), fed })
    }
}

/// The sum of what is accounted as lost, or as skipped by the kernel; of no kind when it is empty.
fn lost(stored: &[Value], kind: &str, skipped: bool) -> u64 {
    let losses = stored.iter().filter(|it| {
        records::text(it, "/kind") == "loss"
            && records::text(it, "/loss/kind") == kind
            && (records::text(it, "/loss/stage") == "hook") == skipped
    });
    losses.map(|it| records::number(it, "/loss/count")).sum()
}

/// What the kernel programs say. They have recorded the question by then.
fn reported(world: &World) -> Result<Reported> {
    let status = world.daemons.ask()?;
    let rows = status.pointer("/status/counters").and_then(Value::as_array);
    let rows = rows.with_context(|| format!("no counters: {status}"))?;
    let sum = |row| records::number(row, "/emitted") + records::number(row, "/lost");
    Ok(rows.iter().map(|row| (records::text(row, "/kind").to_owned(), sum(row))).collect())
}

/// Times of our first and of our last question to the agent.
fn asked(stored: &[Value]) -> Option<(&str, &str)> {
    let own = u64::from(std::process::id());
    let ours = |it: &&Value| {
        records::text(it, "/kind") == "net.connect"
            && records::number(it, "/process/pid") == own
            && records::text(it, "/destination/path").ends_with("/agent.sock")
    };
    let times = || stored.iter().filter(ours).map(time);
    times().min().zip(times().max()).filter(|(first, last)| first < last)
}

fn time(record: &Value) -> &str {
    records::text(record, "/time")
}

/// Receipts are made by the agent and not by the kernel programs.
fn is_receipt(record: &Value) -> bool {
    records::text(record, "/operation") == "receipt"
}

/// No event is stored twice.
///
/// # Errors
/// When one is.
pub fn each_once(stored: &[Value]) -> Result<()> {
    let mut seen = HashSet::new();
    for record in stored {
        let name = (records::text(record, "/boot"), records::number(record, "/seq"));
        check::that(seen.insert(name), format!("stored twice: {name:?}"))?;
    }
    Ok(())
}

impl Account {
    fn is_even(&self, kinds: Kinds) -> Result<()> {
        let mut missing = 0;
        for (kind, row) in &self.rows {
            let Row { done, reported, stored, others, lost, skipped } = *row;
            let accounted = stored + others + lost;
            ensure!(accounted <= reported, "{kind}: stored and lost");
            ensure!(
                accounted == reported || kinds == Kinds::Lost,
                "{kind}: neither stored nor lost"
            );
            missing += reported - accounted;
            ensure!(stored <= done, "{kind}: more is stored than was done");
            ensure!(done <= reported + skipped, "{kind}: done and not reported");
            let quiet = QUIET.contains(&kind.as_str());
            ensure!(!quiet || reported <= done, "{kind}: reported and not done");
            ensure!(others <= (reported + skipped) - done, "{kind}: stored and not done");
        }
        ensure!(missing <= self.unknown, "{missing} are neither stored nor lost");
        ensure!(self.unknown <= missing + self.fed, "more is accounted as lost than was reported");
        Ok(())
    }
}

fn shown(account: &Account, stored: &[Value]) -> String {
    let Account { rows, unknown, fed } = account;
    let mut text: Vec<_> = rows.iter().map(|(kind, row)| format!("{kind} {row:?}")).collect();
    text.push(format!("of no kind: lost {unknown}, only fed {fed}"));
    text.extend(stored.iter().filter_map(|it| it.get("loss")).map(Value::to_string));
    text.join("\n")
}
