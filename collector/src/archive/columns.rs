//! The columns of an archive: one row an event.
//!
//! Texts that are bytes on the host stand as in the JSON form, see [`escape`]; what an event does not
//! say is NULL. Names of columns are stable.

use bytes::Bytes;
use sekimori_proto::json::escape;
use sekimori_proto::v1::{Destination, Device, Event, File, Process};
use sekimori_proto::words::Word;

use crate::store::Stored;

/// How Parquet declares them, in their order.
pub const COLUMNS: [&str; 33] = [
    "required int64 cursor (INTEGER(64,false))",
    "required int64 time (TIMESTAMP(NANOS,true))",
    "required binary host (STRING)",
    "optional binary boot (STRING)",
    "required int64 sequence (INTEGER(64,false))",
    "required int32 lane (INTEGER(32,false))",
    "required binary kind (STRING)",
    "optional binary operation (STRING)",
    "optional binary verdict (STRING)",
    "optional binary rule (STRING)",
    "optional binary user (STRING)",
    "optional binary login_user (STRING)",
    "optional int32 pid (INTEGER(32,false))",
    "optional binary exe (STRING)",
    "optional binary argv (STRING)",
    "optional binary file_path (STRING)",
    "optional binary file_new_path (STRING)",
    "optional binary device_class (STRING)",
    "optional binary device_vendor (STRING)",
    "optional binary device_product (STRING)",
    "optional binary device_serial (STRING)",
    "optional binary destination_ip (STRING)",
    "optional int32 destination_port (INTEGER(32,false))",
    "optional binary destination_name (STRING)",
    "optional int64 bytes (INTEGER(64,false))",
    "optional int64 bytes_in (INTEGER(64,false))",
    "optional int64 calls (INTEGER(64,false))",
    "optional int32 errno",
    "optional binary sha256 (STRING)",
    "required boolean truncated",
    "optional binary message (STRING)",
    "optional int32 exit_code",
    "required binary event",
];
/// The column with the encoded event, the last one.
pub const EVENT: &str = "event";

/// What stands in one column of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// Yes or no.
    Flag(bool),
    /// A number of 32 bits, as they are.
    Small(u32),
    /// A number of 64 bits, as they are.
    Number(u64),
    /// Text, or bytes.
    Bytes(Bytes),
}

impl Cell {
    /// Bytes that it takes about.
    pub fn len(&self) -> usize {
        match self {
            Cell::Bytes(bytes) => bytes.len(),
            _ => size_of::<u64>(),
        }
    }
}

/// The row of an event. `event` is what its bytes say; the bytes themselves come last, as their
/// author signed them.
pub fn row(stored: &Stored<'_>, event: &Event) -> [Cell; COLUMNS.len()] {
    let process = event.process.as_ref();
    let file = event.file.as_ref();
    // A record of a device that came or went has one of its own.
    let device = event.device.as_ref().or(file.and_then(|file| file.device.as_ref()));
    let destination = event.destination.as_ref();
    let of_process = |text: fn(&Process) -> String| process.map_or(Cell::Null, |it| some(text(it)));
    let of_file = |bytes: fn(&File) -> &[u8]| file.map_or(Cell::Null, |it| some(escape(bytes(it))));
    let of_device = |text: fn(&Device) -> &str| device.map_or(Cell::Null, |it| some(text(it)));
    let operation = event.operation().word();
    [
        Cell::Number(stored.cursor),
        Cell::Number(stored.time_ns.cast_unsigned()),
        text(stored.host),
        some(hexadecimal(&event.boot)),
        Cell::Number(event.sequence),
        Cell::Small(event.lane),
        word(event.kind(), stored.kind).unwrap_or_else(|| text("unspecified")),
        if event.operation == 0 { Cell::Null } else { text(operation) },
        word(event.verdict(), stored.verdict).unwrap_or(Cell::Null),
        some(event.rule.as_str()),
        of_process(|process| process.user.clone()),
        of_process(|process| process.login_user.clone()),
        process.map_or(Cell::Null, |process| Cell::Small(process.pid)),
        of_process(|process| escape(&process.exe)),
        of_process(arguments),
        of_file(|file| &file.path),
        of_file(|file| &file.new_path),
        of_device(|device| &device.class),
        of_device(|device| &device.vendor),
        of_device(|device| &device.product),
        of_device(|device| &device.serial),
        destination.map_or(Cell::Null, |it| some(it.ip.as_str())),
        destination.map_or(Cell::Null, port),
        destination.map_or(Cell::Null, |it| some(names(it))),
        event.bytes.map_or(Cell::Null, Cell::Number),
        event.bytes_in.map_or(Cell::Null, Cell::Number),
        event.calls.map_or(Cell::Null, Cell::Number),
        event.errno.map_or(Cell::Null, |it| Cell::Small(it.cast_unsigned())),
        some(hexadecimal(&event.sha256)),
        Cell::Flag(event.truncated),
        some(event.message.as_str()),
        event.exit_code.map_or(Cell::Null, |it| Cell::Small(it.cast_unsigned())),
        Cell::Bytes(stored.body.clone()),
    ]
}

