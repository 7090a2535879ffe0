//! Bytes from anybody: nothing of it panics, and nothing of it is proven.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Cursor;

use proptest::prelude::*;
use prost::Message as _;
use sekimori_proto::v1::{Checkpoint, CheckpointStatement, Custody, Event, Loss};

use crate::{Scope, Signed, SigningKey, Verifier, case};

/// Events with some of the parts that a verification reads.
fn event() -> impl Strategy<Value = Event> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    let loss = any::<(i32, u64, bool)>().prop_map(|(kind, count, spool)| Loss {
        stage: if spool { "spool".into() } else { "ring".into() },
        kind,
        count,
        ..Loss::default()
    });
    let checkpoint = (bytes(80), bytes(40), bytes(70))
        .prop_map(|(statement, key, signature)| Checkpoint { statement, key, signature });
    let parts = (
        bytes(20),
        any::<u64>(),
        any::<i32>(),
        any::<u32>(),
        prop::option::of(loss),
        prop::option::of(checkpoint),
        any::<Option<u64>>(),
    );
    parts.prop_map(|(boot, sequence, kind, lane, loss, checkpoint, through)| Event {
        boot,
        sequence,
        kind,
        lane,
        loss,
        checkpoint,
        custody: through.map(|it| Custody { through_cursor: it, ..Custody::default() }),
        ..Event::default()
    })
}

/// Statements that a true key has signed, whatever they say.
fn statement() -> impl Strategy<Value = CheckpointStatement> {
    let parts = (
        prop::collection::vec(any::<u8>(), 0..20),
        prop_oneof![any::<u64>(), 0..3u64, Just(u64::MAX)],
        prop::collection::vec(any::<u8>(), 0..40),
        prop_oneof![any::<u64>(), 0..3u64, u64::MAX - 3..=u64::MAX],
        prop::collection::vec(any::<u8>(), 0..80),
    );
    parts.prop_map(|(boot, number, previous, first, digests)| CheckpointStatement {
        boot,
        number,
        previous,
        first,
        digests,
        ..CheckpointStatement::default()
    })
}

proptest! {
    #[test]
    fn any_bytes_are_looked_at(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
        let mut verifier = Verifier::new(Scope::Whole);
        for (cursor, body) in (0..).zip(&bodies) {
            verifier.look("h", cursor, body).unwrap();
        }
        prop_assert_eq!(verifier.finish().summary.proven, 0);
    }

    #[test]
    fn any_events_are_looked_at(events in prop::collection::vec(event(), 0..30)) {
        for scope in [Scope::Whole, Scope::Selection] {
            let mut verifier = Verifier::new(scope);
            for (cursor, event) in (0..).zip(&events) {
                verifier.look("h", cursor, &event.encode_to_vec()).unwrap();
            }
            prop_assert_eq!(verifier.finish().summary.proven, 0);
        }
    }

    /// A host's own key may sign nonsense.
    #[test]
    fn any_statements_are_looked_at(statements in prop::collection::vec(statement(), 0..20)) {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::open(&dir.path().join("key")).unwrap();
        let mut verifier = Verifier::new(Scope::Whole);
        for (cursor, statement) in (0..).zip(&statements) {
            let (checkpoint, _) = crate::checkpoint::sign(&key, statement);
            let _ = Signed::open(&checkpoint);
            let event = Event {
                boot: vec![1; 16],
                sequence: cursor + 1,
                kind: 104,
                checkpoint: Some(checkpoint),
                ..Event::default()
            };
            verifier.look("h", cursor, &event.encode_to_vec()).unwrap();
        }
        let _ = verifier.finish();
    }

    #[test]
    fn any_bytes_are_no_case(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(case::open(Cursor::new(bytes)).is_err());
    }
}
