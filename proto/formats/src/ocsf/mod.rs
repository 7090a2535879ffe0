//! Events as OCSF (Open Cybersecurity Schema Framework) has them.
//!
//! Every event has the profiles `host`, `security_control` and `linux/linux_users`. What the verdict
//! means is in `action`, `disposition` and `is_alert`; the rule that decided is `policy.uid`. Times
//! are milliseconds there; `metadata.original_time` has the nanoseconds. Names and paths are
//! bytes on the host and texts here, see [`sekimori_proto::json::escape`].

mod class;
mod objects;

use sekimori_proto::v1::{Event, Kind, Operation, Verdict};
use sekimori_proto::words::Word as _;
use serde_json::{Value, json};

use crate::rest::Rest;
use crate::values::{self, Object};

/// The version of the schema. It is the first that has Peripheral Activity.
pub const OCSF_VERSION: &str = "1.7.0";

const PROFILES: [&str; 3] = ["host", "linux/linux_users", "security_control"];
const PRODUCT: &str = "Sekimori";
/// `log_name` of the records.
const LOG: &str = "sekimori";

/// The event as one object of OCSF.
pub fn ocsf(event: &Event) -> Value {
    let mut rest = Rest::of(event);
    let mut object = Object::default();
    head(&mut object, event);
    metadata(&mut object, event, &mut rest);
    object.set("device", host(&event.host));
    rest.take("host");
    security_control(&mut object, event, &mut rest);
    outcome(&mut object, event, &mut rest);
    object.some("message", values::sentence(event));
    rest.take("message");
    match class::class(event) {
        class::FILE => on_file(&mut object, &mut rest),
        class::MODULE => module(&mut object, &mut rest),
        class::PROCESS => process(&mut object, event, &mut rest),
        class::NETWORK => network(&mut object, event, &mut rest),
        class::FINDING => finding(&mut object, event, &mut rest),
        class::PERIPHERAL => {
            object.set("actor", json!({ "app_name": "Linux" }));
            object.some("peripheral_device", rest.inside("device", objects::peripheral));
        }
        class::API => api(&mut object, event, &mut rest),
        class::ENTITY => entity(&mut object, &mut rest),
        class::LOG => object.set("log_name", LOG),
        _ => base(&mut object, &mut rest),
    }
    object.filled("unmapped", rest.left());
    object.into()
}

fn denied(event: &Event) -> bool {
    event.verdict() == Verdict::Denied
}

fn head(object: &mut Object, event: &Event) {
    let class = class::class(event);
    let (activity_id, activity_name) = class::activity(event);
    object.set("class_uid", class.uid);
    object.set("class_name", class.name);
    object.set("category_uid", class.category.0);
    object.set("category_name", class.category.1);
    object.set("activity_id", activity_id);
    object.set("activity_name", activity_name.as_str());
    object.set("type_uid", u64::from(class.uid) * 100 + u64::from(activity_id));
    let of_type = if activity_id == 99 { "Other" } else { &activity_name };
    object.set("type_name", format!("{}: {of_type}", class.name));
    object.set("time", event.time_ns.div_euclid(1_000_000));
    let (severity_id, severity) = severity(event);
    object.set("severity_id", severity_id);
    object.set("severity", severity);
}

fn severity(event: &Event) -> (u32, &'static str) {
    match (event.kind(), event.verdict()) {
        (Kind::Tamper, _) => (4, "High"),
        (Kind::Alert, _) => match event.alert.as_ref().map(|alert| alert.severity.as_str()) {
            Some("critical") => (5, "Critical"),
            Some("high") => (4, "High"),
            Some("low") => (2, "Low"),
            Some("info") => (1, "Informational"),
            _ => (3, "Medium"),
        },
        (Kind::Loss, _) | (_, Verdict::Denied | Verdict::Alerted) => (3, "Medium"),
        (_, Verdict::WouldDeny) => (2, "Low"),
        (_, Verdict::Allowed | Verdict::Unspecified) => (1, "Informational"),
    }
}

fn metadata(object: &mut Object, event: &Event, rest: &mut Rest) {
    let mut metadata = Object::default();
    metadata.set("version", OCSF_VERSION);
    metadata.set("product", json!({ "name": PRODUCT, "vendor_name": PRODUCT }));
    metadata.set("profiles", PROFILES.to_vec());
    metadata.set("uid", values::id(event));
    metadata.some("sequence", rest.take("seq"));
    metadata.some("event_code", rest.take("kind"));
    metadata.some("original_time", rest.take("time"));
    metadata.some("is_truncated", rest.take("truncated"));
    metadata.set("log_name", LOG);
    object.set("metadata", metadata);
}

