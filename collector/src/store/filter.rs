//! A filter of the wire as a condition in SQL.

use rusqlite::types::Value;
use sekimori_proto::v1::{Filter, Kind, Verdict};
use thiserror::Error;

use crate::limits::{FILTER_BYTES_MAX, FILTER_VALUES_MAX};

/// A filter that asks for what cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterError {
    /// More values than the limit.
    #[error("filter.{0}: {1} values, at most {FILTER_VALUES_MAX}")]
    TooMany(&'static str, usize),
    /// A value longer than the limit.
    #[error("filter.{0}: a value of {1} bytes, at most {FILTER_BYTES_MAX}")]
    TooLong(&'static str, usize),
    /// Not a number of the enumeration.
    #[error("filter.{0}: {1} is not a known value")]
    Unknown(&'static str, i32),
}

/// Conditions joined by AND, with their values. Values never become part of the SQL text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    parts: Vec<String>,
    values: Vec<Value>,
}

impl Condition {
    /// Translates a filter; none at all matches every event.
    ///
    /// # Errors
    /// A value that is unknown, too long or one too many.
    pub fn new(filter: Option<&Filter>) -> Result<Condition, FilterError> {
        let mut condition = Condition::default();
        let Some(filter) = filter else {
            return Ok(condition);
        };
        let kind = |number| Kind::try_from(number).is_ok_and(|kind| kind != Kind::Unspecified);
        condition.numbers("kinds", "kind", &filter.kinds, kind)?;
        let verdict =
            |number| Verdict::try_from(number).is_ok_and(|known| known != Verdict::Unspecified);
        condition.numbers("verdicts", "verdict", &filter.verdicts, verdict)?;
        condition.texts("hosts", &["host"], &filter.hosts)?;
        condition.texts("users", &["user", "login_user"], &filter.users)?;
        condition.texts("rules", &["rule"], &filter.rules)?;
        if !filter.text.is_empty() {
            check_length("text", &filter.text)?;
            // Both are blobs: bytes are compared as they are, and no character means anything else.
            condition.and("instr(text, ?) > 0", [filter.text.clone().into_bytes().into()]);
        }
        if let Some(since) = filter.since_ns {
            condition.and("time_ns >= ?", [since.into()]);
        }
        if let Some(until) = filter.until_ns {
            condition.and("time_ns < ?", [until.into()]);
        }
        Ok(condition)
    }

    /// Adds a condition; each `?` in `sql` takes one of `values`, in order.
    pub fn and(&mut self, sql: impl Into<String>, values: impl IntoIterator<Item = Value>) {
        self.parts.push(sql.into());
        self.values.extend(values);
    }

    /// What stands behind WHERE.
    pub fn sql(&self) -> String {
        if self.parts.is_empty() {
            return "TRUE".to_owned();
        }
        self.parts.join(" AND ")
    }

    /// The values of the `?` in [`Condition::sql`].
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    fn numbers(
        &mut self,
        name: &'static str,
        column: &str,
        numbers: &[i32],
        known: impl Fn(i32) -> bool,
    ) -> Result<(), FilterError> {
        check_count(name, numbers.len())?;
        if let Some(&unknown) = numbers.iter().find(|number| !known(**number)) {
            return Err(FilterError::Unknown(name, unknown));
        }
        let values = numbers.iter().map(|&number| Value::from(number));
        match numbers {
            [] => {}
            [_] => self.and(format!("{column} = ?"), values),
            // The plus keeps SQLite from an index that would have to be sorted by time again.
            _ => self.and(format!("+{column} IN ({})", places(numbers.len())), values),
        }
        Ok(())
    }

    fn texts(
        &mut self,
        name: &'static str,
        columns: &[&str],
        texts: &[String],
    ) -> Result<(), FilterError> {
        check_count(name, texts.len())?;
        for text in texts {
            check_length(name, text)?;
        }
        let places = match texts {
            [] => return Ok(()),
            [_] => "= ?".to_owned(),
            _ => format!("IN ({})", places(texts.len())),
        };
        let plus = if texts.len() == 1 { "" } else { "+" };
        let either: Vec<String> =
            columns.iter().map(|column| format!("{plus}{column} {places}")).collect();
        let values = columns.iter().flat_map(|_| texts.iter().cloned().map(Value::from));
        self.and(format!("({})", either.join(" OR ")), values);
        Ok(())
    }
}

fn check_count(name: &'static str, count: usize) -> Result<(), FilterError> {
    if count > FILTER_VALUES_MAX {
        return Err(FilterError::TooMany(name, count));
    }
    Ok(())
}

fn check_length(name: &'static str, text: &str) -> Result<(), FilterError> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(FilterError::TooLong(name, text.len()));
    }
    Ok(())
}

fn places(count: usize) -> String {
    vec!["?"; count].join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rstest::rstest;

    use super::*;

    #[test]
    fn every_condition_becomes_sql_with_its_values() {
        let filter = Filter {
            kinds: vec![2, 6],
            hosts: vec!["pc".into()],
            users: vec!["花子".into()],
            verdicts: vec![3],
            text: "100%_".into(),
            since_ns: Some(5),
            until_ns: Some(9),
            rules: vec!["r".into(), "s".into()],
        };
        let condition = Condition::new(Some(&filter)).unwrap();
        assert_eq!(
            condition.sql(),
            "+kind IN (?,?) AND verdict = ? AND (host = ?) AND (user = ? OR login_user = ?) AND \
             (+rule IN (?,?)) AND instr(text, ?) > 0 AND time_ns >= ? AND time_ns < ?"
        );
        assert_eq!(condition.values().len(), 11);
        assert_eq!(condition.values().get(8), Some(&Value::Blob(b"100%_".to_vec())));
        assert_eq!(Condition::new(None).unwrap().sql(), "TRUE");
    }

    #[rstest]
    #[case(Filter { kinds: vec![0], ..Filter::default() }, FilterError::Unknown("kinds", 0))]
    #[case(
        Filter { verdicts: vec![99], ..Filter::default() },
        FilterError::Unknown("verdicts", 99)
    )]
    #[case(
        Filter { hosts: vec![String::new(); 201], ..Filter::default() },
        FilterError::TooMany("hosts", 201)
    )]
    #[case(
        Filter { text: "x".repeat(4097), ..Filter::default() },
        FilterError::TooLong("text", 4097)
    )]
    fn bad_filters(#[case] filter: Filter, #[case] expected: FilterError) {
        assert_eq!(Condition::new(Some(&filter)), Err(expected));
    }
}
