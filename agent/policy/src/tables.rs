//! The tables of one policy, free of slots, and the user-space twin of what the kernel does with
//! them: path to set, subjects to groups, bucket to verdict.

use std::net::IpAddr;

use sekimori_abi::{
    limits::SERIAL_BYTES_MAX,
    table::{
        self, Bucket, COMPONENT_ANY, DEVICE_ANY, DEVICE_CLASS, Head, Rule, SET_NONE, SET_UNKNOWN,
        STATE_DEAD, STATE_ROOT, Set, State,
    },
};
use sekimori_decide::{Facts, Outcome, decide, path::component_hash};

use crate::limits::PATH_COMPONENTS_MAX;

/// Which devices: key of the device table without its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DevicePattern {
    /// USB vendor id, `table::DEVICE_ANY`, or a class with `table::DEVICE_CLASS`.
    pub vendor: u32,
    /// USB product id or `table::DEVICE_ANY`.
    pub product: u32,
    /// 1 when `serial` is asked for.
    pub has_serial: u32,
    /// Serial, zero-padded; zero when not asked for.
    pub serial: [u8; SERIAL_BYTES_MAX],
}

impl DevicePattern {
    /// Every device of a class (`event::device_class`).
    pub(crate) fn of_class(class: u8) -> Self {
        let vendor = DEVICE_CLASS | u32::from(class);
        Self { vendor, product: DEVICE_ANY, has_serial: 0, serial: [0; SERIAL_BYTES_MAX] }
    }
}

/// A compiled policy as the kernel needs it; the loader adds the slot to every key. Lists of pairs
/// are sorted by key and hold each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Generation, also in `head`.
    pub generation: u32,
    /// Facts of the policy.
    pub head: Head,
    /// Path automaton: (state, component, next state).
    pub edges: Vec<(u32, u64, u32)>,
    /// By state.
    pub states: Vec<State>,
    /// By set.
    pub sets: Vec<Set>,
    /// (kind, set, bucket).
    pub buckets: Vec<(u8, u32, Bucket)>,
    /// By rule number.
    pub rules: Vec<Rule>,
    /// Uid to user groups.
    pub users: Vec<(u32, u64)>,
    /// Device pattern to device groups.
    pub devices: Vec<(DevicePattern, u64)>,
    /// Address, bits of its prefix (0 to 128; IPv4 is mapped), destination groups joined over all
    /// blocks that hold this one.
    pub networks: Vec<([u8; 16], u32, u64)>,
    /// Port to destination groups that name it.
    pub ports: Vec<(u16, u64)>,
    /// Literal beginning of a label's pattern, and how many of its bits count.
    pub places: Vec<([u8; table::PLACE_BYTES], u32)>,
}

impl Tables {
    /// The automaton's state after walking an absolute path; empty components are skipped.
    pub fn state_of(&self, path: &[u8]) -> u32 {
        let mut state = STATE_ROOT;
        for name in components(path) {
            let next = component_hash(name).and_then(|hash| self.edge(state, hash));
            state = match next.or_else(|| self.edge(state, COMPONENT_ANY)) {
                Some(next) => next,
                None => return STATE_DEAD,
            };
        }
        state
    }

    /// The set of a path; `SET_UNKNOWN` when the kernel would not walk it to its end even if it
    /// crossed no mount.
    pub fn set_of(&self, path: &[u8]) -> u32 {
        if components(path).count() > PATH_COMPONENTS_MAX {
            return SET_UNKNOWN;
        }
        self.state(path).set
    }

    /// The set of all that can lie at or below a path.
    pub fn below_of(&self, path: &[u8]) -> u32 {
        if components(path).count() > PATH_COMPONENTS_MAX {
            return SET_UNKNOWN;
        }
        self.state(path).below
    }

    /// Program groups of a process that runs a file of this set.
    pub fn programs_of(&self, set: u32) -> u64 {
        self.sets.get(set as usize).map_or(0, |set| set.programs)
    }

    /// User groups of a login uid.
    pub fn users_of(&self, uid: u32) -> u64 {
        find(&self.users, &uid)
    }

    /// Device groups: all eight combinations of own values and "any", and the class, joined.
    pub fn devices_of(&self, class: u8, vendor: u16, product: u16, serial: &[u8]) -> u64 {
        let mut padded = [0u8; SERIAL_BYTES_MAX];
        for (to, from) in padded.iter_mut().zip(serial) {
            *to = *from;
        }
        let mut mask = find(&self.devices, &DevicePattern::of_class(class));
        for vendor in [u32::from(vendor), DEVICE_ANY] {
            for product in [u32::from(product), DEVICE_ANY] {
                for (has_serial, serial) in [(1, padded), (0, [0; SERIAL_BYTES_MAX])] {
                    let pattern = DevicePattern { vendor, product, has_serial, serial };
                    mask |= find(&self.devices, &pattern);
                }
            }
        }
        mask
    }

    /// Destination groups of a peer.
    pub fn destinations_of(&self, address: IpAddr, port: u16) -> u64 {
        let address = u128::from_be_bytes(mapped(address));
        let network = self
            .networks
            .iter()
            .filter(|(block, bits, _)| {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                address & mask == u128::from_be_bytes(*block)
            })
            .max_by_key(|(_, bits, _)| *bits)
            .map_or(0, |(.., mask)| *mask);
        network & (self.head.any_port | find(&self.ports, &port))
    }

    /// The bucket that applies to a kind and set; `None` when nothing is judged.
    pub fn bucket(&self, kind: u8, set: u32) -> Option<&Bucket> {
        let own = self.sets.get(set as usize).map_or(0, |set| set.own_buckets);
        let set = if own & (1 << kind) != 0 { set } else { SET_NONE };
        self.buckets
            .binary_search_by_key(&(kind, set), |(kind, set, _)| (*kind, *set))
            .ok()
            .and_then(|at| self.buckets.get(at))
            .map(|(.., bucket)| bucket)
    }

    /// Judges an event with the kernel's own decision function.
    pub fn judge(&self, kind: u8, set: u32, facts: &Facts) -> Outcome {
        match self.bucket(kind, set) {
            Some(bucket) => decide(bucket, facts, |rule| self.rules.get(rule as usize)),
            None => Outcome::default(),
        }
    }

    fn state(&self, path: &[u8]) -> State {
        self.states.get(self.state_of(path) as usize).copied().unwrap_or_default()
    }

    fn edge(&self, state: u32, component: u64) -> Option<u32> {
        self.edges
            .binary_search_by_key(&(state, component), |(state, component, _)| (*state, *component))
            .ok()
            .and_then(|at| self.edges.get(at))
            .map(|(.., next)| *next)
    }
}

/// The 16 bytes of an address in tables and records: IPv4 as `::ffff:a.b.c.d`.
pub(crate) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

fn find<K: Ord>(pairs: &[(K, u64)], key: &K) -> u64 {
    pairs
        .binary_search_by(|(known, _)| known.cmp(key))
        .ok()
        .and_then(|at| pairs.get(at))
        .map_or(0, |(_, mask)| *mask)
}

impl Tables {
    /// Gives a compiled policy another generation.
    pub const fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
        self.head.generation = generation;
    }
}
