//! Which class and activity of OCSF an event is.
//!
//! Plugging in is Peripheral Activity, which is there since 1.7. A mount is File System Activity,
//! as the schema names `Mount` and `Unmount` there. What is loaded to be executed without a launch
//! is Module Activity. What happens to the records themselves (losses, signatures, removal) is Event
//! Log Activity.

use sekimori_proto::v1::{Event, HostTurn, Kind, Operation};
use sekimori_proto::words::Word as _;

/// A class of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// `class_uid`.
    pub uid: u32,
    /// `class_name`.
    pub name: &'static str,
    /// `category_uid` and `category_name`.
    pub category: (u32, &'static str),
}

const SYSTEM: (u32, &str) = (1, "System Activity");

/// Anything that no other class is made for.
pub const BASE: Class = Class { uid: 0, name: "Base Event", category: (0, "Uncategorized") };
/// What is done to a file or a file system.
pub const FILE: Class = Class { uid: 1001, name: "File System Activity", category: SYSTEM };
/// Code that is loaded into a process.
pub const MODULE: Class = Class { uid: 1005, name: "Module Activity", category: SYSTEM };
/// Processes that begin and end.
pub const PROCESS: Class = Class { uid: 1007, name: "Process Activity", category: SYSTEM };
/// What happens to records.
pub const LOG: Class = Class { uid: 1008, name: "Event Log Activity", category: SYSTEM };
/// Devices that come and go.
pub const PERIPHERAL: Class = Class { uid: 1010, name: "Peripheral Activity", category: SYSTEM };
/// Something was found out about an attack.
pub const FINDING: Class =
    Class { uid: 2004, name: "Detection Finding", category: (2, "Findings") };
/// Hosts and operators that are enrolled and managed.
pub const ENTITY: Class =
    Class { uid: 3004, name: "Entity Management", category: (3, "Identity & Access Management") };
/// Connections and what goes over them.
pub const NETWORK: Class =
    Class { uid: 4001, name: "Network Activity", category: (4, "Network Activity") };
/// Calls of the collector's interface.
pub const API: Class =
    Class { uid: 6003, name: "API Activity", category: (6, "Application Activity") };

/// `activity_id` of what the schema has no word for; `activity_name` is ours then.
const OTHER: u32 = 99;

/// The class of an event.
pub fn class(event: &Event) -> Class {
    match event.kind() {
        Kind::FileOpen | Kind::UsbWrite | Kind::ShareWrite | Kind::UsbMount => FILE,
        Kind::Exec if event.operation() == Operation::Load => MODULE,
        Kind::Exec | Kind::Exit => PROCESS,
        Kind::NetConnect | Kind::NetUpload | Kind::NetSocket => NETWORK,
        Kind::Tamper | Kind::Alert => FINDING,
        Kind::Device => PERIPHERAL,
        Kind::Operator => API,
        Kind::Host => ENTITY,
        Kind::Loss | Kind::Checkpoint | Kind::Custody => LOG,
        Kind::Agent | Kind::Unspecified => BASE,
    }
}

/// `activity_id` and `activity_name` within the class.
pub fn activity(event: &Event) -> (u32, String) {
    let operation = event.operation();
    let known = match event.kind() {
        Kind::FileOpen | Kind::UsbWrite | Kind::ShareWrite | Kind::UsbMount => on_file(event),
        Kind::Exec if operation == Operation::Load => Some((1, "Load")),
        Kind::Exec => Some((1, "Launch")),
        Kind::Exit => Some((2, "Terminate")),
        Kind::NetConnect if event.errno.is_some() && !super::denied(event) => Some((4, "Fail")),
        Kind::NetConnect => Some((1, "Open")),
        Kind::NetUpload => Some((6, "Traffic")),
        Kind::Tamper | Kind::Alert => Some((1, "Create")),
        Kind::Device if operation == Operation::Unplug => Some((2, "Disconnect")),
        Kind::Device => Some((1, "Connect")),
        Kind::Operator => by_operator(event),
        Kind::Host => on_host(event),
        Kind::Custody if event.custody.as_ref().is_some_and(|it| it.removed.is_some()) => {
            Some((2, "Delete"))
        }
        Kind::NetSocket | Kind::Custody | Kind::Loss | Kind::Checkpoint => None,
        Kind::Agent | Kind::Unspecified => None,
    };
    if let Some((id, name)) = known {
        return (id, name.to_owned());
    }
    let word = match (operation, &event.act, &event.host_change) {
        (Operation::Unspecified, Some(act), _) => act.method.clone(),
        (Operation::Unspecified, None, Some(change)) => change.turn().word().to_owned(),
        (Operation::Unspecified, None, None) => event.kind().word().to_owned(),
        _ => operation.word().to_owned(),
    };
    (OTHER, word)
}

fn on_file(event: &Event) -> Option<(u32, &'static str)> {
    let attribute = event.file.as_ref().map(|file| file.attribute.as_slice()).unwrap_or_default();
    let security =
        attribute.starts_with(b"security.") || attribute.starts_with(b"system.posix_acl_");
    Some(match event.operation() {
        Operation::Open => (14, "Open"),
        Operation::Create | Operation::Mkdir | Operation::Symlink | Operation::Mknod => {
            (1, "Create")
        }
        Operation::Unlink | Operation::Rmdir => (4, "Delete"),
        Operation::Rename => (5, "Rename"),
        // The last two tell what was written until the file was closed.
        Operation::Truncate | Operation::Write | Operation::Close | Operation::Receipt => {
            (3, "Update")
        }
        Operation::Setxattr | Operation::Removexattr if security => (7, "Set Security"),
        Operation::Setxattr | Operation::Removexattr => (6, "Set Attributes"),
        Operation::Mount => (12, "Mount"),
        Operation::Unmount => (13, "Unmount"),
        _ => return None,
    })
}

fn by_operator(event: &Event) -> Option<(u32, &'static str)> {
    match event.act.as_ref()?.method.as_str() {
        "Search" | "Aggregate" | "Subscribe" | "Verify" | "Export" => Some((2, "Read")),
        "Isolate" | "Release" => Some((3, "Update")),
        _ => None,
    }
}

fn on_host(event: &Event) -> Option<(u32, &'static str)> {
    match event.host_change.as_ref()?.turn() {
        HostTurn::Enrolled => Some((6, "Enroll")),
        HostTurn::Renewed => Some((3, "Update")),
        _ => None,
    }
}