fn host(name: &str) -> Value {
    json!({
        "hostname": name, "name": name, "type_id": 0, "type": "Unknown",
        "os": { "name": "Linux", "type_id": 200, "type": "Linux" },
    })
}

/// The verdict also stays in its own word.
fn security_control(object: &mut Object, event: &Event, rest: &mut Rest) {
    let rule = rest.take("rule");
    let (action, disposition) = match event.verdict() {
        Verdict::Denied => ((2, "Denied"), (2, "Blocked")),
        Verdict::Alerted => ((3, "Observed"), (19, "Alert")),
        Verdict::WouldDeny => ((3, "Observed"), (15, "Detected")),
        Verdict::Allowed if rule.is_some() => ((1, "Allowed"), (1, "Allowed")),
        Verdict::Allowed => ((3, "Observed"), (17, "Logged")),
        Verdict::Unspecified => ((0, "Unknown"), (0, "Unknown")),
    };
    object.set("action_id", action.0);
    object.set("action", action.1);
    object.set("disposition_id", disposition.0);
    object.set("disposition", disposition.1);
    object.set("is_alert", values::is_alert(event));
    if let Some(rule) = rule {
        object.set("policy", json!({ "uid": rule }));
    }
}

fn outcome(object: &mut Object, event: &Event, rest: &mut Rest) {
    let (id, caption) = match (event.kind(), values::failed(event)) {
        // The status of a finding is what became of it.
        (Kind::Tamper | Kind::Alert, _) => (1, "New"),
        (Kind::Loss, _) | (_, true) => (2, "Failure"),
        (_, false) => (1, "Success"),
    };
    object.set("status_id", id);
    object.set("status", caption);
    object.some("status_code", rest.take("errno").as_ref().map(objects::text));
    object.some("status_detail", event.loss.as_ref().map(|loss| loss.reason.clone()));
}

/// Who did it: person and process.
fn actor(rest: &mut Rest) -> Value {
    let actor = rest.inside("process", |process| {
        let mut actor = objects::actor(process);
        actor.set("process", objects::process(process));
        actor
    });
    actor.map_or_else(|| json!({ "app_name": "Linux" }), Value::from)
}

fn on_file(object: &mut Object, rest: &mut Rest) {
    object.set("actor", actor(rest));
    let moves = matches!(rest.text("operation"), Some("rename" | "link"));
    let hash = rest.take("sha256");
    let placed = rest.inside("file", |from| {
        let file = objects::file(from);
        let new_path = if moves { from.take_text("new_path") } else { None };
        let result = new_path.map(|path| objects::named_file(&path, &file));
        (file, result)
    });
    let (mut file, result) = placed.unwrap_or_else(|| (objects::file(&mut Rest::default()), None));
    if let (Some(hash), Some(file)) = (hash, file.as_object_mut()) {
        file.insert("hashes".to_owned(), objects::sha256(hash));
    }
    object.set("file", file);
    object.some("file_result", result);
}

fn module(object: &mut Object, rest: &mut Rest) {
    object.set("actor", actor(rest));
    let mut module = Object::default();
    module.set("load_type_id", 4);
    module.set("load_type", "Mapped");
    module.some("file", rest.inside("file", objects::file));
    object.set("module", module);
}

/// A launch: the process is what was launched, the actor its parent. One that was refused: the
/// process is what it would have become, the actor who asked.
fn process(object: &mut Object, event: &Event, rest: &mut Rest) {
    let launch = event.kind() == Kind::Exec && event.operation() != Operation::Unspecified;
    if launch {
        object.set("launch_type_id", 3);
        object.set("launch_type", "Exec");
    }
    object.some("exit_code", rest.take("exit_code"));
    if launch && denied(event) {
        let pid = rest.copy_of("process").and_then(|it| it.number("pid"));
        object.set("actor", actor(rest));
        let file = rest.inside("file", objects::file);
        let mut process = Object::default();
        process.set("pid", pid.unwrap_or(0));
        let name = file.as_ref().and_then(|file| file.get("name")).cloned();
        process.some("name", name);
        process.some("file", file);
        object.set("process", process);
        return;
    }
    let placed = rest.inside("process", |from| {
        let mut actor = objects::actor(from);
        if let Some(mut parent) = from.copy_of("parent").filter(|_| launch) {
            parent.take("parent");
            actor.set("process", objects::process(&mut parent));
        }
        (actor, objects::process(from))
    });
    let (actor, mut process) = placed.map_or_else(
        || (json!({ "app_name": "Linux" }), json!({ "pid": 0 })),
        |(actor, process)| (actor.into(), process),
    );
    // Of a script that is launched, the file is the script and the program its interpreter.
    let same = process
        .get("path")
        .and_then(Value::as_str)
        .is_some_and(|exe| rest.copy_of("file").is_some_and(|file| file.text("path") == Some(exe)));
    let file = if same { rest.inside("file", objects::file) } else { None };
    if let (Some(file), Some(process)) = (file, process.as_object_mut()) {
        process.insert("file".to_owned(), file);
    }
    object.set("actor", actor);
    object.set("process", process);
}

