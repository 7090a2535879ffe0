//! OCSF, checked by a validator of others with the schema that it carries.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use sekimori_formats::ocsf;
use serde_json::{Value, json};

use crate::{cache, events};

fn validate(all: &[Value]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validate_ocsf.py");
    let mut python = Command::new("/usr/bin/python3")
        .arg(script)
        .env("PYTHONPATH", cache("ocsf"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = all.iter().map(|event| format!("{event}\n")).collect();
    let mut stdin = python.stdin.take().unwrap();
    // It prints only when something is wrong, so that no pipe fills while this one is written.
    let written = stdin.write_all(lines.as_bytes());
    drop(stdin);
    let output = python.wait_with_output().unwrap();
    assert!(written.is_ok(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn every_event_is_valid() {
    let golden = events::golden().into_iter().map(|(_, event)| event);
    let all: Vec<Value> = golden.chain(events::every()).map(|event| ocsf(&event)).collect();
    let output = validate(&all);
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    let end = format!("{} events checked, 0 problems\n", all.len());
    assert!(output.status.success() && said == end, "{said}{why}");
}

/// The validator would say so.
#[test]
fn what_is_wrong_is_found() {
    let good = ocsf(&events::golden()[0].1);
    let changes = [
        ("/time", json!("2026-03-01T00:00:00Z"), "$.time"),
        ("/severity_id", json!(42), "$.severity_id"),
        ("/activity_name", json!("Delete"), "$.activity_name"),
        ("/type_uid", json!(100_101), "$.type_uid"),
        ("/file", json!({ "path": "/x" }), "'name' is a required property"),
        ("/actor/process/user", json!({ "uid": 7 }), "$.actor.process.user.uid"),
        ("/device/shoe_size", json!(7), "shoe_size"),
        ("/metadata/profiles", json!(["host", "linux/linux_users"]), "disposition_id"),
    ];
    for (pointer, value, expected) in changes {
        let mut bad = good.clone();
        let (object, name) = pointer.rsplit_once('/').unwrap();
        let object = bad.pointer_mut(object).unwrap().as_object_mut().unwrap();
        object.insert(name.to_owned(), value);
        let output = validate(&[bad]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(expected), "{pointer}: {said}");
    }
}
