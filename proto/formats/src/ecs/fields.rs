//! Field sets of the schema, each from the part of an event that it stands for.

use serde_json::{Value, json};

use crate::rest::Rest;
use crate::values::{self, FileType, Object};

/// Permission bits of a mode (inode(7)).
const PERMISSIONS: u64 = 0o7777;

/// `user`: who logged in, and `user.effective`: whose rights the process has.
pub fn people(object: &mut Object, rest: &mut Rest) {
    let Some(user) = rest.inside("process", user_of) else { return };
    object.filled("user", user);
}

fn user_of(process: &mut Rest) -> Object {
    let mut effective = Object::default();
    let uid = process.take("uid");
    effective.some("id", uid.as_ref().map(text));
    let name = process.take("user");
    effective.some("name", name);
    if let Some(gid) = process.take("gid") {
        effective.set("group", json!({ "id": text(&gid) }));
    }
    let login = process.copy("login_uid");
    if login.is_none() || login == uid {
        // One person: nothing to tell apart. That they logged in stays.
        return effective;
    }
    let mut user = Object::default();
    user.some("id", login.as_ref().map(text));
    user.some("name", process.copy("login_user"));
    user.set("effective", effective);
    user
}

/// `process` and `process.parent`; the schema has no grandparents. `process.user` is in `user`.
pub fn process(from: &mut Rest) -> Value {
    let mut object = one_process(from);
    let parent = from.inside("parent", |from| {
        let mut parent = one_process(from);
        let mut user = Object::default();
        user.some("id", from.take("uid").as_ref().map(text));
        user.some("name", from.take("user"));
        parent.filled("user", user);
        parent
    });
    object.some("parent", parent);
    object.into()
}

fn one_process(from: &mut Rest) -> Object {
    let mut object = Object::default();
    object.some("pid", from.take("pid"));
    let exe = from.take_text("exe");
    let name = from.take_text("comm").or_else(|| Some(values::base_name(exe.as_deref()?).into()));
    object.some("name", name);
    object.some("executable", exe);
    let arguments = from.take_texts("argv");
    if !arguments.is_empty() {
        object.set("command_line", values::command_line(&arguments));
        object.set("args_count", arguments.len());
        object.set("args", arguments);
    }
    object.some("start", from.take("start"));
    object.some("working_directory", from.take("cwd"));
    object.filled("env_vars", from.take_texts("environment"));
    if let Some(tid) = from.take("tid") {
        object.set("thread", json!({ "id": tid }));
    }
    object
}

/// `file`. The new name of one that is moved stays where it is.
pub fn file(from: &mut Rest, symlink: bool) -> Object {
    let mut object = Object::default();
    if let Some(path) = from.take_text("path") {
        object.set("name", values::base_name(&path));
        object.some("directory", values::directory(&path));
        object.some("extension", extension(&path));
        object.set("path", path);
    }
    object.some("inode", from.take("inode").as_ref().map(text));
    object.some("size", from.take("size"));
    if let Some(mode) = from.number("mode") {
        object.set("mode", format!("{:04o}", mode & PERMISSIONS));
        object.some("type", values::file_type(mode).map(file_type));
    }
    if symlink {
        object.some("target_path", from.take("new_path"));
    }
    object
}

fn extension(path: &str) -> Option<&str> {
    let (stem, extension) = values::base_name(path).rsplit_once('.')?;
    (!stem.is_empty() && !extension.is_empty()).then_some(extension)
}

const fn file_type(of: FileType) -> &'static str {
    match of {
        FileType::Regular => "file",
        FileType::Directory => "dir",
        FileType::Symlink => "symlink",
        FileType::CharacterDevice => "char",
        FileType::BlockDevice => "block",
        FileType::Pipe => "fifo",
        FileType::Socket => "socket",
    }
}

/// `device`: what was plugged in, or what a file lies on.
pub fn device(from: &mut Rest) -> Value {
    let mut object = Object::default();
    object.some("id", from.take("serial"));
    object.some("manufacturer", from.take("vendor_name"));
    let mut model = Object::default();
    if let (Some(vendor), Some(product)) = (from.text("vendor"), from.text("product")) {
        model.set("identifier", format!("{vendor}:{product}"));
    }
    model.some("name", from.take("product_name"));
    object.filled("model", model);
    object.into()
}

/// `destination`. All names stay, with where they come from; the first is its domain.
pub fn destination(from: &mut Rest) -> Object {
    let mut object = Object::default();
    let ip = from.take("ip");
    let name = first_name(from);
    object.some("address", name.clone().or_else(|| ip.clone()));
    object.some("domain", name);
    object.some("ip", ip);
    object.some("port", from.take("port"));
    object
}

fn first_name(from: &Rest) -> Option<Value> {
    from.copy("names")?.get(0)?.get("name").cloned()
}

/// `network`. A protocol that is known by its number only is a number of IANA.
pub fn network(from: &mut Rest) -> Object {
    let mut object = Object::default();
    let ip = from.text("ip").map(|ip| if ip.contains(':') { "ipv6" } else { "ipv4" });
    if let Some(protocol) = from.take_text("protocol") {
        let number = match protocol.as_str() {
            "tcp" => Some(6),
            "udp" => Some(17),
            other => other.parse::<u8>().ok(),
        };
        object.some("iana_number", number.map(|number| number.to_string()));
        object.set("transport", protocol);
    }
    if ip.is_some() {
        object.set("direction", "egress");
    }
    object.some("type", ip);
    object
}

/// `http` and `url`, from the first request in clear.
pub fn http(from: &mut Rest) -> (Object, Object) {
    let (mut http, mut url) = (Object::default(), Object::default());
    let name = first_name(from);
    from.inside("http", |request| {
        http.some("request", request.take("method").map(|method| json!({ "method": method })));
        url.some("path", request.take("path"));
        url.some("domain", name);
    });
    (http, url)
}

/// `email`, from the first envelope in clear.
pub fn email(from: &mut Rest) -> Object {
    let mut email = Object::default();
    from.inside("smtp", |envelope| {
        email.some("from", envelope.take("from").map(|it| json!({ "address": [it] })));
        let to = envelope.take_texts("to");
        email.filled("to", if to.is_empty() { json!({}) } else { json!({ "address": to }) });
    });
    email
}

/// `source` of a call: IP address and port. Anything else stays.
pub fn peer(from: &mut Rest) -> Object {
    let mut object = Object::default();
    let peer = from.text("address").and_then(|it| it.parse::<std::net::SocketAddr>().ok());
    if let Some(peer) = peer {
        object.some("address", from.take("address"));
        object.set("ip", peer.ip().to_string());
        object.set("port", peer.port());
    }
    object
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
