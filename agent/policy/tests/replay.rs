//! What a policy says of records.
#![allow(clippy::unwrap_used, reason = "tests")]

use rstest::rstest;
use sekimori_abi::event::{device_class, verdict};
use sekimori_policy::{Judged, Peer, PluggedDevice, Replay, Seen, Unknown, Word};

const POLICY: &str = "\
apiVersion: sekimori/v1
kind: Policy
metadata: { name: replayed }
mode: enforce
labels:
  - { name: customers, paths: ['/srv/customers/**'] }
programs:
  - { name: sync, exe: [/usr/bin/rclone] }
users:
  - { name: team, users: [hanako, '1004'] }
  - { name: contractors, groups: [contractors] }
devices:
  - { name: ours, usb: { vendor: '0951', product: '1666', serials: [S1] } }
destinations:
  - { name: company, cidrs: [10.0.0.0/8] }
rules:
  - { id: usb, on: usb.write, action: deny, unless: { device: ours } }
  - { id: sync, on: net.connect, when: { program: sync }, action: alert }
  - { id: upload, on: net.upload, when: { user: team }, unless: { destination: company }, action: deny }
  - { id: read, on: file.open, when: { label: customers }, unless: { user: team }, action: alert }
  - { id: hired, on: exec, when: { user: contractors }, action: deny, mode: observe }
";

fn seen(kind: Word) -> Seen {
    Seen {
        kind,
        connects: false,
        path: Some(b"/tmp/x".to_vec()),
        exe: Some(b"/bin/cp".to_vec()),
        user: (1000, "taro".to_owned()),
        device: None,
        peer: None,
    }
}

fn stick(serial: &str) -> Option<PluggedDevice> {
    let (class, vendor, product) = (device_class::USB, 0x0951, 0x1666);
    Some(PluggedDevice { class, vendor, product, serial: serial.to_owned() })
}

fn peer(address: &str) -> Option<Peer> {
    Some(Peer { address: address.parse().unwrap(), port: 443 })
}

fn path(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

fn known(verdict: u8, rule: &str) -> Judged {
    Judged::Known(verdict, (!rule.is_empty()).then(|| rule.to_owned()))
}

#[rstest]
#[case::other_stick(Seen { device: stick("S2"), ..seen(Word::UsbWrite) }, known(verdict::DENIED, "usb"))]
#[case::our_stick(Seen { device: stick("S1"), ..seen(Word::UsbWrite) }, known(verdict::ALLOWED, ""))]
#[case::sync(
    Seen { exe: path("/usr/bin/rclone"), peer: peer("192.0.2.1"), ..seen(Word::NetConnect) },
    known(verdict::ALERTED, "sync")
)]
#[case::refused_already_at_the_connect(
    Seen { connects: true, user: (7, "hanako".into()), peer: peer("192.0.2.1"), ..seen(Word::NetConnect) },
    known(verdict::DENIED, "upload")
)]
#[case::by_number(
    Seen { user: (1004, String::new()), peer: peer("192.0.2.1"), ..seen(Word::NetUpload) },
    known(verdict::DENIED, "upload")
)]
#[case::company(
    Seen { user: (1004, String::new()), peer: peer("10.1.1.1"), ..seen(Word::NetUpload) },
    known(verdict::ALLOWED, "")
)]
#[case::labelled(
    Seen { path: path("/srv/customers/a"), ..seen(Word::FileOpen) },
    known(verdict::ALERTED, "read")
)]
#[case::not_them(
    Seen { path: path("/srv/customers/a"), user: (7, "hanako".into()), ..seen(Word::FileOpen) },
    known(verdict::ALLOWED, "")
)]
#[case::who_was_in_the_group(seen(Word::Exec), Judged::Unknown(Unknown::Group))]
#[case::where_it_was(Seen { path: None, ..seen(Word::FileOpen) }, Judged::Unknown(Unknown::Path))]
#[case::where_does_not_matter(
    Seen { path: None, device: stick("S2"), ..seen(Word::UsbWrite) },
    known(verdict::DENIED, "usb")
)]
#[case::which_program(
    Seen { exe: None, peer: peer("192.0.2.1"), ..seen(Word::NetConnect) },
    Judged::Unknown(Unknown::Program)
)]
fn a_record_is_judged(#[case] seen: Seen, #[case] expected: Judged) {
    let (replay, warnings) = Replay::new(POLICY.as_bytes()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(replay.judge(&seen), expected);
}

#[test]
fn what_is_refused_whoever_it_was_is_known() {
    let more = "  - { id: all, on: exec, when: { program: sync }, action: deny }\n";
    let (replay, _) = Replay::new(format!("{POLICY}{more}").as_bytes()).unwrap();
    let launched = Seen { path: path("/usr/bin/rclone"), ..seen(Word::Exec) };
    assert_eq!(replay.judge(&launched), known(verdict::DENIED, "all"));
}

#[test]
fn a_policy_with_errors_is_not_asked() {
    let findings = Replay::new(b"apiVersion: sekimori/v1\nkind: Polcy\n").unwrap_err();
    assert!(findings.iter().any(|finding| finding.line == 2), "{findings:?}");
}
