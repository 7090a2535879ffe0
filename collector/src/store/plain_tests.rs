#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use rstest::rstest;
use sekimori_proto::v1::{
    Custody, Destination, Device, Event, File, HttpRequest, Loss, Name, OperatorAct, Process,
    SmtpEnvelope,
};

use super::*;
use crate::ingest::check::decode_and_check;
use crate::store::Entry;

fn slow(body: &[u8]) -> Option<Entry> {
    decode_and_check(Bytes::copy_from_slice(body), &mut 0).ok()
}

/// What this says of an event is what decoding and checking it says; it may say nothing.
fn agrees(body: &[u8]) -> Option<Entry> {
    let facts = facts(body)?;
    let event = Event::decode(body).unwrap();
    assert_eq!(facts, Facts::of(&event));
    let entry = Entry::with(&facts, Bytes::copy_from_slice(body)).unwrap();
    let slow = slow(body).unwrap();
    let of = |it: &Entry| {
        (it.boot, it.sequence, it.time_ns, it.kind, it.verdict, it.lost, it.tags.clone())
    };
    assert_eq!(of(&entry), of(&slow));
    assert_eq!(entry.body, slow.body);
    Some(entry)
}

fn good() -> Event {
    Event { boot: vec![7; 16], sequence: 1, kind: 6, ..Event::default() }
}

fn with_file(file: File) -> Event {
    Event { file: Some(file), ..good() }
}

fn with_process(process: Process) -> Event {
    Event { process: Some(process), ..good() }
}

fn with_device(device: Device) -> Event {
    Event { device: Some(device), ..good() }
}

fn with_destination(destination: Destination) -> Event {
    Event { destination: Some(destination), ..good() }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        100 => "[a-z花]{0,8}",
        1 => Just("長".repeat(85)),
        1 => Just("x".repeat(257))
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        100 => proptest::collection::vec(any::<u8>(), 0..9),
        1 => Just(vec![b'/'; PATH_BYTES_MAX]),
        1 => Just(vec![b'/'; PATH_BYTES_MAX + 1])
    ]
}

prop_compose! {
    fn device()(class in text(), serial in text(), product in text(), major in any::<u32>(),
        functions in proptest::collection::vec(text(), 0..3), source in text()) -> Device {
        Device { class, serial, product, major, functions, source, ..Device::default() }
    }
}

prop_compose! {
    fn file()(path in bytes(), new_path in bytes(), inode in any::<u64>(), mode in any::<u32>(),
        device in proptest::option::of(device()), unlinked in any::<bool>()) -> File {
        File { path, new_path, inode, mode, device, unlinked, ..File::default() }
    }
}

prop_compose! {
    fn own()(exe in bytes(), user in text(), login_user in text(), comm in bytes(),
        argv in proptest::collection::vec(bytes(), 0..3), login_uid in any::<Option<u32>>(),
        start_ns in any::<i64>(), cgroup_id in any::<u64>()) -> Process {
        Process { exe, user, login_user, comm, argv, login_uid, start_ns, cgroup_id,
            ..Process::default() }
    }
}

prop_compose! {
    fn process()(chain in proptest::collection::vec(own(), 1..3)) -> Process {
        let chain = chain.into_iter().reduce(|parent, it| {
            Process { parent: Some(Box::new(parent)), ..it }
        });
        chain.unwrap_or_default()
    }
}

prop_compose! {
    fn destination()(ip in text(), port in any::<u32>(), path in bytes(),
        names in proptest::collection::vec((text(), any::<i32>()), 0..3)) -> Destination {
        let names = names.into_iter().map(|(name, source)| Name { name, source }).collect();
        Destination { ip, port, path, names, ..Destination::default() }
    }
}

prop_compose! {
    fn parts()(process in proptest::option::of(process()),
        file in proptest::option::of(file()), device in proptest::option::of(device()),
        destination in proptest::option::of(destination()),
        sources in proptest::collection::vec(file(), 0..2),
        loss in any::<Option<(u64, i32)>>(), sha256 in bytes()) -> Event {
        let loss = loss.map(|(count, kind)| Loss { count, kind, ..Loss::default() });
        Event { process, file, device, destination, sources, loss, sha256, ..Event::default() }
    }
}

