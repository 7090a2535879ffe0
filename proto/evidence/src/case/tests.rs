#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Cursor, Read as _, Write as _};

use prost::Message as _;
use rstest::rstest;
use sekimori_proto::v1::{CaseRecord, Event, PolicyText};
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::*;
use crate::{Chain, Head, Name, SigningKey, digest};

struct Made {
    bytes: Vec<u8>,
    _dir: tempfile::TempDir,
    key: SigningKey,
}

fn body(sequence: u64, lane: u32, event: &Event) -> Vec<u8> {
    let mut body = event.encode_to_vec();
    Name { boot: &[1; 16], sequence, lane }.encode(&mut body);
    body
}

/// A case with one record, a policy and their checkpoint; `other` stands in place of the record.
fn made(other: Option<&str>) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let host_key = SigningKey::open(&dir.path().join("host")).unwrap();
    let key = SigningKey::open(&dir.path().join("collector")).unwrap();
    let mut chain = Chain::new(&[1; 16], Head::default(), 1);
    let mut writer = CaseWriter::new(Cursor::new(Vec::new()), Cursor::new(Vec::new()));
    let exec = |message: &str| Event { kind: 6, message: message.into(), ..Event::default() };
    let policy = PolicyText {
        name: "../../etc/passwd".into(),
        sha256: vec![5; 32],
        text_zstd: zstd::encode_all(&b"rules: []\n"[..], 1).unwrap(),
    };
    let policy = Event { kind: 101, policy: Some(policy), ..Event::default() };
    let mut stored = Vec::new();
    for (sequence, event) in [(1, exec("持出し")), (2, policy)] {
        let signed = body(sequence, 0, &event);
        chain.note(sequence, digest(&[&signed], 0));
        stored.push(signed);
    }
    let (checkpoint, _) = chain.sign(&host_key, 2, 0, 0);
    let checkpoint = Event { kind: 104, checkpoint: Some(checkpoint), ..Event::default() };
    let record = |cursor, event| CaseRecord { host: "営業".into(), cursor, event };
    let first = other.map_or(stored[0].clone(), |other| body(1, 0, &exec(other)));
    writer.record(&record(1, first), 0).unwrap();
    writer.proof(&record(2, stored[1].clone())).unwrap();
    writer.proof(&record(3, body(3, 1, &checkpoint))).unwrap();
    let manifest = Manifest { reason: "退職前の持出し".into(), ..Manifest::default() };
    let bytes = writer.finish(manifest, &key, Cursor::new(Vec::new())).unwrap().into_inner();
    Made { bytes, _dir: dir, key }
}

/// The same archive with one member changed, left out (`None`), or added.
fn with(bytes: &[u8], name: &str, change: impl Fn(Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut from = ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut to = ZipWriter::new(Cursor::new(Vec::new()));
    let mut names: Vec<String> = from.file_names().map(|it| it.unwrap().into_owned()).collect();
    if !names.iter().any(|it| it == name) {
        names.push(name.to_owned());
    }
    for member in names {
        let mut content = Vec::new();
        if let Ok(mut member) = from.by_name(&member) {
            member.read_to_end(&mut content).unwrap();
        }
        let content = if member == name { change(content) } else { Some(content) };
        if let Some(content) = content {
            to.start_file(member, SimpleFileOptions::default()).unwrap();
            to.write_all(&content).unwrap();
        }
    }
    to.finish().unwrap().into_inner()
}

#[test]
fn a_case_proves_itself() {
    let made = made(None);
    let Opened { manifest, outcome } = open(Cursor::new(&made.bytes)).unwrap();
    assert_eq!((manifest.records, manifest.reason.as_str()), (1, "退職前の持出し"));
    assert_eq!(manifest.collector_key, crate::hex(&made.key.public()));
    assert_eq!(outcome.findings, []);
    assert_eq!((outcome.summary.records, outcome.summary.proven), (3, 3));
    let mut archive = ZipArchive::new(Cursor::new(&made.bytes)).unwrap();
    let mut policy = String::new();
    archive.by_name("policies/1").unwrap().read_to_string(&mut policy).unwrap();
    assert_eq!(policy, "rules: []\n");
    let mut readable = String::new();
    archive.by_name("records.jsonl").unwrap().read_to_string(&mut readable).unwrap();
    assert!(readable.contains("持出し"), "{readable}");
}

#[test]
fn a_record_that_is_not_what_the_host_signed() {
    let made = made(Some("別の"));
    let outcome = open(Cursor::new(&made.bytes)).unwrap().outcome;
    let found: Vec<_> = outcome.findings.iter().map(|it| (it.kind(), it.first)).collect();
    assert_eq!(found, [(sekimori_proto::v1::FindingKind::Changed, 1)]);
}

#[rstest]
#[case("records.bin", "records.bin is not what case.json describes")]
#[case("records.jsonl", "records.jsonl is not what case.json describes")]
#[case("policies/1", "policies/1 is not what case.json describes")]
#[case("case.json", "the signature over case.json does not hold")]
#[case("case.sig", "the signature over case.json does not hold")]
fn what_was_changed_is_named(#[case] name: &str, #[case] expected: &str) {
    let made = made(None);
    let changed = with(&made.bytes, name, |mut content| {
        let place = content.iter().rposition(|byte| *byte == b'1' || *byte > 127).unwrap_or(1);
        *content.get_mut(place).unwrap() ^= 3;
        Some(content)
    });
    let error = open(Cursor::new(changed)).unwrap_err().to_string();
    assert!(error.starts_with(expected), "{error}");
}

#[rstest]
#[case("records.bin")]
#[case("proof.bin")]
#[case("case.sig")]
#[case("case.json")]
fn what_was_taken_out_is_named(#[case] name: &str) {
    let made = made(None);
    let error = open(Cursor::new(with(&made.bytes, name, |_| None))).unwrap_err().to_string();
    assert!(error.contains(name), "{error}");
}

#[test]
fn what_was_put_in_is_named() {
    let made = made(None);
    let added = with(&made.bytes, "../../etc/cron.d/x", |_| Some(b"* * * * *".to_vec()));
    let error = open(Cursor::new(added)).unwrap_err().to_string();
    assert!(error.starts_with("../../etc/cron.d/x is not in case.json"), "{error}");
}

#[test]
fn what_is_no_case() {
    for bytes in [&b""[..], b"PK\x03\x04", b"not a zip archive at all, but rather long"] {
        let error = open(Cursor::new(bytes)).unwrap_err().to_string();
        assert!(error.starts_with("it is no case"), "{error}");
    }
}
