#![allow(clippy::unwrap_used, reason = "tests")]

use rstest::rstest;
use sekimori_proto::v1::{Countersigned, Custody, Loss, Removed};

use super::*;
use crate::{Chain, Head, SigningKey};

const HOST: &str = "営業-01";
const COLLECTOR: &str = "collector:c";

#[derive(Clone)]
struct Stored {
    host: &'static str,
    cursor: u64,
    body: Vec<u8>,
}

/// A host that records, and the store of a collector.
struct World {
    _dir: tempfile::TempDir,
    key: SigningKey,
    chain: Chain,
    stored: Vec<Stored>,
    heads: Vec<(Head, u64)>,
}

fn body(boot: &[u8], sequence: u64, lane: u32, mut event: Event) -> Vec<u8> {
    event.boot.clear();
    let mut body = event.encode_to_vec();
    Name { boot, sequence, lane }.encode(&mut body);
    body
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::open(&dir.path().join("key")).unwrap();
        let chain = Chain::new(&[1; 16], Head::default(), 1);
        World { _dir: dir, key, chain, stored: Vec::new(), heads: Vec::new() }
    }

    fn store(&mut self, host: &'static str, body: Vec<u8>) -> u64 {
        let cursor = self.stored.last().map_or(1, |it| it.cursor + 1);
        self.stored.push(Stored { host, cursor, body });
        cursor
    }

    fn record(&mut self, lane: u32, event: Event) -> u64 {
        let sequence = self.chain.next();
        let body = body(self.chain.boot(), sequence, lane, event);
        self.chain.note(sequence, digest(&[&body], lane));
        self.store(HOST, body)
    }

    fn exec(&mut self, message: &str) {
        self.record(0, Event { kind: 6, message: message.into(), ..Event::default() });
    }

    fn sign(&mut self) -> u64 {
        let count = self.chain.digests().len();
        let (checkpoint, head) = self.chain.sign(&self.key, count, 0, 0);
        self.chain.signed(head, count);
        let event = Event { kind: 104, checkpoint: Some(checkpoint), ..Event::default() };
        let cursor = self.record(1, event);
        self.heads.push((head, cursor));
        cursor
    }

    fn custody(&mut self, removed: Option<Removed>) {
        let countersigned = self.heads.iter().map(|(head, cursor)| Countersigned {
            host: HOST.into(),
            number: head.number,
            statement_sha256: head.sha256.to_vec(),
            cursor: *cursor,
        });
        let through_cursor = self.stored.last().map_or(0, |it| it.cursor);
        let custody = Custody { countersigned: countersigned.collect(), through_cursor, removed };
        let event = Event { kind: 105, custody: Some(custody), ..Event::default() };
        self.store(COLLECTOR, body(&[9; 16], through_cursor + 1, 1, event));
    }

    /// Ten records in two links, all delivered and countersigned.
    fn sound() -> World {
        let mut world = World::new();
        (0..4).for_each(|number| world.exec(&format!("第{number}")));
        world.sign();
        (4..7).for_each(|number| world.exec(&format!("第{number}")));
        world.sign();
        world.custody(None);
        world
    }

    /// The host is given another key, and begins again.
    fn set_up_anew(&mut self) {
        let dir = tempfile::tempdir().unwrap();
        self.key = SigningKey::open(&dir.path().join("other")).unwrap();
        self.chain = Chain::new(&[3; 16], Head::default(), 1);
        self.exec("anew");
        self.sign();
        self.custody(None);
    }

    fn verify(&self) -> Outcome {
        let mut verifier = Verifier::new(Scope::Whole);
        for Stored { host, cursor, body } in &self.stored {
            verifier.look(host, *cursor, body).unwrap();
        }
        verifier.finish()
    }

    /// What is found in the records of the host.
    fn found(&self) -> Vec<(FindingKind, bool, u64, u64)> {
        let outcome = self.verify();
        let of_host = outcome.findings.iter().filter(|it| it.host == HOST);
        of_host.map(|it| (it.kind(), it.problem, it.first, it.last)).collect()
    }

    fn at(&mut self, cursor: u64) -> &mut Stored {
        self.stored.iter_mut().find(|it| it.cursor == cursor).unwrap()
    }

    fn remove(&mut self, cursor: u64) {
        self.stored.retain(|it| it.cursor != cursor);
    }
}

