//! Groups of destinations, devices and people to their tables.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sekimori_abi::{limits::SERIAL_BYTES_MAX, table::DEVICE_ANY};

use super::names::Numbers;
use crate::{
    check::{LOOPBACK, LOOPBACK_BLOCKS},
    directory::Directory,
    finding::{Findings, Position, shown},
    limits::{DEVICE_PATTERNS_MAX, NETWORKS_MAX, PORTS_MAX, USERS_MAX},
    model::{Cidr, Located, Policy, Subject},
    parse::masked,
    tables::{DevicePattern, Tables, mapped},
};

/// Bits in front of an IPv4 address in its mapped form.
const MAPPED_BITS: u8 = 96;
const ALL_IPV4: Cidr = Cidr { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), bits: 0 };
const ALL_IPV6: Cidr = Cidr { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), bits: 0 };

/// Fills networks and ports; gives the groups that do not ask for a port.
pub(super) fn destinations(
    policy: &Policy,
    numbers: &Numbers,
    tables: &mut Tables,
    findings: &mut Findings,
) -> u64 {
    let mut blocks: HashMap<Cidr, u64> = HashMap::new();
    let mut ports: BTreeMap<u16, u64> = BTreeMap::new();
    let mut any_port = 0;
    let mut add = |cidrs: &[Cidr], mask: u64| {
        for cidr in cidrs {
            *blocks.entry(*cidr).or_default() |= mask;
        }
    };
    for destination in &policy.destinations {
        let mask = numbers.mask(Subject::Destination, &destination.name.value);
        if mask == 0 {
            continue;
        }
        add(destination.cidrs.as_deref().unwrap_or(&[ALL_IPV4, ALL_IPV6]), mask);
        match &destination.ports {
            None => any_port |= mask,
            Some(ranges) => {
                for port in ranges.iter().flat_map(|(first, last)| *first..=*last) {
                    *ports.entry(port).or_default() |= mask;
                }
            }
        }
    }
    if !policy.destinations.iter().any(|destination| destination.name.value == LOOPBACK) {
        let mask = numbers.mask(Subject::Destination, LOOPBACK);
        if mask != 0 {
            add(&LOOPBACK_BLOCKS, mask);
            any_port |= mask;
        }
    }
    tables.networks = join(&blocks);
    tables.ports = ports.into_iter().collect();
    let hint = "leave `ports` out to mean every port";
    bound(tables.ports.len(), PORTS_MAX, "ports", hint, findings);
    bound(tables.networks.len(), NETWORKS_MAX, "CIDR blocks", "join neighbouring blocks", findings);
    any_port
}

/// A longest-prefix look-up gives one entry, so each block carries the groups of all blocks around
/// it. IPv6 blocks do not speak of IPv4 addresses, although the mapped form lies inside `::/0`.
fn join(blocks: &HashMap<Cidr, u64>) -> Vec<([u8; 16], u32, u64)> {
    let widths: BTreeSet<u8> = blocks.keys().map(|cidr| cidr.bits).collect();
    let mut keys: BTreeSet<Cidr> = blocks.keys().copied().collect();
    if keys.iter().any(holds_ipv4) {
        keys.insert(ALL_IPV4);
    }
    let mut networks: Vec<([u8; 16], u32, u64)> = keys
        .into_iter()
        .map(|cidr| {
            let around = widths.range(..=cidr.bits).map(|bits| {
                let outer = Cidr { address: masked(cidr.address, *bits), bits: *bits };
                blocks.get(&outer).copied().unwrap_or(0)
            });
            let mask = around.fold(0, |mask, outer| mask | outer);
            let extra = if cidr.address.is_ipv4() { MAPPED_BITS } else { 0 };
            (mapped(cidr.address), u32::from(cidr.bits + extra), mask)
        })
        .collect();
    networks.sort_unstable();
    networks
}

/// Whether an IPv6 block holds the mapped IPv4 addresses.
fn holds_ipv4(cidr: &Cidr) -> bool {
    let mapped = IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped());
    cidr.address.is_ipv6() && cidr.bits <= MAPPED_BITS && masked(mapped, cidr.bits) == cidr.address
}

