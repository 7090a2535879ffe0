//! Where labels can lie: what the kernel sieves failed opens with.

use sekimori_abi::table::PLACE_BYTES;

use crate::{
    model::Policy,
    pattern::{Component, Pattern},
    tables::Tables,
};

/// The literal beginning of each label's patterns. What begins otherwise cannot lie in a labelled
/// place; what begins so may, and the agent looks closer.
pub(super) fn fill(policy: &Policy, tables: &mut Tables) {
    let mut places: Vec<_> = policy
        .labels
        .iter()
        .flat_map(|label| &label.patterns)
        .map(|pattern| beginning(&pattern.value))
        .collect();
    places.sort_unstable();
    places.dedup();
    tables.places = places;
}

/// The bytes before the first wildcard, and how many bits of them count.
fn beginning(pattern: &Pattern) -> ([u8; PLACE_BYTES], u32) {
    let mut text = Vec::new();
    for component in pattern.components() {
        let Component::Name(name) = component else {
            break;
        };
        text.push(b'/');
        text.extend_from_slice(name.as_bytes());
    }
    text.truncate(PLACE_BYTES);
    let mut place = [0; PLACE_BYTES];
    for (to, from) in place.iter_mut().zip(&text) {
        *to = *from;
    }
    (place, u32::try_from(text.len()).unwrap_or(0) * 8)
}
