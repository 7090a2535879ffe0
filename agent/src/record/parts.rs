//! The parts of an event: who, on what device, to where.

use std::net::Ipv6Addr;
use std::sync::Arc;

use prost::Message as _;
use sekimori_abi::event::{self as abi, device_class, family, kind};
use sekimori_proto::v1::{Destination, Device, Process};

use crate::decode::Raw;
use crate::enrich::{Enricher, Known, ProcessKey, terminal, zero_ended};

/// Who acted: what can differ from record to record; the rest, encoded; and whether some argument is
/// missing. A refused launch changes nothing of the process: it is still who tried.
pub(super) fn process(raw: &Raw, enricher: &mut Enricher) -> (Process, Arc<[u8]>, bool) {
    let from = &raw.event.process;
    let key = ProcessKey::of(from);
    let known = enricher.processes.find(key, &enricher.clock).cloned();
    let truncated = known.as_ref().is_some_and(|known| known.image.arguments_truncated);
    let described = match known.as_ref().and_then(|known| known.described.clone()) {
        Some(described) => described,
        None => describe(from, known.as_ref(), enricher),
    };
    let login_uid = (from.login_uid != u32::MAX).then_some(from.login_uid);
    let process = Process {
        pid: from.tgid,
        uid: from.uid,
        user: enricher.users.name(from.uid),
        gid: from.gid,
        login_uid,
        login_user: login_uid.map(|uid| enricher.users.name(uid)).unwrap_or_default(),
        session_id: (from.session_id != u32::MAX).then_some(from.session_id),
        tty: terminal(&from.tty),
        comm: zero_ended(&from.comm),
        cgroup_id: from.cgroup_id,
        tid: from.tid,
        exe_inode: from.exe_inode,
        ..Process::default()
    };
    (process, described, truncated)
}

/// What stays the same until the next exec: program, arguments, start, parents. Kept with the
/// process, unless a parent may yet become known.
fn describe(from: &abi::Process, known: Option<&Known>, enricher: &mut Enricher) -> Arc<[u8]> {
    let key = ProcessKey::of(from);
    let (parent, found) = parents(from, enricher);
    let mut process = match known {
        Some(known) => of_image(known),
        None => Process { start_ns: enricher.clock.utc_ns(key.start_ns), ..Process::default() },
    };
    process.parent = parent.map(Box::new);
    let described: Arc<[u8]> = process.encode_to_vec().into();
    if found {
        enricher.processes.describe(key, Arc::clone(&described));
    }
    described
}

fn of_image(known: &Known) -> Process {
    Process {
        start_ns: known.start_utc_ns,
        exe: known.image.exe.clone(),
        argv: known.image.argv.clone(),
        cwd: known.image.cwd.clone(),
        ..Process::default()
    }
}

/// The line of parents, and whether the nearest is known. One who is not known any more is still
/// named by number and start.
fn parents(from: &abi::Process, enricher: &mut Enricher) -> (Option<Process>, bool) {
    let mut chain = enricher.processes.ancestors(ProcessKey::of(from));
    if chain.is_empty() {
        let key = ProcessKey::parent_of(from);
        if key.tgid == 0 {
            return (None, true);
        }
        let Some(known) = enricher.processes.find(key, &enricher.clock).cloned() else {
            let start_ns = enricher.clock.utc_ns(key.start_ns);
            return (Some(Process { pid: key.tgid, start_ns, ..Process::default() }), false);
        };
        let key = known.key;
        chain.push(known);
        chain.extend(enricher.processes.ancestors(key));
        chain.truncate(crate::limits::ANCESTORS_MAX);
    }
    // Only the nearest parent's arguments are kept: sixteen argument lists would fill a record.
    let last = chain.len();
    let mut parent = None;
    for (nearness, known) in chain.into_iter().rev().enumerate() {
        let argv = if nearness + 1 == last { known.image.argv.clone() } else { Vec::new() };
        parent = Some(Process {
            pid: known.key.tgid,
            argv,
            cwd: Vec::new(),
            uid: known.uid,
            user: enricher.users.name(known.uid),
            comm: known.image.comm.clone(),
            parent: parent.map(Box::new),
            ..of_image(&known)
        });
    }
    (parent, true)
}

/// The device below a file.
pub(super) fn device(from: &abi::Device) -> Option<Device> {
    let usb = from.class == device_class::USB;
    let removable = from.is_removable();
    let class = match from.class {
        device_class::USB => "usb",
        device_class::SD => "sd",
        device_class::THUNDERBOLT => "thunderbolt",
        device_class::NETWORK => "network",
        device_class::FUSE => "fuse",
        device_class::FIXED => "fixed",
        device_class::VIRTUAL => "virtual",
        _ => return None,
    };
    if from.dev == 0 && !removable {
        return None;
    }
    let hexadecimal = |number: u16| if usb { format!("{number:04x}") } else { String::new() };
    Some(Device {
        class: class.to_owned(),
        vendor: hexadecimal(from.vendor),
        product: hexadecimal(from.product),
        serial: String::from_utf8_lossy(&zero_ended(&from.serial)).into_owned(),
        major: from.dev >> 20,
        minor: from.dev & 0xf_ffff,
        ..Device::default()
    })
}

/// Address families by which data can leave, as `socket(2)` and include/linux/socket.h name them.
const FAMILIES: [(u16, &str); 20] = [
    (3, "ax25"),
    (4, "ipx"),
    (5, "appletalk"),
    (9, "x25"),
    (17, "packet"),
    (20, "atmsvc"),
    (21, "rds"),
    (24, "pppox"),
    (26, "llc"),
    (27, "ib"),
    (29, "can"),
    (30, "tipc"),
    (31, "bluetooth"),
    (35, "phonet"),
    (36, "ieee802154"),
    (39, "nfc"),
    (40, "vsock"),
    (42, "qipcrtr"),
    (43, "smc"),
    (44, "xdp"),
];

fn family_word(number: u16) -> String {
    let known = FAMILIES.iter().find(|(family, _)| *family == number);
    known.map_or_else(|| format!("family {number}"), |(_, word)| (*word).to_owned())
}

/// The peer of a socket.
pub(super) fn destination(raw: &Raw) -> Option<Destination> {
    let from = &raw.event;
    let protocol = match (from.family, from.protocol) {
        (0, _) => return None,
        (number, _) if from.kind == kind::NET_SOCKET => {
            return Some(Destination { protocol: family_word(number), ..Default::default() });
        }
        (family::UNIX, _) => {
            let path = match raw.third.split_first() {
                // An abstract name begins with NUL; it is written `@name`, as everywhere.
                Some((0, name)) => [b"@", name].concat(),
                _ => zero_ended(&raw.third),
            };
            return Some(Destination { protocol: "unix".to_owned(), path, ..Default::default() });
        }
        (_, 6) => "tcp".to_owned(),
        (_, 17) => "udp".to_owned(),
        (_, number) => number.to_string(),
    };
    let address = Ipv6Addr::from(from.address);
    let ip = match address.to_ipv4_mapped() {
        Some(address) => address.to_string(),
        None => address.to_string(),
    };
    Some(Destination { ip, port: from.port.into(), protocol, ..Destination::default() })
}
