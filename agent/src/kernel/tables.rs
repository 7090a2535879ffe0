//! Putting a policy in force: the idle slot is filled, then one cell is written.

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key},
};
use sekimori_abi::{
    limits::{RULES_MAX, SETS_MAX, STATES_MAX},
    table::{
        Bucket, BucketKey, DeviceKey, Edge, NETWORK_SLOT_BITS, NetworkKey, PLACE_SLOT_BITS,
        PlaceKey, PortKey, UserKey,
    },
};
use sekimori_policy::Tables;

use super::{KernelError, maps::Maps};

/// A table entry as aya takes it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Plain<T>(pub(super) T);

// SAFETY: used only with the `repr(C)` types of `sekimori_abi::table` and integers; they have no
// padding whose value matters: keys have none at all.
unsafe impl<T: Copy + 'static> Pod for Plain<T> {}

/// Generation of the policy in force; 0 when there is none yet.
pub(super) fn generation(maps: &mut Maps) -> Result<u32, KernelError> {
    let active = active(maps)?;
    // The cell holds 32 bits of generation above the slot.
    Ok(u32::try_from(active >> 1).unwrap_or(u32::MAX))
}

/// Fills the idle slot and puts it in force.
pub(super) fn install(maps: &mut Maps, new: &Tables) -> Result<(), KernelError> {
    let before = active(maps)?;
    let slot = if before == 0 { 0 } else { u32::from(before & 1 == 0) };
    clear(maps, slot)?;
    insert_all(maps, slot, new)?;
    fill_arrays(maps, slot, new)?;
    let active = u64::from(new.generation) << 1 | u64::from(slot);
    array::<u64>(maps, "ACTIVE")?
        .set(0, Plain(active), 0)
        .map_err(|error| KernelError::from_aya("writing ACTIVE", &error))
}

fn active(maps: &mut Maps) -> Result<u64, KernelError> {
    let cell = array::<u64>(maps, "ACTIVE")?.get(&0, 0);
    cell.map(|Plain(active)| active)
        .map_err(|error| KernelError::from_aya("reading ACTIVE", &error))
}

/// Removes what a slot holds, whoever wrote it.
fn clear(maps: &mut Maps, slot: u32) -> Result<(), KernelError> {
    let big_endian = slot.to_be_bytes();
    remove::<Edge, u32>(maps, "EDGES", |key| key.slot == slot)?;
    remove::<BucketKey, Bucket>(maps, "BUCKETS", |key| key.slot == slot)?;
    remove::<UserKey, u64>(maps, "USERS", |key| key.slot == slot)?;
    remove::<DeviceKey, u64>(maps, "DEVICE_GROUPS", |key| key.slot == slot)?;
    remove::<PortKey, u64>(maps, "PORTS", |key| key.slot == slot)?;
    remove_prefixes::<NetworkKey, u64>(maps, "NETWORKS", |key| key.slot == big_endian)?;
    remove_prefixes::<PlaceKey, u32>(maps, "PLACES", |key| key.slot == big_endian)
}

fn insert_all(maps: &mut Maps, slot: u32, new: &Tables) -> Result<(), KernelError> {
    let big_endian = slot.to_be_bytes();
    let edges = new.edges.iter();
    let edges = edges.map(|&(state, component, target)| (Edge { slot, state, component }, target));
    insert(maps, "EDGES", edges)?;
    let buckets = new.buckets.iter();
    let buckets = buckets.map(|(kind, set, bucket)| {
        (BucketKey { slot, kind: u32::from(*kind), set: *set }, *bucket)
    });
    insert(maps, "BUCKETS", buckets)?;
    insert(maps, "USERS", new.users.iter().map(|&(uid, mask)| (UserKey { slot, uid }, mask)))?;
    let devices = new.devices.iter().map(|(pattern, mask)| {
        let key = DeviceKey {
            slot,
            vendor: pattern.vendor,
            product: pattern.product,
            has_serial: pattern.has_serial,
            serial: pattern.serial,
        };
        (key, *mask)
    });
    insert(maps, "DEVICE_GROUPS", devices)?;
    let ports = new.ports.iter();
    let ports = ports.map(|&(port, mask)| (PortKey { slot, port: u32::from(port) }, mask));
    insert(maps, "PORTS", ports)?;
    let networks = new.networks.iter().map(|&(address, bits, mask)| {
        (NETWORK_SLOT_BITS + bits, NetworkKey { slot: big_endian, address }, mask)
    });
    insert_prefixes(maps, "NETWORKS", networks)?;
    let places = new.places.iter().map(|&(prefix, bits)| {
        (PLACE_SLOT_BITS + bits, PlaceKey { slot: big_endian, prefix }, 1u32)
    });
    insert_prefixes(maps, "PLACES", places)
}

