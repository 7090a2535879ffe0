//! Whatever a ring record says, it is refused or becomes an event that can be read again.

use proptest::prelude::*;
use prost::Message as _;
use sekimori_abi::event::{ABI_VERSION, EVENT_BYTES, Event, flag, kind, operation};
use sekimori_proto::json;
use zerocopy::FromBytes as _;

use super::{NONE, encoded, enricher, rules};
use crate::decode::{decode, sample};
use crate::limits::{ANCESTORS_MAX, GAP_POLLS};
use crate::record::{Counters, Losses, event};
use crate::{enrich::Enricher, record::event::kind_of};

/// The record's way to the collector and onto a screen.
fn check(bytes: &[u8], enricher: &mut Enricher, losses: &mut Losses) -> Result<(), TestCaseError> {
    let Ok(raw) = decode(bytes) else { return Ok(()) };
    losses.received(raw.event.ring, raw.event.sequence);
    let Some(recorded) = event(&raw, enricher, &rules()) else { return Ok(()) };
    let read = encoded(&recorded);
    prop_assert_eq!(read.kind(), kind_of(raw.event.kind));
    let process = read.process.clone().unwrap_or_default();
    prop_assert_eq!(process.pid, raw.event.process.tgid);
    let parents = std::iter::successors(process.parent.as_deref(), |it| it.parent.as_deref());
    prop_assert!(parents.count() <= ANCESTORS_MAX);
    let json = json::event(&read);
    prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&json.to_string()).unwrap(), &json);
    let again = sekimori_proto::v1::Event::decode(read.encode_to_vec().as_slice()).unwrap();
    prop_assert_eq!(again, read);
    Ok(())
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0), Just(b'/'), Just(b'.'), any::<u8>()];
    proptest::collection::vec(byte, 0..200)
}

/// A record with everything in it that `decode` takes, whatever it means. Few processes, so that
/// records meet.
fn fields() -> impl Strategy<Value = Vec<u8>> {
    let words = (kind::FILE_OPEN..=kind::SHARE_WRITE, operation::OPEN..=operation::ANSWER, 0..4_u8);
    let processes = (0..6_u32, 0..3_u64, 0..6_u32, 0..3_u64);
    let fixed = proptest::collection::vec(any::<u8>(), EVENT_BYTES);
    (fixed, words, any::<bool>(), processes, [text(), text(), text()]).prop_map(
        |(fixed, (kind, operation, verdict), alerts, (tgid, start, parent, born), texts)| {
            let mut event = Event::read_from_bytes(&fixed).unwrap();
            (event.abi, event.kind, event.operation) = (ABI_VERSION, kind, operation);
            (event.verdict, event.ring) = (verdict, u8::from(alerts));
            (event.process.tgid, event.process.start_ns) = (tgid, start);
            (event.process.parent_tgid, event.process.parent_start_ns) = (parent, born);
            sample::record(event, [&texts[0], &texts[1], &texts[2]])
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_fields_make_an_event_or_none(records in proptest::collection::vec(fields(), 1..12)) {
        let (mut enricher, mut losses) = (enricher(), Losses::default());
        for bytes in &records {
            prop_assert_ne!(decode(bytes).is_ok(), (25..28).contains(&bytes[7]));
            check(bytes, &mut enricher, &mut losses)?;
        }
        for _ in 0..2 * GAP_POLLS {
            losses.poll(&Counters::default(), &NONE);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Each byte of the fixed part on its own, in a record that is good otherwise.
    #[test]
    fn any_byte_may_be_another(with in any::<u8>()) {
        let mut good = sample::event(kind::EXEC, operation::EXEC);
        (good.size, good.process.tgid, good.flags) = (2, 7, flag::LATE);
        let program = sample::components("/usr/bin/cp");
        let good = sample::record(good, [&program, &sample::components("/"), b"cp\0a\0"]);
        let (mut enricher, mut losses) = (enricher(), Losses::default());
        for at in 0..EVENT_BYTES {
            let mut bytes = good.clone();
            bytes[at] = with;
            check(&bytes, &mut enricher, &mut losses)?;
        }
    }
}

/// The highest number there is leaves none to be expected.
#[test]
fn the_highest_number_is_taken() {
    let mut losses = Losses::default();
    for ring in [0, 1] {
        losses.received(ring, u64::MAX);
        losses.received(ring, 1);
    }
    losses.undecodable("bad".to_owned());
    let lost: Vec<_> = (0..3 * GAP_POLLS)
        .flat_map(|_| losses.poll(&Counters::default(), &NONE))
        .map(|lost| (lost.stage, lost.count))
        .collect();
    assert_eq!(lost, [("decode", 1), ("ring", u64::MAX - 1)]);
}
