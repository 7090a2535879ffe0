//! Archives of small stores, read again by Parquet's own reader.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::Path;

use parquet::file::reader::SerializedFileReader;
use parquet::record::{Field, Row};
use prost::Message as _;
use rusqlite::Connection;
use sekimori_proto::v1::{Event, File as EventFile, Kind};

use super::directory::LOCK;
use super::*;
use crate::limits::ARCHIVE_GROUP_ROWS;
use crate::store::sealed::stores::fill;

pub(super) const FIRST: &str = "000001-2026-11-01.parquet";
pub(super) const SECOND: &str = "000002-2026-11-02.parquet";

fn event(sequence: u64) -> Event {
    let kind = if sequence.is_multiple_of(7) { Kind::UsbWrite } else { Kind::FileOpen };
    let path = format!("/共有/顧客名簿-{}.xlsx", sequence % 50);
    Event {
        boot: vec![1; 16],
        sequence,
        kind: kind.into(),
        time_ns: 1_793_491_200_000_000_000 + i64::try_from(sequence).unwrap(),
        file: Some(EventFile { path: path.into_bytes(), ..EventFile::default() }),
        bytes: sequence.is_multiple_of(7).then_some(sequence),
        message: if sequence.is_multiple_of(2) { "x".repeat(50) } else { String::new() },
        ..Event::default()
    }
}

pub(super) fn days(first: u64, second: u64) -> Vec<(&'static str, Vec<Event>)> {
    vec![
        ("2026-11-01", (1..=first).map(event).collect()),
        ("2026-11-02", (first + 1..=second).map(event).collect()),
        ("2026-11-03", vec![event(second + 1)]),
    ]
}

/// A store and a place for its archive.
pub(super) struct Case {
    temporary: tempfile::TempDir,
}

impl Case {
    pub(super) fn new(days: &[(&str, Vec<Event>)]) -> Case {
        let case = Case { temporary: tempfile::tempdir().unwrap() };
        fill(&case.store(), "端末-1", days, Event::encode_to_vec);
        case
    }

    fn store(&self) -> PathBuf {
        self.temporary.path().join("store")
    }

    fn to(&self) -> PathBuf {
        self.temporary.path().join("archive")
    }

    pub(super) fn archive(&self) -> Archive {
        Archive { store: self.store(), to: To::Directory(self.to()), before: None }
    }

    fn run(&self) -> Outcome {
        self.archive().run(&mut |_| {}).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.to()).unwrap();
        let mut names: Vec<String> =
            entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn file(&self, name: &str) -> PathBuf {
        self.to().join(name)
    }

    fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.file(manifest::NAME)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The connection of somebody who damages a file of the store.
    fn damages(&self, sql: &str) {
        let path = self.store().join("000001-2026-11-01.db");
        assert!(Connection::open(path).unwrap().execute(sql, []).unwrap() > 0);
    }
}

fn rows(path: &Path) -> BTreeMap<u64, Row> {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let rows = reader.into_iter().map(|row| {
        let row = row.unwrap();
        let Some(Field::ULong(cursor)) = of(&row, "cursor") else { panic!("{row}") };
        (cursor, row)
    });
    rows.collect()
}

fn of(row: &Row, name: &str) -> Option<Field> {
    row.get_column_iter().find(|(known, _)| *known == name).map(|(_, field)| field.clone())
}

fn text(text: impl Into<String>) -> Option<Field> {
    Some(Field::Str(text.into()))
}

fn bytes(row: &Row) -> Vec<u8> {
    let Some(Field::Bytes(bytes)) = of(row, "event") else { panic!("{row}") };
    bytes.data().to_vec()
}

