//! `sekimori-collector archive` beside a collector that runs, and what a reader that is not ours
//! finds in what it wrote.

mod bucket;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use prost::Message as _;
use sekimori_proto::v1::{Device, Event, File, Filter, Kind, Process};
use serde_json::Value;

use crate::nats::cached;
use crate::support::{Pki, Server, event, search_all};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sekimori-collector");
const SEALED: &str = "000001-2026-01-01";
const PATH: &str = "/media/USB/顧客名簿 2026年度.xlsx";

fn archive(pki: &Pki, to: &Path) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("archive").arg("--dir").arg(&pki.dir).arg("--to").arg(to).output().unwrap()
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Writes to a stick among opens; one of them under a Japanese name.
fn mixed(sequence: u64) -> Event {
    let plain = event(sequence);
    if !sequence.is_multiple_of(10) {
        return plain;
    }
    let path = if sequence == 500 { PATH.to_owned() } else { format!("/media/USB/{sequence}") };
    let device = Device { serial: "E0D55EA573F3".into(), ..Device::default() };
    Event {
        kind: Kind::UsbWrite.into(),
        // Times of today have nanoseconds.
        time_ns: 1_793_491_200_123_456_000 + i64::try_from(sequence).unwrap(),
        bytes: Some(sequence << 32),
        file: Some(File { path: path.into(), device: Some(device), ..File::default() }),
        process: Some(Process {
            pid: 4_000_000_000,
            argv: vec![b"cp".to_vec(), "名簿.xlsx".into(), b"\xff".to_vec()],
            ..Process::default()
        }),
        ..plain
    }
}

/// A collector whose first file has these events and is of another day, so that it writes to the
/// next one.
async fn sealed(count: u64) -> Server {
    sealed_with(count, mixed).await
}

async fn sealed_with(count: u64, event: fn(u64) -> Event) -> Server {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    let numbers: Vec<u64> = (1..=count).collect();
    for part in numbers.chunks(200) {
        agent.deliver(part.iter().map(|it| event(*it)).collect()).await.unwrap();
    }
    drop(agent);
    let pki = server.stop().await;
    let store = pki.dir.join("store");
    let files = fs::read_dir(&store).unwrap().map(|it| it.unwrap().path());
    let [file]: [PathBuf; 1] = files
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.ends_with(".db") && name.starts_with(|it: char| it.is_ascii_digit())
        })
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    fs::rename(file, store.join(format!("{SEALED}.db"))).unwrap();
    let server = Server::start_with(pki, |config| config).await;
    let mut agent = server.agent("pc-1").await;
    agent.deliver(vec![event(count + 1)]).await.unwrap();
    server
}

