//! Small things that both schemas need.

use jiff::Timestamp;
use sekimori_proto::v1::{Event, Kind, Verdict};
use sekimori_proto::words::Word as _;
use serde_json::{Map, Value};

/// File type bits of a mode (inode(7)).
const TYPE_MASK: u64 = 0o170_000;

/// An object in the making.
#[derive(Debug, Default)]
pub struct Object(Map<String, Value>);

impl Object {
    /// Sets a value.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Sets a value that may be absent.
    pub fn some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Sets an object or list unless it is empty.
    pub fn filled(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        let empty = value.as_object().is_some_and(Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty);
        if !empty {
            self.set(name, value);
        }
    }

    /// Changes the object `name`, which is made when it is not there.
    pub fn within(&mut self, name: &str, change: impl FnOnce(&mut Self)) {
        let mut inner = match self.0.get_mut(name).map(Value::take) {
            Some(Value::Object(object)) => Self(object),
            _ => Self::default(),
        };
        change(&mut inner);
        if inner.0.is_empty() {
            self.0.shift_remove(name);
        } else {
            self.set(name, inner);
        }
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object.0)
    }
}

/// Name of the event that is the same wherever it is shown: boot and number.
pub fn id(event: &Event) -> String {
    let boot: String = event.boot.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{boot}-{}", event.sequence)
}

/// Milliseconds since 1970 of a time as the JSON form writes it.
pub fn milliseconds(time: &str) -> Option<i64> {
    time.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// The part behind the last slash.
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The part before the last slash; none when there is no slash. The root is `/`.
pub fn directory(path: &str) -> Option<&str> {
    let (directory, _) = path.rsplit_once('/')?;
    Some(if directory.is_empty() { "/" } else { directory })
}

/// Arguments as they would be typed to a shell.
pub fn command_line(arguments: &[String]) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80 || b"-_./=:,+@%".contains(&byte);
    let typed = arguments.iter().map(|argument| {
        if !argument.is_empty() && argument.bytes().all(plain) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    });
    typed.collect::<Vec<_>>().join(" ")
}

/// What a file is, by the type bits of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    Regular,
    Directory,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Pipe,
    Socket,
}

/// None when the mode is not known.
pub fn file_type(mode: u64) -> Option<FileType> {
    match mode & TYPE_MASK {
        0o100_000 => Some(FileType::Regular),
        0o040_000 => Some(FileType::Directory),
        0o120_000 => Some(FileType::Symlink),
        0o020_000 => Some(FileType::CharacterDevice),
        0o060_000 => Some(FileType::BlockDevice),
        0o010_000 => Some(FileType::Pipe),
        0o140_000 => Some(FileType::Socket),
        _ => None,
    }
}

/// Whether somebody should look at it.
pub fn is_alert(event: &Event) -> bool {
    matches!(event.verdict(), Verdict::Denied | Verdict::Alerted | Verdict::WouldDeny)
        || matches!(event.kind(), Kind::Tamper | Kind::Alert)
}

/// Whether what was asked for did not happen.
pub fn failed(event: &Event) -> bool {
    event.verdict() == Verdict::Denied || event.errno.is_some_and(|errno| errno != 0)
}

/// One sentence: that of the event, or one of what was lost or done to a host.
pub fn sentence(event: &Event) -> Option<String> {
    if !event.message.is_empty() {
        return Some(event.message.clone());
    }
    if let Some(loss) = &event.loss {
        let what = match loss.kind() {
            Kind::Unspecified => "events",
            kind => kind.word(),
        };
        return Some(format!("{} × {what} lost at {}: {}", loss.count, loss.stage, loss.reason));
    }
    if let Some(alert) = &event.alert {
        return Some(alert.title.clone());
    }
    let change = event.host_change.as_ref()?;
    Some(format!("{} {}", change.name, change.turn().word()))
}
