//! The store as a whole, without the services.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use sekimori_proto::v1::{Event, Field, Filter, Kind, Order};

use super::block::Placed;
use super::current::Current;
use super::files::Files;
use super::totals::Totals;
use super::{
    Batch, Condition, Encoded, Entry, Groups, Page, Position, Readers, Search, Store, Written,
};
use crate::identity::{Agent, Operator};
use crate::limits::{CURSORS_SKIPPED, JOINED_EVENTS};

fn entry(sequence: u64, kind: Kind) -> Entry {
    let event = Event {
        boot: vec![1; 16],
        sequence,
        kind: kind.into(),
        time_ns: i64::try_from(sequence).unwrap(),
        message: format!("{sequence}{}", "x".repeat(200)),
        ..Event::default()
    };
    Entry::new(&event, event.encode_to_vec().into()).unwrap()
}

/// Of two kinds, one of them rare.
fn entries(sequences: std::ops::Range<u64>) -> Vec<Entry> {
    let kind = |sequence| if sequence % 100 == 0 { Kind::UsbWrite } else { Kind::FileOpen };
    sequences.map(|sequence| entry(sequence, kind(sequence))).collect()
}

async fn submit(store: &Store, host: &str, sequences: std::ops::Range<u64>) -> Written {
    let batch = Batch::new(&Agent::for_test(host), entries(sequences));
    store.writer().submit(batch).await.unwrap()
}

async fn put(store: &Store, sequences: std::ops::Range<u64>) -> u32 {
    submit(store, "pc", sequences).await.await.unwrap().unwrap()
}

/// All that matches, page by page.
async fn search(store: &Store, filter: Filter, newest_first: bool) -> Page {
    let condition = Condition::new(Some(&filter)).unwrap();
    let mut all = Page { events: Vec::new(), next: None, gaps: Vec::new() };
    let mut next = Some(Position { upper: u64::MAX, last: None });
    while let Some(position) = next {
        let condition = condition.clone();
        let search = Search { condition, position, limit: 5000, newest_first };
        let page = store.readers().search(&Operator::for_test(), search).await.unwrap();
        all.events.extend(page.events);
        all.gaps = page.gaps;
        next = page.next;
    }
    all
}

fn names(events: &[Event]) -> Vec<(u64, u64)> {
    events.iter().map(|event| (event.cursor, event.sequence)).collect()
}

/// Everything that a live stream from the beginning tells.
async fn streamed(store: &Store) -> (Vec<(u64, u64)>, usize) {
    streamed_behind(store, 0).await
}

async fn streamed_behind(store: &Store, mut position: u64) -> (Vec<(u64, u64)>, usize) {
    let condition = Arc::new(Condition::new(None).unwrap());
    let (mut seen, mut gaps) = (Vec::new(), 0);
    while position < store.committed().get() {
        let (readers, reader) = (store.readers(), Operator::for_test());
        let step = readers.step::<Event>(&reader, Arc::clone(&condition), position).await.unwrap();
        let passed = readers.step(&reader, Arc::clone(&condition), position).await.unwrap();
        let passed = passed.events.iter().map(|Encoded(it)| Event::decode(it.as_ref()).unwrap());
        assert_eq!(passed.collect::<Vec<_>>(), step.events);
        assert!(step.position > position);
        position = step.position;
        gaps += step.gaps.len();
        seen.extend(names(&step.events));
    }
    (seen, gaps)
}

fn expected(sequences: std::ops::RangeInclusive<u64>) -> Vec<(u64, u64)> {
    sequences.map(|number| (number, number)).collect()
}

fn only_file(dir: &Path) -> std::path::PathBuf {
    let [file] = Files::of(dir).unwrap().list().try_into().unwrap();
    file.path.clone()
}

