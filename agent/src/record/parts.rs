//! The parts of an event: who, on what device, to where.

use std::net::Ipv6Addr;
use std::sync::Arc;

use sekimori_abi::event::{self as abi, device_class, family, kind};
use sekimori_abi::limits::COMM_BYTES_MAX;
use sekimori_proto::v1::{Destination, Device};

use super::wire;
use crate::decode::Raw;
use crate::enrich::{Described, Enricher, Known, ProcessKey, Users, terminal, zero_ended};

/// Who acted, encoded without what is the thread's own; and whether some argument is missing. A
/// refused launch changes nothing of the process: it is still who tried.
pub(super) fn process(from: &abi::Process, enricher: &mut Enricher) -> (Arc<[u8]>, bool) {
    let Enricher { clock, processes, users, .. } = enricher;
    let key = ProcessKey::of(from);
    let (who, names) = (without_thread(from), users.names());
    let known = processes.find(key, clock);
    let truncated = known.is_some_and(|known| known.image.arguments_truncated);
    let described = known.and_then(|known| known.described.as_deref());
    let mut encoded = Vec::new();
    let (stays, mut keep) = match described {
        Some(it) if it.who == who && it.names == names => {
            return (Arc::clone(&it.encoded), truncated);
        }
        // Somebody else by now; what the process runs was said.
        Some(it) => {
            encoded.extend_from_slice(it.encoded.get(..it.stays).unwrap_or_default());
            (it.stays, true)
        }
        None => (0, false),
    };
    if stays == 0 {
        of_image(processes.get(key), clock.utc_ns(key.start_ns), &mut encoded);
        keep = parents(from, enricher, &mut encoded);
    }
    let Enricher { processes, users, .. } = enricher;
    let stays = encoded.len();
    of_person(from, users, &mut encoded);
    let encoded: Arc<[u8]> = encoded.into();
    // A parent may yet become known.
    if keep {
        let described = Described { who, names, stays, encoded: Arc::clone(&encoded) };
        processes.describe(key, described);
    }
    (encoded, truncated)
}

const fn without_thread(from: &abi::Process) -> abi::Process {
    abi::Process { tid: 0, comm: [0; COMM_BYTES_MAX], ..*from }
}

/// What can change while a process runs the same program.
fn of_person(from: &abi::Process, users: &mut Users, out: &mut Vec<u8>) {
    wire::number(wire::PID, from.tgid.into(), out);
    wire::number(wire::UID, from.uid.into(), out);
    wire::text(wire::USER, users.name(from.uid).as_bytes(), out);
    wire::number(wire::GID, from.gid.into(), out);
    if from.login_uid != u32::MAX {
        wire::present(wire::LOGIN_UID, from.login_uid.into(), out);
        wire::text(wire::LOGIN_USER, users.name(from.login_uid).as_bytes(), out);
    }
    if from.session_id != u32::MAX {
        wire::present(wire::SESSION_ID, from.session_id.into(), out);
    }
    wire::text(wire::TTY, terminal(&from.tty).as_bytes(), out);
    wire::number(wire::CGROUP_ID, from.cgroup_id, out);
    wire::number(wire::EXE_INODE, from.exe_inode, out);
}

/// What stays the same until the next exec, but for the parents.
fn of_image(known: Option<&Known>, start_ns: i64, out: &mut Vec<u8>) {
    let Some(known) = known else { return wire::signed(wire::START_NS, start_ns, out) };
    wire::signed(wire::START_NS, known.start_utc_ns, out);
    wire::text(wire::EXE, &known.image.exe, out);
    known.image.argv.iter().for_each(|argument| wire::message(wire::ARGV, argument, out));
    wire::text(wire::CWD, &known.image.cwd, out);
    known.image.environment.iter().for_each(|it| wire::message(wire::ENVIRONMENT, it, out));
    wire::number(wire::ENVIRONMENT_TRUNCATED, known.image.environment_truncated.into(), out);
}

/// The line of parents; answers whether the nearest is known. One who is not known any more is
/// still named by number and start.
fn parents(from: &abi::Process, enricher: &mut Enricher, out: &mut Vec<u8>) -> bool {
    let Enricher { clock, processes, users, .. } = enricher;
    let parent = processes.get(ProcessKey::of(from)).and_then(|known| known.parent);
    let known = parent.filter(|parent| processes.get(*parent).is_some());
    let first = known.unwrap_or_else(|| ProcessKey::parent_of(from));
    if known.is_none() && first.tgid == 0 {
        return true;
    }
    if known.is_none() && processes.find(first, clock).is_none() {
        let mut parent = Vec::new();
        wire::number(wire::PID, first.tgid.into(), &mut parent);
        wire::signed(wire::START_NS, clock.utc_ns(first.start_ns), &mut parent);
        wire::message(wire::PARENT, &parent, out);
        return false;
    }
    // From the oldest on: each stands within the one behind it.
    let (mut line, mut next) = (Vec::new(), Vec::new());
    let chain = processes.line(first);
    let last = chain.len();
    for (nearness, known) in chain.into_iter().rev().enumerate() {
        of_parent(known, users, &mut next);
        // Only the nearest parent's arguments are kept: sixteen argument lists would fill a record.
        if nearness + 1 == last {
            let argv = known.image.argv.iter();
            argv.for_each(|argument| wire::message(wire::ARGV, argument, &mut next));
        }
        if nearness > 0 {
            wire::message(wire::PARENT, &line, &mut next);
        }
        std::mem::swap(&mut line, &mut next);
        next.clear();
    }
    wire::message(wire::PARENT, &line, out);
    true
}

fn of_parent(known: &Known, users: &mut Users, out: &mut Vec<u8>) {
    wire::number(wire::PID, known.key.tgid.into(), out);
    wire::signed(wire::START_NS, known.start_utc_ns, out);
    wire::text(wire::EXE, &known.image.exe, out);
    wire::number(wire::UID, known.uid.into(), out);
    wire::text(wire::USER, users.name(known.uid).as_bytes(), out);
    wire::text(wire::COMM, &known.image.comm, out);
}

/// The device below a file.
pub(super) fn device(from: &abi::Device) -> Option<Device> {
    let usb = from.class == device_class::USB;
    let removable = from.is_removable();
    let class = match from.class {
        device_class::USB => "usb",
        device_class::SD => "sd",
        device_class::THUNDERBOLT => "thunderbolt",
        device_class::OPTICAL => "optical",
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
        serial: String::from_utf8_lossy(zero_ended(&from.serial)).into_owned(),
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
                _ => zero_ended(raw.third).to_vec(),
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