fn ask(files: &[PathBuf]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/collector/archive.py");
    let output = Command::new(cached("parquet-reader/bin/python"))
        .arg(script)
        .arg(PATH)
        .args(files)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", told(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn another_reader_finds_what_the_store_has() {
    let server = sealed(1200).await;
    let to = server.pki.dir.join("archive");
    let output = archive(&server.pki, &to);
    assert!(output.status.success(), "{}", told(&output));
    let found = ask(&[to.join(format!("{SEALED}.parquet"))]);
    // Everything up to the last event of the first file, with what the collector itself recorded.
    let mut stored = search_all(&mut server.query().await, Filter::default(), 1000).await;
    let next = stored.iter().find(|event| event.sequence == 1201 && event.host == "pc-1");
    let next = next.unwrap().cursor;
    let text = fs::read_to_string(to.join("manifest.jsonl")).unwrap();
    let line: Value = serde_json::from_str(&text).unwrap();
    let last = line["last_cursor"].as_u64().unwrap();
    assert!((1200..next).contains(&last), "{line}");
    stored.retain(|event| event.cursor <= last && event.kind() != Kind::Operator);
    stored.sort_by_key(|event| event.cursor);
    let wanted: Vec<&Event> = stored.iter().filter(|event| event.host == "pc-1").collect();
    assert_eq!(wanted.len(), 1200);
    let bytes: u64 = wanted.iter().filter_map(|event| event.bytes).sum();
    assert_eq!(found["bytes"], bytes);
    assert_eq!(found["rows"], line["rows"]);
    assert_eq!(found["rows"].as_u64().unwrap(), found["events"].as_array().unwrap().len() as u64);
    let japanese = wanted.iter().find(|event| event.sequence == 500).unwrap();
    let row = serde_json::json!([[
        japanese.cursor,
        "E0D55EA573F3",
        4_000_000_000_u32,
        "cp 名簿.xlsx \\xff"
    ]]);
    assert_eq!(found["path"], row);
    let types = found["types"].as_array().unwrap();
    for expected in [
        ["cursor", "UBIGINT"],
        ["host", "VARCHAR"],
        ["pid", "UINTEGER"],
        ["bytes", "UBIGINT"],
        ["event", "BLOB"],
    ] {
        assert!(types.contains(&serde_json::json!(expected)), "{expected:?} in {types:?}");
    }
    // The bytes as the agent sent them.
    let events = found["events"].as_array().unwrap();
    let of_agent: Vec<_> = events.iter().filter(|row| row[1] == "pc-1").collect();
    assert_eq!(of_agent.len(), 1200);
    for (row, event) in of_agent.iter().zip(wanted) {
        let sent = mixed(event.sequence).encode_to_vec();
        let sent: String = sent.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!((&row[0], &row[2]), (&Value::from(event.cursor), &Value::from(sent)));
    }
}

#[tokio::test]
async fn a_run_that_is_killed_leaves_no_half_file_and_the_next_one_goes_on() {
    let server = sealed(40_000).await;
    let to = server.pki.dir.join("archive");
    let file = to.join(format!("{SEALED}.parquet"));
    let mut killed_in_the_middle = 0;
    for _ in 0..20 {
        let mut child = Command::new(PROGRAM)
            .arg("archive")
            .arg("--dir")
            .arg(&server.pki.dir)
            .arg("--to")
            .arg(&to)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while child.try_wait().unwrap().is_none() && parts(&to) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if parts(&to) > 0 {
            assert!(!file.exists());
            killed_in_the_middle += 1;
            if killed_in_the_middle == 3 {
                break;
            }
        }
        let _ = fs::remove_file(&file);
    }
    assert_eq!(killed_in_the_middle, 3, "it was always faster");
    let output = archive(&server.pki, &to);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(parts(&to), 0);
    assert!(ask(&[file])["rows"].as_u64().unwrap() >= 40_000);
    let output = archive(&server.pki, &to);
    assert!(told(&output).contains("0 files written with 0 events and 0 bytes, 1 were there"));
}

fn parts(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part")).count()
}

#[tokio::test]
async fn exit_codes_say_what_became_of_it() {
    let server = sealed(2000).await;
    let to = server.pki.dir.join("archive");
    let inside = archive(&server.pki, &server.pki.dir.join("store/archive"));
    assert_eq!(inside.status.code(), Some(64), "{}", told(&inside));
    assert!(told(&inside).contains("it lies in the store"), "{}", told(&inside));
    let pki = server.stop().await;
    let path = pki.dir.join(format!("store/{SEALED}.db"));
    let connection = rusqlite::Connection::open(&path).unwrap();
    let spoiled = "UPDATE bodies SET body = x'00' WHERE block = (SELECT min(block) FROM bodies)";
    assert_eq!(connection.execute(spoiled, []).unwrap(), 1);
    drop(connection);
    let damaged = archive(&pki, &to);
    assert_eq!(damaged.status.code(), Some(1), "{}", told(&damaged));
    let text = told(&damaged);
    assert!(text.contains("1 parts of the store could not be read"), "{text}");
    assert!(ask(&[to.join(format!("{SEALED}.parquet"))])["rows"].as_u64().unwrap() > 0);
    let missing = Command::new(PROGRAM).args(["archive", "--to", "x"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(64));
}