#[tokio::test]
async fn batches_that_wait_together_are_answered_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    let mut answers = Vec::new();
    for (host, sequences) in [("a", 1..11), ("b", 1..11), ("a", 6..16), ("b", 1..1), ("a", 1..3)] {
        answers.push(submit(&store, host, sequences).await);
    }
    let writer = store.writer().clone();
    // What was submitted before the wish to stop is stored.
    store.close().await;
    let mut counts = Vec::new();
    for answer in answers {
        counts.push(answer.await.unwrap().unwrap());
    }
    assert_eq!(counts, [10, 10, 5, 0, 0]);
    assert!(writer.submit(Batch::new(&Agent::for_test("a"), Vec::new())).await.is_err());
    let store = Store::open(dir.path(), None).unwrap();
    let hosts = store.readers().hosts(&Operator::for_test());
    let hosts: Vec<_> = hosts.iter().map(|it| (it.host.as_str(), it.events)).collect();
    assert_eq!(hosts, [("a", 15), ("b", 10)]);
    store.close().await;
}

#[tokio::test]
async fn joined_or_not_every_event_is_there_once_and_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    let last = 3 * JOINED_EVENTS as u64 / 2;
    let mut next = 1;
    // Of all sizes, and some of it again.
    for step in 0.. {
        let end = (next + 7 + step % 900).min(last + 1);
        let start = next.saturating_sub(step % 5).max(1);
        assert_eq!(u64::from(put(&store, start..end).await), end - next);
        next = end;
        if next > last {
            break;
        }
    }
    assert_eq!(streamed(&store).await, (expected(1..=last), 0));
    let rare = Filter { kinds: vec![Kind::UsbWrite.into()], ..Filter::default() };
    let found = search(&store, rare.clone(), true).await;
    let found: Vec<u64> = found.events.iter().map(|event| event.sequence).collect();
    let mut wanted: Vec<u64> = (1..=last).filter(|it| it % 100 == 0).collect();
    wanted.reverse();
    assert_eq!(found, wanted);
    store.close().await;
    let path = only_file(dir.path());
    let connection = super::schema::open_reader(&path).unwrap();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM blocks WHERE small"), 0, "a close joins the rest");
    assert_eq!(count("SELECT sum(events) FROM blocks"), i64::try_from(last).unwrap());
    assert_eq!(
        count(
            "SELECT count(*) FROM blocks b WHERE NOT EXISTS (SELECT 1 FROM bodies WHERE block = b.block)"
        ),
        0
    );
    assert!(count("SELECT count(*) FROM blocks") < 40);
    drop(connection);
    let store = Store::open(dir.path(), None).unwrap();
    assert_eq!(put(&store, 1..last + 2).await, 1);
    assert_eq!(streamed(&store).await, (expected(1..=last + 1), 0));
    store.close().await;
}

/// As the disk has it in this moment.
fn as_it_lies(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

#[tokio::test]
async fn what_waits_to_be_joined_waits_on_after_sudden_death() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    for start in [1, 101, 201] {
        assert_eq!(put(&store, start..start + 100).await, 100);
    }
    let copy = as_it_lies(dir.path());
    store.close().await;
    let store = Store::open(copy.path(), None).unwrap();
    assert_eq!(streamed(&store).await, (expected(1..=300), 0));
    let last = JOINED_EVENTS as u64 + 100;
    for start in (1..=last).step_by(500) {
        put(&store, start..(start + 500).min(last + 1)).await;
    }
    assert_eq!(streamed(&store).await, (expected(1..=last), 0));
    store.close().await;
}

fn current(dir: &Path) -> (Files, Current, Totals) {
    let files = Files::of(dir).unwrap();
    let (current, totals) = Current::open(&files).unwrap();
    (files, current, totals)
}

fn commit(
    current: &mut Current,
    sequences: std::ops::Range<u64>,
) -> Result<u64, super::StoreError> {
    let host: Arc<str> = "pc".into();
    let new = current.keep_new(&host, entries(sequences));
    let placed = |entry| Placed { cursor: 0, host: Arc::clone(&host), entry };
    current.commit(new.into_iter().map(placed).collect(), &BTreeMap::new())
}

