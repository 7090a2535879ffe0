//! Receipts without a kernel.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::stat::{major, minor};
use sekimori_proto::v1::{Device, Event, File};

use super::hash::Hasher;
use super::writers::Writers;
use crate::enrich::ProcessKey;
use crate::limits::RECEIPT_SOURCES_MAX;
use crate::record::Recorded;

const WRITER: ProcessKey = ProcessKey { tgid: 10, start_ns: 1 };
const CHILD: ProcessKey = ProcessKey { tgid: 11, start_ns: 2 };
const OTHER: ProcessKey = ProcessKey { tgid: 12, start_ns: 3 };

fn file(path: &str, inode: u64) -> File {
    let device = Some(Device { major: 8, minor: 17, ..Device::default() });
    File { path: path.as_bytes().to_vec(), inode, device, ..File::default() }
}

fn paths(sources: &[File]) -> Vec<String> {
    sources.iter().map(|file| String::from_utf8(file.path.clone()).unwrap()).collect()
}

#[test]
fn each_copy_has_its_own_source() {
    let mut writers = Writers::default();
    for number in 1..=3 {
        let copy = file("/media/usb/copy", number);
        writers.opens(WRITER, &copy);
        writers.reads(WRITER, OTHER, &file(&format!("/srv/{number}"), 100 + number));
        let (sources, more) = writers.closes(WRITER, &copy);
        assert_eq!(paths(&sources), [format!("/srv/{number}")]);
        assert!(!more);
    }
}

#[test]
fn an_archive_has_all_that_went_into_it_and_no_library() {
    let mut writers = Writers::default();
    let archive = file("/media/usb/all.tar", 1);
    writers.opens(WRITER, &archive);
    writers.reads(WRITER, OTHER, &file("/usr/lib/x86_64-linux-gnu/libc.so.6", 7));
    writers.reads(WRITER, OTHER, &file("/srv/甲.txt", 8));
    writers.reads(CHILD, WRITER, &file("/srv/乙.txt", 9));
    writers.reads(OTHER, OTHER, &file("/srv/elsewhere", 10));
    let (sources, more) = writers.closes(WRITER, &archive);
    assert_eq!(paths(&sources), ["/srv/甲.txt", "/srv/乙.txt"]);
    assert!(!more);
}

#[test]
fn more_sources_than_are_named_are_said() {
    let mut writers = Writers::default();
    let archive = file("/media/usb/all.tar", 1);
    writers.opens(WRITER, &archive);
    for number in 0..=RECEIPT_SOURCES_MAX as u64 {
        writers.reads(WRITER, OTHER, &file(&format!("/srv/{number}"), 100 + number));
    }
    let (sources, more) = writers.closes(WRITER, &archive);
    assert_eq!(sources.len(), RECEIPT_SOURCES_MAX);
    assert!(more);
}

#[test]
fn of_a_file_that_was_open_before_the_sources_are_not_known() {
    let mut writers = Writers::default();
    assert_eq!(writers.closes(WRITER, &file("/media/usb/late", 1)), (Vec::new(), true));
}

#[test]
fn a_pipe_is_named_too() {
    let mut writers = Writers::default();
    let copy = file("/media/usb/copy", 1);
    let pipe = File { mode: super::S_IFIFO, ..file("", 77) };
    writers.opens(WRITER, &copy);
    writers.reads(WRITER, OTHER, &pipe);
    assert_eq!(paths(&writers.closes(WRITER, &copy).0), ["pipe:[77]"]);
    writers.opens(WRITER, &copy);
    writers.reads(WRITER, OTHER, &pipe);
    writers.reads(WRITER, OTHER, &file("/srv/1", 8));
    assert_eq!(paths(&writers.closes(WRITER, &copy).0), ["/srv/1", "pipe:[77]"]);
}

