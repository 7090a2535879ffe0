//! The JSON form of an event, for `--json` of the command line and for whoever reads it.
//!
//! Names are stable. The names of the contract (`time host seq kind verdict rule process file bytes
//! calls destination errno truncated`, and those inside `process`, `file`, `device` and
//! `destination`) are always present and `null` when the event has nothing to say there.
//! Every other name is present only when it has a value.
//!
//! Times are RFC 3339 in UTC with nine digits. Names, paths and arguments are bytes on the host and
//! strings here, see [`escape`].

mod text;

pub use text::{UnescapeError, escape, unescape};

use prost::Message as _;
use serde_json::{Map, Value, json};

use crate::v1;
use crate::words::Word;

/// Bytes of one digest in a checkpoint.
const CHECKPOINT_DIGEST_BYTES: usize = 16;

/// The event as one JSON object.
pub fn event(event: &v1::Event) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("time", time(event.time_ns));
    put("host", event.host.as_str().into());
    put("seq", event.sequence.into());
    put("kind", event.kind().word().into());
    put("verdict", event.verdict().word().into());
    put("rule", text_or_null(&event.rule));
    put("process", event.process.as_ref().map_or(Value::Null, process));
    put("file", event.file.as_ref().map_or(Value::Null, file));
    put("bytes", event.bytes.into());
    put("calls", event.calls.into());
    put("destination", event.destination.as_ref().map_or(Value::Null, destination));
    put("errno", event.errno.into());
    put("truncated", event.truncated.into());
    let operation = event.operation();
    let operation = (operation != v1::Operation::Unspecified).then(|| operation.word());
    extra(&mut object, "operation", operation);
    extra(&mut object, "bytes_in", event.bytes_in);
    extra(&mut object, "exit_code", event.exit_code);
    extra(&mut object, "signal", event.signal);
    extra(&mut object, "late", event.late.then_some(true));
    let sources: Vec<Value> = event.sources.iter().map(file).collect();
    extra(&mut object, "sources", (!sources.is_empty()).then_some(sources));
    extra(&mut object, "more_sources", event.more_sources.then_some(true));
    extra(&mut object, "sha256", (!event.sha256.is_empty()).then(|| hexadecimal(&event.sha256)));
    extra(&mut object, "sha256_missing", some_text(&event.sha256_missing));
    extra(&mut object, "device", event.device.as_ref().map(device));
    extra(&mut object, "loss", event.loss.as_ref().map(loss));
    extra(&mut object, "act", event.act.as_ref().map(act));
    extra(&mut object, "checkpoint", event.checkpoint.as_ref().map(checkpoint));
    extra(&mut object, "custody", event.custody.as_ref().map(custody));
    extra(&mut object, "policy", event.policy.as_ref().map(policy));
    extra(&mut object, "host_change", event.host_change.as_ref().map(host_change));
    extra(&mut object, "alert", event.alert.as_ref().map(alert));
    extra(&mut object, "message", some_text(&event.message));
    extra(&mut object, "lane", (event.lane != 0).then_some(event.lane));
    extra(&mut object, "boot", (!event.boot.is_empty()).then(|| hexadecimal(&event.boot)));
    extra(&mut object, "cursor", (event.cursor != 0).then_some(event.cursor));
    Value::Object(object)
}

/// UTC nanoseconds since 1970 as RFC 3339 with nine digits: `2026-01-02T03:04:05.000000006Z`.
pub fn time(ns: i64) -> Value {
    match jiff::Timestamp::from_nanosecond(ns.into()) {
        Ok(timestamp) => format!("{timestamp:.9}").into(),
        Err(_) => Value::Null,
    }
}

fn process(process: &v1::Process) -> Value {
    let start = if process.start_ns == 0 { Value::Null } else { time(process.start_ns) };
    let argv: Vec<String> = process.argv.iter().map(|argument| escape(argument)).collect();
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("pid", process.pid.into());
    put("start", start);
    put("exe", bytes_or_null(&process.exe));
    put("argv", if argv.is_empty() { Value::Null } else { argv.into() });
    put("uid", process.uid.into());
    put("user", text_or_null(&process.user));
    put("login_uid", process.login_uid.into());
    put("tty", text_or_null(&process.tty));
    put("parent", process.parent.as_deref().map_or(Value::Null, self::process));
    extra(&mut object, "login_user", some_text(&process.login_user));
    // Ancestors carry neither thread nor group.
    extra(&mut object, "gid", (process.tid != 0).then_some(process.gid));
    extra(&mut object, "session_id", process.session_id);
    extra(&mut object, "tid", (process.tid != 0).then_some(process.tid));
    extra(&mut object, "comm", some_bytes(&process.comm));
    extra(&mut object, "cwd", some_bytes(&process.cwd));
    let environment = &process.environment;
    let environment: Vec<String> = environment.iter().map(|it| escape(it)).collect();
    extra(&mut object, "environment", (!environment.is_empty()).then_some(environment));
    let truncated = process.environment_truncated;
    extra(&mut object, "environment_truncated", truncated.then_some(true));
    extra(&mut object, "exe_inode", (process.exe_inode != 0).then_some(process.exe_inode));
    extra(&mut object, "cgroup_id", (process.cgroup_id != 0).then_some(process.cgroup_id));
    Value::Object(object)
}

fn file(file: &v1::File) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("path", bytes_or_null(&file.path));
    put("inode", if file.inode == 0 { Value::Null } else { file.inode.into() });
    put("device", file.device.as_ref().map_or(Value::Null, device));
    extra(&mut object, "new_path", some_bytes(&file.new_path));
    extra(&mut object, "attribute", some_bytes(&file.attribute));
    extra(&mut object, "size", (file.size != 0).then_some(file.size));
    extra(&mut object, "mode", (file.mode != 0).then_some(file.mode));
    extra(&mut object, "open_flags", (file.open_flags != 0).then_some(file.open_flags));
    extra(&mut object, "unlinked", file.unlinked.then_some(true));
    Value::Object(object)
}

