//! Objects of the schema, each from the part of an event that it stands for.

use serde_json::{Value, json};

use crate::rest::Rest;
use crate::values::{self, FileType, Object};

/// `fingerprint.algorithm_id` of SHA-256.
const SHA_256: u32 = 3;

/// `process`, with its parents. The arguments also stay, as a line cannot be split again for sure,
/// and so does the start, which has nanoseconds.
pub fn process(from: &mut Rest) -> Value {
    let mut object = Object::default();
    object.set("pid", from.take("pid").unwrap_or(Value::Null));
    object.some("tid", from.take("tid"));
    let exe = from.take_text("exe");
    let name = from.take_text("comm").or_else(|| Some(values::base_name(exe.as_deref()?).into()));
    object.some("name", name);
    if let Some(exe) = exe {
        object.set("file", program(&exe, from.take("exe_inode")));
        object.set("path", exe);
    }
    object.some("cmd_line", arguments(from));
    object.some("created_time", from.text("start").and_then(values::milliseconds));
    object.some("working_directory", from.take("cwd"));
    object.some("environment_variables", environment(from));
    object.set("user", user(from.take("uid"), from.take("user")));
    object.some("auid", from.take("login_uid"));
    if let Some(gid) = from.take("gid") {
        object.set("group", json!({ "uid": text(&gid) }));
        object.set("egid", gid);
    }
    object.filled("session", session(from));
    object.some("parent_process", from.inside("parent", process));
    object.into()
}

fn arguments(from: &Rest) -> Option<String> {
    let list = from.texts("argv");
    (!list.is_empty()).then(|| values::command_line(&list))
}

fn environment(from: &mut Rest) -> Option<Value> {
    let list = from.take_texts("environment");
    let list = list.iter().map(|variable| {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        json!({ "name": name, "value": value })
    });
    let list: Vec<Value> = list.collect();
    (!list.is_empty()).then_some(Value::Array(list))
}

fn session(from: &mut Rest) -> Object {
    let mut object = Object::default();
    object.some("uid", from.take("session_id").as_ref().map(text));
    object.some("terminal", from.take("tty"));
    object
}

/// A file that was or would be executed.
fn program(path: &str, inode: Option<Value>) -> Value {
    let mut object = Object::default();
    name(&mut object, path);
    object.set("type_id", 1);
    object.set("type", "Regular File");
    object.some("uid", inode.as_ref().map(text));
    object.into()
}

/// `user` with number and name.
pub fn user(uid: Option<Value>, name: Option<Value>) -> Value {
    let mut object = Object::default();
    object.some("name", name);
    object.some("uid", uid.as_ref().map(text));
    object.into()
}

/// Whoever logged in; else whose rights the process has. The process itself when it is not told
/// as one that the event is about.
pub fn actor(process: &mut Rest) -> Object {
    let login = process.text("login_user").is_some();
    let user = if login {
        self::user(process.copy("login_uid"), process.take("login_user"))
    } else {
        self::user(process.copy("uid"), process.copy("user"))
    };
    let mut object = Object::default();
    object.set("user", user);
    object
}

/// `file`. Its device has no place there but `drive_type`.
pub fn file(from: &mut Rest) -> Value {
    let mut object = Object::default();
    name(&mut object, &from.take_text("path").unwrap_or_default());
    let (id, caption) = file_type(from.number("mode"));
    object.set("type_id", id);
    object.set("type", caption);
    object.some("uid", from.take("inode").as_ref().map(text));
    object.some("size", from.take("size"));
    object.some("is_deleted", from.take("unlinked"));
    let drive = from.copy_of("device").and_then(|it| drive_type(it.text("class")?));
    if let Some((id, caption)) = drive {
        object.set("drive_type_id", id);
        object.set("drive_type", caption);
    }
    if let Some(attribute) = from.take_text("attribute") {
        object.set("xattributes", json!({ "name": attribute }));
    }
    object.into()
}

/// A file that only its name is known of.
pub fn named_file(path: &str, like: &Value) -> Value {
    let mut object = Object::default();
    name(&mut object, path);
    for kept in ["type_id", "type", "uid"] {
        object.some(kept, like.get(kept).cloned());
    }
    object.into()
}

/// `fingerprint`.
pub fn sha256(value: Value) -> Value {
    json!([{ "algorithm_id": SHA_256, "algorithm": "SHA-256", "value": value }])
}

fn name(object: &mut Object, path: &str) {
    object.set("name", values::base_name(path));
    if !path.is_empty() {
        object.set("path", path);
        object.some("parent_folder", values::directory(path));
    }
}