/// What goes into the pipe may come from what those read who write to it.
#[test]
fn who_feeds_a_pipe_names_sources_for_its_reader_alone() {
    let mut writers = Writers::default();
    let (fed, other) = (file("/media/usb/fed", 1), file("/media/usb/other", 2));
    for (key, written, number) in [(WRITER, &fed, 77), (OTHER, &other, 78)] {
        writers.opens(key, written);
        let pipe = File { mode: super::S_IFIFO, ..file("", number) };
        writers.reads(key, CHILD, &pipe);
    }
    writers.feeds(77, &file("/srv/1", 8));
    writers.feeds(77, &file("/usr/lib/x.so", 9));
    writers.feeds(79, &file("/srv/2", 10));
    assert_eq!(paths(&writers.closes(WRITER, &fed).0), ["/srv/1", "pipe:[77]"]);
    assert_eq!(paths(&writers.closes(OTHER, &other).0), ["pipe:[78]"]);
}

#[test]
fn what_was_read_before_a_file_was_opened_did_not_go_into_it() {
    let mut writers = Writers::default();
    let (first, second) = (file("/media/usb/1", 1), file("/media/usb/2", 2));
    writers.opens(WRITER, &first);
    writers.reads(WRITER, OTHER, &file("/srv/x", 8));
    writers.opens(WRITER, &second);
    for _ in 0..2 {
        writers.reads(WRITER, OTHER, &file("/srv/y", 9));
    }
    let (sources, more) = writers.closes(WRITER, &second);
    assert_eq!((paths(&sources), more), (vec!["/srv/y".to_owned()], false));
    let (sources, more) = writers.closes(WRITER, &first);
    assert_eq!((paths(&sources), more), (vec!["/srv/x".to_owned(), "/srv/y".to_owned()], false));
}

#[test]
fn files_are_closed_after_their_process_ended() {
    let mut writers = Writers::default();
    let copy = file("/media/usb/copy", 1);
    writers.opens(WRITER, &copy);
    writers.reads(WRITER, OTHER, &file("/srv/1", 8));
    writers.ended(WRITER);
    assert_eq!(paths(&writers.closes(WRITER, &copy).0), ["/srv/1"]);
}

#[test]
fn sources_that_were_not_looked_at_are_said() {
    let mut writers = Writers::default();
    let copy = file("/media/usb/copy", 1);
    writers.opens(WRITER, &copy);
    writers.reads(WRITER, OTHER, &File::default());
    assert_eq!(writers.closes(WRITER, &copy), (Vec::new(), true));
}

/// Real files below a directory, as a record names them.
fn real(directory: &Path, name: &str) -> File {
    let path = directory.join(name);
    let facts = std::fs::metadata(&path).unwrap();
    let (major, minor) = (major(facts.dev()) as u32, minor(facts.dev()) as u32);
    let device = Some(Device { major, minor, ..Device::default() });
    let path = path.as_os_str().as_bytes().to_vec();
    File { path, inode: facts.ino(), device, size: facts.len(), ..File::default() }
}

fn receipt_of(file: File) -> Event {
    let (hasher, mut answers) = Hasher::start();
    let event = Event { file: Some(file), ..Event::default() };
    hasher.ask(Recorded { event, ..Recorded::default() });
    answers.blocking_recv().unwrap().event
}

#[test]
fn the_hash_is_that_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a"), "abc").unwrap();
    let receipt = receipt_of(real(directory.path(), "a"));
    // FIPS 180-2, B.1.
    assert_eq!(receipt.sha256.first_chunk(), Some(&[0xba, 0x78, 0x16, 0xbf]));
    assert_eq!(receipt.sha256_missing, "");
}

#[test]
fn nothing_that_took_its_place_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("d");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("a"), "abc").unwrap();
    let file = real(&inside, "a");
    std::fs::rename(&inside, directory.path().join("e")).unwrap();
    std::os::unix::fs::symlink(directory.path().join("e"), &inside).unwrap();
    let receipt = receipt_of(file.clone());
    assert!(receipt.sha256_missing.contains("cannot be opened"), "{}", receipt.sha256_missing);
    // By another name it is still the same file.
    let path = directory.path().join("e/a").as_os_str().as_bytes().to_vec();
    assert!(receipt_of(File { path: path.clone(), ..file.clone() }).sha256_missing.is_empty());
    let other = receipt_of(File { path, inode: file.inode + 1, ..file });
    assert_eq!(other.sha256_missing, "another file has its name now");
}
