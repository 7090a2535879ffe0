#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{escape, event, time, unescape};
use crate::v1::{
    ActPhase, Destination, Device, Event, File, Kind, Loss, Operation, OperatorAct, Process,
    Verdict,
};

proptest! {
    #[test]
    fn unescape_undoes_escape(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(unescape(&escape(&bytes)), Ok(bytes));
    }

    #[test]
    fn valid_text_without_a_backslash_stays(text in "[^\\\\]{0,40}") {
        prop_assert_eq!(escape(text.as_bytes()), text);
    }

    #[test]
    fn unescape_never_panics(text in ".{0,20}") {
        let _ = unescape(&text);
    }
}

#[test]
fn bytes_become_readable_text() {
    assert_eq!(escape("顧客/名簿.xlsx".as_bytes()), "顧客/名簿.xlsx");
    assert_eq!(escape(b"a\\b\xff\xfe\xe3\x81"), "a\\\\b\\xff\\xfe\\xe3\\x81");
    assert_eq!(unescape("a\\xFF").unwrap(), b"a\xff");
    for (bad, offset) in [("\\", 0), ("ab\\n", 2), ("\\x4", 0), ("\\x\\xzz", 0), ("あ\\q", 3)] {
        assert_eq!(unescape(bad).unwrap_err().offset, offset, "{bad}");
    }
}

#[test]
fn times_have_nine_digits() {
    assert_eq!(time(0), "1970-01-01T00:00:00.000000000Z");
    assert_eq!(time(1_767_323_045_000_000_006), "2026-01-02T03:04:05.000000006Z");
    assert_eq!(time(-1), "1969-12-31T23:59:59.999999999Z");
    assert!(time(i64::MIN).is_string() && time(i64::MAX).is_string());
}

#[test]
fn an_empty_event_has_every_name_of_the_contract() {
    assert_eq!(
        event(&Event::default()),
        json!({
            "time": "1970-01-01T00:00:00.000000000Z", "host": "", "seq": 0,
            "kind": "unspecified", "verdict": "unspecified", "rule": null, "process": null,
            "file": null, "bytes": null, "calls": null, "destination": null, "errno": null,
            "truncated": false,
        })
    );
    let nested = Event {
        process: Some(Process::default()),
        file: Some(File { device: Some(Device::default()), ..File::default() }),
        destination: Some(Destination::default()),
        ..Event::default()
    };
    let value = event(&nested);
    assert_eq!(
        value["process"],
        json!({
            "pid": 0, "start": null, "exe": null, "argv": null, "uid": 0, "user": null,
            "login_uid": null, "tty": null, "parent": null,
        })
    );
    let device = json!({ "class": null, "vendor": null, "product": null, "serial": null });
    assert_eq!(value["file"], json!({ "path": null, "inode": null, "device": device }));
    assert_eq!(value["destination"], json!({ "ip": null, "port": null, "protocol": null }));
}

fn full() -> Event {
    let parent = Process { pid: 7, comm: b"bash".to_vec(), ..Process::default() };
    let process = Process {
        pid: 42,
        start_ns: 1,
        exe: b"/usr/bin/cp".to_vec(),
        argv: vec![b"cp".to_vec(), "名簿".into(), b"\xff".to_vec()],
        cwd: b"/home/\xe3".to_vec(),
        environment: vec![b"LD_PRELOAD=/\xff.so".to_vec()],
        environment_truncated: true,
        uid: 1000,
        user: "花子".to_owned(),
        login_uid: Some(0),
        tty: "pts/0".to_owned(),
        parent: Some(Box::new(parent)),
        ..Process::default()
    };
    let device = Device {
        class: "usb".to_owned(),
        vendor: "0951".to_owned(),
        product: "1666".to_owned(),
        serial: "E0D5".to_owned(),
        major: 8,
        minor: 1,
        port: "1-2".to_owned(),
        functions: vec!["storage".to_owned()],
        ..Device::default()
    };
    let file = File {
        path: b"/mnt/a".to_vec(),
        new_path: b"/mnt/\\b".to_vec(),
        inode: 5,
        device: Some(device),
        unlinked: true,
        ..File::default()
    };
    Event {
        host: "h1".to_owned(),
        boot: vec![0xab; 16],
        sequence: 9,
        kind: Kind::UsbWrite.into(),
        operation: Operation::Rename.into(),
        verdict: Verdict::WouldDeny.into(),
        rule: "r".to_owned(),
        process: Some(process),
        file: Some(file),
        bytes: Some(0),
        errno: Some(13),
        cursor: 77,
        sources: vec![File { path: "/srv/元".into(), ..File::default() }],
        more_sources: true,
        sha256: vec![0xcd; 32],
        sha256_missing: "gone".to_owned(),
        ..Event::default()
    }
}