fn file_type(mode: Option<u64>) -> (u32, &'static str) {
    match mode.and_then(values::file_type) {
        Some(FileType::Regular) => (1, "Regular File"),
        Some(FileType::Directory) => (2, "Folder"),
        Some(FileType::CharacterDevice) => (3, "Character Device"),
        Some(FileType::BlockDevice) => (4, "Block Device"),
        Some(FileType::Socket) => (5, "Local Socket"),
        Some(FileType::Pipe) => (6, "Named Pipe"),
        Some(FileType::Symlink) => (7, "Symbolic Link"),
        None => (0, "Unknown"),
    }
}

fn drive_type(class: &str) -> Option<(u32, &'static str)> {
    match class {
        "usb" | "sd" | "thunderbolt" => Some((1, "Removable")),
        "fixed" => Some((2, "Fixed")),
        "network" | "fuse" => Some((3, "Remote")),
        "optical" => Some((4, "CD-ROM")),
        _ => None,
    }
}

/// `peripheral_device`.
pub fn peripheral(from: &mut Rest) -> Value {
    let mut object = Object::default();
    let vendor = from.take_text("vendor");
    let ids = format!(
        "{}:{}",
        vendor.as_deref().unwrap_or_default(),
        from.text("product").unwrap_or_default()
    );
    let functions = from.texts("functions");
    let model = from.take_text("product_name");
    object.set("name", model.clone().unwrap_or_else(|| ids.clone()));
    object.some("model", model);
    object.some("vendor_name", from.take("vendor_name"));
    object.filled("vendor_id_list", vendor.into_iter().collect::<Vec<String>>());
    object.some("serial_number", from.take("serial"));
    object.some("class", from.take("class"));
    object.set("uid", ids);
    let (id, caption) = match functions.first().map(String::as_str) {
        Some("storage") => (1, "External Storage".to_owned()),
        Some("printer") => (4, "Printer".to_owned()),
        Some("video") => (7, "Webcam".to_owned()),
        Some(other) => (99, other.to_owned()),
        None => (0, "Unknown".to_owned()),
    };
    object.set("type_id", id);
    object.set("type", caption);
    object.into()
}

/// `network_endpoint` of the other side. It takes what [`connection`] only looks at.
pub fn endpoint(from: &mut Rest) -> Value {
    let mut object = Object::default();
    let address = from.take("ip");
    let path = from.take("path");
    let protocol = from.take("protocol");
    if address.is_none() {
        // A unix socket, or a family of sockets.
        object.some("name", path.or(protocol));
    }
    object.some("ip", address);
    object.some("port", from.take("port"));
    object.some("hostname", first_name(from));
    object.into()
}

/// The first of the names that the traffic says; all of them stay, with where they come from.
pub fn first_name(from: &Rest) -> Option<Value> {
    from.copy("names")?.get(0)?.get("name").cloned()
}

/// `network_connection_info`.
pub fn connection(from: &Rest) -> Value {
    let mut object = Object::default();
    let protocol = from.text("protocol").unwrap_or_default();
    let local = protocol == "unix";
    object.set("direction_id", if local { 4 } else { 2 });
    object.set("direction", if local { "Local" } else { "Outbound" });
    let number = match protocol {
        "tcp" => Some(6),
        "udp" => Some(17),
        other => other.parse::<u8>().ok(),
    };
    object.some("protocol_num", number);
    if let Some(address) = from.text("ip") {
        let version = if address.contains(':') { 6 } else { 4 };
        object.set("protocol_ver_id", version);
        object.set("protocol_ver", format!("Internet Protocol version {version} (IPv{version})"));
    }
    object.set("protocol_name", protocol);
    object.into()
}

/// A number or text as text: identifiers are texts there.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `network_endpoint` of who called, from `address`: IP address and port, or a unix socket.
pub fn peer(from: &mut Rest) -> Value {
    let Some(address) = from.take_text("address") else { return json!({ "name": "unix socket" }) };
    match address.parse::<std::net::SocketAddr>() {
        Ok(peer) => json!({ "ip": peer.ip().to_string(), "port": peer.port() }),
        Err(_) => json!({ "name": address }),
    }
}

/// `url`, from the first request in clear. The method has no place in the class.
pub fn url(from: &mut Rest) -> Option<Value> {
    let name = first_name(from);
    from.inside("http", |http| {
        let path = http.take("path")?;
        let mut object = Object::default();
        object.set("path", path);
        object.some("hostname", name);
        Some(object.into())
    })?
}
