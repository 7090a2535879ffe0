//! What lint says: findings with positions, and the list that collects them.

use std::fmt;

use serde::Serialize;

use crate::limits::{FINDINGS_MAX, SUGGESTIONS_MAX};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy is refused.
    Error,
    /// The policy loads; something in it is probably not meant.
    Warning,
}

/// A place in the policy text. Both count from 1; columns count characters, not bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One thing that is wrong or doubtful.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Finding {
    /// Error or warning.
    pub severity: Severity,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What was expected, or what to do.
    pub hint: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(out, "{}:{}: {severity}: {}", self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(out, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// The list every step adds to. Bounded: see [`FINDINGS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    errors: usize,
    dropped: usize,
    suggestions: usize,
}

impl Findings {
    pub fn error(&mut self, at: Position, message: impl Into<String>) {
        self.push(Severity::Error, at, message.into(), None);
    }

    pub fn error_hint(
        &mut self,
        at: Position,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(Severity::Error, at, message.into(), Some(hint.into()));
    }

    pub fn warn(&mut self, at: Position, message: impl Into<String>) {
        self.push(Severity::Warning, at, message.into(), None);
    }

    pub fn warn_hint(&mut self, at: Position, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Warning, at, message.into(), Some(hint.into()));
    }

    /// "did you mean `x`?" when one of `known` is close to `given`.
    pub fn suggest<'a>(
        &mut self,
        given: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Option<String> {
        if self.suggestions >= SUGGESTIONS_MAX {
            return None;
        }
        self.suggestions += 1;
        similar(given, known).map(|name| format!("did you mean `{name}`?"))
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// All findings by position, errors before warnings of the same place.
    pub fn sorted(mut self) -> Vec<Finding> {
        self.list.sort_by_key(|it| (it.line, it.column, it.severity));
        self.list.dedup();
        if self.dropped > 0 {
            let (line, column) = self.list.last().map_or((1, 1), |last| (last.line, last.column));
            self.list.push(Finding {
                severity: if self.errors > 0 { Severity::Error } else { Severity::Warning },
                line,
                column,
                message: format!("{} more findings are not shown", self.dropped),
                hint: None,
            });
        }
        self.list
    }

    fn push(&mut self, severity: Severity, at: Position, message: String, hint: Option<String>) {
        self.errors += usize::from(severity == Severity::Error);
        if self.list.len() >= FINDINGS_MAX {
            self.dropped += 1;
            return;
        }
        let (line, column) = (at.line.max(1), at.column.max(1));
        self.list.push(Finding { severity, line, column, message, hint });
    }
}

/// The name in `known` that `given` was probably meant to be.
fn similar<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = given.chars().count();
    let allowed = (length / 3).clamp(1, 3);
    known
        .into_iter()
        .filter(|name| name.chars().count().abs_diff(length) <= allowed)
        .map(|name| (strsim::osa_distance(given, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// "`a`, `b` or `c`" for messages.
pub(crate) fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// A text from the policy, made fit for one line of a message: control characters escaped, cut.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == 60 {
            out.push('…');
            break;
        }
        if character.is_control() {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}