#[test]
fn values_stand_under_their_names() {
    let value = event(&full());
    for (pointer, expected) in [
        ("/kind", json!("usb.write")),
        ("/verdict", json!("would-deny")),
        ("/operation", json!("rename")),
        ("/bytes", json!(0)),
        ("/calls", Value::Null),
        ("/errno", json!(13)),
        ("/cursor", json!(77)),
        ("/boot", json!("ab".repeat(16))),
        ("/process/start", json!("1970-01-01T00:00:00.000000001Z")),
        ("/process/argv", json!(["cp", "名簿", "\\xff"])),
        ("/process/cwd", json!("/home/\\xe3")),
        ("/process/environment", json!(["LD_PRELOAD=/\\xff.so"])),
        ("/process/environment_truncated", json!(true)),
        ("/process/user", json!("花子")),
        ("/process/login_uid", json!(0)),
        ("/process/parent/pid", json!(7)),
        ("/process/parent/comm", json!("bash")),
        ("/process/parent/parent", Value::Null),
        ("/file/new_path", json!("/mnt/\\\\b")),
        ("/file/unlinked", json!(true)),
        ("/file/device/serial", json!("E0D5")),
        ("/file/device/minor", json!(1)),
        ("/file/device/port", json!("1-2")),
        ("/file/device/functions", json!(["storage"])),
        ("/sources/0/path", json!("/srv/元")),
        ("/more_sources", json!(true)),
        ("/sha256", json!("cd".repeat(32))),
        ("/sha256_missing", json!("gone")),
    ] {
        assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
    }
    assert!(value.get("loss").is_none() && value.get("message").is_none());
}

#[test]
fn losses_and_destinations_are_told() {
    let lost = Event {
        kind: Kind::Loss.into(),
        loss: Some(Loss {
            stage: "ring".to_owned(),
            kind: Kind::Exec.into(),
            count: 3,
            reason: "full".to_owned(),
        }),
        destination: Some(Destination { path: b"/run/a\xff".to_vec(), ..Destination::default() }),
        ..Event::default()
    };
    let value = event(&lost);
    let loss = json!({ "stage": "ring", "kind": "exec", "count": 3, "reason": "full" });
    assert_eq!(value["loss"], loss);
    let unix = json!({ "ip": null, "port": null, "protocol": null, "path": "/run/a\\xff" });
    assert_eq!(value["destination"], unix);
}

#[test]
fn acts_of_operators_are_told() {
    let act = OperatorAct {
        name: "alice".to_owned(),
        role: "analyst".to_owned(),
        method: "Search".to_owned(),
        question: "--user 花子".to_owned(),
        answered: 12,
        ..OperatorAct::default()
    };
    let mut asked =
        Event { kind: Kind::Operator.into(), act: Some(act.clone()), ..Event::default() };
    let expected = json!({
        "name": "alice", "role": "analyst", "method": "Search", "question": "--user 花子",
        "answered": 12, "address": null, "phase": null,
    });
    assert_eq!(event(&asked)["act"], expected);
    assert_eq!(event(&asked)["kind"], "operator");
    let phase = ActPhase::Continued.into();
    asked.act = Some(OperatorAct { address: "192.0.2.1:5".to_owned(), phase, ..act });
    assert_eq!(event(&asked)["act"]["phase"], "continued");
    assert_eq!(event(&asked)["act"]["address"], "192.0.2.1:5");
}