fn device(device: &v1::Device) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("class", text_or_null(&device.class));
    put("vendor", text_or_null(&device.vendor));
    put("product", text_or_null(&device.product));
    put("serial", text_or_null(&device.serial));
    if device.major != 0 || device.minor != 0 {
        extra(&mut object, "major", Some(device.major));
        extra(&mut object, "minor", Some(device.minor));
    }
    extra(&mut object, "port", some_text(&device.port));
    extra(&mut object, "vendor_name", some_text(&device.vendor_name));
    extra(&mut object, "product_name", some_text(&device.product_name));
    extra(&mut object, "file_system", some_text(&device.file_system));
    extra(&mut object, "source", some_text(&device.source));
    let functions = &device.functions;
    extra(&mut object, "functions", (!functions.is_empty()).then(|| functions.clone()));
    Value::Object(object)
}

fn destination(destination: &v1::Destination) -> Value {
    let port = (!destination.ip.is_empty()).then_some(destination.port);
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("ip", text_or_null(&destination.ip));
    put("port", port.into());
    put("protocol", text_or_null(&destination.protocol));
    extra(&mut object, "path", some_bytes(&destination.path));
    let names: Vec<Value> = destination
        .names
        .iter()
        .map(|name| json!({ "name": name.name, "source": name.source().word() }))
        .collect();
    extra(&mut object, "names", (!names.is_empty()).then_some(names));
    extra(&mut object, "http", destination.http.as_ref().map(http));
    extra(&mut object, "smtp", destination.smtp.as_ref().map(smtp));
    Value::Object(object)
}

fn http(request: &v1::HttpRequest) -> Value {
    json!({ "method": request.method, "path": bytes_or_null(&request.path) })
}

fn smtp(envelope: &v1::SmtpEnvelope) -> Value {
    json!({ "from": envelope.from, "to": envelope.to, "more": envelope.more })
}

fn loss(loss: &v1::Loss) -> Value {
    let kind = (loss.kind() != v1::Kind::Unspecified).then(|| loss.kind().word());
    json!({ "stage": loss.stage, "kind": kind, "count": loss.count, "reason": loss.reason })
}

fn act(act: &v1::OperatorAct) -> Value {
    let phase = (act.phase() != v1::ActPhase::Unspecified).then(|| act.phase().word());
    json!({
        "name": act.name, "role": act.role, "method": act.method, "question": act.question,
        "answered": act.answered, "address": text_or_null(&act.address), "phase": phase,
    })
}

fn checkpoint(checkpoint: &v1::Checkpoint) -> Value {
    // One that cannot be read is shown empty; whether it holds is for a verification to say.
    let statement = v1::CheckpointStatement::decode(checkpoint.statement.as_slice());
    let statement = statement.unwrap_or_default();
    json!({
        "number": statement.number, "boot": hexadecimal(&statement.boot),
        "first": statement.first, "records": statement.digests.len() / CHECKPOINT_DIGEST_BYTES,
        "time": time(statement.time_ns), "dropped": statement.dropped,
        "previous": text_or_null(&hexadecimal(&statement.previous)),
        "key": hexadecimal(&checkpoint.key),
    })
}

fn custody(custody: &v1::Custody) -> Value {
    let countersigned = custody.countersigned.iter().map(|it| {
        json!({
            "host": it.host, "number": it.number, "sha256": hexadecimal(&it.statement_sha256),
            "cursor": it.cursor,
        })
    });
    let removed = custody.removed.as_ref().map(|it| {
        json!({
            "through_cursor": it.through_cursor, "events": it.events, "reason": it.reason,
        })
    });
    json!({
        "countersigned": countersigned.collect::<Vec<_>>(),
        "through_cursor": custody.through_cursor, "removed": removed,
    })
}

fn policy(policy: &v1::PolicyText) -> Value {
    json!({ "name": policy.name, "sha256": hexadecimal(&policy.sha256) })
}

fn host_change(change: &v1::HostChange) -> Value {
    let time_or_null = |ns: i64| if ns == 0 { Value::Null } else { time(ns) };
    json!({
        "turn": change.turn().word(), "name": change.name, "role": change.role,
        "address": text_or_null(&change.address), "serial": text_or_null(&change.serial),
        "serial_before": text_or_null(&change.serial_before),
        "valid_until": time_or_null(change.valid_until_ns), "superseded": change.superseded,
        "token": text_or_null(&change.token), "token_by": text_or_null(&change.token_by),
        "last_seen": time_or_null(change.last_seen_ns),
        "ordered_by": text_or_null(&change.ordered_by), "reason": text_or_null(&change.reason),
    })
}

fn alert(alert: &v1::AlertRaised) -> Value {
    let group = alert.group.iter().map(|it| (it.field.clone(), it.value.as_str().into()));
    json!({
        "id": alert.id, "rule": alert.rule, "severity": alert.severity, "title": alert.title,
        "group": group.collect::<Map<String, Value>>(), "count": alert.count,
        "bytes": alert.bytes, "first": time(alert.first_ns), "cursor": alert.cursor,
        "silenced": alert.silenced,
    })
}

fn extra(object: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.into());
    }
}

fn some_text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn some_bytes(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| escape(bytes))
}

fn text_or_null(text: &str) -> Value {
    some_text(text).into()
}

fn bytes_or_null(bytes: &[u8]) -> Value {
    some_bytes(bytes).into()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
