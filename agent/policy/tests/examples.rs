//! The policies that come with the product say what their comments promise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;

use rstest::rstest;
use sekimori_abi::event::device_class;
use sekimori_policy::{
    Compiled, Directory, Peer, PluggedDevice, Question, Severity, Word, explain, lint, load,
};

struct Office;

impl Directory for Office {
    fn uid_of(&self, name: &str) -> Option<u32> {
        (name == "root").then_some(0)
    }

    fn members_of(&self, group: &str) -> Option<Vec<u32>> {
        match group {
            "jinji" => Some(vec![1000, 1001]),
            "sudo" => Some(vec![1002]),
            "haken" => Some(vec![1903]),
            _ => None,
        }
    }
}

fn source(name: &str) -> String {
    let path = format!("{}/../dist/policies/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).unwrap()
}

fn compiled(name: &str) -> Compiled {
    let (compiled, _) = load(&source(name), &Office, 7).unwrap();
    compiled
}

fn ask(kind: Word) -> Question {
    Question { kind, path: None, exe: None, user: None, device: None, peer: None }
}

fn file(kind: Word, path: &str, exe: &str, user: u32) -> Question {
    let path = Some(path.as_bytes().to_vec());
    let exe = Some(exe.as_bytes().to_vec());
    Question { path, exe, user: Some(user), ..ask(kind) }
}

fn stick(kind: Word, serial: &str) -> Question {
    let device = PluggedDevice {
        class: device_class::USB,
        vendor: 0x0951,
        product: 0x1666,
        serial: serial.to_owned(),
    };
    Question { device: Some(device), ..file(kind, "/media/stick/a", "/usr/bin/cp", 1000) }
}

fn peer(kind: Word, address: &str, port: u16, exe: &str) -> Question {
    let peer = Some(Peer { address: address.parse().unwrap(), port });
    Question { peer, ..file(kind, "/", exe, 1000) }
}

#[rstest]
#[case("demo", &[])]
#[case("observe-everything", &[])]
#[case("office", &[])]
fn examples_lint_clean(#[case] name: &str, #[case] warnings: &[&str]) {
    let findings = lint(&source(name));
    assert!(findings.iter().all(|it| it.severity == Severity::Warning), "{findings:#?}");
    let messages: Vec<&str> = findings.iter().map(|it| it.message.as_str()).collect();
    assert_eq!(messages, warnings);
}

#[rstest]
#[case(stick(Word::UsbWrite, "SEKI0001"), "allowed", None)]
#[case(stick(Word::UsbWrite, "SEKI00010"), "denied", Some("usb-only-company"))]
#[case(stick(Word::UsbWrite, ""), "denied", Some("usb-only-company"))]
#[case(
    file(Word::FileOpen, "/srv/confidential/a/b.txt", "/usr/bin/cat", 0),
    "denied",
    Some("confidential-no-open")
)]
#[case(
    file(Word::FileOpen, "/srv/confidential", "/usr/bin/cat", 0),
    "denied",
    Some("confidential-no-open")
)]
#[case(file(Word::FileOpen, "/srv/confidential/a", "/usr/bin/rsync", 0), "allowed", None)]
#[case(file(Word::FileOpen, "/srv/confidentially", "/usr/bin/cat", 0), "allowed", None)]
#[case(
    file(Word::FileOpen, "/home/花子/機密/一覧.csv", "/usr/bin/cat", 0),
    "denied",
    Some("confidential-no-open")
)]
#[case(file(Word::FileOpen, "/home/花子/公開/一覧.csv", "/usr/bin/cat", 0), "allowed", None)]
#[case(file(Word::FileOpen, "/home/a/b/機密/x", "/usr/bin/cat", 0), "allowed", None)]
#[case(
    file(Word::Exec, "/opt/forbidden/bin/tool", "/bin/sh", 0),
    "denied",
    Some("no-forbidden-tools")
)]
#[case(file(Word::Exec, "/opt/allowed/tool", "/opt/forbidden/sh", 0), "allowed", None)]
#[case(peer(Word::NetConnect, "127.0.0.2", 80, "/usr/bin/curl"), "denied", Some("no-upload-there"))]
#[case(peer(Word::NetConnect, "127.0.0.1", 80, "/usr/bin/curl"), "allowed", None)]
#[case(
    peer(Word::NetConnect, "10.66.255.1", 80, "/usr/bin/curl"),
    "denied",
    Some("no-upload-there")
)]
#[case(
    peer(Word::NetConnect, "::ffff:10.66.255.1", 80, "/usr/bin/curl"),
    "denied",
    Some("no-upload-there")
)]
fn demo_decides(#[case] question: Question, #[case] verdict: &str, #[case] rule: Option<&str>) {
    let explanation = explain(&compiled("demo"), &question);
    assert_eq!((explanation.verdict, explanation.rule.as_deref()), (verdict, rule));
    let told = explanation.tell.is_some_and(|tell| tell.contains("。"));
    assert_eq!(told, verdict == "denied");
}

