//! Events in groups: what `QueryService.Aggregate` answers from.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use sekimori_proto::json::escape;
use sekimori_proto::v1::{AggregateResponse, Destination, Device, Event, Field, Group, Order};
use sekimori_proto::v1::{Operation, Process};
use sekimori_proto::words::Word as _;
use thiserror::Error;

use crate::limits::{DISTINCT_VALUES_MAX, GROUP_FIELDS_MAX, GROUPS_MAX, ZONE_OFFSET_MAX};

/// A question that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GroupError {
    /// By nothing, or by too much.
    #[error("by: {0} fields, expected 1 to {GROUP_FIELDS_MAX}")]
    Fields(usize),
    /// Not a number of the enumeration.
    #[error("{0}: {1} is not a known value")]
    Unknown(&'static str, i32),
    /// No such zone.
    #[error("zone_offset_s: {0} is no offset of a time zone")]
    Zone(i32),
    /// More groups than the limit.
    #[error(
        "there are more than {GROUPS_MAX} groups: ask by fewer fields, or for a shorter time range, \
         a host or a kind"
    )]
    TooMany,
    /// More different values than the limit.
    #[error(
        "there are more than {DISTINCT_VALUES_MAX} different values to be counted: ask for a \
         shorter time range, a host or a kind"
    )]
    TooManyDistinct,
}

/// Groups under construction.
#[derive(Debug)]
pub struct Groups {
    by: Vec<Field>,
    distinct: Option<Field>,
    offset: Offset,
    zone: TimeZone,
    events: u64,
    places: HashMap<Vec<String>, usize>,
    groups: Vec<Group>,
    /// Values by the place of their group.
    different: HashSet<(usize, String)>,
}

impl Groups {
    /// No groups yet. `distinct` is 0 when nothing is to be counted so.
    ///
    /// # Errors
    /// What is wrong with the question.
    pub fn new(by: &[i32], distinct: i32, zone_offset_s: i32) -> Result<Groups, GroupError> {
        if by.is_empty() || by.len() > GROUP_FIELDS_MAX {
            return Err(GroupError::Fields(by.len()));
        }
        let field = |name, number| match Field::try_from(number) {
            Ok(field) if field != Field::Unspecified => Ok(field),
            _ => Err(GroupError::Unknown(name, number)),
        };
        let by = by.iter().map(|&number| field("by", number)).collect::<Result<_, _>>()?;
        let distinct = if distinct == 0 { None } else { Some(field("distinct", distinct)?) };
        let offset = Offset::from_seconds(zone_offset_s)
            .ok()
            .filter(|offset| offset.seconds().abs() <= ZONE_OFFSET_MAX)
            .ok_or(GroupError::Zone(zone_offset_s))?;
        let zone = TimeZone::fixed(offset);
        let (places, groups, different) = Default::default();
        Ok(Groups { by, distinct, offset, zone, events: 0, places, groups, different })
    }