#[test]
fn a_full_disk_refuses_what_does_not_fit_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (files, mut current, totals) = current(dir.path());
    assert_eq!(commit(&mut current, 1..6).unwrap(), 5);
    // SQLite reports this limit as it reports a full disk. The connection that is opened after the
    // failure does not have it.
    current.limit_pages(30);
    let error = commit(&mut current, 6..60_000).unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    current.begin(&files, &totals).unwrap();
    assert_eq!(commit(&mut current, 4..200).unwrap(), 199, "nothing of the refused is stored");
    assert_eq!(commit(&mut current, 1..200).unwrap(), 199);
}

#[tokio::test]
async fn files_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (files, mut writing, totals) = current(dir.path());
    for (day, range) in [("2026-01-01", 1..300), ("2026-01-02", 200..500), ("2025-12-31", 1..501)] {
        writing.begin_file(&files, day.parse().unwrap(), &totals).unwrap();
        commit(&mut writing, range).unwrap();
    }
    // The day is another one than that of the file.
    writing.begin(&files, &totals).unwrap();
    commit(&mut writing, 501..601).unwrap();
    writing.close();
    drop((files, writing));
    let store = Store::open(dir.path(), None).unwrap();
    assert_eq!(store.shared.files.list().len(), 5, "the first is empty");
    assert_eq!(streamed(&store).await, (expected(1..=600), 0));
    let found = search(&store, Filter::default(), false).await;
    assert_eq!(names(&found.events), expected(1..=600));
    assert_eq!(put(&store, 1..602).await, 1, "what the first file has is known in the last");
    store.shared.files.remove(1).unwrap();
    store.shared.files.remove(2).unwrap();
    assert_eq!(store.readers().removed_up_to(), 299);
    assert_eq!(put(&store, 1..602).await, 0, "and when it is gone");
    assert_eq!(streamed(&store).await, (expected(300..=601), 0));
    store.close().await;
}

/// What is joined is in one run, which must not lie around the block that cannot be.
#[tokio::test]
async fn nothing_is_joined_across_a_damaged_block() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    for start in [1, 101, 201] {
        put(&store, start..start + 100).await;
    }
    let dir = as_it_lies(dir.path());
    store.close().await;
    let connection = rusqlite::Connection::open(only_file(dir.path())).unwrap();
    let sql = "UPDATE bodies SET body = x'00' WHERE block = 2";
    assert_eq!(connection.execute(sql, []).unwrap(), 1);
    drop(connection);
    let store = Store::open(dir.path(), None).unwrap();
    let last = 2 * JOINED_EVENTS as u64;
    put(&store, 301..last + 1).await;
    // From the disk, not from what was committed last.
    store.close().await;
    let store = Store::open(dir.path(), None).unwrap();
    for behind in [100, 150, 200, 250] {
        let readable = expected(behind.max(200) + 1..=last);
        let (seen, gaps) = streamed_behind(&store, behind).await;
        assert_eq!(seen, readable, "behind {behind}");
        assert_eq!(gaps > 0, behind < 200, "behind {behind}");
    }
    store.close().await;
}

/// Writes nonsense over all pages but the first.
fn spoil(path: &Path, from: u64, bytes: usize) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&vec![0x5a; bytes], from).unwrap();
}

#[tokio::test]
async fn a_damaged_part_is_told_and_the_rest_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    for start in (1..20_001).step_by(1000) {
        put(&store, start..start + 1000).await;
    }
    store.close().await;
    let path = only_file(dir.path());
    let size = std::fs::metadata(&path).unwrap().len();
    // Somewhere among the bodies, which are nearly all of it.
    spoil(&path, size / 2, 4096);
    let store = Store::open(dir.path(), None).unwrap();
    let found = search(&store, Filter::default(), false).await;
    assert!(!found.gaps.is_empty());
    let readable = found.events.len();
    assert!((1000..20_000).contains(&readable), "{readable}");
    let (seen, gaps) = streamed(&store).await;
    assert!(gaps > 0);
    assert_eq!(seen.len(), readable);
    assert_eq!(put(&store, 20_001..20_011).await, 10, "and it takes more");
    store.close().await;
}