#[rstest]
#[case::in_order(false)]
#[case::backwards(true)]
fn what_is_sound_is_proven(#[case] backwards: bool) {
    let mut world = World::sound();
    if backwards {
        world.stored.reverse();
    }
    let outcome = world.verify();
    assert_eq!(outcome.summary.problems, 0, "{:?}", outcome.findings);
    let host = outcome.hosts.iter().find(|it| it.host == HOST).unwrap();
    assert_eq!((host.records, host.proven, host.head_number), (9, 9, 2));
    assert_eq!(host.keys, [world.key.public()]);
    assert_eq!(world.found(), []);
}

#[test]
fn a_changed_record_is_named() {
    let mut world = World::sound();
    let changed = body(&[1; 16], 3, 0, Event { kind: 6, message: "別".into(), ..Event::default() });
    world.at(3).body = changed;
    assert_eq!(world.found()[0], (FindingKind::Changed, true, 3, 3));
    assert_eq!(world.verify().summary.problems, 1);
}

#[test]
fn records_that_changed_places_are_named() {
    let mut world = World::sound();
    for (cursor, sequence, message) in [(2, 2, "第2"), (3, 3, "第1")] {
        let event = Event { kind: 6, message: message.into(), ..Event::default() };
        world.at(cursor).body = body(&[1; 16], sequence, 0, event);
    }
    let named: Vec<_> = world.found().into_iter().filter(|it| it.1).collect();
    assert_eq!(named, [(FindingKind::Changed, true, 2, 2), (FindingKind::Changed, true, 3, 3)]);
}

#[test]
fn a_removed_record_is_named() {
    let mut world = World::sound();
    world.remove(2);
    world.remove(3);
    assert_eq!(world.found()[0], (FindingKind::Removed, true, 2, 3));
}

#[test]
fn an_inserted_record_is_named() {
    let mut world = World::sound();
    let forged =
        |boot: &[u8], sequence| body(boot, sequence, 0, Event { kind: 6, ..Event::default() });
    let body = forged(&[2; 16], 7);
    world.stored.insert(0, Stored { host: HOST, cursor: 100, body });
    // Behind all that is there, and of a boot that nobody knows: nothing tells it from a new one.
    assert_eq!(world.found()[0], (FindingKind::NotSigned, false, 7, 7));
    world.at(100).cursor = 0;
    assert_eq!(world.found()[0], (FindingKind::Inserted, true, 7, 7));
}

#[test]
fn what_a_machine_that_died_left_unsigned_is_said() {
    let mut world = World::sound();
    world.exec("the last one");
    // The next start knows nothing of it.
    let head = world.chain.head();
    world.chain = Chain::new(&[2; 16], head, 1);
    world.exec("the next start");
    world.sign();
    world.custody(None);
    assert_eq!(world.found(), [(FindingKind::NotSigned, false, 10, 10)]);
}

#[test]
fn a_host_that_goes_back_to_a_snapshot() {
    let mut world = World::new();
    world.exec("before");
    let snapshot = world.chain.clone();
    world.exec("never to be seen by the host again");
    world.sign();
    // Another start, from what the snapshot has: it signs the first record once more.
    let left = snapshot;
    let (checkpoint, head) = left.sign(&world.key, 1, 0, 0);
    world.chain = Chain::new(&[2; 16], head, 1);
    let event = Event { kind: 104, checkpoint: Some(checkpoint), ..Event::default() };
    let cursor = world.record(1, event);
    world.heads.push((head, cursor));
    world.exec("after");
    world.sign();
    world.custody(None);
    let (went_back, missing) = (FindingKind::WentBack, FindingKind::CheckpointBroken);
    assert_eq!(world.found(), [(went_back, false, 1, 1)]);
    // A link that the collector never received is another thing.
    let received = world.heads.remove(0);
    world.stored.retain(|it| it.host != COLLECTOR);
    world.custody(None);
    let found = world.found();
    assert!(found.contains(&(missing, true, 1, 1)), "{received:?} {found:?}");
}

