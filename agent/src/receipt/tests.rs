//! Receipts without a kernel.
#![allow(clippy::unwrap_used, reason = "tests")]

use sekimori_proto::v1::{Device, File};

use super::writers::Writers;
use crate::enrich::ProcessKey;
use crate::limits::RECEIPT_SOURCES_MAX;

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
fn a_pipe_is_named_when_nothing_else_is() {
    let mut writers = Writers::default();
    let copy = file("/media/usb/copy", 1);
    let pipe = File { mode: super::S_IFIFO, ..file("", 77) };
    writers.opens(WRITER, &copy);
    writers.reads(WRITER, OTHER, &pipe);
    assert_eq!(paths(&writers.closes(WRITER, &copy).0), ["pipe:[77]"]);
    writers.opens(WRITER, &copy);
    writers.reads(WRITER, OTHER, &pipe);
    writers.reads(WRITER, OTHER, &file("/srv/1", 8));
    assert_eq!(paths(&writers.closes(WRITER, &copy).0), ["/srv/1"]);
}
