//! Putting a policy in force: the idle slot is filled, then one cell is written.

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key},
};
use sekimori_abi::{
    limits::{RULES_MAX, SETS_MAX, STATES_MAX},
    table::{
        BucketKey, DeviceKey, Edge, NETWORK_SLOT_BITS, NetworkKey, PLACE_SLOT_BITS, PlaceKey,
        PortKey, UserKey,
    },
};
use sekimori_policy::Tables;

use super::KernelError;

/// A table entry as aya takes it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);

// SAFETY: used only with the `repr(C)` types of `sekimori_abi::table` and integers; they have no
// padding whose value matters: keys have none at all.
unsafe impl<T: Copy + 'static> Pod for Plain<T> {}

/// Which slot is in force, and the keys that were written to each.
#[derive(Default)]
pub(super) struct Slots {
    active: u32,
    used: bool,
    keys: [Keys; 2],
}

#[derive(Default)]
struct Keys {
    edges: Vec<Edge>,
    buckets: Vec<BucketKey>,
    users: Vec<UserKey>,
    devices: Vec<DeviceKey>,
    networks: Vec<(u32, NetworkKey)>,
    ports: Vec<PortKey>,
    places: Vec<(u32, PlaceKey)>,
}

impl Slots {
    /// Fills the idle slot and puts it in force.
    pub(super) fn install(&mut self, ebpf: &mut Ebpf, new: &Tables) -> Result<(), KernelError> {
        let slot = if self.used { 1 - self.active } else { 0 };
        let keys = self
            .keys
            .get_mut(slot as usize)
            .ok_or_else(|| KernelError::Other("no such slot".to_owned()))?;
        std::mem::take(keys).remove_all(ebpf)?;
        *keys = Keys::of(slot, new);
        keys.insert_all(ebpf, new)?;
        fill_arrays(ebpf, slot, new)?;
        let active = u64::from(new.generation) << 1 | u64::from(slot);
        array::<u64>(ebpf, "ACTIVE")?
            .set(0, Plain(active), 0)
            .map_err(|error| KernelError::from_aya("writing ACTIVE", &error))?;
        self.active = slot;
        self.used = true;
        Ok(())
    }
}

impl Keys {
    fn of(slot: u32, new: &Tables) -> Self {
        let big_endian = slot.to_be_bytes();
        Self {
            edges: new
                .edges
                .iter()
                .map(|&(state, component, _)| Edge { slot, state, component })
                .collect(),
            buckets: new
                .buckets
                .iter()
                .map(|&(kind, set, _)| BucketKey { slot, kind: u32::from(kind), set })
                .collect(),
            users: new.users.iter().map(|&(uid, _)| UserKey { slot, uid }).collect(),
            devices: new
                .devices
                .iter()
                .map(|(pattern, _)| DeviceKey {
                    slot,
                    vendor: pattern.vendor,
                    product: pattern.product,
                    has_serial: pattern.has_serial,
                    serial: pattern.serial,
                })
                .collect(),
            networks: new
                .networks
                .iter()
                .map(|&(address, bits, _)| {
                    (NETWORK_SLOT_BITS + bits, NetworkKey { slot: big_endian, address })
                })
                .collect(),
            ports: new
                .ports
                .iter()
                .map(|&(port, _)| PortKey { slot, port: u32::from(port) })
                .collect(),
            places: new
                .places
                .iter()
                .map(|&(prefix, bits)| {
                    (PLACE_SLOT_BITS + bits, PlaceKey { slot: big_endian, prefix })
                })
                .collect(),
        }
    }

    fn insert_all(&self, ebpf: &mut Ebpf, new: &Tables) -> Result<(), KernelError> {
        insert(ebpf, "EDGES", &self.edges, new.edges.iter().map(|edge| edge.2))?;
        insert(ebpf, "BUCKETS", &self.buckets, new.buckets.iter().map(|entry| entry.2))?;
        insert(ebpf, "USERS", &self.users, new.users.iter().map(|entry| entry.1))?;
        insert(ebpf, "DEVICE_GROUPS", &self.devices, new.devices.iter().map(|entry| entry.1))?;
        insert(ebpf, "PORTS", &self.ports, new.ports.iter().map(|entry| entry.1))?;
        let masks = new.networks.iter().map(|entry| entry.2);
        insert_prefixes(ebpf, "NETWORKS", &self.networks, masks)?;
        insert_prefixes(ebpf, "PLACES", &self.places, std::iter::repeat(1u32))
    }