    /// Puts an event into its group.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add(&mut self, event: &Event) -> Result<(), GroupError> {
        let values: Vec<String> = self.by.iter().map(|field| self.value(*field, event)).collect();
        let place = self.place(values, event.time_ns)?;
        if let Some(field) = self.distinct {
            self.note(place, self.value(field, event))?;
        }
        self.count(place, event.time_ns, bytes_of(event), bytes_in_of(event));
        Ok(())
    }

    /// The place of the group with these values.
    pub(super) fn place(&mut self, values: Vec<String>, time_ns: i64) -> Result<usize, GroupError> {
        if let Some(place) = self.places.get(&values) {
            return Ok(*place);
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err(GroupError::TooMany);
        }
        let place = self.groups.len();
        let (first_ns, last_ns) = (time_ns, time_ns);
        self.groups.push(Group { values: values.clone(), first_ns, last_ns, ..Group::default() });
        self.places.insert(values, place);
        Ok(place)
    }

    /// Notes one of the values that are counted once.
    pub(super) fn note(&mut self, place: usize, value: String) -> Result<(), GroupError> {
        if !value.is_empty() && self.different.insert((place, value)) {
            if self.different.len() > DISTINCT_VALUES_MAX {
                return Err(GroupError::TooManyDistinct);
            }
            if let Some(group) = self.groups.get_mut(place) {
                group.distinct += 1;
            }
        }
        Ok(())
    }

    pub(super) fn count(&mut self, place: usize, time_ns: i64, bytes: u64, bytes_in: u64) {
        self.events += 1;
        if let Some(group) = self.groups.get_mut(place) {
            group.count += 1;
            group.first_ns = group.first_ns.min(time_ns);
            group.last_ns = group.last_ns.max(time_ns);
            group.bytes = group.bytes.saturating_add(bytes);
            group.bytes_in = group.bytes_in.saturating_add(bytes_in);
        }
    }

    /// What the groups are made by.
    pub(super) fn by(&self) -> &[Field] {
        &self.by
    }

    /// What is counted once.
    pub(super) const fn distinct(&self) -> Option<Field> {
        self.distinct
    }

    /// Seconds that are added to UTC.
    pub(super) fn zone_offset_s(&self) -> i32 {
        self.offset.seconds()
    }

    /// The first groups in this order; equal ones by their values.
    pub fn answer(mut self, order: Order, limit: usize) -> AggregateResponse {
        let rank = |group: &Group| match order {
            Order::Values => 0,
            Order::Bytes => group.bytes,
            Order::Distinct => group.distinct,
            Order::Count | Order::Unspecified => group.count,
        };
        self.groups.sort_by(|one, other| {
            rank(other).cmp(&rank(one)).then_with(|| one.values.cmp(&other.values))
        });
        let all_groups = self.groups.len() as u64;
        self.groups.truncate(limit);
        AggregateResponse { groups: self.groups, events: self.events, all_groups, gaps: Vec::new() }
    }

    /// What an event has in a field; empty when it has nothing there.
    pub(super) fn value(&self, field: Field, event: &Event) -> String {
        match field {
            Field::Hour => self.time(event.time_ns, "%Y-%m-%d %H:00"),
            Field::Day => self.time(event.time_ns, "%Y-%m-%d"),
            field => value_of(field, event),
        }
    }

    fn time(&self, time_ns: i64, format: &str) -> String {
        let time = Timestamp::from_nanosecond(time_ns.into());
        time.map_or_else(
            |_| String::new(),
            |time| time.to_zoned(self.zone.clone()).strftime(format).to_string(),
        )
    }
}

/// What an event has in a field, if it needs no zone; empty when it has nothing there.
pub fn value_of(field: Field, event: &Event) -> String {
    let process = event.process.as_ref();
    let file = event.file.as_ref();
    match field {
        Field::Unspecified | Field::Hour | Field::Day => String::new(),
        Field::Host => event.host.clone(),
        Field::User => process.map(user).unwrap_or_default(),
        Field::Device => {
            let below = file.and_then(|file| file.device.as_ref());
            event.device.as_ref().or(below).map(device).unwrap_or_default()
        }
        Field::Destination => event.destination.as_ref().map(destination).unwrap_or_default(),
        Field::Program => process.map(|it| escape(&it.exe)).unwrap_or_default(),
        Field::Rule => event.rule.clone(),
        Field::Kind => event.kind().word().to_owned(),
        Field::Verdict => event.verdict().word().to_owned(),
        Field::File => file.map(|file| escape(&file.path)).unwrap_or_default(),
    }
}

/// What an event adds to the bytes of its group.
pub fn bytes_of(event: &Event) -> u64 {
    if is_said_again(event.operation()) { 0 } else { event.bytes.unwrap_or(0) }
}

/// What came in.
pub fn bytes_in_of(event: &Event) -> u64 {
    if is_said_again(event.operation()) { 0 } else { event.bytes_in.unwrap_or(0) }
}

/// Whether the close of the same file or socket says the bytes of such a record again.
fn is_said_again(operation: Operation) -> bool {
    matches!(operation, Operation::Write | Operation::Receipt)
}

/// Who answers for a process.
fn user(process: &Process) -> String {
    let named = [&process.login_user, &process.user].into_iter().find(|name| !name.is_empty());
    named.cloned().unwrap_or_else(|| process.login_uid.unwrap_or(process.uid).to_string())
}

