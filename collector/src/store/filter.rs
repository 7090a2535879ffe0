//! Which events a question is about.

use std::sync::{Arc, OnceLock};

use memchr::memmem::Finder;
use sekimori_proto::json::unescape;
use sekimori_proto::v1::{Destination, Device, Event, Filter, Kind, Process, Verdict};
use thiserror::Error;

use super::block::{Header, Stored};
use super::columns::Column;
use super::tags::{self, Tag, Tagged};
use crate::expression::{Expression, ExpressionError};
use crate::limits::{FILTER_BYTES_MAX, FILTER_VALUES_MAX, STEP_TEXTS_MAX};

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
    /// A backslash that means nothing.
    #[error("filter.{0}: {1:?} has a backslash that begins no known sequence; a plain one is \\\\")]
    Escape(&'static str, String),
    /// No expression, or none that can be asked.
    #[error("filter.expression: {0}")]
    Expression(#[from] ExpressionError),
}

/// Conditions that all must hold.
#[derive(Clone, Debug)]
pub struct Condition {
    filter: Filter,
    programs: Vec<Vec<u8>>,
    text: Option<Finder<'static>>,
    expression: Option<Expression>,
    /// The first thing that the expression could not say of an event.
    failure: Arc<OnceLock<ExpressionError>>,
    tolerant: bool,
    /// Numbers of kinds, one of each; so with verdicts and hosts.
    kinds: Vec<Vec<i32>>,
    verdicts: Vec<Vec<i32>>,
    hosts: Vec<Vec<String>>,
    /// Of each condition on a tagged field, the values that it holds for.
    wanted: Vec<Vec<Tag>>,
    /// Of each condition on a text, the texts of which an encoded event must have one to match: they
    /// lie in it as they are.
    verbatim: Vec<Vec<Finder<'static>>>,
    since_ns: i64,
    until_ns: i64,
}

impl Condition {
    /// Of a filter; none at all matches every event.
    ///
    /// # Errors
    /// A value that is unknown, too long or one too many.
    pub fn new(filter: Option<&Filter>) -> Result<Condition, FilterError> {
        let filter = filter.cloned().unwrap_or_default();
        let kind = |number| Kind::try_from(number).is_ok_and(|kind| kind != Kind::Unspecified);
        let verdict =
            |number| Verdict::try_from(number).is_ok_and(|known| known != Verdict::Unspecified);
        check_numbers("kinds", &filter.kinds, kind)?;
        check_numbers("verdicts", &filter.verdicts, verdict)?;
        for (name, texts) in [
            ("hosts", &filter.hosts),
            ("users", &filter.users),
            ("rules", &filter.rules),
            ("serials", &filter.serials),
            ("destinations", &filter.destinations),
            ("programs", &filter.programs),
        ] {
            check_count(name, texts.len())?;
            texts.iter().try_for_each(|text| check_length(name, text))?;
        }
        check_length("text", &filter.text)?;
        let expression = match filter.expression.as_str() {
            "" => None,
            text => Some(Expression::new(text)?),
        };
        let programs = filter
            .programs
            .iter()
            .map(|text| unescape(text).map_err(|_| FilterError::Escape("programs", text.clone())));
        let programs: Vec<Vec<u8>> = programs.collect::<Result<_, _>>()?;
        let text =
            (!filter.text.is_empty()).then(|| Finder::new(filter.text.as_bytes()).into_owned());
        let narrow = expression.as_ref().map(Expression::narrow).cloned().unwrap_or_default();
        let with = |own: &[i32], more: Vec<Vec<i32>>| all_of(own.to_vec(), more);
        let with_texts = |own: &[String], more: Vec<Vec<String>>| all_of(own.to_vec(), more);
        let kinds = with(&filter.kinds, narrow.kinds);
        let verdicts = with(&filter.verdicts, narrow.verdicts);
        let hosts = with_texts(&filter.hosts, narrow.hosts);
        let mut wanted: Vec<Vec<Tag>> = Vec::new();
        for (field, sets) in [(Tagged::Kind, &kinds), (Tagged::Verdict, &verdicts)] {
            let tag = |it: &i32| tags::tag(field, &it.to_le_bytes());
            wanted.extend(sets.iter().map(|set| set.iter().map(tag).collect()));
        }
        for (field, sets) in [
            (Tagged::Host, hosts.clone()),
            (Tagged::User, with_texts(&filter.users, narrow.users)),
            (Tagged::Rule, with_texts(&filter.rules, narrow.rules)),
            (Tagged::Serial, with_texts(&filter.serials, narrow.serials)),
            (Tagged::Destination, with_texts(&filter.destinations, Vec::new())),
            (Tagged::Program, narrow.programs),
        ] {
            let tag = |it: &String| tags::tag(field, it.as_bytes());
            wanted.extend(sets.iter().map(|set| set.iter().map(tag).collect()));
        }
        if !programs.is_empty() {
            wanted.push(programs.iter().map(|it| tags::tag(Tagged::Program, it)).collect());
        }
        let verbatim = [&filter.users, &filter.rules, &filter.serials, &filter.destinations];
        let finder = |text: &[u8]| Finder::new(text).into_owned();
        let mut verbatim: Vec<Vec<Finder<'_>>> = verbatim
            .into_iter()
            .map(|texts| texts.iter().map(|text| finder(text.as_bytes())).collect())
            .collect();
        verbatim.push(programs.iter().map(|program| finder(program)).collect());
        verbatim.push(text.clone().filter(|_| !may_be_address(&filter.text)).into_iter().collect());
        verbatim.retain(|texts| !texts.is_empty());
        let finders = |texts: &Vec<String>| texts.iter().map(|it| finder(it.as_bytes())).collect();
        verbatim.extend(narrow.verbatim.iter().map(finders));
        let (first, last) = narrow.times.unwrap_or((i64::MIN, i64::MAX));
        let since_ns = filter.since_ns.unwrap_or(i64::MIN).max(first);
        let until_ns = filter.until_ns.unwrap_or(i64::MAX).min(last.saturating_add(1));
        Ok(Condition {
            filter,
            programs,
            text,
            expression,
            failure: Arc::default(),
            tolerant: false,
            kinds,
            verdicts,
            hosts,
            wanted,
            verbatim,
            since_ns,
            until_ns,
        })
    }

    /// The first and the last time that an event may have.
    pub fn times(&self) -> (i64, i64) {
        let last =
            if self.until_ns == i64::MAX { i64::MAX } else { self.until_ns.saturating_sub(1) };
        (self.since_ns, last)
    }

    /// Whether events between these times may match.
    pub fn may_match_times(&self, oldest_ns: i64, newest_ns: i64) -> bool {
        newest_ns >= self.since_ns && (oldest_ns < self.until_ns || self.until_ns == i64::MAX)
    }

    /// Whether a block may have an event that matches.
    pub fn may_match(&self, header: &Header) -> bool {
        self.may_match_times(header.oldest_ns, header.newest_ns)
            && self.wanted.iter().all(|wanted| tags::may_have(&header.tags, wanted))
    }

    /// Whether an event of this kind and this verdict may match.
    pub fn may_be_of(&self, kind: i32, verdict: i32) -> bool {
        self.kinds.iter().all(|kinds| kinds.contains(&kind))
            && self.verdicts.iter().all(|verdicts| verdicts.contains(&verdict))
    }

    /// What can be said of an event before it is decoded.
    pub fn may_be(&self, stored: &Stored<'_>) -> bool {
        self.may_be_of(stored.kind, stored.verdict)
            && self.may_match_times(stored.time_ns, stored.time_ns)
            && self.has_host(stored.host)
            && self
                .verbatim
                .iter()
                .all(|texts| texts.iter().any(|text| text.find(stored.body).is_some()))
    }

    /// Whether an event matches for which [`Condition::may_be`] holds.
    pub fn matches(&self, event: &Event) -> bool {
        self.has_rule(event)
            && self.has_user(event)
            && self.has_program(event)
            && self.has_serial(event)
            && self.has_destination(event)
            && self.text.as_ref().is_none_or(|text| has_text(event, text))
            && self.expression.as_ref().is_none_or(|expression| self.is_true(expression, event))
    }

    /// Whether it asks for nothing that is not stored beside an encoded event: [`Condition::may_be`]
    /// says all then.
    pub fn is_of_what_is_stored_beside(&self) -> bool {
        // By name, so that it must be said of a condition that is new, too.
        let Filter {
            rules,
            users,
            programs,
            serials,
            destinations,
            text,
            expression,
            kinds: _,
            hosts: _,
            verdicts: _,
            since_ns: _,
            until_ns: _,
        } = &self.filter;
        rules.is_empty()
            && users.is_empty()
            && programs.is_empty()
            && serials.is_empty()
            && destinations.is_empty()
            && text.is_empty()
            && expression.is_empty()
    }

    /// Whether columns have all that it asks.
    pub fn is_of_columns(&self) -> bool {
        self.text.is_none() && self.expression.is_none()
    }

    /// Whether an event is soon asked.
    pub fn is_quick(&self) -> bool {
        let texts: usize = self.verbatim.iter().map(Vec::len).sum();
        self.expression.is_none() && texts <= STEP_TEXTS_MAX
    }

    /// Whether what a column is of makes a difference.
    pub fn asks(&self, column: Column) -> bool {
        match column {
            Column::Host => !self.hosts.is_empty(),
            Column::User => !self.filter.users.is_empty(),
            Column::Program => !self.programs.is_empty(),
            Column::Device => !self.filter.serials.is_empty(),
            Column::Destination => !self.filter.destinations.is_empty(),
            Column::Act => {
                !(self.kinds.is_empty() && self.verdicts.is_empty() && self.filter.rules.is_empty())
            }
        }
    }

    /// Whether what a column is of is as it asks.
    pub fn holds(&self, column: Column, event: &Event) -> bool {
        match column {
            Column::Host => self.has_host(&event.host),
            Column::User => self.has_user(event),
            Column::Program => self.has_program(event),
            Column::Device => self.has_serial(event),
            Column::Destination => self.has_destination(event),
            Column::Act => self.may_be_of(event.kind, event.verdict) && self.has_rule(event),
        }
    }

    fn has_host(&self, host: &str) -> bool {
        self.hosts.iter().all(|hosts| hosts.iter().any(|it| it == host))
    }

    fn has_rule(&self, event: &Event) -> bool {
        self.filter.rules.is_empty() || self.filter.rules.contains(&event.rule)
    }

    fn has_user(&self, event: &Event) -> bool {
        let users = &self.filter.users;
        let has = |it: &Process| users.contains(&it.user) || users.contains(&it.login_user);
        users.is_empty() || event.process.as_ref().is_some_and(has)
    }

    fn has_program(&self, event: &Event) -> bool {
        self.programs.is_empty()
            || event.process.as_ref().is_some_and(|it| self.programs.contains(&it.exe))
    }

    fn has_serial(&self, event: &Event) -> bool {
        let serials = &self.filter.serials;
        serials.is_empty() || devices(event).any(|it| serials.contains(&it.serial))
    }

    fn has_destination(&self, event: &Event) -> bool {
        let destinations = &self.filter.destinations;
        let has = |it: &Destination| {
            destinations.contains(&it.ip)
                || it.names.iter().any(|name| destinations.contains(&name.name))
        };
        destinations.is_empty() || event.destination.as_ref().is_some_and(has)
    }

    /// What the expression could not say of an event, which was left out then: whoever asked is told
    /// this instead of an answer.
    pub fn failure(&self) -> Option<&ExpressionError> {
        self.failure.get().filter(|_| !self.tolerant)
    }

    /// The same condition for those who go on without the events that it has no answer for.
    #[must_use]
    pub fn tolerant(self) -> Condition {
        Condition { tolerant: true, ..self }
    }

    /// The first thing that it had no answer for.
    pub fn unanswered(&self) -> Option<&ExpressionError> {
        self.failure.get()
    }

    fn is_true(&self, expression: &Expression, event: &Event) -> bool {
        expression.matches(event).unwrap_or_else(|error| {
            self.failure.get_or_init(|| error);
            false
        })
    }
}

/// Sets of which each must have the value; the first one only if there is something in it.
fn all_of<T>(own: Vec<T>, mut more: Vec<Vec<T>>) -> Vec<Vec<T>> {
    if !own.is_empty() {
        more.push(own);
    }
    more
}

/// Whether a text may be a part of an address with its port, and of neither alone: an event has the
/// address as a text and the port as a number.
fn may_be_address(text: &str) -> bool {
    let across = text.contains([':', '[', ']']);
    let port = text.len() <= 5 && text.bytes().all(|it| it.is_ascii_digit());
    port || (across && text.bytes().all(|it| it.is_ascii_hexdigit() || b".:[]".contains(&it)))
}

/// The device that came or went, and that of the file.
fn devices(event: &Event) -> impl Iterator<Item = &Device> {
    let below = event.file.as_ref().and_then(|file| file.device.as_ref());
    below.into_iter().chain(&event.device)
}

/// Whether one of the texts that a filter's text is looked for in has it. Bytes are compared as they
/// are, and no character means anything else.
fn has_text(event: &Event, text: &Finder<'_>) -> bool {
    let has = |part: &[u8]| text.find(part).is_some();
    let file = event.file.iter();
    let mut of_file = file.flat_map(|it| [&it.path, &it.new_path, &it.attribute]);
    if of_file.any(|part| has(part)) || event.sources.iter().any(|source| has(&source.path)) {
        return true;
    }
    let of_device = |it: &Device| {
        [&it.serial, &it.vendor_name, &it.product_name].iter().any(|part| has(part.as_bytes()))
    };
    if devices(event).any(of_device) || event.process.as_ref().is_some_and(|it| has(&it.exe)) {
        return true;
    }
    event.destination.as_ref().is_some_and(|destination| destination_has(destination, &has))
}

fn destination_has(destination: &Destination, has: &impl Fn(&[u8]) -> bool) -> bool {
    let Destination { ip, port, path, names, http, smtp, .. } = destination;
    let address =
        || if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    has(path)
        || (!ip.is_empty() && has(address().as_bytes()))
        || names.iter().any(|it| has(it.name.as_bytes()))
        || http.as_ref().is_some_and(|it| has(&it.path))
        || smtp
            .as_ref()
            .is_some_and(|it| has(it.from.as_bytes()) || it.to.iter().any(|to| has(to.as_bytes())))
}

fn check_numbers(
    name: &'static str,
    numbers: &[i32],
    known: impl Fn(i32) -> bool,
) -> Result<(), FilterError> {
    check_count(name, numbers.len())?;
    match numbers.iter().find(|number| !known(**number)) {
        Some(unknown) => Err(FilterError::Unknown(name, *unknown)),
        None => Ok(()),
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

/// Of an event that is stored in a block by itself: whether the block may have it, and whether it
/// may match.
#[cfg(test)]
fn looked_at(condition: &Condition, event: &Event) -> (bool, bool) {
    use prost::Message as _;
    let Event { time_ns, kind, verdict, .. } = *event;
    let mut tags = tags::of_event(event);
    tags.push(tags::tag(Tagged::Host, event.host.as_bytes()));
    let tags = tags::to_bytes(tags);
    let (first, last, events) = (1, 1, 1);
    let header = Header { first, last, events, oldest_ns: time_ns, newest_ns: time_ns, tags };
    let body = Event { host: String::new(), ..event.clone() }.encode_to_vec().into();
    let stored = Stored { cursor: 1, time_ns, kind, verdict, host: &event.host, body: &body };
    (condition.may_match(&header), condition.may_be(&stored))
}

#[cfg(test)]
impl Condition {
    /// Of an event that is stored: whether it is looked at, and whether it matches then.
    pub(crate) fn asked_of(&self, event: &Event) -> (bool, bool) {
        let (in_block, may_be) = looked_at(self, event);
        (in_block && may_be, self.matches(event))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rstest::rstest;
    use sekimori_proto::v1::{File, Name, Process, SmtpEnvelope};

    use super::*;

    fn event() -> Event {
        Event {
            host: "pc".into(),
            time_ns: 5,
            kind: 2,
            verdict: 3,
            rule: "no-usb".into(),
            file: Some(File {
                path: b"/a\xff".to_vec(),
                new_path: b"/b".to_vec(),
                device: Some(Device { serial: "S1".into(), ..Device::default() }),
                ..File::default()
            }),
            sources: vec![File { path: "/顧客".into(), ..File::default() }],
            process: Some(Process {
                exe: b"/bin/\xfecp".to_vec(),
                user: "root".into(),
                login_user: "花子".into(),
                ..Process::default()
            }),
            destination: Some(Destination {
                ip: "::1".into(),
                port: 25,
                names: vec![Name { name: "mx.example".into(), ..Name::default() }],
                smtp: Some(SmtpEnvelope { to: vec!["b@c".into()], ..SmtpEnvelope::default() }),
                ..Destination::default()
            }),
            ..Event::default()
        }
    }

    fn text(text: &str) -> Filter {
        Filter { text: text.into(), ..Filter::default() }
    }

    /// What a condition says of the event and of a block that has its tags and no others.
    fn asked(filter: &Filter) -> (bool, bool) {
        let condition = Condition::new(Some(filter)).unwrap();
        let event = event();
        let (in_block, may_be) = looked_at(&condition, &event);
        let matches = condition.matches(&event);
        assert!(!condition.is_of_what_is_stored_beside() || matches, "of all that may be");
        (may_be && matches, in_block)
    }

    #[rstest]
    #[case(Filter::default())]
    #[case(Filter { kinds: vec![2, 6], verdicts: vec![3], ..Filter::default() })]
    #[case(Filter { users: vec!["花子".into()], ..Filter::default() })]
    #[case(Filter { users: vec!["x".into(), "root".into()], ..Filter::default() })]
    #[case(Filter { rules: vec!["no-usb".into()], ..Filter::default() })]
    #[case(Filter { serials: vec!["S1".into()], ..Filter::default() })]
    #[case(Filter { destinations: vec!["::1".into()], ..Filter::default() })]
    #[case(Filter { destinations: vec!["mx.example".into()], ..Filter::default() })]
    #[case(Filter { programs: vec!["/bin/\\xfecp".into()], ..Filter::default() })]
    #[case(Filter { since_ns: Some(5), until_ns: Some(6), ..Filter::default() })]
    #[case(text("顧客"))]
    #[case(text("[::1]:25"))]
    #[case(text("b@c"))]
    #[case(text("x.exam"))]
    #[case(text("]:2"))]
    #[case(text("25"))]
    #[case(Filter { users: vec!["root".into()], ..text("/bin") })]
    fn what_is_asked_for_is_found(#[case] filter: Filter) {
        assert_eq!(asked(&filter), (true, true));
    }

    #[rstest]
    #[case(Filter { kinds: vec![6], ..Filter::default() })]
    #[case(Filter { verdicts: vec![1], ..Filter::default() })]
    #[case(Filter { users: vec!["花".into()], ..Filter::default() })]
    #[case(Filter { rules: vec!["no".into()], ..Filter::default() })]
    #[case(Filter { serials: vec!["S".into()], ..Filter::default() })]
    #[case(Filter { destinations: vec!["mx".into()], ..Filter::default() })]
    #[case(Filter { programs: vec!["/bin/cp".into()], ..Filter::default() })]
    fn no_other_is_and_its_block_is_left_out(#[case] filter: Filter) {
        assert_eq!(asked(&filter), (false, false));
    }

    #[rstest]
    #[case(Filter { since_ns: Some(6), ..Filter::default() })]
    #[case(Filter { until_ns: Some(5), ..Filter::default() })]
    fn blocks_of_another_time_are_left_out(#[case] filter: Filter) {
        assert!(!asked(&filter).1);
    }

    #[test]
    fn parts_of_the_text_stay_apart() {
        assert!(!asked(&text("/b/顧客")).0);
        assert!(!asked(&text("/B")).0);
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
    #[case(
        Filter { programs: vec!["\\q".into()], ..Filter::default() },
        FilterError::Escape("programs", "\\q".into())
    )]
    fn bad_filters(#[case] filter: Filter, #[case] expected: FilterError) {
        assert_eq!(Condition::new(Some(&filter)).unwrap_err(), expected);
    }
}
