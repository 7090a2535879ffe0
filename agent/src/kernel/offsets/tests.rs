//! Fields are found, and types that lie do no harm.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::arithmetic_side_effects, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use rstest::rstest;
use sekimori_abi::offsets::{ENUMERATORS, FIELDS, Field};

use super::sample::{CONST, HEADER_BYTES, STRUCT, TYPEDEF, Types as Sample, UNION, kernel};
use super::{Offsets, Types};

/// The sought struct and member of the small samples.
const SOUGHT: Field = Field { constant: "C", structure: "s", member: "m", required: true };

fn found(sample: &Sample) -> Option<u32> {
    Types::parse(sample.bytes()).unwrap().offset_of(&SOUGHT)
}

#[test]
fn every_field_is_found() {
    let offsets = Offsets::of_btf(kernel().bytes()).unwrap();
    let mut next = BTreeMap::new();
    let fields = FIELDS.iter().map(|field| {
        let at = next.entry(field.structure).or_insert(16);
        *at += 8;
        (field.constant, *at - 8)
    });
    let enumerators = ENUMERATORS.iter().map(|it| it.constant).zip(0..);
    assert_eq!(offsets.values, fields.chain(enumerators).collect::<Vec<_>>());
    assert_eq!(offsets.missing, Vec::<&Field>::new());
    assert!(offsets.setattr_takes_idmap);
}

#[test]
fn a_missing_field_is_named() {
    let mut sample = Sample::new();
    sample.members("file", STRUCT, 64, &[("f_inode", 0, 8)]);
    let error = Offsets::of_btf(sample.bytes()).map(drop).unwrap_err().to_string();
    assert!(error.contains("lack file.f_path, file.f_mode,"), "{error}");
}

#[test]
fn members_of_anonymous_types_are_found_by_their_own_name() {
    let mut sample = Sample::new();
    let innermost = sample.members("", STRUCT, 16, &[("a", 0, 0), ("m", 0, 8)]);
    let named = sample.add("other_name", (TYPEDEF, 0), innermost, &[]);
    let constant = sample.add("", (CONST, 0), named, &[]);
    let union = sample.members("", UNION, 24, &[("b", 0, 0), ("", constant, 8)]);
    sample.members("s", STRUCT, 64, &[("c", union, 0), ("", union, 24)]);
    assert_eq!(found(&sample), Some(24 + 8 + 8));
}

#[test]
fn a_type_that_contains_itself_is_looked_through_once() {
    let mut sample = Sample::new();
    let itself = sample.next();
    sample.members("s", STRUCT, 64, &[("", itself, 0), ("", itself + 1, 8), ("", itself + 3, 16)]);
    sample.add("t", (TYPEDEF, 0), itself + 2, &[]);
    sample.add("u", (TYPEDEF, 0), itself + 1, &[]);
    sample.add("v", (CONST, 0), itself + 3, &[]);
    assert_eq!(found(&sample), None);
}

/// Two anonymous members of each type: 2^64 ways to the last one.
#[test]
fn many_ways_to_a_type_count_as_one() {
    let mut sample = Sample::new();
    for _ in 0..64 {
        let inner = sample.next() + 1;
        sample.members("", UNION, 64, &[("", inner, 0), ("", inner, 0)]);
    }
    sample.members("", STRUCT, 64, &[("x", 0, 0)]);
    sample.members("s", STRUCT, 64, &[("", 1, 0)]);
    assert_eq!(found(&sample), None);
}

#[rstest]
#[case::behind_its_struct(STRUCT, 64, 64)]
#[case::far_behind(STRUCT, 64, 0x1fff_ffff)]
#[case::struct_without_size(STRUCT, 0, 0)]
#[case::union_in_place_of_the_struct(UNION, 64, 8)]
fn a_member_out_of_place_is_none(#[case] kind: u32, #[case] size: u32, #[case] offset: u32) {
    let mut sample = Sample::new();
    sample.members("s", kind, size, &[("m", 0, offset)]);
    assert_eq!(found(&sample), None);
}

