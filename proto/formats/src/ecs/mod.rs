//! Events as ECS (Elastic Common Schema) has them.
//!
//! `user` is who logged in, and `user.effective` whose rights the process had when that is another.
//! What the schema has no field for is in `sekimori`, under the names of the project's own JSON form.

mod category;
mod fields;

use sekimori_proto::v1::{Event, Kind, Operation};
use sekimori_proto::words::Word as _;
use serde_json::{Value, json};

use crate::rest::Rest;
use crate::values::{self, Object};

/// The version of the schema that the field names are from.
pub const ECS_VERSION: &str = "8.11.0";

const MODULE: &str = "sekimori";

/// The event as one document of ECS.
pub fn ecs(event: &Event) -> Value {
    let mut rest = Rest::of(event);
    let mut object = Object::default();
    object.some("@timestamp", rest.take("time"));
    object.some("message", values::sentence(event));
    rest.take("message");
    object.set("ecs", json!({ "version": ECS_VERSION }));
    object.set("event", about(event, &mut rest));
    if let Some(host) = rest.take("host") {
        object.set("host", json!({ "name": host, "hostname": host }));
    }
    if let Some(rule) = rest.take("rule") {
        object.set("rule", json!({ "id": rule, "name": rule }));
    }
    if let Some(errno) = rest.take("errno") {
        object.set("error", json!({ "code": errno.to_string() }));
    }
    if event.act.is_none() && event.host_change.is_none() {
        fields::people(&mut object, &mut rest);
    }
    object.some("process", rest.inside("process", fields::process));
    if let Some(code) = rest.take("exit_code") {
        object.within("process", |process| process.set("exit_code", code));
    }
    file(&mut object, event, &mut rest);
    if let Some(device) = rest.inside("device", fields::device) {
        object.filled("device", device);
    }
    network(&mut object, &mut rest);
    operator(&mut object, &mut rest);
    host_change(&mut object, &mut rest);
    related(&mut object, event);
    object.filled(MODULE, rest.left());
    object.into()
}

/// `event`. Kind and operation also stay in their own words.
fn about(event: &Event, rest: &mut Rest) -> Value {
    let mut about = Object::default();
    about.set("kind", if values::is_alert(event) { "alert" } else { "event" });
    let (categories, types) = category::of(event);
    about.set("category", categories);
    about.set("type", types);
    about.set("action", action(event));
    about.set("code", event.kind().word());
    about.set("outcome", if values::failed(event) { "failure" } else { "success" });
    about.set("module", MODULE);
    about.set("dataset", "sekimori.events");
    about.set("id", values::id(event));
    about.some("sequence", rest.take("seq"));
    about.into()
}

fn action(event: &Event) -> String {
    let kind = event.kind().word();
    match (event.operation(), &event.act, &event.host_change) {
        (Operation::Unspecified, Some(act), _) => format!("{kind}-{}", act.method.to_lowercase()),
        (Operation::Unspecified, None, Some(change)) => format!("{kind}-{}", change.turn().word()),
        (Operation::Unspecified, None, None) => kind.to_owned(),
        (operation, ..) if operation.word() == kind => kind.to_owned(),
        (operation, ..) => format!("{kind}-{}", operation.word()),
    }
}

fn file(object: &mut Object, event: &Event, rest: &mut Rest) {
    let hash = rest.take("sha256");
    let lies_on = event.device.is_none();
    let symlink = event.operation() == Operation::Symlink;
    let placed = rest.inside("file", |from| {
        let file = fields::file(from, symlink);
        (file, if lies_on { from.inside("device", fields::device) } else { None })
    });
    let Some((mut file, device)) = placed else {
        rest.put("sha256", hash.unwrap_or_default());
        return;
    };
    if let Some(hash) = hash {
        file.set("hash", json!({ "sha256": hash }));
    }
    object.filled("file", file);
    if let Some(device) = device {
        object.filled("device", device);
    }
}

fn network(object: &mut Object, rest: &mut Rest) {
    let placed = rest.inside("destination", |from| {
        let network = fields::network(from);
        let (http, url) = fields::http(from);
        (network, http, url, fields::email(from), fields::destination(from))
    });
    let Some((mut network, http, url, email, mut destination)) = placed else { return };
    let (sent, received) = (rest.take("bytes"), rest.take("bytes_in"));
    let count = |value: &Option<Value>| value.as_ref().and_then(Value::as_u64).unwrap_or(0);
    if sent.is_some() || received.is_some() {
        network.set("bytes", count(&sent).saturating_add(count(&received)));
    }
    destination.some("bytes", received);
    object.filled("network", network);
    object.filled("destination", destination);
    if let Some(sent) = sent {
        object.set("source", json!({ "bytes": sent }));
    }
    object.filled("http", http);
    object.filled("url", url);
    object.filled("email", email);
}

fn operator(object: &mut Object, rest: &mut Rest) {
    rest.inside("act", |act| {
        let mut user = Object::default();
        user.some("name", act.take("name"));
        user.some("roles", act.take("role").map(|role| vec![role]));
        object.set("user", user);
        object.filled("source", fields::peer(act));
    });
}

fn host_change(object: &mut Object, rest: &mut Rest) {
    rest.inside("host_change", |change| {
        object.filled("source", fields::peer(change));
        if let Some(by) = change.take("ordered_by").or_else(|| change.take("token_by")) {
            object.set("user", json!({ "name": by }));
        }
        let reason = change.take("reason");
        object.within("event", |event| event.some("reason", reason));
    });
}

/// What one pivots by, whatever field it is in.
fn related(object: &mut Object, event: &Event) {
    let mut related = Object::default();
    let process = event.process.as_ref();
    let mut users: Vec<&str> = Vec::new();
    if event.kind() == Kind::Operator {
        users.extend(event.act.as_ref().map(|act| act.name.as_str()));
    }
    users.extend(process.map(|it| it.login_user.as_str()));
    users.extend(process.map(|it| it.user.as_str()));
    users.retain(|name| !name.is_empty());
    users.dedup();
    related.filled("user", users);
    let peer = event.destination.as_ref();
    let address = peer.map(|it| it.ip.clone()).filter(|ip| !ip.is_empty());
    related.filled("ip", address.into_iter().collect::<Vec<_>>());
    let mut hosts = vec![event.host.clone()];
    hosts.extend(peer.into_iter().flat_map(|it| &it.names).map(|it| it.name.clone()));
    hosts.retain(|name| !name.is_empty());
    related.filled("hosts", hosts);
    object.filled("related", related);
}