#[tokio::test]
async fn behind_a_last_file_that_cannot_be_read_another_one_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    put(&store, 1..101).await;
    store.close().await;
    spoil(&only_file(dir.path()), 0, 8192);
    let store = Store::open(dir.path(), None).unwrap();
    assert_eq!(put(&store, 101..111).await, 10);
    let found = search(&store, Filter::default(), false).await;
    let cursors: Vec<u64> = (1..=10).map(|it| CURSORS_SKIPPED + it).collect();
    assert_eq!(found.events.iter().map(|it| it.cursor).collect::<Vec<_>>(), cursors);
    assert_eq!(found.gaps.len(), 1, "{:?}", found.gaps);
    let (seen, gaps) = streamed(&store).await;
    assert_eq!((seen.len(), gaps), (10, 1));
    store.close().await;
}

/// What is counted by user, and of how many blocks the events were read for it.
async fn counted(store: &Store, filter: Filter) -> (Vec<(String, u64, u64)>, usize) {
    let condition = Condition::new(Some(&filter)).unwrap();
    let groups = Groups::new(&[Field::Kind.into()], 0, 0).unwrap();
    let readers = store.readers();
    let counted = readers.aggregate(&Operator::for_test(), condition, u64::MAX, groups).await;
    let (groups, gaps) = counted.unwrap();
    let answer = groups.answer(Order::Values, 100);
    let groups = answer.groups.into_iter().map(|it| (it.values.join(""), it.count, it.bytes));
    (groups.collect(), gaps.len())
}

#[tokio::test]
async fn what_is_counted_is_the_same_with_columns_and_without() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    let last = 3 * JOINED_EVENTS as u64;
    for first in (1..last).step_by(1000) {
        put(&store, first..(first + 1000).min(last)).await;
    }
    let rare = (last - 1) / 100;
    let expected =
        [("file.open".to_owned(), last - 1 - rare, 0), ("usb.write".to_owned(), rare, 0)].to_vec();
    assert_eq!(counted(&store, Filter::default()).await, (expected.clone(), 0));
    store.close().await;

    // The bodies of joined blocks are gone: what is counted is counted by columns.
    let connection = rusqlite::Connection::open(only_file(dir.path())).unwrap();
    let sql = "SELECT count(*) FROM columns";
    let columns: u32 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert!(columns > 40, "{columns} blocks have columns");
    connection
        .execute_batch("CREATE TABLE aside AS SELECT * FROM bodies; UPDATE bodies SET body = x'00'")
        .unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    assert_eq!(counted(&store, Filter::default()).await, (expected.clone(), 0));
    let user = Filter { text: "x".into(), ..Filter::default() };
    assert!(counted(&store, user).await.1 > 0, "a text is in the events only");
    store.close().await;

    // Damaged columns are as good as none.
    connection
        .execute_batch(
            "DELETE FROM bodies; INSERT INTO bodies SELECT * FROM aside; DROP TABLE aside;
             UPDATE columns SET packed = x'00'",
        )
        .unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    assert_eq!(counted(&store, Filter::default()).await, (expected.clone(), 0));
    store.close().await;

    // A file of the version before has no such table.
    connection.execute_batch("DROP TABLE columns; PRAGMA user_version = 1").unwrap();
    drop(connection);
    let files = Files::of(dir.path()).unwrap();
    let (mut current, totals) = Current::open(&files).unwrap();
    current.begin_file(&files, "2026-12-31".parse().unwrap(), &totals).unwrap();
    drop(current);
    rusqlite::Connection::open(&files.list().first().unwrap().path)
        .unwrap()
        .execute_batch("DROP TABLE columns; PRAGMA user_version = 1")
        .unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    put(&store, last..last + 1).await;
    let mut expected = expected;
    expected[0].1 += 1;
    assert_eq!(counted(&store, Filter::default()).await, (expected, 0));
    store.close().await;
}

