//! One event as an OTLP log record.
//!
//! The body is the JSON form of the event without what is null, as a map, so that nothing that the
//! JSON form says is lost. What people search by is an attribute too: by the name of
//! OpenTelemetry's semantic conventions where there is one, else as `sekimori.…`. Names of files
//! and arguments are bytes; they are escaped as in the JSON form.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use sekimori_evidence::hex;
use sekimori_proto::json::{self, escape};
use sekimori_proto::v1::{Destination, Device, Event, Kind, Operation, Process, Verdict};
use sekimori_proto::words::Word as _;
use serde_json::Value;

use crate::store::Gap;

/// The record of an event that was read from the store at `observed_ns`, UTC ns since 1970.
pub fn of_event(event: &Event, observed_ns: u64) -> LogRecord {
    let (severity, severity_text) = severity(event);
    LogRecord {
        time_unix_nano: u64::try_from(event.time_ns).unwrap_or(0),
        observed_time_unix_nano: observed_ns,
        severity_number: severity.into(),
        severity_text,
        body: any(json::event(event)),
        attributes: attributes(event),
        event_name: format!("sekimori.{}", event.kind().word()),
        ..LogRecord::default()
    }
}

/// The record of events that could not be read any more.
pub fn of_gap(gap: &Gap, observed_ns: u64) -> LogRecord {
    let Gap { first, last, reason } = gap;
    let mut attributes = Attributes::default();
    attributes.number("sekimori.gap.first", *first);
    attributes.number("sekimori.gap.last", *last);
    attributes.text("sekimori.gap.reason", reason);
    let text = format!("the events with the cursors {first} to {last} cannot be sent: {reason}");
    LogRecord {
        time_unix_nano: observed_ns,
        observed_time_unix_nano: observed_ns,
        severity_number: SeverityNumber::Error.into(),
        severity_text: "gap".to_owned(),
        body: Some(AnyValue { value: Some(Any::StringValue(text)) }),
        attributes: attributes.0,
        event_name: "sekimori.gap".to_owned(),
        ..LogRecord::default()
    }
}

/// A text, for instance of a resource.
pub fn text(name: &str, value: &str) -> KeyValue {
    pair(name, Any::StringValue(value.to_owned()))
}

/// How bad it is: of an alert what its rule says, of other events what became of them.
fn severity(event: &Event) -> (SeverityNumber, String) {
    if let Some(alert) = &event.alert {
        let number = match alert.severity.as_str() {
            "info" => SeverityNumber::Info,
            "low" => SeverityNumber::Warn,
            "medium" => SeverityNumber::Warn3,
            "high" => SeverityNumber::Error,
            _ => SeverityNumber::Fatal,
        };
        return (number, alert.severity.clone());
    }
    let number = match (event.kind(), event.verdict()) {
        (Kind::Tamper | Kind::Loss, _) => SeverityNumber::Error,
        (_, Verdict::Denied | Verdict::Alerted | Verdict::WouldDeny) => SeverityNumber::Warn,
        _ => SeverityNumber::Info,
    };
    (number, event.verdict().word().to_owned())
}

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    /// Of what is not empty.
    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0.push(text(name, value));
        }
    }

    fn bytes(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            self.text(name, &escape(value));
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.0.push(pair(name, integer(value)));
    }

    fn texts(&mut self, name: &str, values: impl Iterator<Item = String>) {
        let values = values.map(|it| AnyValue { value: Some(Any::StringValue(it)) });
        let values: Vec<AnyValue> = values.collect();
        if !values.is_empty() {
            self.0.push(pair(name, Any::ArrayValue(ArrayValue { values })));
        }
    }
}

fn attributes(event: &Event) -> Vec<KeyValue> {
    let mut put = Attributes::default();
    // The host is a part of it: one cannot make another's records look like copies.
    let uid = format!("{}/{}/{}", event.host, hex(&event.boot), event.sequence);
    put.text("log.record.uid", &uid);
    put.number("sekimori.cursor", event.cursor);
    put.text("sekimori.kind", event.kind().word());
    if event.operation() != Operation::Unspecified {
        put.text("sekimori.operation", event.operation().word());
    }
    put.text("sekimori.verdict", event.verdict().word());
    put.text("sekimori.rule", &event.rule);
    if let Some(it) = &event.process {
        process(&mut put, it);
    }
    if let Some(file) = &event.file {
        put.bytes("file.path", &file.path);
    }
    let of_file = || event.file.as_ref().and_then(|file| file.device.as_ref());
    if let Some(it) = event.device.as_ref().or_else(of_file) {
        device(&mut put, it);
    }
    if let Some(it) = &event.destination {
        destination(&mut put, it);
    }
    for (name, value) in [("sekimori.bytes", event.bytes), ("sekimori.bytes_in", event.bytes_in)] {
        if let Some(value) = value {
            put.number(name, value);
        }
    }
    put.0
}

fn process(put: &mut Attributes, process: &Process) {
    put.number("process.pid", process.pid.into());
    if let Some(parent) = &process.parent {
        put.number("process.parent_pid", parent.pid.into());
    }
    put.bytes("process.executable.path", &process.exe);
    put.texts("process.command_args", process.argv.iter().map(|it| escape(it)));
    put.bytes("process.working_directory", &process.cwd);
    put.text("user.id", &process.uid.to_string());
    put.text("user.name", &process.user);
    put.text("sekimori.login_user", &process.login_user);
}

fn device(put: &mut Attributes, device: &Device) {
    put.text("sekimori.device.class", &device.class);
    put.text("sekimori.device.vendor", &device.vendor);
    put.text("sekimori.device.product", &device.product);
    put.text("sekimori.device.serial", &device.serial);
    put.text("sekimori.device.source", &device.source);
}

fn destination(put: &mut Attributes, destination: &Destination) {
    let Destination { ip, port, protocol, path, names, .. } = destination;
    let name = names.first().map_or(ip, |it| &it.name);
    put.text("destination.address", name);
    put.text("network.peer.address", ip);
    if !ip.is_empty() {
        put.number("destination.port", (*port).into());
    }
    put.text("network.transport", protocol);
    put.bytes("sekimori.destination.path", path);
}

fn pair(name: &str, value: Any) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// OTLP knows no number beyond those with a sign: a larger one is a text.
fn integer(value: u64) -> Any {
    i64::try_from(value).map_or_else(|_| Any::StringValue(value.to_string()), Any::IntValue)
}

/// Without what is null. Events nest as deep as ancestors do, which is bounded.
fn any(value: Value) -> Option<AnyValue> {
    let value = match value {
        Value::Null => return None,
        Value::Bool(it) => Any::BoolValue(it),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(it), _) => Any::IntValue(it),
            (None, Some(it)) => integer(it),
            (None, None) => Any::DoubleValue(number.as_f64().unwrap_or_default()),
        },
        Value::String(it) => Any::StringValue(it),
        Value::Array(values) => {
            let values = values.into_iter().filter_map(any).collect();
            Any::ArrayValue(ArrayValue { values })
        }
        Value::Object(object) => {
            let pairs = object.into_iter().filter_map(|(key, value)| {
                let value = any(value)?;
                Some(KeyValue { key, value: Some(value), ..KeyValue::default() })
            });
            Any::KvlistValue(KeyValueList { values: pairs.collect() })
        }
    };
    Some(AnyValue { value: Some(value) })
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