#[rstest]
#[case(file(Word::FileOpen, "/srv/人事/評価.ods", "/usr/bin/soffice", 1000), "allowed", None)]
#[case(file(Word::FileOpen, "/srv/人事/評価.ods", "/usr/bin/soffice", 0), "allowed", None)]
#[case(
    file(Word::FileOpen, "/srv/給与/7月.ods", "/usr/bin/soffice", 1002),
    "denied",
    Some("personnel-only")
)]
#[case(
    file(Word::FileOpen, "/etc/sekimori/policy.yaml", "/usr/bin/cat", 1),
    "alerted",
    Some("agent-files-opened")
)]
#[case(file(Word::Exec, "/usr/bin/rclone", "/bin/bash", 1000), "denied", Some("no-sync-tools"))]
#[case(file(Word::Exec, "/usr/bin/rclone", "/bin/bash", 1002), "allowed", None)]
#[case(
    peer(Word::NetConnect, "203.0.113.1", 25, "/usr/bin/python3"),
    "would-deny",
    Some("mail-through-server")
)]
#[case(
    peer(Word::NetConnect, "2001:db8::1", 587, "/usr/bin/python3"),
    "would-deny",
    Some("mail-through-server")
)]
#[case(peer(Word::NetConnect, "203.0.113.1", 25, "/usr/lib/postfix/sbin/smtp"), "allowed", None)]
#[case(peer(Word::NetConnect, "203.0.113.1", 443, "/usr/bin/curl"), "allowed", None)]
#[case(
    peer(Word::NetUpload, "203.0.113.1", 443, "/usr/bin/curl"),
    "alerted",
    Some("upload-outside")
)]
#[case(peer(Word::NetUpload, "10.1.1.1", 443, "/usr/bin/curl"), "allowed", None)]
#[case(peer(Word::NetUpload, "::1", 443, "/usr/bin/curl"), "allowed", None)]
#[case(stick(Word::UsbMount, "X"), "alerted", Some("unknown-stick"))]
#[case(stick(Word::UsbWrite, "E0D55EA575"), "allowed", None)]
fn office_decides(#[case] question: Question, #[case] verdict: &str, #[case] rule: Option<&str>) {
    let explanation = explain(&compiled("office"), &question);
    assert_eq!((explanation.verdict, explanation.rule.as_deref()), (verdict, rule));
}

#[test]
fn explanation_names_the_condition_that_failed() {
    let question = file(Word::FileOpen, "/srv/confidential/a", "/usr/bin/rsync", 0);
    let explanation = explain(&compiled("demo"), &question);
    let text = explanation.to_string();
    assert_eq!(
        text,
        "file.open\n  labels: confidential\n  programs: backup-tools\n  \
         rule confidential-no-open (deny): does not apply\n    \
         unless program: is in backup-tools\nallowed: no rule applies"
    );
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["kind"], "file.open");
    assert_eq!(json["candidates"][0]["checks"][0]["holds"], true);
    assert_eq!(json["verdict"], "allowed");
}

#[test]
fn observe_everything_records_opens_and_refuses_nothing() {
    let compiled = compiled("observe-everything");
    let explanation = explain(&compiled, &file(Word::FileOpen, "/etc/passwd", "/bin/cat", 1));
    assert_eq!(explanation.rule.as_deref(), Some("record-every-open"));
    assert_eq!(explanation.verdict, "allowed");
    assert_eq!(compiled.tables.head.failed_opens, 0);
    assert_eq!(compiled.tables.generation, 7);
}
