#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{Select, select};
use prost::Message as _;
use sekimori_proto::v1::{
    AggregateResponse, Destination, Device, Event, Field, File, Filter, Kind, Name, Operation,
    Order, Process,
};
use zstd::bulk::Compressor;

use super::*;
use crate::limits::COLUMN_DECODED_MAX;
use crate::store::block::{self, Block, Placed, Stored};
use crate::store::entry::Entry;
use crate::store::filter::Condition;
use crate::store::groups::Groups;

/// Few of each, so that questions find some.
const TEXTS: [&str; 4] = ["", "a", "花子", "a.example"];

fn one<T: Clone + std::fmt::Debug + 'static, const N: usize>(of: [T; N]) -> Select<T> {
    select(of.to_vec())
}

fn text() -> impl Strategy<Value = String> {
    one(TEXTS).prop_map(str::to_owned)
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    one([b"".as_slice(), b"/bin/\xff", b"/bin/cp"]).prop_map(<[u8]>::to_vec)
}

prop_compose! {
    fn device()(class in text(), vendor in text(), serial in text(), source in text(),
        minor in 0..2_u32) -> Device {
        Device { class, vendor, serial, source, minor, ..Device::default() }
    }
}

prop_compose! {
    fn process()(exe in path(), user in text(), login_user in text(), uid in one([0, 1000, u32::MAX]),
        login_uid in one([None, Some(0), Some(1000)]), tid in 0..9_u32) -> Process {
        Process { exe, user, login_user, uid, login_uid, tid, ..Process::default() }
    }
}

prop_compose! {
    fn destination()(ip in text(), port in 0..3_u32, path in path(),
        names in proptest::collection::vec((text(), 0..3), 0..3)) -> Destination {
        let names = names.into_iter().map(|(name, source)| Name { name, source }).collect();
        Destination { ip, port, path, names, ..Destination::default() }
    }
}

prop_compose! {
    fn file()(path in path(), device in proptest::option::of(device())) -> File {
        File { path, device, ..File::default() }
    }
}

prop_compose! {
    fn what()(process in proptest::option::of(process()), file in proptest::option::of(file()),
        device in proptest::option::of(device()),
        destination in proptest::option::of(destination())) -> Event {
        Event { process, file, device, destination, ..Event::default() }
    }
}

prop_compose! {
    fn event()(what in what(), kind in one([Kind::UsbWrite, Kind::NetUpload]),
        operation in one([Operation::Close, Operation::Write, Operation::Receipt]),
        verdict in -1..4_i32, rule in text(), bytes in any::<Option<u64>>(),
        bytes_in in any::<Option<u64>>(),
        time_ns in prop_oneof![4 => 0..7200 * 1_000_000_000_i64, 1 => any::<i64>()]) -> Event {
        let (kind, operation) = (kind.into(), operation.into());
        let boot = vec![1; 16];
        Event { boot, sequence: 1, kind, operation, verdict, rule, bytes, bytes_in, time_ns, ..what }
    }
}

/// As it may come: whole, in parts as agents send it, or with fields that come again.
fn encoded(mut event: Event, way: usize) -> Vec<u8> {
    let again = match way {
        0 => Event::default(),
        1 => Event { process: event.process.take(), ..Event::default() },
        2 => {
            let login_uid = event.process.as_mut().and_then(|it| it.login_uid.take());
            let process = login_uid.map(|_| Process { login_uid, ..Process::default() });
            Event { process, ..Event::default() }
        }
        _ => Event { file: Some(File { mode: 1, ..File::default() }), ..Event::default() },
    };
    [event.encode_to_vec(), again.encode_to_vec()].concat()
}

fn placed() -> impl Strategy<Value = Placed> {
    (event(), 0..4_usize, one(["pc", "関守"])).prop_map(|(event, way, host)| {
        let body = encoded(event, way).into();
        let event = Event::decode(&body as &[u8]).unwrap_or_default();
        Placed { cursor: 1, host: Arc::from(host), entry: Entry::new(&event, body).unwrap() }
    })
}