/// Fills the device patterns.
pub(super) fn devices(
    policy: &Policy,
    numbers: &Numbers,
    tables: &mut Tables,
    findings: &mut Findings,
) {
    let mut patterns: BTreeMap<DevicePattern, u64> = BTreeMap::new();
    for device in &policy.devices {
        let mask = numbers.mask(Subject::Device, &device.name.value);
        if mask == 0 {
            continue;
        }
        let any_serial = DevicePattern {
            vendor: device.vendor.map_or(DEVICE_ANY, u32::from),
            product: device.product.map_or(DEVICE_ANY, u32::from),
            has_serial: 0,
            serial: [0; SERIAL_BYTES_MAX],
        };
        for class in &device.classes {
            *patterns.entry(DevicePattern::of_class(*class)).or_default() |= mask;
        }
        if device.serials.is_empty() && device.classes.is_empty() {
            *patterns.entry(any_serial).or_default() |= mask;
        }
        for serial in &device.serials {
            let mut pattern = DevicePattern { has_serial: 1, ..any_serial };
            for (to, from) in pattern.serial.iter_mut().zip(serial.value.bytes()) {
                *to = from;
            }
            *patterns.entry(pattern).or_default() |= mask;
        }
    }
    tables.devices = patterns.into_iter().collect();
    bound(tables.devices.len(), DEVICE_PATTERNS_MAX, "device patterns", "", findings);
}

/// Fills the uids. A name that the directory does not know yet is a warning.
pub(super) fn users(
    policy: &Policy,
    numbers: &Numbers,
    directory: Option<&dyn Directory>,
    tables: &mut Tables,
    findings: &mut Findings,
) {
    let mut uids: BTreeMap<u32, u64> = BTreeMap::new();
    let mut people = People { directory, findings };
    for group in &policy.users {
        let mask = numbers.mask(Subject::User, &group.name.value);
        if mask == 0 {
            continue;
        }
        let named = group.users.iter().filter_map(|user| people.user(user)).collect::<Vec<_>>();
        let members = group.groups.iter().flat_map(|group| people.members(group));
        for uid in named.into_iter().chain(members) {
            *uids.entry(uid).or_default() |= mask;
        }
    }
    let groups: BTreeSet<&str> =
        policy.users.iter().map(|group| group.name.value.as_str()).collect();
    let mut logins = BTreeSet::new();
    for conditions in policy.rules.iter().flat_map(|rule| [&rule.when, &rule.unless]) {
        for name in conditions.get(&Subject::User).into_iter().flat_map(|asked| &asked.names) {
            if groups.contains(name.value.as_str()) || !logins.insert(name.value.as_str()) {
                continue;
            }
            if let Some(uid) = people.user(name) {
                *uids.entry(uid).or_default() |= numbers.mask(Subject::User, &name.value);
            }
        }
    }
    tables.users = uids.into_iter().collect();
    bound(tables.users.len(), USERS_MAX, "users", "", findings);
}

struct People<'a> {
    directory: Option<&'a dyn Directory>,
    findings: &'a mut Findings,
}

impl People<'_> {
    fn user(&mut self, name: &Located<String>) -> Option<u32> {
        if let Ok(uid) = name.value.parse() {
            return Some(uid);
        }
        let directory = self.directory?;
        let uid = directory.uid_of(&name.value);
        if uid.is_none() {
            self.missing("user", name);
        }
        uid
    }

    fn members(&mut self, name: &Located<String>) -> Vec<u32> {
        let Some(directory) = self.directory else {
            return Vec::new();
        };
        let members = directory.members_of(&name.value);
        if members.is_none() {
            self.missing("group", name);
        }
        members.unwrap_or_default()
    }

    fn missing(&mut self, what: &str, name: &Located<String>) {
        let message = format!("this machine has no {what} `{}` yet", shown(&name.value));
        let hint = "the policy takes effect for it after a reload";
        self.findings.warn_hint(name.at, message, hint);
    }
}

fn bound(count: usize, most: usize, what: &str, hint: &str, findings: &mut Findings) {
    if count > most {
        let message = format!("the policy has {count} {what}; at most {most} fit");
        if hint.is_empty() {
            findings.error(Position::default(), message);
        } else {
            findings.error_hint(Position::default(), message, hint);
        }
    }
}