#[test]
fn what_the_host_lost_is_no_problem() {
    let mut world = World::sound();
    world.remove(2);
    world.remove(3);
    let loss = |count| Event {
        kind: 100,
        loss: Some(Loss { stage: "spool".into(), kind: 6, count, reason: String::new() }),
        ..Event::default()
    };
    world.record(1, loss(1));
    // One is not two.
    assert_eq!(world.found()[0], (FindingKind::Removed, true, 2, 3));
    world.record(1, loss(1));
    assert_eq!(world.found()[0], (FindingKind::Lost, false, 2, 3));
    assert_eq!(world.verify().summary.problems, 0);
}

#[test]
fn a_number_without_a_record_is_signed_as_such() {
    let mut world = World::new();
    world.exec("a");
    // Sequence 2 is too large to be kept.
    let body = body(&[1; 16], 3, 0, Event { kind: 6, ..Event::default() });
    world.chain.note(3, digest(&[&body], 0));
    world.store(HOST, body.clone());
    world.sign();
    world.custody(None);
    assert_eq!(world.verify().summary.problems, 0);
    let forged = self::body(&[1; 16], 2, 0, Event { kind: 6, ..Event::default() });
    world.stored.push(Stored { host: HOST, cursor: 50, body: forged });
    assert_eq!(world.found()[0], (FindingKind::Inserted, true, 2, 2));
}

#[test]
fn a_checkpoint_that_is_gone_is_named() {
    let mut world = World::sound();
    // Cursor 5 is the first link, which the second one names, and the collector too.
    world.remove(5);
    let found = world.found();
    assert!(found.contains(&(FindingKind::CheckpointMissing, true, 1, 1)), "{found:?}");
    assert!(found.contains(&(FindingKind::Removed, true, 5, 5)), "{found:?}");
}

#[test]
fn the_end_cannot_be_cut_off() {
    let mut world = World::sound();
    // All behind the first link, but what the collector has written.
    world.stored.retain(|it| it.host == COLLECTOR || it.cursor <= 5);
    assert_eq!(world.found()[0], (FindingKind::CheckpointMissing, true, 2, 2));
}

#[test]
fn a_host_of_which_nothing_is_left() {
    let mut world = World::sound();
    world.stored.retain(|it| it.host == COLLECTOR);
    let missing = (FindingKind::CheckpointMissing, true);
    assert_eq!(world.found(), [(missing.0, missing.1, 1, 1), (missing.0, missing.1, 2, 2)]);
    let mut verifier = Verifier::new(Scope::Whole).of(["another".to_owned()]);
    for Stored { host, cursor, body } in &world.stored {
        verifier.look(host, *cursor, body).unwrap();
    }
    assert_eq!(verifier.finish().summary.problems, 0);
}

#[test]
fn a_chain_that_is_signed_anew_was_never_received() {
    let sound = World::sound();
    let mut world = World::new();
    (0..7).for_each(|number| world.exec(&format!("偽{number}")));
    world.sign();
    world.stored.extend(sound.stored.iter().filter(|it| it.host == COLLECTOR).cloned());
    let found = world.found();
    assert!(found.contains(&(FindingKind::CheckpointReplaced, true, 1, 1)), "{found:?}");
    assert!(found.contains(&(FindingKind::CheckpointMissing, true, 1, 1)), "{found:?}");
}

#[test]
fn a_wrong_signature_is_named() {
    let mut world = World::sound();
    let mut event = Event::decode(world.at(5).body.as_slice()).unwrap();
    event.checkpoint.as_mut().unwrap().statement[3] ^= 1;
    let changed = body(&[1; 16], 5, 1, event);
    world.at(5).body = changed;
    let found = world.found();
    assert!(found.contains(&(FindingKind::CheckpointBroken, true, 5, 5)), "{found:?}");
    assert!(found.contains(&(FindingKind::Changed, true, 5, 5)), "{found:?}");
}

