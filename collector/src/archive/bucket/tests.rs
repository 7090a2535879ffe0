//! Archives in a bucket that is a map in memory; a real server is asked by the collector's own
//! tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use object_store::memory::InMemory;

use super::super::tests::{Case, FIRST, SECOND, days};
use super::super::{Outcome, sealed};
use super::*;

fn open(store: &Arc<InMemory>) -> Bucket {
    let store = Arc::clone(store) as Arc<dyn ObjectStore>;
    Bucket::in_store("s3://b/p".to_owned(), store, Prefix::from("p")).unwrap()
}

fn fill(case: &Case, bucket: Bucket) -> Result<Outcome, ArchiveError> {
    let archive = case.archive();
    archive.fill(&sealed::files(&archive.store)?, bucket, &mut |_| {})
}

#[test]
fn what_is_listed_and_there_is_not_written_again() {
    let case = Case::new(&days(500, 600));
    let store = Arc::new(InMemory::new());
    let outcome = fill(&case, open(&store)).unwrap();
    assert_eq!((outcome.written, outcome.there, outcome.rows), (2, 0, 600));
    let bucket = open(&store);
    for file in [FIRST, SECOND] {
        let line = bucket.line(file).unwrap();
        let found = bucket.runtime.block_on(async {
            store.get(&bucket.path(file)).await.unwrap().bytes().await.unwrap()
        });
        assert_eq!(line.bytes, found.len() as u64);
        assert_eq!(line.sha256, hexadecimal(&Sha256::digest(&found)));
    }
    bucket.runtime.block_on(store.delete(&bucket.path(FIRST))).unwrap();
    bucket.runtime.block_on(store.put(&bucket.path(SECOND), "PAR1".into())).unwrap();
    assert_eq!(fill(&case, bucket).unwrap().written, 2);
    let outcome = fill(&case, open(&store)).unwrap();
    assert_eq!(outcome, Outcome { there: 2, ..Outcome::default() });
}

#[test]
fn of_two_runs_at_the_same_time_one_fails() {
    let case = Case::new(&days(10, 20));
    let store = Arc::new(InMemory::new());
    let late = open(&store);
    fill(&case, open(&store)).unwrap();
    let error = fill(&case, late).unwrap_err();
    assert!(matches!(&error, ArchiveError::InUse(place) if place == "s3://b/p"), "{error}");
    assert_eq!(open(&store).list.lines.len(), 2);
    let late = open(&store);
    let text = late.list.text.clone();
    let bucket = open(&store);
    bucket.runtime.block_on(bucket.add(text + "\n")).unwrap();
    late.runtime.block_on(store.delete(&late.path(FIRST))).unwrap();
    let error = fill(&case, late).unwrap_err();
    assert!(matches!(error, ArchiveError::InUse(_)), "{error}");
}

#[test]
fn two_stores_do_not_share_an_archive() {
    let store = Arc::new(InMemory::new());
    fill(&Case::new(&days(10, 20)), open(&store)).unwrap();
    let error = fill(&Case::new(&days(11, 21)), open(&store)).unwrap_err();
    assert!(matches!(error, ArchiveError::Other { .. }), "{error}");
}

#[test]
fn what_the_disk_changed_is_not_sent() {
    let case = Case::new(&days(10, 20));
    let store = Arc::new(InMemory::new());
    fill(&case, open(&store)).unwrap();
    let mut bucket = open(&store);
    let line = Line { file: "other".to_owned(), ..bucket.line(FIRST).unwrap().clone() };
    let error = bucket.keep(tempfile::tempfile().unwrap(), &line, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("other came back from the disk changed"), "{error}");
    assert_eq!(bucket.length("other").unwrap(), None);
    assert_eq!(open(&store).line("other"), None);
}

#[test]
fn a_line_that_is_cut_short_is_passed_over() {
    let store = Arc::new(InMemory::new());
    let bucket = open(&store);
    let path = bucket.path(manifest::NAME);
    bucket.runtime.block_on(store.put(&path, r#"{"file":"b","sha"#.into())).unwrap();
    let case = Case::new(&days(10, 20));
    assert_eq!(fill(&case, open(&store)).unwrap().written, 2);
    assert_eq!(open(&store).list.lines.len(), 2);
}
