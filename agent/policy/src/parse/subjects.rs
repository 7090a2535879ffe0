//! Labels, programs, devices, destinations and groups of people.

use sekimori_abi::event::device_class;

use super::{
    address,
    fields::{Fields, Known, text},
    name, texts,
};
use crate::{
    finding::{Findings, shown},
    limits::SERIAL_BYTES_MAX,
    model::{Destination, Device, Located, Paths, Users},
    pattern::Pattern,
    yaml::Node,
};

const LABEL: Known = Known { what: "a label", fields: &["name", "paths"], later: &["content"] };
const PROGRAM: Known =
    Known { what: "a program group", fields: &["name", "exe"], later: &["sha256"] };
const DEVICE: Known = Known { what: "a device", fields: &["name", "usb", "class"], later: &[] };
const USB: Known = Known { what: "`usb`", fields: &["vendor", "product", "serials"], later: &[] };
/// Removable media by the bus that they are plugged into, and shares by who keeps their files.
pub const DEVICE_CLASSES: [(&str, u8); 6] = [
    ("usb", device_class::USB),
    ("sd", device_class::SD),
    ("thunderbolt", device_class::THUNDERBOLT),
    ("optical", device_class::OPTICAL),
    ("network", device_class::NETWORK),
    ("fuse", device_class::FUSE),
];
const DESTINATION: Known =
    Known { what: "a destination", fields: &["name", "cidrs", "ports"], later: &["domains"] };
const USERS: Known =
    Known { what: "a group of users", fields: &["name", "users", "groups"], later: &[] };

pub(super) fn label(node: &Node, findings: &mut Findings) -> Option<Paths> {
    paths(node, &LABEL, "paths", findings)
}

pub(super) fn program(node: &Node, findings: &mut Findings) -> Option<Paths> {
    paths(node, &PROGRAM, "exe", findings)
}

fn paths(node: &Node, known: &Known, field: &str, findings: &mut Findings) -> Option<Paths> {
    let fields = Fields::of(node, known, findings)?;
    let patterns = fields.required(field, findings).map_or_else(Vec::new, |node| {
        texts(node, &format!("`{field}`"), findings, |path, findings| {
            match Pattern::parse(&path.value) {
                Ok(value) => Some(Located { value, at: path.at }),
                Err((message, hint)) => {
                    match hint {
                        Some(hint) => findings.error_hint(path.at, message, hint),
                        None => findings.error(path.at, message),
                    }
                    None
                }
            }
        })
    });
    Some(Paths { name: named(&fields, findings)?, patterns })
}

fn named(fields: &Fields<'_>, findings: &mut Findings) -> Option<Located<String>> {
    name(fields.required("name", findings)?, "`name`", findings)
}

pub(super) fn device(node: &Node, findings: &mut Findings) -> Option<Device> {
    let fields = Fields::of(node, &DEVICE, findings)?;
    let mut device = Device {
        name: named(&fields, findings)?,
        classes: Vec::new(),
        vendor: None,
        product: None,
        serials: Vec::new(),
    };
    if let Some(node) = fields.get("class") {
        device.classes = texts(node, "`class`", findings, class);
        if fields.get("usb").is_some() {
            let hint = "make two groups; a rule can name several";
            findings.error_hint(node.at, "`class` and `usb` in one device", hint);
        }
        return Some(device);
    }
    let usb = fields.required("usb", findings).and_then(|node| Fields::of(node, &USB, findings));
    let Some(usb) = usb else { return Some(device) };
    if usb.is_empty_mapping() {
        findings.error_hint(
            usb.at,
            "`usb` asks for nothing",
            "give `vendor`, `product` or `serials`",
        );
    }
    device.vendor = usb.get("vendor").and_then(|node| usb_id(node, "vendor", findings));
    device.product = usb.get("product").and_then(|node| usb_id(node, "product", findings));
    if let Some(node) = usb.get("serials") {
        device.serials = texts(node, "`serials`", findings, serial);
    }
    Some(device)
}

fn class(word: Located<String>, findings: &mut Findings) -> Option<u8> {
    let known = DEVICE_CLASSES.iter().find(|(name, _)| *name == word.value);
    if known.is_none() {
        let message = format!("`{}` is no class of devices", shown(&word.value));
        let hint = "expected `usb`, `sd`, `thunderbolt`, `optical`, `network` or `fuse`";
        findings.error_hint(word.at, message, hint);
    }
    known.map(|(_, class)| *class)
}

/// Four hexadecimal digits, quoted or not: the tree keeps what was written, so `0951` is not
/// mistaken for a number. Anything else is refused rather than padded.
fn usb_id(node: &Node, field: &str, findings: &mut Findings) -> Option<u16> {
    let given = text(node, &format!("`{field}`"), findings)?;
    let digits = given.value.as_str();
    if digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return u16::from_str_radix(digits, 16).ok();
    }
    let bare = digits.strip_prefix("0x").unwrap_or(digits);
    let message = format!("`{field}` is `{}`", shown(digits));
    let hint = match u16::from_str_radix(bare, 16) {
        Ok(id) if bare.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            format!("expected four hexadecimal digits, quoted: \"{id:04x}\"")
        }
        _ => "expected four hexadecimal digits as `lsusb` prints them, quoted: \"0951\"".to_owned(),
    };
    findings.error_hint(given.at, message, hint);
    None
}

fn serial(serial: Located<String>, findings: &mut Findings) -> Option<Located<String>> {
    if serial.value.len() > SERIAL_BYTES_MAX {
        let message = format!(
            "the serial is {} bytes long; at most {SERIAL_BYTES_MAX} are compared",
            serial.value.len()
        );
        findings.error(serial.at, message);
        return None;
    }
    if serial.value.contains('\0') {
        findings.error(serial.at, "the serial has a zero byte");
        return None;
    }
    Some(serial)
}

pub(super) fn destination(node: &Node, findings: &mut Findings) -> Option<Destination> {
    let fields = Fields::of(node, &DESTINATION, findings)?;
    let cidrs = fields.get("cidrs").map(|node| {
        texts(node, "`cidrs`", findings, |text, findings| match address::cidr(&text.value) {
            Ok(cidr) => Some(cidr),
            Err((message, hint)) => {
                findings.error_hint(text.at, message, hint);
                None
            }
        })
    });
    let ports = fields.get("ports").map(|node| {
        texts(node, "`ports`", findings, |text, findings| {
            let ports = address::ports(&text.value);
            if ports.is_none() {
                let message = format!("`{}` is not a port or a range of ports", shown(&text.value));
                let hint = "expected for example 443 or \"8000-8100\", within 1-65535";
                findings.error_hint(text.at, message, hint);
            }
            ports
        })
    });
    Some(Destination { name: named(&fields, findings)?, cidrs, ports })
}

pub(super) fn users(node: &Node, findings: &mut Findings) -> Option<Users> {
    let fields = Fields::of(node, &USERS, findings)?;
    let mut list = |field: &str| {
        let what = format!("`{field}`");
        fields.get(field).map(|node| texts(node, &what, findings, |name, _| Some(name)))
    };
    let (users, groups) = (list("users"), list("groups"));
    if users.is_none() && groups.is_none() {
        findings.error_hint(
            fields.at,
            "the group of users names nobody",
            "give `users` or `groups`",
        );
    }
    Some(Users {
        name: named(&fields, findings)?,
        users: users.unwrap_or_default(),
        groups: groups.unwrap_or_default(),
    })
}