fn fill_arrays(maps: &mut Maps, slot: u32, new: &Tables) -> Result<(), KernelError> {
    fill(maps, "STATES", slot * STATES_MAX, &new.states)?;
    fill(maps, "SETS", slot * SETS_MAX, &new.sets)?;
    fill(maps, "RULES", slot * RULES_MAX, &new.rules)?;
    fill(maps, "HEADS", slot, std::slice::from_ref(&new.head))
}

fn array<'a, T: Copy + 'static>(
    maps: &'a mut Maps,
    name: &str,
) -> Result<Array<&'a mut MapData, Plain<T>>, KernelError> {
    Array::try_from(maps.get(name)?)
        .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))
}

fn fill<T: Copy + 'static>(
    maps: &mut Maps,
    name: &str,
    first: u32,
    values: &[T],
) -> Result<(), KernelError> {
    let mut array = array::<T>(maps, name)?;
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
    maps: &mut Maps,
    name: &str,
    entries: impl Iterator<Item = (K, V)>,
) -> Result<(), KernelError> {
    let mut table: Hash<'_, K, V> = HashMap::try_from(maps.get(name)?)
        .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))?;
    for (key, value) in entries {
        table
            .insert(Plain(key), Plain(value), 0)
            .map_err(|error| KernelError::from_aya(&format!("writing {name}"), &error))?;
    }
    Ok(())
}

fn remove<K: Copy + 'static, V: Copy + 'static>(
    maps: &mut Maps,
    name: &str,
    which: impl Fn(&K) -> bool,
) -> Result<(), KernelError> {
    let mut table: Hash<'_, K, V> = HashMap::try_from(maps.get(name)?)
        .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))?;
    // Collected first: the key behind a removed one is the first once more.
    let keys: Vec<_> = table.keys().filter_map(Result::ok).filter(|key| which(&key.0)).collect();
    for key in keys {
        table
            .remove(&key)
            .map_err(|error| KernelError::from_aya(&format!("clearing {name}"), &error))?;
    }
    Ok(())
}

/// Replaces what a table holds; what stays is there all the time.
pub(super) fn replace<K: Copy + PartialEq + 'static, V: Copy + 'static>(
    maps: &mut Maps,
    name: &str,
    entries: &[(K, V)],
) -> Result<(), KernelError> {
    remove::<K, V>(maps, name, |old| entries.iter().all(|(key, _)| key != old))?;
    insert(maps, name, entries.iter().copied())
}

fn insert_prefixes<K: Copy + 'static, V: Copy + 'static>(
    maps: &mut Maps,
    name: &str,
    entries: impl Iterator<Item = (u32, K, V)>,
) -> Result<(), KernelError> {
    let mut table: Trie<'_, K, V> = LpmTrie::try_from(maps.get(name)?)
        .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))?;
    for (bits, key, value) in entries {
        table
            .insert(&Key::new(bits, Plain(key)), Plain(value), 0)
            .map_err(|error| KernelError::from_aya(&format!("writing {name}"), &error))?;
    }
    Ok(())
}

fn remove_prefixes<K: Copy + 'static, V: Copy + 'static>(
    maps: &mut Maps,
    name: &str,
    which: impl Fn(&K) -> bool,
) -> Result<(), KernelError> {
    let mut table: Trie<'_, K, V> = LpmTrie::try_from(maps.get(name)?)
        .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))?;
    let keys: Vec<_> =
        table.keys().filter_map(Result::ok).filter(|key| which(&key.data().0)).collect();
    for key in keys {
        table
            .remove(&key)
            .map_err(|error| KernelError::from_aya(&format!("clearing {name}"), &error))?;
    }
    Ok(())
}
