//! Questions in words: what stands in the record of a read.
//!
//! They are told in the options of `sekimori search`, `top` and `watch`, so that whoever looks into
//! a record can ask the same again.

use std::fmt::Write as _;

use jiff::Timestamp;
use sekimori_proto::v1::{
    AggregateRequest, Field, Filter, Kind, SearchRequest, SubscribeRequest, Verdict,
};
use sekimori_proto::words::Word;
use thiserror::Error;

use crate::limits::QUESTION_BYTES_MAX;

/// A question that is too long to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("filter: its values have {0} bytes in all, at most {QUESTION_BYTES_MAX}: ask in parts")]
pub struct TooLong(usize);

/// A page of a search. Which page does not matter.
///
/// # Errors
/// [`TooLong`].
pub fn search(request: &SearchRequest) -> Result<String, TooLong> {
    let mut words = Words::of(request.filter.as_ref());
    if request.newest_first {
        words.flag("newest");
    }
    words.text()
}

/// Counts in groups.
///
/// # Errors
/// [`TooLong`].
pub fn aggregate(request: &AggregateRequest) -> Result<String, TooLong> {
    let mut words = Words::default();
    words.words::<Field>("by", &request.by);
    if request.distinct != 0 {
        words.words::<Field>("distinct", &[request.distinct]);
    }
    words.filter(request.filter.as_ref());
    words.text()
}

/// A live stream.
///
/// # Errors
/// [`TooLong`].
pub fn subscribe(request: &SubscribeRequest) -> Result<String, TooLong> {
    let mut words = Words::of(request.filter.as_ref());
    match request.cursor {
        None => {}
        Some(0) => words.flag("from-start"),
        Some(cursor) => words.option("cursor", [cursor.to_string()]),
    }
    words.text()
}

/// Which events, and nothing else.
///
/// # Errors
/// [`TooLong`].
pub fn of_filter(filter: Option<&Filter>) -> Result<String, TooLong> {
    Words::of(filter).text()
}

#[derive(Debug, Default)]
struct Words(String);

impl Words {
    fn of(filter: Option<&Filter>) -> Words {
        let mut words = Words::default();
        words.filter(filter);
        words
    }

    fn text(self) -> Result<String, TooLong> {
        if self.0.len() > QUESTION_BYTES_MAX {
            return Err(TooLong(self.0.len()));
        }
        Ok(self.0)
    }

    fn filter(&mut self, filter: Option<&Filter>) {
        let Some(filter) = filter else { return };
        // By name, so that a condition that is new cannot be left out of the record.
        let Filter {
            kinds,
            hosts,
            users,
            verdicts,
            text,
            since_ns,
            until_ns,
            rules,
            serials,
            destinations,
            programs,
            expression,
        } = filter;
        self.words::<Kind>("kind", kinds);
        self.option("host", hosts.iter().cloned());
        self.option("user", users.iter().cloned());
        self.words::<Verdict>("verdict", verdicts);
        self.option("rule", rules.iter().cloned());
        self.option("serial", serials.iter().cloned());
        self.option("destination", destinations.iter().cloned());
        // The command line takes no list here: a path may have a comma.
        programs.iter().for_each(|program| self.option("program", [program.clone()]));
        self.option("text", Some(text.clone()).filter(|text| !text.is_empty()));
        self.option("where", Some(expression.clone()).filter(|text| !text.is_empty()));
        self.option("since", since_ns.map(time));
        self.option("until", until_ns.map(time));
    }

    fn words<T: Word + TryFrom<i32>>(&mut self, name: &str, numbers: &[i32]) {
        let word = |number: &i32| match T::try_from(*number) {
            Ok(value) => value.word().to_owned(),
            Err(_) => number.to_string(),
        };
        self.option(name, numbers.iter().map(word));
    }

    fn flag(&mut self, name: &str) {
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{space}--{name}");
    }

    /// An option with its values; none without one.
    fn option(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        let values: Vec<String> = values.into_iter().map(|value| quoted(&value)).collect();
        if !values.is_empty() {
            self.flag(name);
            let _ = write!(self.0, " {}", values.join(","));
        }
    }
}

/// What a command is about, and its options, those that are set.
pub fn of_command(subject: Option<&str>, options: &[(&str, Option<String>)]) -> String {
    let subject = subject.iter().map(|it| quoted(it));
    let options = options
        .iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", quoted(value.as_deref()?))));
    subject.chain(options).collect::<Vec<_>>().join(" ")
}

fn time(ns: i64) -> String {
    Timestamp::from_nanosecond(ns.into()).map_or_else(|_| ns.to_string(), |it| it.to_string())
}

/// As a shell takes it.
fn quoted(value: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80 || b"-_./:@%+".contains(&byte);
    if !value.is_empty() && value.bytes().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn every_condition_is_told() {
        let filter = Filter {
            kinds: vec![2, 6],
            hosts: vec!["pc".into(), "a,b".into()],
            users: vec!["花子".into()],
            verdicts: vec![3],
            text: "it's 100 %".into(),
            since_ns: Some(0),
            until_ns: Some(1_500_000_000),
            rules: vec![String::new()],
            serials: vec!["S1".into()],
            destinations: vec!["a.example".into(), "::1".into()],
            programs: vec!["/bin/a,b".into(), "/bin/c".into()],
            expression: "file.path == '/a'".into(),
        };
        let told = "--kind usb.write,exec --host pc,'a,b' --user 花子 --verdict denied --rule '' \
                    --serial S1 --destination a.example,::1 --program '/bin/a,b' \
                    --program /bin/c --text 'it'\\''s 100 %' \
                     --where 'file.path == '\\''/a'\\''' --since 1970-01-01T00:00:00Z \
                    --until 1970-01-01T00:00:01.5Z";
        let filter = Some(filter);
        let request = SearchRequest { filter: filter.clone(), ..SearchRequest::default() };
        assert_eq!(search(&request).unwrap(), told);
        let newest = SearchRequest { newest_first: true, ..request };
        assert_eq!(search(&newest).unwrap(), format!("{told} --newest"));
        let by = vec![Field::User.into(), Field::Day.into()];
        let distinct = Field::File.into();
        let request =
            AggregateRequest { by, distinct, filter: filter.clone(), ..Default::default() };
        assert_eq!(aggregate(&request).unwrap(), format!("--by user,day --distinct file {told}"));
        let request = SubscribeRequest { filter, cursor: Some(7) };
        assert_eq!(subscribe(&request).unwrap(), format!("{told} --cursor 7"));
    }

    #[test]
    fn what_asks_for_everything() {
        assert_eq!(search(&SearchRequest::default()).unwrap(), "");
        let request = SubscribeRequest { filter: None, cursor: Some(0) };
        assert_eq!(subscribe(&request).unwrap(), "--from-start");
        assert_eq!(subscribe(&SubscribeRequest::default()).unwrap(), "");
    }

    #[test]
    fn a_question_that_does_not_fit_is_refused_and_not_cut() {
        let of = |count| Filter { users: vec!["u".repeat(4095); count], ..Filter::default() };
        assert!(Words::of(Some(&of(15))).text().is_ok());
        let error = Words::of(Some(&of(16))).text().unwrap_err();
        assert!(error.to_string().contains("at most 65536"), "{error}");
    }
}