/// What a verification says of a store, and how many events it was shown.
async fn verified(store: &Store) -> (Vec<String>, usize) {
    let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let each = move |_: &super::block::Stored<'_>| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::ops::ControlFlow::Continue(())
    };
    let upper = store.committed().get();
    let hosts = BTreeSet::new();
    let verified = store.readers().verify(&Operator::for_test(), hosts, upper, each).await;
    let verified = verified.unwrap();
    assert!(verified.gaps.is_empty(), "{:?}", verified.gaps);
    let told = verified
        .falsified
        .into_iter()
        .map(|it| format!("{} to {} {}", it.first, it.last, it.reason));
    (told.collect(), seen.load(std::sync::atomic::Ordering::Relaxed))
}

/// A verification of a store with 2,999 events is shown all of them, and says one thing.
async fn tells_only(store: &Store, what: &str) {
    let (told, seen) = verified(store).await;
    assert_eq!(seen, 2999);
    let [told] = told.as_slice() else { panic!("{told:?}") };
    assert!(told.ends_with(what), "{told}");
}

#[tokio::test]
async fn headers_and_columns_that_are_not_those_of_the_events_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    put(&store, 1..2 * JOINED_EVENTS as u64).await;
    put(&store, 2 * JOINED_EVENTS as u64..2 * JOINED_EVENTS as u64 + 9).await;
    let events = 2 * JOINED_EVENTS + 8;
    assert_eq!(verified(&store).await, (Vec::new(), events));
    store.close().await;

    let connection = rusqlite::Connection::open(only_file(dir.path())).unwrap();
    let mut blocks = Vec::new();
    super::table::all_blocks(&connection, |listed| {
        blocks.push((listed.block, listed.header.unwrap()));
        Ok::<_, rusqlite::Error>(())
    })
    .unwrap();
    let whole: Vec<i64> =
        blocks.iter().filter(|(_, header)| header.events == 1024).map(|it| it.0).collect();
    let [first, second, third, fourth, ..] = whole.as_slice() else { panic!("{blocks:?}") };
    let sql = "UPDATE columns SET packed = (SELECT packed FROM columns WHERE block = ?1)
               WHERE block = ?2";
    connection.execute(sql, [first, second]).unwrap();
    let (_, header) = blocks.iter_mut().find(|(block, _)| block == third).unwrap();
    // No question for a kind finds it any more.
    header.tags.clear();
    let sql = "UPDATE blocks SET tags = x'', sum = ?1 WHERE block = ?2";
    connection.execute(sql, rusqlite::params![header.sum(), third]).unwrap();
    let (first_cursor, last_cursor) = (header.first, header.last);
    // No question at all, and no live stream that comes from far behind.
    let (_, header) = blocks.iter_mut().find(|(block, _)| block == fourth).unwrap();
    (header.first, header.last) = (1 << 60, 0);
    let sql = "UPDATE blocks SET first = 1 << 60, last = 0, sum = ?1, run = 7 WHERE block = ?2";
    connection.execute(sql, rusqlite::params![header.sum(), fourth]).unwrap();
    drop(connection);

    let store = Store::open(dir.path(), None).unwrap();
    let (told, seen) = verified(&store).await;
    assert_eq!(seen, events, "every event is looked at, whatever blocks say");
    for (block, what) in [(second, "counted"), (third, "found"), (fourth, "found")] {
        let reason = format!("block {block}: what it is {what} by is not what its events say");
        assert!(told.iter().any(|told| told.ends_with(&reason)), "{told:?}");
    }
    let place = format!("{first_cursor} to {last_cursor} ");
    assert!(told.iter().any(|told| told.starts_with(&place)), "{told:?}");
    let reason = "run 1: its blocks do not lie in it";
    assert!(told.iter().any(|told| told.ends_with(reason)), "{told:?}");
    assert_eq!(told.len(), 4, "{told:?}");
    store.close().await;
}

