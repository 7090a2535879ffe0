#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use sekimori_proto::v1::{AlertRaised, Event, File, Kind, Name, Operation, Process, Verdict};

use super::*;

const NOW: u64 = 2_000;

fn copied() -> Event {
    Event {
        host: "pc-1".to_owned(),
        boot: vec![0xb0; 16],
        sequence: 12,
        cursor: 34,
        time_ns: 1_000,
        kind: Kind::UsbWrite.into(),
        operation: Operation::Close.into(),
        verdict: Verdict::Denied.into(),
        rule: "no-usb".to_owned(),
        bytes: Some(5),
        process: Some(Process {
            pid: 7,
            exe: b"/usr/bin/cp".to_vec(),
            argv: vec![b"cp".to_vec(), "顧客台帳.xlsx".into(), vec![0xff, b'\\']],
            uid: 1000,
            user: "花子".to_owned(),
            ..Process::default()
        }),
        file: Some(File {
            path: "/media/花子/顧客台帳.xlsx".into(),
            device: Some(Device {
                class: "usb".to_owned(),
                serial: "S1".to_owned(),
                ..Device::default()
            }),
            ..File::default()
        }),
        ..Event::default()
    }
}

fn plain(value: &AnyValue) -> Value {
    match value.value.as_ref().unwrap() {
        Any::StringValue(it) => it.as_str().into(),
        Any::BoolValue(it) => (*it).into(),
        Any::IntValue(it) => (*it).into(),
        Any::ArrayValue(it) => it.values.iter().map(plain).collect(),
        Any::KvlistValue(it) => Value::Object(
            it.values
                .iter()
                .map(|it| (it.key.clone(), plain(it.value.as_ref().unwrap())))
                .collect(),
        ),
        other => panic!("{other:?}"),
    }
}

fn attributes_of(record: &LogRecord) -> BTreeMap<&str, Value> {
    let pairs = &record.attributes;
    let found: BTreeMap<&str, Value> =
        pairs.iter().map(|it| (it.key.as_str(), plain(it.value.as_ref().unwrap()))).collect();
    assert_eq!(found.len(), pairs.len(), "a name comes twice");
    found
}

/// Without what is null, as a reader that knows the JSON form sees it.
fn without_null(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let object = object.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(object.map(|(name, value)| (name, without_null(value))).collect())
        }
        Value::Array(values) => values.into_iter().map(without_null).collect(),
        value => value,
    }
}

#[test]
fn what_people_search_by_is_an_attribute() {
    let record = of_event(&copied(), NOW);
    let expected = serde_json::json!({
        "log.record.uid": "pc-1/b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0/12",
        "sekimori.cursor": 34,
        "sekimori.kind": "usb.write",
        "sekimori.operation": "close",
        "sekimori.verdict": "denied",
        "sekimori.rule": "no-usb",
        "sekimori.bytes": 5,
        "sekimori.device.class": "usb",
        "sekimori.device.serial": "S1",
        "process.pid": 7,
        "process.executable.path": "/usr/bin/cp",
        "process.command_args": ["cp", "顧客台帳.xlsx", "\\xff\\\\"],
        "user.id": "1000",
        "user.name": "花子",
        "file.path": "/media/花子/顧客台帳.xlsx",
    });
    let expected: BTreeMap<&str, Value> = expected
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, it)| (name.as_str(), it.clone()))
        .collect();
    assert_eq!(attributes_of(&record), expected);
    assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (1_000, NOW));
    assert_eq!(record.event_name, "sekimori.usb.write");
    assert_eq!(record.severity_number(), SeverityNumber::Warn);
    assert_eq!(record.severity_text, "denied");
}

#[test]
fn the_body_is_the_json_form() {
    let record = of_event(&copied(), NOW);
    assert_eq!(plain(record.body.as_ref().unwrap()), without_null(json::event(&copied())));
}

#[test]
fn destinations_have_their_name() {
    let names = vec![Name { name: "dav.example".to_owned(), ..Name::default() }];
    let at = |names| Destination {
        ip: "2001:db8::1".to_owned(),
        port: 443,
        protocol: "tcp".to_owned(),
        names,
        ..Destination::default()
    };
    let found = |names| {
        let event = Event { destination: Some(at(names)), process: None, ..copied() };
        let record = of_event(&event, NOW);
        let found = attributes_of(&record);
        ["destination.address", "network.peer.address", "network.transport", "destination.port"]
            .map(|name| found.get(name).unwrap().to_string().replace('"', ""))
    };
    assert_eq!(found(names), ["dav.example", "2001:db8::1", "tcp", "443"]);
    assert_eq!(found(vec![]), ["2001:db8::1", "2001:db8::1", "tcp", "443"]);
}

#[test]
fn severities() {
    let of = |event: &Event| severity(event).0;
    let allowed = Event { verdict: Verdict::Allowed.into(), ..copied() };
    assert_eq!(of(&allowed), SeverityNumber::Info);
    let tamper = Event { kind: Kind::Tamper.into(), ..allowed.clone() };
    assert_eq!(of(&tamper), SeverityNumber::Error);
    for (word, expected) in [
        ("info", SeverityNumber::Info),
        ("low", SeverityNumber::Warn),
        ("medium", SeverityNumber::Warn3),
        ("high", SeverityNumber::Error),
        ("critical", SeverityNumber::Fatal),
    ] {
        let alert = Some(AlertRaised { severity: word.to_owned(), ..AlertRaised::default() });
        let event = Event { alert, ..allowed.clone() };
        assert_eq!(severity(&event), (expected, word.to_owned()));
    }
}

#[test]
fn numbers_without_room_are_texts() {
    let event = Event { bytes: Some(u64::MAX), ..copied() };
    let record = of_event(&event, NOW);
    let found = attributes_of(&record);
    assert_eq!(found["sekimori.bytes"], u64::MAX.to_string());
    assert_eq!(plain(record.body.as_ref().unwrap())["bytes"], u64::MAX.to_string());
}

#[test]
fn a_gap_says_what_is_missing() {
    let gap = Gap { first: 5, last: 9, reason: "damaged".to_owned() };
    let record = of_gap(&gap, NOW);
    let found = attributes_of(&record);
    assert_eq!((&found["sekimori.gap.first"], &found["sekimori.gap.last"]), (&5.into(), &9.into()));
    assert_eq!(record.event_name, "sekimori.gap");
}
