//! A policy as it was written: names, not yet bits.

use std::{collections::BTreeMap, net::IpAddr};

use sekimori_abi::event::kind;
use serde::{Deserialize, Serialize};

use crate::{finding::Position, pattern::Pattern};

/// Prefix of the ids that the compiler gives to rules of its own.
pub const RESERVED: &str = "sekimori/";

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it starts.
    pub at: Position,
}

/// What a rule does with its `deny`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Allow, and record that it would have been refused.
    Observe,
    /// Refuse.
    #[default]
    Enforce,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Write a record.
    Record,
    /// Write a record marked as an alert.
    Alert,
    /// Refuse the operation.
    Deny,
}

/// How loudly the administrator is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertLevel {
    /// For the weekly report.
    Low,
    /// For today.
    Medium,
    /// Now.
    High,
}

/// What a rule is `on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Word {
    /// A file is opened.
    #[serde(rename = "file.open")]
    FileOpen,
    /// Something on a USB file system is changed.
    #[serde(rename = "usb.write")]
    UsbWrite,
    /// A USB file system is mounted.
    #[serde(rename = "usb.mount")]
    UsbMount,
    /// Something on a network or FUSE file system is changed.
    #[serde(rename = "share.write")]
    ShareWrite,
    /// A socket is connected.
    #[serde(rename = "net.connect")]
    NetConnect,
    /// Bytes leave through a socket.
    #[serde(rename = "net.upload")]
    NetUpload,
    /// A socket is asked for that is neither of the Internet nor local.
    #[serde(rename = "net.socket")]
    NetSocket,
    /// A program is launched.
    #[serde(rename = "exec")]
    Exec,
}

impl Word {
    /// All words.
    pub const ALL: [Self; 8] = [
        Self::FileOpen,
        Self::UsbWrite,
        Self::UsbMount,
        Self::ShareWrite,
        Self::NetConnect,
        Self::NetUpload,
        Self::NetSocket,
        Self::Exec,
    ];

    /// As it is written in a policy and in records.
    pub const fn text(self) -> &'static str {
        match self {
            Self::FileOpen => "file.open",
            Self::UsbWrite => "usb.write",
            Self::UsbMount => "usb.mount",
            Self::ShareWrite => "share.write",
            Self::NetConnect => "net.connect",
            Self::NetUpload => "net.upload",
            Self::NetSocket => "net.socket",
            Self::Exec => "exec",
        }
    }

    /// The word written `text`.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.text() == text)
    }

    /// Its number in records and tables, one of `sekimori_abi::event::kind`.
    pub const fn kind(self) -> u8 {
        match self {
            Self::FileOpen => kind::FILE_OPEN,
            Self::UsbWrite => kind::USB_WRITE,
            Self::UsbMount => kind::USB_MOUNT,
            Self::ShareWrite => kind::SHARE_WRITE,
            Self::NetConnect => kind::NET_CONNECT,
            Self::NetUpload => kind::NET_UPLOAD,
            Self::NetSocket => kind::NET_SOCKET,
            Self::Exec => kind::EXEC,
        }
    }

    /// The word of a kind; `None` for kinds that no rule can name.
    pub fn from_kind(kind: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.kind() == kind)
    }
}

/// What a condition asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The file's label.
    Label,
    /// The acting program; in `exec` rules the program to be launched.
    Program,
    /// The acting person.
    User,
    /// The device below the file.
    Device,
    /// The peer of a connection.
    Destination,
}

impl Subject {
    /// All subjects.
    pub const ALL: [Self; 5] =
        [Self::Label, Self::Program, Self::User, Self::Device, Self::Destination];

    /// As it is written in `when` and `unless`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Program => "program",
            Self::User => "user",
            Self::Device => "device",
            Self::Destination => "destination",
        }
    }

    /// Whether an event of `word` has such a subject; else a condition on it could never hold.
    pub const fn fits(self, word: Word) -> bool {
        match self {
            Self::Label => {
                matches!(word, Word::FileOpen | Word::UsbWrite | Word::ShareWrite | Word::Exec)
            }
            Self::Device => matches!(word, Word::UsbWrite | Word::UsbMount | Word::ShareWrite),
            Self::Destination => matches!(word, Word::NetConnect | Word::NetUpload),
            Self::Program | Self::User => true,
        }
    }
}

/// What one subject must be: any of `names`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where the subject stands.
    pub at: Position,
    /// Group names (users: also login names).
    pub names: Vec<Located<String>>,
}

/// A `when` or an `unless`: all subjects must hold.
pub type Conditions = BTreeMap<Subject, Asked>;

/// A named set of paths.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Name of the label or program group.
    pub name: Located<String>,
    /// Any of these.
    pub patterns: Vec<Located<Pattern>>,
}

/// A named group of removable devices or shares. At least one of the fields is asked for; classes
/// stand alone.
#[derive(Clone, Debug)]
pub struct Device {
    /// Name.
    pub name: Located<String>,
    /// Any of these (`event::device_class`).
    pub classes: Vec<u8>,
    /// `idVendor`.
    pub vendor: Option<u16>,
    /// `idProduct`.
    pub product: Option<u16>,
    /// Any of these; empty: any serial.
    pub serials: Vec<Located<String>>,
}

/// A block of addresses, its host bits zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    /// First address.
    pub address: IpAddr,
    /// Bits of the prefix, of 32 or 128.
    pub bits: u8,
}

/// A named group of destinations.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Name.
    pub name: Located<String>,
    /// Any of these; `None`: any address.
    pub cidrs: Option<Vec<Cidr>>,
    /// Any of these (first, last); `None`: any port.
    pub ports: Option<Vec<(u16, u16)>>,
}

/// A named group of people.
#[derive(Clone, Debug)]
pub struct Users {
    /// Name.
    pub name: Located<String>,
    /// Login names and uids.
    pub users: Vec<Located<String>>,
    /// Groups of the system's user database.
    pub groups: Vec<Located<String>>,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its id, unique in the policy.
    pub id: Located<String>,
    /// What it is about.
    pub on: Vec<Located<Word>>,
    /// Must hold.
    pub when: Conditions,
    /// If it asks anything and all of it holds, the rule does not apply.
    pub unless: Conditions,
    /// What to do.
    pub action: Action,
    /// Text for the acting person.
    pub tell_user: Option<String>,
    /// How loudly to tell the administrator.
    pub tell_admin: Option<AlertLevel>,
    /// The weaker of the policy's and its own.
    pub mode: Mode,
}

/// A policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `metadata.name`.
    pub name: String,
    /// Mode of rules that do not say.
    pub mode: Mode,
    /// Labels of files.
    pub labels: Vec<Paths>,
    /// USB devices.
    pub devices: Vec<Device>,
    /// Destinations.
    pub destinations: Vec<Destination>,
    /// Programs by the path of their executable.
    pub programs: Vec<Paths>,
    /// People.
    pub users: Vec<Users>,
    /// Rules, in order.
    pub rules: Vec<Rule>,
}