/// What is right in a table can be missing in its index, by which questions go.
#[tokio::test]
async fn a_block_that_no_index_has_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    put(&store, 1..3000).await;
    assert_eq!(verified(&store).await, (Vec::new(), 2999));
    store.close().await;

    let path = only_file(dir.path());
    let change = |sql: &str| {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch(sql).unwrap();
    };
    change(
        "CREATE TABLE kept AS SELECT block, oldest_ns, newest_ns FROM blocks ORDER BY block LIMIT 1;
         UPDATE blocks SET oldest_ns = -1, newest_ns = -1 WHERE block = (SELECT block FROM kept);
         CREATE TABLE rows AS SELECT * FROM sqlite_schema WHERE name = 'blocks_newest';
         PRAGMA writable_schema = 1;
         DELETE FROM sqlite_schema WHERE name = 'blocks_newest';",
    );
    change(
        "UPDATE blocks SET oldest_ns = kept.oldest_ns, newest_ns = kept.newest_ns
         FROM kept WHERE kept.block = blocks.block;",
    );
    change(
        "PRAGMA writable_schema = 1;
         INSERT INTO sqlite_schema SELECT * FROM rows;",
    );
    change("DROP TABLE kept; DROP TABLE rows;");

    let store = Store::open(dir.path(), None).unwrap();
    let since = Filter { since_ns: Some(0), ..Filter::default() };
    assert!(search(&store, since, false).await.events.len() < 2999, "questions pass over it");
    tells_only(&store, "missing from index blocks_newest").await;
    store.close().await;
}

/// Whoever comes from before a file begins with the first event behind what is before it.
#[tokio::test]
async fn a_file_that_says_it_begins_later_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    put(&store, 1..3000).await;
    store.close().await;
    let connection = rusqlite::Connection::open(only_file(dir.path())).unwrap();
    let sql = "UPDATE facts SET value = 2000 WHERE name = 'cursor_before'";
    assert_eq!(connection.execute(sql, []).unwrap(), 1);
    drop(connection);
    let store = Store::open(dir.path(), None).unwrap();
    tells_only(&store, "its events do not begin behind cursor 2000").await;
    store.close().await;
}

#[tokio::test]
async fn a_block_whose_body_is_gone_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), None).unwrap();
    put(&store, 1..3000).await;
    store.close().await;
    let connection = rusqlite::Connection::open(only_file(dir.path())).unwrap();
    let sql = "DELETE FROM bodies WHERE block = (SELECT min(block) FROM bodies)";
    assert_eq!(connection.execute(sql, []).unwrap(), 1);
    let sql = "SELECT first, last FROM blocks ORDER BY block LIMIT 1";
    let of_row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let (first, last): (i64, i64) = connection.query_row(sql, [], of_row).unwrap();
    drop(connection);
    let store = Store::open(dir.path(), None).unwrap();
    let (readers, reader) = (store.readers(), Operator::for_test());
    let each = |_: &super::block::Stored<'_>| std::ops::ControlFlow::Continue(());
    let verified = readers.verify(&reader, BTreeSet::new(), u64::MAX, each).await.unwrap();
    let gaps: Vec<_> = verified.gaps.iter().map(|gap| (gap.first, gap.last)).collect();
    assert_eq!(gaps, [(first as u64, last as u64)], "{:?}", verified.gaps);
    assert!(verified.gaps[0].reason.ends_with("it is not there, or has no event"));
    let (_, gaps) = streamed(&store).await;
    assert_eq!(gaps, 1);
    store.close().await;
}

#[tokio::test]
async fn what_retention_removed_is_not_told_from_memory_either() {
    let dir = tempfile::tempdir().unwrap();
    let (files, mut current, totals) = current(dir.path());
    commit(&mut current, 1..6).unwrap();
    current.begin_file(&files, "2026-12-31".parse().unwrap(), &totals).unwrap();
    commit(&mut current, 6..9).unwrap();
    let readers = Readers::new(files.clone(), totals, current.tail().clone());
    let told = async || {
        let condition = Arc::new(Condition::new(None).unwrap());
        let step = readers.step(&Operator::for_test(), condition, 0).await.unwrap();
        (names(&step.events), step.position)
    };
    assert_eq!(told().await, (expected(1..=8), 8));
    files.remove(1).unwrap();
    assert_eq!(told().await, (expected(6..=8), 8));
}