fn text(text: &str) -> Cell {
    Cell::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

fn some(text: impl Into<String>) -> Cell {
    let text: String = text.into();
    if text.is_empty() { Cell::Null } else { Cell::Bytes(text.into()) }
}

/// The word for a number; the number itself when an agent knows more of them than we do.
fn word<W: Word>(known: W, number: i32) -> Option<Cell> {
    match (number, known.word()) {
        (0, _) => None,
        (number, "unspecified") => Some(some(number.to_string())),
        (_, word) => Some(text(word)),
    }
}

fn arguments(process: &Process) -> String {
    let argv: Vec<String> = process.argv.iter().map(|argument| escape(argument)).collect();
    argv.join(" ")
}

fn port(destination: &Destination) -> Cell {
    if destination.ip.is_empty() { Cell::Null } else { Cell::Small(destination.port) }
}

/// Each name once: several sources often say the same.
fn names(destination: &Destination) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in &destination.names {
        if !names.contains(&name.name.as_str()) {
            names.push(&name.name);
        }
    }
    names.join(" ")
}

/// Two small digits for each byte.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use prost::Message as _;
    use sekimori_proto::v1::{Kind, Name, Operation, Verdict};

    use super::*;

    fn shown(event: &Event) -> Vec<(String, Cell)> {
        let body = Bytes::from(event.encode_to_vec());
        let Event { kind, verdict, time_ns, .. } = *event;
        let stored = Stored { cursor: 7, time_ns, kind, verdict, host: "端末", body: &body };
        let name = |declared: &str| declared.split(' ').nth(2).unwrap().to_owned();
        COLUMNS.iter().map(|it| name(it)).zip(row(&stored, event)).collect()
    }

    fn of(row: &[(String, Cell)], name: &str) -> Cell {
        row.iter().find(|(known, _)| known == name).unwrap().1.clone()
    }

    #[test]
    fn what_an_event_says_stands_in_its_columns_and_the_rest_is_null() {
        let name = |name: &str| Name { name: name.into(), ..Name::default() };
        let event = Event {
            boot: vec![0xab; 16],
            sequence: u64::MAX,
            time_ns: -1,
            kind: Kind::NetUpload.into(),
            operation: Operation::Close.into(),
            verdict: Verdict::WouldDeny.into(),
            process: Some(Process {
                pid: u32::MAX,
                exe: b"/opt/\xff".to_vec(),
                argv: vec![b"a b".to_vec(), "名簿\\".into()],
                ..Process::default()
            }),
            destination: Some(Destination {
                ip: "192.0.2.1".into(),
                port: 65_535,
                names: vec![name("a.example"), name("a.example"), name("b.example")],
                ..Destination::default()
            }),
            device: Some(Device { serial: "E0D5".into(), ..Device::default() }),
            bytes: Some(0),
            errno: Some(-3),
            sha256: vec![0xcd; 2],
            ..Event::default()
        };
        let row = shown(&event);
        let expected = [
            ("cursor", Cell::Number(7)),
            ("time", Cell::Number(u64::MAX)),
            ("host", text("端末")),
            ("boot", text(&"ab".repeat(16))),
            ("sequence", Cell::Number(u64::MAX)),
            ("lane", Cell::Small(0)),
            ("kind", text("net.upload")),
            ("operation", text("close")),
            ("verdict", text("would-deny")),
            ("pid", Cell::Small(u32::MAX)),
            ("exe", text("/opt/\\xff")),
            ("argv", text("a b 名簿\\\\")),
            ("device_serial", text("E0D5")),
            ("destination_ip", text("192.0.2.1")),
            ("destination_port", Cell::Small(65_535)),
            ("destination_name", text("a.example b.example")),
            ("bytes", Cell::Number(0)),
            ("errno", Cell::Small((-3_i32).cast_unsigned())),
            ("sha256", text("cdcd")),
            ("truncated", Cell::Flag(false)),
            ("event", Cell::Bytes(event.encode_to_vec().into())),
        ];
        for (name, cell) in &expected {
            assert_eq!(of(&row, name), *cell, "{name}");
        }
        for (name, cell) in &row {
            let named = expected.iter().any(|(known, _)| known == name);
            assert!(named || *cell == Cell::Null, "{name}: {cell:?}");
        }
    }

    #[test]
    fn a_kind_of_a_later_agent_is_its_number() {
        let row = shown(&Event { kind: 999, verdict: 99, ..Event::default() });
        assert_eq!((of(&row, "kind"), of(&row, "verdict")), (text("999"), text("99")));
        let row = shown(&Event::default());
        assert_eq!((of(&row, "kind"), of(&row, "verdict")), (text("unspecified"), Cell::Null));
    }
}
