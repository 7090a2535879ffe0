//! What the collector has stored.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use sekimori_proto::json;
use serde_json::Value;

use crate::guest;
use crate::limits::{RECORD_TIMEOUT, SEARCH_INTERVAL, SHOWN_RECORDS_MAX};
use crate::query::{self, Query};

/// A field that a record must have: JSON pointer and value.
pub type Field<'a> = (&'a str, Value);

/// What is stored later may have happened earlier by so much: while no agent runs, the kernel
/// programs go on recording for the next one.
const LATE_NS: i64 = 120_000_000_000;

/// Asks the collector.
#[derive(Debug, Clone)]
pub struct Records {
    address: String,
    /// Records behind this cursor only.
    since: u64,
    /// No record behind it is older than this, in nanoseconds since 1970: it makes the question a
    /// cheap one.
    since_ns: Option<i64>,
}

impl Records {
    /// Of the collector at this address, all of them.
    #[must_use]
    pub fn of(address: String) -> Self {
        Self { address, since: 0, since_ns: None }
    }

    /// From here on only records that were stored later.
    ///
    /// # Errors
    /// When the collector does not answer.
    pub fn forget(&mut self) -> Result<()> {
        let newest = query::ask(&self.address, &Query::parsed(&["--newest", "--limit", "1"])?)?;
        self.since = newest.first().map_or(0, |event| event.cursor);
        self.since_ns = newest.first().map(|event| event.time_ns.saturating_sub(LATE_NS));
        Ok(())
    }

    /// All records of the store, also those of other scenarios.
    #[must_use]
    pub fn everything(&self) -> Self {
        Self::of(self.address.clone())
    }

    /// Records that the collector finds with the filters of `sekimori search`, all of them unless
    /// there is a `--limit`. The collector is asked without that program, whose start takes longer
    /// here than the answer.
    ///
    /// # Errors
    /// When the collector does not answer.
    pub fn search(&self, filters: &[&str]) -> Result<Vec<Value>> {
        let mut query = Query::parsed(filters)?;
        query.since(self.since_ns);
        let events = query::ask(&self.address, &query)?;
        let later = events.iter().filter(|event| event.cursor > self.since);
        Ok(later.map(json::event).collect())
    }

    /// Records that `sekimori search` prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn printed(&self, filters: &[&str]) -> Result<Vec<Value>> {
        let mut arguments = vec!["search", "--json", "--collector", &self.address];
        arguments.extend(filters);
        let output = guest::run("sekimori", &arguments)?;
        if output.status != 0 {
            bail!("{} ended with {}: {}", output.command, output.status, output.errors());
        }
        let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).context("search printed no JSON")).collect()
    }

    /// Waits until `enough` is content with what is found, and answers that.
    ///
    /// # Errors
    /// When it is not in time; the message shows `what` and what was found.
    pub fn wait(
        &self,
        what: &str,
        filters: &[&str],
        enough: impl Fn(&[Value]) -> bool,
    ) -> Result<Vec<Value>> {
        let started = Instant::now();
        loop {
            let found = self.search(filters)?;
            if enough(&found) {
                return Ok(found);
            }
            if started.elapsed() > RECORD_TIMEOUT {
                bail!("not stored: {what} ({}); {}", filters.join(" "), shown(&found, &[]));
            }
            std::thread::sleep(SEARCH_INTERVAL);
        }
    }

    /// Waits for a record of this kind that has all these fields.
    ///
    /// # Errors
    /// When there is none in time; the message shows the most similar ones.
    pub fn expect(&self, kind: &str, fields: &[Field<'_>]) -> Result<Value> {
        let started = Instant::now();
        loop {
            let mut found = self.search(&["--kind", kind])?;
            if let Some(index) = found.iter().position(|record| fits(record, fields)) {
                return Ok(found.swap_remove(index));
            }
            if started.elapsed() > RECORD_TIMEOUT {
                let wanted: Vec<_> =
                    fields.iter().map(|(name, it)| format!("{name}={}", elided(it))).collect();
                bail!("no {kind} record with {}; {}", wanted.join(" "), shown(&found, fields));
            }
            std::thread::sleep(SEARCH_INTERVAL);
        }
    }

    /// Records of this kind that have all these fields, as of now.
    ///
    /// # Errors
    /// When the collector does not answer.
    pub fn all(&self, kind: &str, fields: &[Field<'_>]) -> Result<Vec<Value>> {
        let mut found = self.search(&["--kind", kind])?;
        found.retain(|record| fits(record, fields));
        Ok(found)
    }
}

/// The record's place in the store.
#[must_use]
pub fn cursor(record: &Value) -> Option<u64> {
    record.get("cursor").and_then(Value::as_u64)
}

/// Whether a record has these fields. A field that is not there is null.
#[must_use]
pub fn fits(record: &Value, fields: &[Field<'_>]) -> bool {
    fields.iter().all(|field| has(record, field))
}

fn has(record: &Value, (name, value): &Field<'_>) -> bool {
    record.pointer(name).unwrap_or(&Value::Null) == value
}

/// A text field; empty when it is not there.
#[must_use]
pub fn text<'a>(record: &'a Value, name: &str) -> &'a str {
    record.pointer(name).and_then(Value::as_str).unwrap_or("")
}

/// A number; 0 when it is not there.
#[must_use]
pub fn number(record: &Value, name: &str) -> u64 {
    record.pointer(name).and_then(Value::as_u64).unwrap_or(0)
}

fn shown(found: &[Value], fields: &[Field<'_>]) -> String {
    let mut ranked: Vec<_> = found
        .iter()
        .map(|record| (fields.iter().filter(|field| has(record, field)).count(), record))
        .collect();
    ranked.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let lines: Vec<_> = ranked
        .iter()
        .take(SHOWN_RECORDS_MAX)
        .map(|(_, record)| elided(record).to_string().chars().take(1500).collect::<String>())
        .collect();
    format!("of {} the nearest: {}", found.len(), lines.join(" || "))
}

/// The record with its longest texts cut, and without the parents.
fn elided(record: &Value) -> Value {
    match record {
        Value::String(text) if text.chars().count() > 160 => {
            let head: String = text.chars().take(60).collect();
            let tail: Vec<char> = text.chars().rev().take(60).collect();
            let tail: String = tail.iter().rev().collect();
            format!("{head}…{} bytes…{tail}", text.len()).into()
        }
        Value::Array(items) => items.iter().map(elided).collect(),
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| name.as_str() != "parent")
            .map(|(name, value)| (name.clone(), elided(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}