#[test]
fn every_event_of_a_sealed_file_is_a_row_with_its_bytes() {
    // More than a row group, and some that were never joined.
    let first = ARCHIVE_GROUP_ROWS as u64 + 3000;
    let case = Case::new(&days(first, first + 10));
    let outcome = case.run();
    assert_eq!((outcome.written, outcome.rows, outcome.damaged), (2, first + 10, 0));
    assert_eq!(case.names(), [LOCK, FIRST, SECOND, manifest::NAME]);
    let (mut all, second) = (rows(&case.file(FIRST)), rows(&case.file(SECOND)));
    assert_eq!((all.len() as u64, second.len()), (first, 10));
    all.extend(second);
    for (cursor, row) in &all {
        let event = event(*cursor);
        assert_eq!(bytes(row), event.encode_to_vec());
        let file = event.file.unwrap().path;
        let null_or = |number: Option<u64>| number.map_or(Field::Null, Field::ULong);
        for (name, expected) in [
            ("host", text("端末-1")),
            ("sequence", Some(Field::ULong(*cursor))),
            ("kind", text(if cursor % 7 == 0 { "usb.write" } else { "file.open" })),
            ("file_path", text(String::from_utf8(file).unwrap())),
            ("bytes", Some(null_or(event.bytes))),
            ("user", Some(Field::Null)),
        ] {
            assert_eq!(of(row, name), expected, "{cursor}: {name}");
        }
    }
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), (1..=first + 10).collect::<Vec<_>>());
    let [one, two] = case.lines().try_into().unwrap();
    assert_eq!((one.rows, one.first_cursor, one.last_cursor), (first, Some(1), Some(first)));
    assert_eq!((two.file.as_str(), two.store_cursors), (SECOND, (first, first + 10)));
    for line in [one, two] {
        use sha2::{Digest as _, Sha256};
        let content = fs::read(case.file(&line.file)).unwrap();
        let sum: String = Sha256::digest(&content).iter().map(|it| format!("{it:02x}")).collect();
        assert_eq!((line.bytes, line.sha256), (content.len() as u64, sum));
        assert_eq!(fs::metadata(case.file(&line.file)).unwrap().mode() & 0o777, 0o600);
    }
}

#[test]
fn what_is_listed_and_there_is_not_written_again() {
    let case = Case::new(&days(500, 600));
    case.run();
    let inode = |name: &str| fs::metadata(case.file(name)).unwrap().ino();
    let before = (inode(FIRST), inode(SECOND));
    assert_eq!(case.run(), Outcome { there: 2, ..Outcome::default() });
    assert_eq!((inode(FIRST), inode(SECOND)), before);
    // Gone, cut short, or never listed: it is written.
    for spoil in [
        |case: &Case| fs::remove_file(case.file(SECOND)).unwrap(),
        |case: &Case| fs::write(case.file(SECOND), "PAR1").unwrap(),
        |case: &Case| {
            let lines = fs::read_to_string(case.file(manifest::NAME)).unwrap();
            let first = lines.lines().next().unwrap();
            fs::write(case.file(manifest::NAME), format!("{first}\n")).unwrap();
        },
    ] {
        spoil(&case);
        let outcome = case.run();
        assert_eq!((outcome.written, outcome.there, outcome.rows), (1, 1, 100));
        assert_eq!(rows(&case.file(SECOND)).len(), 100);
    }
}

#[test]
fn only_what_was_begun_before_the_day() {
    let case = Case::new(&days(10, 20));
    let before = Some("2026-11-02".parse().unwrap());
    let outcome = Archive { before, ..case.archive() }.run(&mut |_| {}).unwrap();
    assert_eq!((outcome.written, outcome.rows), (1, 10));
    assert_eq!(case.names(), [LOCK, FIRST, manifest::NAME]);
}

#[test]
fn a_damaged_part_is_told_and_the_rest_is_written() {
    let case = Case::new(&days(20_000, 20_010));
    let path = case.store().join("000001-2026-11-01.db");
    let size = fs::metadata(&path).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0x5a; 4096], size / 2).unwrap();
    let mut told = Vec::new();
    let outcome = case.archive().run(&mut |text| told.push(text.to_owned())).unwrap();
    assert!(outcome.damaged > 0);
    let damage = told.iter().filter(|text| text.contains("damaged: block"));
    assert_eq!(damage.count() as u64, outcome.damaged, "{told:?}");
    let first = rows(&case.file(FIRST));
    assert!((10_000..20_000).contains(&first.len()), "{}", first.len());
    assert!(first.iter().all(|(cursor, row)| bytes(row) == event(*cursor).encode_to_vec()));
    assert_eq!(rows(&case.file(SECOND)).len(), 10);
    assert_eq!(case.lines().first().unwrap().damaged, outcome.damaged);
}

#[test]
fn a_block_whose_header_is_damaged_has_its_events_all_the_same() {
    let case = Case::new(&days(3000, 3010));
    case.damages("UPDATE blocks SET sum = 0 WHERE block = (SELECT min(block) FROM blocks)");
    let outcome = case.run();
    assert_eq!((outcome.rows, outcome.damaged), (3010, 1));
}

#[test]
fn an_event_that_is_none_keeps_its_bytes() {
    let case = Case { temporary: tempfile::tempdir().unwrap() };
    let spoiled = |event: &Event| match event.sequence {
        5 => vec![0xff; 3],
        _ => event.encode_to_vec(),
    };
    fill(&case.store(), "pc", &days(10, 11), spoiled);
    let outcome = case.run();
    assert_eq!((outcome.rows, outcome.damaged), (11, 1));
    let rows = rows(&case.file(FIRST));
    let row = rows.get(&5).unwrap();
    assert_eq!(bytes(row), [0xff; 3]);
    assert_eq!((of(row, "kind"), of(row, "sequence")), (text("file.open"), Some(Field::ULong(0))));
}

