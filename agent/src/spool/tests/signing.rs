//! Whatever becomes of the agent, what arrives is signed, and what does not is accounted for.

use std::path::Path;

use proptest::prelude::*;
use sekimori_evidence::{Name, Outcome, Scope, Verifier};
use sekimori_proto::v1::{Event, FindingKind, Kind};

use super::super::*;

/// What a collector has of the events.
#[derive(Default)]
struct Received(Vec<Vec<u8>>);

impl Received {
    fn take(&mut self, spool: &mut Spool, batches: usize) {
        let mut reader = Reader::new(spool);
        for _ in 0..batches {
            let Some(batch) = reader.next_batch(spool) else { return };
            for entry in &batch.entries {
                let mut body = entry.payload.clone();
                let (sequence, lane) = (entry.sequence, batch.lane.number());
                Name { boot: &batch.boot, sequence, lane }.encode(&mut body);
                self.0.push(body);
            }
            spool.acknowledge(batch.end).unwrap();
        }
    }

    fn verify(&self) -> Outcome {
        let mut verifier = Verifier::new(Scope::Whole);
        for (cursor, body) in (1..).zip(&self.0) {
            verifier.look("h", cursor, body).unwrap();
        }
        verifier.finish()
    }
}

fn open(directory: &Path) -> Spool {
    let config = SpoolConfig { segment_bytes_max: 4096, ..SpoolConfig::default() };
    let (mut spool, _) = Spool::open(directory, config).unwrap();
    spool.sign().unwrap();
    spool
}

fn exec(message: &str) -> Event {
    Event { kind: Kind::Exec.into(), message: message.into(), ..Event::default() }
}

#[test]
fn what_is_signed_off_is_proven() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = open(directory.path());
    for number in 0..10 {
        let lane = if number % 3 == 0 { Lane::Alerts } else { Lane::Telemetry };
        spool.append(lane, &exec("持出し")).unwrap();
    }
    spool.checkpoint(7, false).unwrap();
    spool.checkpoint(7, true).unwrap();
    // Nothing but a signature is there: it does not go on for ever.
    spool.checkpoint(8, true).unwrap();
    spool.flush().unwrap();
    let mut received = Received::default();
    received.take(&mut spool, 9);
    assert_eq!(received.0.len(), 11);
    let outcome = received.verify();
    assert_eq!(outcome.findings, []);
    assert_eq!(outcome.summary.proven, 11);
}

#[test]
fn many_events_are_signed_without_asking() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = open(directory.path());
    for _ in 0..limits::CHECKPOINT_EVENTS {
        spool.append(Lane::Telemetry, &exec("x")).unwrap();
    }
    spool.checkpoint(7, false).unwrap();
    spool.flush().unwrap();
    let mut received = Received::default();
    received.take(&mut spool, 99);
    assert_eq!(received.verify().hosts[0].head_number, 1);
}

#[test]
fn the_next_start_signs_what_a_killed_one_left() {
    let directory = tempfile::tempdir().unwrap();
    let mut received = Received::default();
    let mut spool = open(directory.path());
    spool.append(Lane::Telemetry, &exec("first")).unwrap();
    spool.flush().unwrap();
    // The collector has it, and the spool's last word of it is in the file beside.
    received.take(&mut spool, 9);
    drop(spool);
    let mut spool = open(directory.path());
    spool.append(Lane::Telemetry, &exec("second")).unwrap();
    spool.checkpoint(7, false).unwrap();
    spool.flush().unwrap();
    received.take(&mut spool, 9);
    let outcome = received.verify();
    assert_eq!(outcome.summary.problems, 0, "{:?}", outcome.findings);
    let found: Vec<_> = outcome.findings.iter().map(|it| (it.kind(), it.first)).collect();
    // Of this start.
    assert_eq!(found, [(FindingKind::NotSigned, 1)]);
    assert_eq!(outcome.hosts[0].proven, 2);
}

#[test]
fn a_lost_chain_begins_with_a_new_key() {
    let directory = tempfile::tempdir().unwrap();
    let mut received = Received::default();
    for damaged in [false, true] {
        let chain = directory.path().join("chain");
        if damaged {
            std::fs::write(&chain, b"zeroed by a crash").unwrap();
        }
        let mut spool = open(directory.path());
        spool.append(Lane::Telemetry, &exec("x")).unwrap();
        spool.checkpoint(7, true).unwrap();
        spool.flush().unwrap();
        received.take(&mut spool, 9);
        spool.close().unwrap();
    }
    let outcome = received.verify();
    assert_eq!(outcome.hosts[0].keys.len(), 2);
    assert_eq!(outcome.findings[0].kind(), FindingKind::KeyChanged);
}

#[test]
fn an_event_that_is_too_large_is_signed_as_absent() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = open(directory.path());
    spool.append(Lane::Telemetry, &exec("a")).unwrap();
    spool.append(Lane::Telemetry, &exec(&"x".repeat(limits::EVENT_BYTES_MAX))).unwrap_err();
    spool.append(Lane::Telemetry, &exec("b")).unwrap();
    spool.record_losses(7).unwrap();
    spool.checkpoint(7, true).unwrap();
    spool.flush().unwrap();
    let mut received = Received::default();
    received.take(&mut spool, 9);
    assert_eq!(received.verify().findings, []);
}

#[derive(Clone, Debug)]
enum Step {
    Append(bool, u16),
    Flush,
    Sign,
    Deliver(usize),
    /// `kill -9`, and the next start.
    Kill,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), 0..3000u16).prop_map(|(lane, size)| Step::Append(lane, size)),
        3 => Just(Step::Flush),
        2 => Just(Step::Sign),
        2 => (1..4usize).prop_map(Step::Deliver),
        2 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Every event that arrives is proven in the end, over any number of kills.
    #[test]
    fn nothing_stays_unsigned(steps in prop::collection::vec(step(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let mut received = Received::default();
        let mut spool = Some(open(directory.path()));
        for step in steps {
            let mut now = spool.take().unwrap();
            match step {
                Step::Append(alerts, size) => {
                    let lane = if alerts { Lane::Alerts } else { Lane::Telemetry };
                    now.append(lane, &exec(&"x".repeat(size.into()))).unwrap();
                }
                Step::Flush | Step::Sign => {
                    now.checkpoint(7, matches!(step, Step::Sign)).unwrap();
                    now.flush().unwrap();
                }
                Step::Deliver(batches) => received.take(&mut now, batches),
                Step::Kill => {
                    drop(now);
                    now = open(directory.path());
                }
                Step::Stop => {
                    now.checkpoint(7, true).unwrap();
                    now.close().unwrap();
                    now = open(directory.path());
                }
            }
            spool = Some(now);
        }
        let mut last = spool.unwrap();
        last.checkpoint(7, true).unwrap();
        last.flush().unwrap();
        received.take(&mut last, usize::MAX);
        let outcome = received.verify();
        prop_assert_eq!(outcome.findings, []);
        prop_assert_eq!(outcome.summary.proven, outcome.summary.records);
    }
}