prop_compose! {
    fn filter()(kinds in one([vec![], vec![2], vec![2, 5]]), verdicts in one([vec![], vec![2, 3]]),
        hosts in one([vec![], vec!["関守"]]), users in one([vec![], vec!["a"], vec!["", "花子"]]),
        rules in one([vec![], vec!["a"], vec![""]]), serials in one([vec![], vec!["花子"]]),
        destinations in one([vec![], vec!["a.example", "a"]]),
        programs in one([vec![], vec!["/bin/cp"], vec!["/bin/\\xff"]]),
        since_ns in one([None, Some(3600)]), until_ns in one([None, Some(i64::MAX)])) -> Filter {
        let own = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        let since_ns = since_ns.map(|s: i64| s * 1_000_000_000);
        Filter { kinds, verdicts, hosts: own(hosts), users: own(users), rules: own(rules),
            serials: own(serials), destinations: own(destinations), programs: own(programs),
            since_ns, until_ns, ..Filter::default() }
    }
}

fn fields() -> impl Strategy<Value = (Vec<i32>, i32)> {
    let fields: Vec<i32> = (1..=11)
        .filter(|it| Field::try_from(*it).is_ok_and(|field| field != Field::File))
        .collect();
    let distinct = fields.iter().copied().chain([0]).collect::<Vec<_>>();
    (proptest::collection::vec(select(fields), 1..4), select(distinct))
}

fn packed(placed: &[Placed]) -> (Vec<u8>, Block) {
    let mut compressor = Compressor::new(1).unwrap();
    compressor.include_checksum(true).unwrap();
    let events: Vec<&Placed> = placed.iter().collect();
    let columns = Gatherer::default().pack(&mut compressor, &events).unwrap().unwrap();
    let block = block::pack(&mut compressor, &events).unwrap();
    (columns, Block::unpack(&block.body).unwrap())
}

fn unpacked(packed: &[u8], events: u32) -> Result<Columns, DamagedBlock> {
    Columns::unpack(packed, events, &mut Unpacker::default())
}

fn counted(
    blocks: &[(Vec<u8>, Block)],
    condition: &Condition,
    mut groups: Groups,
) -> AggregateResponse {
    let may_be = |stored: &Stored<'_>| condition.may_be(stored);
    let entries = blocks.iter().flat_map(|(_, block)| block.entries());
    for event in entries.filter(may_be).map(|it| it.event().unwrap()) {
        if condition.matches(&event) {
            groups.add(&event).unwrap();
        }
    }
    groups.answer(Order::Values, 1000)
}

proptest! {
    #[test]
    fn columns_answer_as_the_events_do(
        placed in proptest::collection::vec(placed(), 1..40),
        questions in proptest::collection::vec(
            (filter(), fields(), -50_400..50_400_i32, any::<bool>()), 1..5),
    ) {
        // The numbers of values go from block to block, and may be given anew.
        let blocks: Vec<_> = placed.chunks(placed.len().div_ceil(3)).map(packed).collect();
        for (filter, (by, distinct), zone, forgets) in questions {
            let condition = Condition::new(Some(&filter)).unwrap();
            let mut groups = Groups::new(&by, distinct, zone).unwrap();
            let mut counter = Counter::new(&condition, &groups).unwrap();
            for (packed, block) in &blocks {
                let events = u32::try_from(block.entries().count()).unwrap();
                let columns = unpacked(packed, events).unwrap();
                prop_assert!(columns.agree_with(block).unwrap());
                counter.add(&columns, &mut groups).unwrap().unwrap();
                if forgets {
                    counter.forget();
                }
            }
            let answer = groups.answer(Order::Values, 1000);
            let groups = Groups::new(&by, distinct, zone).unwrap();
            prop_assert_eq!(answer, counted(&blocks, &condition, groups));
        }
    }
}

/// Events of as many users.
fn of_users(count: u32) -> Vec<Placed> {
    let of = |uid: u32| {
        let process = Some(Process { uid, user: format!("u{uid}"), ..Process::default() });
        let event = Event {
            boot: vec![1; 16],
            sequence: 1,
            kind: 2,
            time_ns: i64::from(uid),
            process,
            bytes: Some(uid.into()),
            ..Event::default()
        };
        let entry = Entry::new(&event, event.encode_to_vec().into()).unwrap();
        Placed { cursor: u64::from(uid) + 1, host: "pc".into(), entry }
    };
    (0..count).map(of).collect()
}

/// An event whose bytes are followed by others.
fn with_bytes(more: &[u8]) -> Placed {
    let event = Event { boot: vec![1; 16], sequence: 1, kind: 2, ..Event::default() };
    let body = [event.encode_to_vec(), more.to_vec()].concat();
    let event = Event::decode(body.as_slice()).unwrap();
    Placed { cursor: 1, host: "pc".into(), entry: Entry::new(&event, body.into()).unwrap() }
}