#[test]
fn a_file_that_cannot_be_opened_is_told_and_tried_again() {
    let case = Case::new(&days(100, 110));
    let path = case.store().join("000001-2026-11-01.db");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, vec![0x5a; whole.len()]).unwrap();
    let outcome = case.run();
    assert_eq!((outcome.written, outcome.rows, outcome.damaged), (1, 10, 1));
    fs::write(&path, whole).unwrap();
    let outcome = case.run();
    assert_eq!((outcome.written, outcome.rows, outcome.damaged), (1, 100, 0));
}

#[test]
fn nothing_is_written_outside() {
    let case = Case::new(&days(10, 20));
    let outside = case.temporary.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    // Names that a file of the store cannot have, and one that would lead out of the archive.
    for name in ["000001-..%2f..%2foutside.db", "000001-2026-11-01.db.db", "..-2026-11-01.db"] {
        fs::write(case.store().join(name), "").unwrap();
    }
    fs::create_dir(case.to()).unwrap();
    symlink(&outside, case.file(FIRST)).unwrap();
    let line = r#"{"file":"../outside","sha256":"","bytes":4,"rows":1,"damaged":0,"#;
    let line = format!("{line}\"store_cursors\":[0,10]}}\n");
    fs::write(case.file(manifest::NAME), line).unwrap();
    assert_eq!(case.run().written, 2);
    assert_eq!(fs::read(&outside).unwrap(), b"mine");
    assert!(fs::symlink_metadata(case.file(FIRST)).unwrap().is_file());
    assert_eq!(case.names(), [LOCK, FIRST, SECOND, manifest::NAME]);
    let around = fs::read_dir(case.temporary.path()).unwrap().count();
    assert_eq!(around, 3, "store, archive, outside");
    // A link to what is listed is not what was written.
    fs::rename(case.file(FIRST), &outside).unwrap();
    symlink(&outside, case.file(FIRST)).unwrap();
    assert_eq!(case.run().written, 1);
    for name in [manifest::NAME, LOCK] {
        let _ = fs::remove_file(case.file(name));
        fs::write(&outside, "mine").unwrap();
        symlink(&outside, case.file(name)).unwrap();
        let error = case.archive().run(&mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(fs::read(&outside).unwrap(), b"mine");
        fs::remove_file(case.file(name)).unwrap();
    }
}

#[test]
fn a_failure_leaves_no_half_file_and_what_a_killed_run_left_is_removed() {
    let case = Case::new(&days(1000, 1010));
    fs::create_dir_all(case.file(SECOND)).unwrap();
    let part = case.file(".sekimori-abc.part");
    fs::write(&part, "half").unwrap();
    let other = case.file(".part");
    fs::write(&other, "not ours").unwrap();
    let error = case.archive().run(&mut |_| {}).unwrap_err();
    assert!(matches!(&error, ArchiveError::File { path, .. } if path.ends_with(SECOND)), "{error}");
    assert_eq!(case.names(), [LOCK, ".part", FIRST, SECOND, manifest::NAME]);
    assert_eq!(case.lines().len(), 1);
    fs::remove_dir(case.file(SECOND)).unwrap();
    let outcome = case.run();
    assert_eq!((outcome.written, outcome.there), (1, 1));
}

#[test]
fn two_stores_or_two_runs_do_not_share_an_archive() {
    let case = Case::new(&days(10, 20));
    case.run();
    let other = Case::new(&days(11, 21));
    let archive = Archive { to: To::Directory(case.to()), ..other.archive() };
    let error = archive.run(&mut |_| {}).unwrap_err();
    assert!(matches!(error, ArchiveError::Other { .. }), "{error}");
    let lock = File::open(case.file(LOCK)).unwrap();
    lock.lock().unwrap();
    let error = case.archive().run(&mut |_| {}).unwrap_err();
    assert!(matches!(error, ArchiveError::InUse(_)), "{error}");
}

#[test]
fn the_store_is_no_place_for_an_archive() {
    let case = Case::new(&days(10, 20));
    symlink(case.store(), case.to()).unwrap();
    for to in [case.store(), case.store().join("new"), case.to()] {
        let archive = Archive { to: To::Directory(to), ..case.archive() };
        let error = archive.run(&mut |_| {}).unwrap_err();
        assert!(matches!(error, ArchiveError::InStore(_)), "{error}");
    }
    assert!(!case.store().join(LOCK).exists() && !case.store().join("new").exists());
}