prop_compose! {
    fn event()(parts in parts(), sequence in prop_oneof![9 => 1..99_u64, 1 => any::<u64>()],
        time_ns in any::<i64>(), kind in prop_oneof![10 => 1..13_i32, 3 => 99..108_i32, 1 => any::<i32>()],
        verdict in any::<i32>(), rule in text(), message in text(), errno in any::<Option<i32>>(),
        count in any::<Option<u64>>(), late in any::<bool>()) -> Event {
        Event { boot: vec![7; 16], sequence, time_ns, kind, verdict, rule, message, errno,
            bytes: count, late, ..parts }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_event(event in event()) {
        agrees(&event.encode_to_vec());
    }

    #[test]
    fn any_event_with_a_few_other_bytes(
        event in event(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut body = event.encode_to_vec();
        for (place, value) in changes {
            let place = place.index(body.len());
            *body.get_mut(place).unwrap() = value;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        agrees(&body);
    }

    /// Any bytes at all behind a good beginning.
    #[test]
    fn any_bytes(rest in proptest::collection::vec(any::<u8>(), 0..40)) {
        agrees(&[good().encode_to_vec(), rest].concat());
    }

    /// As agents encode it: what is the same in many events of a process, and what is not.
    #[test]
    fn a_process_in_parts(event in event(), of_process in own(), of_thread in any::<u32>(),
        comm in bytes(), again in any::<bool>()) {
        let whole = Event { process: None, ..event };
        let part = |it: Process| Event { process: Some(it), ..Event::default() }.encode_to_vec();
        let of_process = Process { comm: Vec::new(), ..of_process };
        let twice = if again { of_process.user.clone() } else { String::new() };
        let of_thread = Process { tid: of_thread, comm, user: twice, ..Process::default() };
        agrees(&[whole.encode_to_vec(), part(of_process), part(of_thread)].concat());
    }

    /// Two events, one behind the other, are one whose parts are merged.
    #[test]
    fn parts_that_come_twice(one in event(), other in event()) {
        agrees(&[one.encode_to_vec(), other.encode_to_vec()].concat());
    }

    /// Each byte of each text that no text may have is noticed as decoding notices it.
    #[test]
    fn no_text_of_other_bytes(event in event(), place in any::<prop::sample::Index>()) {
        let mut body = event.encode_to_vec();
        let place = place.index(body.len());
        *body.get_mut(place).unwrap() = 0xff;
        agrees(&body);
    }
}

#[rstest]
#[case::least(good())]
#[case::exit(Event { kind: 7, exit_code: Some(-1), ..good() })]
#[case::before_1970(Event { time_ns: i64::MIN, ..good() })]
#[case::last_number(Event { sequence: i64::MAX.cast_unsigned(), ..good() })]
#[case::file(with_file(File {
    path: vec![0xff; PATH_BYTES_MAX],
    device: Some(Device { serial: "S1".into(), ..Device::default() }),
    ..File::default()
}))]
#[case::process(with_process(Process {
    exe: b"/bin/\xff".to_vec(),
    user: "花子".into(),
    login_user: "root".into(),
    argv: vec![b"x".to_vec(); 3],
    parent: Some(Box::new(Process { exe: b"/bin/sh".to_vec(), ..Process::default() })),
    ..Process::default()
}))]
#[case::destination(with_destination(Destination {
    ip: "::1".into(),
    names: vec![Name { name: "a.example".into(), source: 1 }; 2],
    ..Destination::default()
}))]
#[case::receipt(Event {
    sources: vec![File { path: b"/a".to_vec(), ..File::default() }; 2],
    sha256: vec![1; 32],
    ..good()
})]
#[case::loss(Event {
    kind: 100,
    loss: Some(Loss { count: 9, reason: "full".into(), ..Loss::default() }),
    ..good()
})]
fn what_agents_send_is_plain(#[case] event: Event) {
    assert!(agrees(&event.encode_to_vec()).is_some());
    // A process comes in parts: what is a thread's own comes behind.
    let own = Process { tid: 7, comm: b"sh".to_vec(), ..Process::default() };
    let own = Event { process: Some(own), ..Event::default() };
    assert!(agrees(&[event.encode_to_vec(), own.encode_to_vec()].concat()).is_some());
}

/// Those are decoded; the second says whether they are taken then.
#[rstest]
#[case::a_kind_of_the_future(Event { kind: 9999, ..good() }, true)]
#[case::mail(with_destination(Destination {
    smtp: Some(SmtpEnvelope::default()), ..Destination::default()
}), true)]
#[case::http(with_destination(Destination {
    http: Some(HttpRequest::default()), ..Destination::default()
}), true)]
#[case::of_an_operator(Event { kind: 103, ..good() }, false)]
#[case::act(Event { act: Some(OperatorAct::default()), ..good() }, false)]
#[case::custody(Event { custody: Some(Custody::default()), ..good() }, false)]
#[case::no_kind(Event { kind: 0, ..good() }, false)]
#[case::no_boot(Event { boot: Vec::new(), ..good() }, false)]
#[case::no_number(Event { sequence: 0, ..good() }, false)]
#[case::rule(Event { rule: "x".repeat(NAME_BYTES_MAX + 1), ..good() }, false)]
#[case::message(Event { message: "x".repeat(SENTENCE_BYTES_MAX + 1), ..good() }, false)]
#[case::sha256(Event { sha256: vec![1; 33], ..good() }, false)]
#[case::path(with_file(File { path: vec![1; PATH_BYTES_MAX + 1], ..File::default() }), false)]
#[case::comm(with_process(Process { comm: vec![1; 257], ..Process::default() }), false)]
#[case::tty(with_process(Process { tty: "x".repeat(257), ..Process::default() }), false)]
#[case::cwd(with_process(Process { cwd: vec![1; PATH_BYTES_MAX + 1], ..Process::default() }), false)]
#[case::port(with_device(Device { port: "x".repeat(257), ..Device::default() }), false)]
#[case::function(with_device(Device {
    functions: vec!["x".repeat(257)], ..Device::default()
}), false)]
fn what_is_not_plain_is_decoded(#[case] event: Event, #[case] taken: bool) {
    let body = event.encode_to_vec();
    assert_eq!((facts(&body), slow(&body).is_some()), (None, taken));
}

#[test]
fn ancestors_are_counted_as_decoding_counts_them() {
    let chain = |ancestors: usize| {
        let mut process = Process::default();
        for _ in 0..ancestors {
            process = Process { parent: Some(Box::new(process)), ..Process::default() };
        }
        with_process(process).encode_to_vec()
    };
    assert!(agrees(&chain(ANCESTORS_MAX)).is_some());
    assert_eq!(
        (facts(&chain(ANCESTORS_MAX + 1)), slow(&chain(ANCESTORS_MAX + 1)).map(|_| ())),
        (None, None)
    );
}