/// A device by what tells it from others.
fn device(device: &Device) -> String {
    let ids = if device.vendor.is_empty() && device.product.is_empty() {
        String::new()
    } else {
        format!("{}:{}", device.vendor, device.product)
    };
    let parts = [&device.class, &ids, &device.serial, &device.source];
    let parts: Vec<&str> =
        parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

/// The first name, else the address.
fn destination(destination: &Destination) -> String {
    match destination.names.first() {
        Some(name) => name.name.clone(),
        None if destination.ip.is_empty() => escape(&destination.path),
        None => destination.ip.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rstest::rstest;
    use sekimori_proto::v1::{File, Kind, Name};

    use super::*;

    fn written(user: &str, serial: &str, operation: Operation, bytes: u64) -> Event {
        let device = Device {
            class: "usb".into(),
            vendor: "0951".into(),
            product: "1666".into(),
            serial: serial.into(),
            ..Device::default()
        };
        Event {
            host: "pc".into(),
            kind: Kind::UsbWrite.into(),
            operation: operation.into(),
            process: Some(Process { user: user.into(), ..Process::default() }),
            file: Some(File {
                path: format!("/{user}").into(),
                device: Some(device),
                ..File::default()
            }),
            bytes: Some(bytes),
            time_ns: 1_000_000_000 * i64::try_from(bytes).unwrap(),
            ..Event::default()
        }
    }

    fn groups(by: &[Field], distinct: i32, events: &[Event]) -> Groups {
        let by: Vec<i32> = by.iter().map(|field| (*field).into()).collect();
        let mut groups = Groups::new(&by, distinct, 9 * 3600).unwrap();
        events.iter().for_each(|event| groups.add(event).unwrap());
        groups
    }

    #[test]
    fn each_byte_counts_once() {
        let events = [
            written("花子", "S1", Operation::Write, 10),
            written("花子", "S1", Operation::Close, 300),
            written("花子", "S1", Operation::Receipt, 300),
            written("太郎", "S1", Operation::Close, 20),
            written("太郎", "S2", Operation::Command, 5),
        ];
        let answer = groups(&[Field::User], Field::Device.into(), &events).answer(Order::Bytes, 20);
        let shown: Vec<_> = answer
            .groups
            .iter()
            .map(|it| (it.values.join("|"), it.count, it.bytes, it.distinct))
            .collect();
        assert_eq!(shown, [("花子".to_owned(), 3, 300, 1), ("太郎".to_owned(), 2, 25, 2)]);
        assert_eq!((answer.events, answer.all_groups), (5, 2));
        let first = answer.groups.first().unwrap();
        assert_eq!((first.first_ns, first.last_ns), (10_000_000_000, 300_000_000_000));
    }

    #[test]
    fn values_are_told_as_people_read_them() {
        let mut event = written("", "S1", Operation::Close, 60);
        event.process =
            Some(Process { uid: 1000, exe: b"/bin/\xff".to_vec(), ..Process::default() });
        event.destination = Some(Destination {
            ip: "192.0.2.1".into(),
            names: vec![Name { name: "files.example".into(), ..Name::default() }],
            ..Destination::default()
        });
        let value = |field| {
            let answer = groups(&[field], 0, std::slice::from_ref(&event)).answer(Order::Count, 1);
            answer.groups.first().unwrap().values.join("")
        };
        assert_eq!(value(Field::User), "1000");
        assert_eq!(value(Field::Device), "usb 0951:1666 S1");
        assert_eq!(value(Field::Destination), "files.example");
        assert_eq!(value(Field::Program), "/bin/\\xff");
        assert_eq!(value(Field::Kind), "usb.write");
        assert_eq!(value(Field::Hour), "1970-01-01 09:00");
        assert_eq!(value(Field::Day), "1970-01-01");
        assert_eq!(value(Field::Rule), "");
    }

    #[test]
    fn order_and_limit() {
        let events: Vec<Event> = [("b", 1), ("a", 1), ("c", 9)]
            .map(|(user, bytes)| written(user, "S", Operation::Close, bytes))
            .to_vec();
        let names = |order, limit| {
            let answer = groups(&[Field::User], 0, &events).answer(order, limit);
            let names = answer.groups.iter().map(|it| it.values.join(""));
            (names.collect::<Vec<_>>().join(" "), answer.all_groups)
        };
        assert_eq!(names(Order::Count, 20), ("a b c".to_owned(), 3));
        assert_eq!(names(Order::Bytes, 2), ("c a".to_owned(), 3));
        assert_eq!(names(Order::Values, 1), ("a".to_owned(), 3));
    }

    #[rstest]
    #[case(&[], 0, 0, GroupError::Fields(0))]
    #[case(&[1, 1, 1, 1, 1], 0, 0, GroupError::Fields(5))]
    #[case(&[99], 0, 0, GroupError::Unknown("by", 99))]
    #[case(&[0], 0, 0, GroupError::Unknown("by", 0))]
    #[case(&[1], -4, 0, GroupError::Unknown("distinct", -4))]
    #[case(&[1], 0, 90_000, GroupError::Zone(90_000))]
    #[case(&[1], 0, i32::MIN, GroupError::Zone(i32::MIN))]
    fn bad_questions(
        #[case] by: &[i32],
        #[case] distinct: i32,
        #[case] zone: i32,
        #[case] expected: GroupError,
    ) {
        assert_eq!(Groups::new(by, distinct, zone).unwrap_err(), expected);
    }
}
