//! `event.category` and `event.type`: each type is one that the schema expects with one of the
//! categories.

use sekimori_proto::v1::{Event, HostTurn, Kind, Operation, Verdict};

/// Categories and types of an event. Where a rule spoke, the category `intrusion_detection` and the
/// type `allowed` or `denied` are added.
pub fn of(event: &Event) -> (Vec<&'static str>, Vec<&'static str>) {
    let (category, kind_of) = of_kind(event);
    let mut categories = vec![category];
    let mut types = vec![kind_of];
    let said = match event.verdict() {
        Verdict::Denied => "denied",
        Verdict::Alerted | Verdict::WouldDeny => "allowed",
        Verdict::Allowed if !event.rule.is_empty() => "allowed",
        Verdict::Allowed | Verdict::Unspecified => return (categories, types),
    };
    if category != "intrusion_detection" {
        categories.push("intrusion_detection");
    }
    types.push(said);
    (categories, types)
}

fn of_kind(event: &Event) -> (&'static str, &'static str) {
    match event.kind() {
        Kind::FileOpen | Kind::UsbWrite | Kind::ShareWrite => ("file", on_file(event.operation())),
        Kind::UsbMount | Kind::Device => ("host", "change"),
        Kind::Exec if event.operation() == Operation::Load => ("library", "start"),
        Kind::Exec => ("process", "start"),
        Kind::Exit => ("process", "end"),
        Kind::NetConnect => ("network", "start"),
        Kind::NetUpload => ("network", "end"),
        Kind::NetSocket => ("network", "info"),
        Kind::Tamper | Kind::Alert => ("intrusion_detection", "info"),
        Kind::Operator => ("api", by_operator(event)),
        Kind::Host => on_host(event),
        Kind::Agent if event.policy.is_some() => ("configuration", "change"),
        Kind::Agent | Kind::Loss | Kind::Checkpoint | Kind::Custody | Kind::Unspecified => {
            ("host", "info")
        }
    }
}

const fn on_file(operation: Operation) -> &'static str {
    match operation {
        Operation::Open => "access",
        Operation::Create
        | Operation::Link
        | Operation::Mkdir
        | Operation::Symlink
        | Operation::Mknod => "creation",
        Operation::Unlink | Operation::Rmdir => "deletion",
        Operation::Unspecified => "info",
        _ => "change",
    }
}

fn by_operator(event: &Event) -> &'static str {
    match event.act.as_ref().map(|act| act.method.as_str()) {
        Some("Isolate" | "Release") => "change",
        _ => "access",
    }
}

fn on_host(event: &Event) -> (&'static str, &'static str) {
    match event.host_change.as_ref().map_or(HostTurn::Unspecified, |change| change.turn()) {
        HostTurn::Enrolled => ("iam", "creation"),
        HostTurn::Renewed => ("iam", "change"),
        HostTurn::Silent => ("host", "end"),
        HostTurn::Returned => ("host", "start"),
        HostTurn::Isolated | HostTurn::Released => ("host", "change"),
        HostTurn::Unspecified => ("host", "info"),
    }
}
