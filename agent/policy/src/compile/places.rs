//! Where labels can lie: what the kernel sieves failed opens with.

use std::collections::HashSet;

use sekimori_abi::{event::kind, table::PLACE_BYTES};

use super::{Resolved, names::Numbers};
use crate::{
    finding::{Findings, Position},
    limits::PLACES_MAX,
    model::{Policy, Subject},
    pattern::{Component, Pattern},
    tables::Tables,
};

/// The literal beginning of the patterns of each label that a `file.open` rule names. What begins
/// otherwise cannot lie in a labelled place; what begins so may, and the agent looks closer.
pub(super) fn fill(
    policy: &Policy,
    numbers: &Numbers,
    resolved: &[Resolved],
    tables: &mut Tables,
    findings: &mut Findings,
) {
    let asked: HashSet<u32> = resolved
        .iter()
        .filter(|rule| rule.kinds.contains(&kind::FILE_OPEN))
        .flat_map(|rule| rule.when_labels.iter().chain(&rule.unless_labels).copied())
        .collect();
    let is_asked = |name: &str| {
        numbers.number(Subject::Label, name).is_some_and(|number| asked.contains(&number))
    };
    let mut places: Vec<_> = policy
        .labels
        .iter()
        .filter(|label| is_asked(&label.name.value))
        .flat_map(|label| &label.patterns)
        .map(|pattern| beginning(&pattern.value))
        .collect();
    places.sort_unstable();
    places.dedup();
    if places.len() > PLACES_MAX {
        let message = format!(
            "labels in `file.open` rules begin in {} different places; at most {PLACES_MAX} fit",
            places.len()
        );
        findings.error(Position::default(), message);
    }
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