#[test]
fn a_sum_of_offsets_that_is_too_large_is_none() {
    let mut sample = Sample::new();
    for _ in 0..9 {
        let inner = sample.next() + 1;
        sample.members("", STRUCT, u32::MAX, &[("", inner, 0x1fff_ffff)]);
    }
    sample.members("", STRUCT, u32::MAX, &[("m", 0, 0x1fff_ffff)]);
    sample.members("s", STRUCT, u32::MAX, &[("", 1, 0)]);
    assert_eq!(found(&sample), None);
}

#[test]
fn a_bit_field_has_no_offset() {
    let mut sample = Sample::new();
    let name = sample.name("m");
    sample.add("s", (0x80 | STRUCT, 1), 64, &[name, 0, 3 << 24 | 8]);
    assert_eq!(found(&sample), None);
}

/// 10,000 members share a name of 1 MB: 10 GB, if each had its own.
#[test]
fn a_name_that_is_said_again_and_again_does_not_fill_the_memory() {
    let mut sample = Sample::new();
    let name = sample.name(&"n".repeat(1 << 20));
    sample.add("s", (STRUCT, 10_000), 64, &[name, 0, 0].repeat(10_000));
    let error = Offsets::of_btf(sample.bytes()).map(drop).unwrap_err().to_string();
    assert!(error.contains("long names are referred to again and again"), "{error}");
}

#[test]
fn types_that_are_cut_off_are_an_error() {
    let whole = kernel().bytes();
    for length in 0..whole.len() {
        assert!(Offsets::of_btf(whole[..length].to_vec()).is_err(), "{length} bytes");
    }
}

/// Each word of the header, and the number of parts of the first type.
#[rstest]
fn huge_numbers_are_an_error(
    #[values(4, 8, 12, 16, 20, HEADER_BYTES + 4)] at: usize,
    #[values(0xffff, 0xffff_ff00, u32::MAX)] number: u32,
) {
    let mut bytes = kernel().bytes();
    let before = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    bytes[at..at + 4].copy_from_slice(&(before | number).to_le_bytes());
    // The names may be said to end behind the end of the bytes: none of them does.
    assert_eq!(Offsets::of_btf(bytes).is_err(), at != 20 || number > 0xffff);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut good = kernel().bytes();
        prop_assert!(Offsets::of_btf(bytes.clone()).is_err());
        good.truncate(HEADER_BYTES);
        let _ = Offsets::of_btf([good, bytes].concat());
    }

    #[test]
    fn bytes_that_are_changed_do_no_harm(
        changes in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 1..20),
        kinds in proptest::collection::vec((any::<prop::sample::Index>(), 0..20_u8), 0..4),
    ) {
        let mut bytes = kernel().bytes();
        let length = bytes.len();
        for (at, with) in changes {
            bytes[at.index(length)] ^= with;
        }
        // The kind of the first few types is the last byte of their second word.
        for (at, kind) in kinds {
            bytes[HEADER_BYTES + 12 * at.index(20) + 7] = kind;
        }
        if let Ok(offsets) = Offsets::of_btf(bytes) {
            prop_assert_eq!(offsets.values.len(), FIELDS.len() + ENUMERATORS.len());
        }
    }

    /// Types that refer to one another without rule.
    #[test]
    fn any_graph_of_types_is_searched_once(
        kinds in proptest::collection::vec(
            (prop::sample::select(vec![STRUCT, UNION, TYPEDEF, CONST]),
             proptest::collection::vec((0..40_u32, 0..8_u32, any::<bool>()), 1..6)),
            1..40,
        ),
    ) {
        let mut sample = Sample::new();
        for (kind, parts) in &kinds {
            match *kind {
                TYPEDEF | CONST => { sample.add("", (*kind, 0), parts[0].0, &[]); }
                kind => {
                    let members: Vec<_> = parts
                        .iter()
                        .map(|(id, at, named)| (if *named { "m" } else { "" }, *id, 8 * at))
                        .collect();
                    sample.members("s", kind, 64, &members);
                }
            }
        }
        prop_assert!(found(&sample).is_none_or(|offset| offset < 64));
    }
}