fn network(object: &mut Object, event: &Event, rest: &mut Rest) {
    object.set("actor", actor(rest));
    object.set("src_endpoint", json!({ "hostname": event.host, "name": event.host }));
    object.set("is_src_dst_assignment_known", true);
    let placed = rest.inside("destination", |from| {
        let connection = objects::connection(from);
        (connection, objects::url(from), objects::endpoint(from))
    });
    if let Some((connection, url, endpoint)) = placed {
        object.set("connection_info", connection);
        object.some("url", url);
        object.filled("dst_endpoint", endpoint);
    }
    let mut traffic = Object::default();
    let (sent, received) = (event.bytes, event.bytes_in);
    if sent.is_some() || received.is_some() {
        traffic.set("bytes", sent.unwrap_or(0).saturating_add(received.unwrap_or(0)));
    }
    traffic.some("bytes_out", rest.take("bytes"));
    traffic.some("bytes_in", rest.take("bytes_in"));
    object.filled("traffic", traffic);
}

fn finding(object: &mut Object, event: &Event, rest: &mut Rest) {
    let mut evidence = Object::default();
    evidence.set("actor", actor(rest));
    evidence.some("file", rest.inside("file", objects::file));
    object.set("evidences", vec![Value::from(evidence)]);
    let operation = event.operation().word();
    let mut types = vec![event.kind().word()];
    types.extend((event.operation() != Operation::Unspecified).then_some(operation));
    let (title, analytic) = match &event.alert {
        Some(alert) => (alert.title.clone(), alert.rule.as_str()),
        None => (format!("The monitor was tampered with: {operation}"), event.kind().word()),
    };
    object.set(
        "finding_info",
        json!({
            "uid": values::id(event),
            "title": title,
            "created_time": event.time_ns.div_euclid(1_000_000),
            "types": types,
            "analytic": { "name": analytic, "type_id": 1, "type": "Rule" },
            "data_sources": [LOG],
        }),
    );
}

fn api(object: &mut Object, event: &Event, rest: &mut Rest) {
    let id = values::id(event);
    rest.inside("act", |act| {
        let mut user = Object::default();
        user.some("name", act.take("name"));
        if let Some(role) = act.take("role") {
            user.set("groups", json!([{ "name": role, "type": "role" }]));
        }
        object.set("actor", json!({ "user": Value::from(user) }));
        let mut request = Object::default();
        request.set("uid", id);
        request.some("data", act.take("question"));
        request.some("flags", act.take("phase").map(|phase| vec![phase]));
        let mut call = Object::default();
        call.set("operation", act.take("method").unwrap_or_default());
        call.set("service", json!({ "name": "sekimori-collector" }));
        call.set("request", request);
        call.some("response", act.take("answered").map(|count| json!({ "data": count })));
        object.set("api", call);
        object.set("src_endpoint", objects::peer(act));
    });
}

fn entity(object: &mut Object, rest: &mut Rest) {
    rest.inside("host_change", |change| {
        let agent = change.text("role") == Some("agent");
        let mut entity = Object::default();
        entity.set("type_id", if agent { 1 } else { 2 });
        entity.set("type", if agent { "Device" } else { "User" });
        let name = change.take("name");
        if agent {
            let host = host(name.as_ref().and_then(Value::as_str).unwrap_or_default());
            entity.set("device", host);
        } else {
            entity.set("user", objects::user(None, name.clone()));
        }
        entity.some("name", name);
        object.set("entity", entity);
        let by = change.take("ordered_by").or_else(|| change.take("token_by"));
        if let Some(by) = by {
            object.set("actor", json!({ "user": objects::user(None, Some(by)) }));
        }
        object.some("comment", change.take("reason"));
        if change.text("address").is_some() {
            object.set("src_endpoint", objects::peer(change));
        }
    });
}

/// An agent's own life. A process, file or device is in no event of it today.
fn base(object: &mut Object, rest: &mut Rest) {
    rest.inside("policy", |policy| {
        object.within("policy", |taken| {
            taken.some("name", policy.take("name"));
            taken.some("version", policy.take("sha256"));
            taken.set("is_applied", true);
        });
    });
}