#[test]
fn numbers_that_are_longer_than_they_have_to_be_are_read_as_they_are_decoded() {
    let uid: &[u8] = &[0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let login_uid: &[u8] = &[0x48, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let process = |fields: &[u8]| {
        with_bytes(&[&[0x4a, u8::try_from(fields.len()).unwrap()], fields].concat())
    };
    let placed =
        [process(login_uid), process(&[]), process(uid), process(&[uid, login_uid].concat())];
    let (packed, block) = packed(&placed);
    assert!(unpacked(&packed, 4).unwrap().agree_with(&block).unwrap());
}

#[test]
fn too_many_events_that_are_not_plain_get_no_columns() {
    let gathered = |count| {
        // A file that comes twice.
        let placed: Vec<_> = (0..count).map(|_| with_bytes(&[0x52, 0, 0x52, 0])).collect();
        let mut compressor = Compressor::new(1).unwrap();
        Gatherer::default().pack(&mut compressor, &placed.iter().collect::<Vec<_>>()).unwrap()
    };
    assert!(gathered(COLUMN_DECODED_MAX).is_some());
    assert!(gathered(COLUMN_DECODED_MAX + 1).is_none());
}

#[test]
fn codes_are_as_long_as_they_must_be() {
    for count in [1, 2, 256, 257, 1000] {
        let (packed, _) = packed(&of_users(count));
        let columns = unpacked(&packed, count).unwrap();
        let (codes, users) = columns.column(Column::User).unwrap();
        assert_eq!(codes, (0..u16::try_from(count).unwrap()).collect::<Vec<_>>());
        assert_eq!(users.len(), count as usize);
        let (codes, hosts) = columns.column(Column::Host).unwrap();
        assert_eq!((codes, hosts.len()), (vec![0; count as usize], 1));
        assert_eq!(columns.bytes, (0..u64::from(count)).collect::<Vec<_>>());
    }
}

#[test]
fn damage_is_noticed() {
    let (mut packed, _) = packed(&of_users(3));
    assert!(unpacked(&packed, 2).is_err(), "another number of events");
    for place in 0..packed.len() {
        *packed.get_mut(place).unwrap() ^= 1;
        assert!(unpacked(&packed, 3).is_err(), "byte {place}");
        *packed.get_mut(place).unwrap() ^= 1;
    }
    let coded = |values: usize, codes: &'static [u8]| Coded {
        values: vec![Bytes::new(); values],
        codes: Bytes::from_static(codes),
    };
    assert_eq!(coded(2, &[0, 1, 1]).codes(3).unwrap(), [0, 1, 1]);
    assert!(coded(2, &[0, 1, 2]).codes(3).is_none(), "no such value");
    assert!(coded(2, &[0, 1]).codes(3).is_none(), "too few");
    assert!(coded(300, &[0, 1, 1]).codes(1).is_none(), "half a code");
    assert!(coded(0, &[]).codes(1).is_none(), "no value at all");
}

#[test]
fn columns_of_other_events_are_told() {
    let (_, block) = packed(&of_users(3));
    for change in [
        |event: &mut Event| event.bytes = Some(7),
        |event: &mut Event| event.time_ns = 7,
        |event: &mut Event| event.rule = "x".into(),
        |event: &mut Event| event.process.as_mut().unwrap().uid = 7,
        |event: &mut Event| event.process.as_mut().unwrap().exe = b"/x".to_vec(),
        |event: &mut Event| event.device = Some(Device::default()),
        |event: &mut Event| event.destination = Some(Destination::default()),
        |event: &mut Event| event.bytes_in = Some(7),
    ] {
        let mut others = of_users(3);
        let other = others.get_mut(1).unwrap();
        let mut event = Event::decode(other.entry.body.as_ref()).unwrap();
        change(&mut event);
        other.entry = Entry::new(&event, event.encode_to_vec().into()).unwrap();
        let (packed, _) = packed(&others);
        assert!(!unpacked(&packed, 3).unwrap().agree_with(&block).unwrap(), "{event:?}");
    }
    let mut others = of_users(3);
    others.get_mut(2).unwrap().host = "other".into();
    let (packed, _) = packed(&others);
    assert!(!unpacked(&packed, 3).unwrap().agree_with(&block).unwrap(), "another host");
}