    fn remove_all(self, ebpf: &mut Ebpf) -> Result<(), KernelError> {
        remove::<_, u32>(ebpf, "EDGES", &self.edges)?;
        remove::<_, sekimori_abi::table::Bucket>(ebpf, "BUCKETS", &self.buckets)?;
        remove::<_, u64>(ebpf, "USERS", &self.users)?;
        remove::<_, u64>(ebpf, "DEVICE_GROUPS", &self.devices)?;
        remove::<_, u64>(ebpf, "PORTS", &self.ports)?;
        remove_prefixes::<_, u64>(ebpf, "NETWORKS", &self.networks)?;
        remove_prefixes::<_, u32>(ebpf, "PLACES", &self.places)
    }
}

fn fill_arrays(ebpf: &mut Ebpf, slot: u32, new: &Tables) -> Result<(), KernelError> {
    fill(ebpf, "STATES", slot * STATES_MAX, &new.states)?;
    fill(ebpf, "SETS", slot * SETS_MAX, &new.sets)?;
    fill(ebpf, "RULES", slot * RULES_MAX, &new.rules)?;
    fill(ebpf, "HEADS", slot, std::slice::from_ref(&new.head))
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map, KernelError> {
    ebpf.map_mut(name)
        .ok_or_else(|| KernelError::Other(format!("the programs have no map {name}")))
}

fn array<'a, T: Copy + 'static>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<Array<&'a mut MapData, Plain<T>>, KernelError> {
    Array::try_from(map(ebpf, name)?)
        .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))
}

fn fill<T: Copy + 'static>(
    ebpf: &mut Ebpf,
    name: &str,
    first: u32,
    values: &[T],
) -> Result<(), KernelError> {
    let mut array = array::<T>(ebpf, name)?;
    for (index, value) in (first..).zip(values) {
        array
            .set(index, Plain(*value), 0)
            .map_err(|error| KernelError::from_aya(&format!("writing {name}"), &error))?;
    }
    Ok(())
}

type Hash<'a, K, V> = HashMap<&'a mut MapData, Plain<K>, Plain<V>>;
type Trie<'a, K, V> = LpmTrie<&'a mut MapData, Plain<K>, Plain<V>>;

fn insert<K: Copy + 'static, V: Copy + 'static>(
    ebpf: &mut Ebpf,
    name: &str,
    keys: &[K],
    values: impl Iterator<Item = V>,
) -> Result<(), KernelError> {
    let mut table: Hash<'_, K, V> = HashMap::try_from(map(ebpf, name)?)
        .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))?;
    for (key, value) in keys.iter().zip(values) {
        table
            .insert(Plain(*key), Plain(value), 0)
            .map_err(|error| KernelError::from_aya(&format!("writing {name}"), &error))?;
    }
    Ok(())
}

/// Keys that are not there (a fill that failed half-way) are no error.
fn remove<K: Copy + 'static, V: Copy + 'static>(
    ebpf: &mut Ebpf,
    name: &str,
    keys: &[K],
) -> Result<(), KernelError> {
    let mut table: Hash<'_, K, V> = HashMap::try_from(map(ebpf, name)?)
        .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))?;
    for key in keys {
        let _ = table.remove(&Plain(*key));
    }
    Ok(())
}

fn insert_prefixes<K: Copy + 'static, V: Copy + 'static>(
    ebpf: &mut Ebpf,
    name: &str,
    keys: &[(u32, K)],
    values: impl Iterator<Item = V>,
) -> Result<(), KernelError> {
    let mut table: Trie<'_, K, V> = LpmTrie::try_from(map(ebpf, name)?)
        .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))?;
    for ((bits, key), value) in keys.iter().zip(values) {
        table
            .insert(&Key::new(*bits, Plain(*key)), Plain(value), 0)
            .map_err(|error| KernelError::from_aya(&format!("writing {name}"), &error))?;
    }
    Ok(())
}

fn remove_prefixes<K: Copy + 'static, V: Copy + 'static>(
    ebpf: &mut Ebpf,
    name: &str,
    keys: &[(u32, K)],
) -> Result<(), KernelError> {
    let mut table: Trie<'_, K, V> = LpmTrie::try_from(map(ebpf, name)?)
        .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))?;
    for (bits, key) in keys {
        let _ = table.remove(&Key::new(*bits, Plain(*key)));
    }
    Ok(())
}