#[test]
fn what_is_old_enough_may_go() {
    let mut world = World::sound();
    world.remove(1);
    world.remove(2);
    assert_eq!(world.found()[0], (FindingKind::Removed, true, 1, 2));
    world.custody(Some(Removed { through_cursor: 2, events: 2, reason: "30 days".into() }));
    assert_eq!(world.found()[0], (FindingKind::Expired, false, 1, 2));
    world.remove(4);
    assert_eq!(world.found()[0], (FindingKind::Removed, true, 4, 4));
}

/// A host whose first records another collector has.
#[test]
fn what_was_signed_before_it_came_here_is_no_problem() {
    let came_later = |knows_all: bool| {
        let mut world = World::sound();
        world.stored.pop();
        (1..=5).for_each(|cursor| world.remove(cursor));
        if !knows_all {
            world.heads.remove(0);
        }
        world.custody(None);
        world
    };
    let world = came_later(false);
    let before = |first, last| (FindingKind::BeforeUs, false, first, last);
    assert_eq!(world.found(), [before(1, 1), before(5, 5)]);
    assert_eq!(world.verify().summary.problems, 0);
    let mut world = came_later(false);
    world.remove(7);
    assert_eq!(world.found()[0], (FindingKind::Removed, true, 7, 7), "not of what came");
    // It is set up anew.
    let mut world = came_later(false);
    world.set_up_anew();
    assert_eq!(world.verify().summary.problems, 0, "{:?}", world.found());
    // A whole boot that nobody signed.
    let mut world = came_later(false);
    let invented = body(&[7; 16], 1, 0, Event { kind: 6, ..Event::default() });
    world.store(HOST, invented);
    world.store(HOST, body(&[1; 16], 40, 0, Event { kind: 6, ..Event::default() }));
    assert!(world.found().iter().any(|it| it.0 == FindingKind::Inserted && it.1));
    let found = came_later(true).found();
    assert!(found.contains(&(FindingKind::CheckpointMissing, true, 1, 1)), "{found:?}");
}

#[test]
fn another_key_is_said() {
    let mut world = World::sound();
    world.set_up_anew();
    let found = world.found();
    assert!(found.iter().any(|it| it.0 == FindingKind::KeyChanged && !it.1), "{found:?}");
    assert_eq!(world.verify().summary.problems, 0, "{found:?}");
}

#[test]
fn a_host_that_never_signed() {
    let mut world = World::new();
    world.exec("old agent");
    assert_eq!(world.found(), [(FindingKind::NeverSigned, false, 1, 1)]);
    assert_eq!(world.verify().summary.proven, 0);
}

#[test]
fn what_was_noted_elsewhere_must_be_there() {
    let world = World::sound();
    let outcome = world.verify();
    let host = outcome.hosts.iter().find(|it| it.host == HOST).unwrap();
    let head = |number, sha256: &[u8]| sekimori_proto::v1::Head {
        host: HOST.into(),
        number,
        sha256: sha256.to_vec(),
    };
    for (head, problems) in [
        (head(host.head_number, &host.head_sha256), 0),
        (head(host.head_number, &[0; 32]), 1),
        (head(host.head_number + 1, &host.head_sha256), 1),
    ] {
        let mut verifier = Verifier::new(Scope::Whole);
        for Stored { host, cursor, body } in &world.stored {
            verifier.look(host, *cursor, body).unwrap();
        }
        verifier.expect(head);
        assert_eq!(verifier.finish().summary.problems, problems);
    }
}

#[test]
fn bytes_that_are_no_event() {
    let mut world = World::sound();
    world.at(3).body = b"\xff".to_vec();
    let found = world.found();
    assert!(found.contains(&(FindingKind::Removed, true, 3, 3)), "{found:?}");
    assert!(found.iter().any(|it| it.0 == FindingKind::Unreadable && it.1), "{found:?}");
}
