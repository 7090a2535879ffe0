//! Golden lines.
#![allow(clippy::unwrap_used, reason = "tests")]

use rstest::rstest;
use sekimori_proto::v1::{Destination, Device, File, Loss};

use super::*;

/// 2026-03-01T16:30:00.123Z.
const TIME: i64 = 1_772_382_600_123_456_789;

fn event(kind: Kind, operation: Operation, verdict: Verdict) -> Event {
    Event {
        host: "desk-12".into(),
        time_ns: TIME,
        kind: kind.into(),
        operation: operation.into(),
        verdict: verdict.into(),
        process: Some(Process {
            exe: b"/usr/bin/cp".to_vec(),
            argv: vec![b"cp".to_vec(), b"a b".to_vec(), b"/mnt".to_vec()],
            user: "alice".into(),
            ..Process::default()
        }),
        ..Event::default()
    }
}

fn on_stick(mut event: Event, path: &str) -> Event {
    let device = Device {
        class: "usb".into(),
        vendor: "0951".into(),
        product: "1666".into(),
        serial: "E0D55".into(),
        ..Device::default()
    };
    event.file = Some(File { path: path.into(), device: Some(device), ..File::default() });
    event
}

fn plain(event: &Event) -> String {
    let line = show(event, false, &TimeZone::UTC);
    anstream::adapter::strip_str(&line).to_string()
}

#[test]
fn a_denied_write_to_a_stick() {
    let denied = event(Kind::UsbWrite, Operation::Create, Verdict::Denied);
    let mut denied = on_stick(denied, "/media/usb/顧客.xlsx");
    denied.rule = "usb-only-company".into();
    denied.errno = Some(1);
    assert_eq!(
        plain(&denied),
        "16:30:00.123 desk-12    ✗ usb.write   create   alice    cp           \
         /media/usb/顧客.xlsx  usb 0951:1666 E0D55  [usb-only-company]"
    );
}

#[test]
fn a_receipt_has_bytes_and_serial() {
    let closed = event(Kind::UsbWrite, Operation::Close, Verdict::Allowed);
    let mut closed = on_stick(closed, "/media/usb/x");
    closed.bytes = Some(1_572_864);
    assert_eq!(
        plain(&closed),
        "16:30:00.123 desk-12    · usb.write   close    alice    cp           \
         /media/usb/x  1.5 MiB  usb 0951:1666 E0D55"
    );
}

#[test]
fn an_upload_has_its_peer_and_both_directions() {
    let mut upload = event(Kind::NetUpload, Operation::Close, Verdict::Alerted);
    let (ip, protocol) = ("2001:db8::7".into(), "tcp".into());
    upload.destination = Some(Destination { ip, port: 443, protocol, ..Default::default() });
    (upload.bytes, upload.bytes_in) = (Some(2048), Some(100));
    upload.rule = "夜".into();
    assert_eq!(
        plain(&upload),
        "16:30:00.123 desk-12    ! net.upload  close    alice    cp           \
         [2001:db8::7]:443/tcp  2.0 KiB out, 100 B in  [夜]"
    );
}

#[test]
fn a_launch_shows_the_command_line_and_a_refused_one_the_program() {
    let mut exec = event(Kind::Exec, Operation::Exec, Verdict::Allowed);
    exec.file = Some(File { path: b"/usr/bin/cp".to_vec(), ..File::default() });
    assert!(plain(&exec).ends_with("cp           cp 'a b' /mnt"), "{}", plain(&exec));
    if let Some(process) = &mut exec.process {
        process.environment = vec![b"LD_PRELOAD=/x.so".to_vec()];
    }
    let line = plain(&exec);
    assert!(line.ends_with("cp           LD_PRELOAD=/x.so cp 'a b' /mnt"), "{line}");
    exec.verdict = Verdict::Denied.into();
    assert!(plain(&exec).ends_with("cp           /usr/bin/cp"), "{}", plain(&exec));
    (exec.verdict, exec.operation) = (Verdict::Alerted.into(), Operation::Load.into());
    assert!(plain(&exec).ends_with("cp           /usr/bin/cp"), "{}", plain(&exec));
}

#[test]
fn losses_and_the_agents_own_words() {
    let mut loss = event(Kind::Loss, Operation::Unspecified, Verdict::Allowed);
    let (stage, reason) = ("ring".into(), "the ring was full".into());
    loss.loss = Some(Loss { stage, kind: Kind::FileOpen.into(), count: 37, reason });
    assert_eq!(
        plain(&loss),
        "16:30:00.123 desk-12    ! loss        37 × file.open lost at ring: the ring was full"
    );
    let mut agent = event(Kind::Agent, Operation::Unspecified, Verdict::Allowed);
    agent.message = "started".into();
    assert_eq!(plain(&agent), "16:30:00.123 desk-12    · agent       started");
}

#[rstest]
#[case(ActPhase::Unspecified, "→ 12 events")]
#[case(ActPhase::Continued, "→ 12 events more")]
#[case(ActPhase::Begin, "→ begins")]
#[case(ActPhase::End, "→ ended after 12 events")]
fn who_read_what(#[case] phase: ActPhase, #[case] end: &str) {
    let mut asked = event(Kind::Operator, Operation::Unspecified, Verdict::Allowed);
    let act = OperatorAct {
        name: "alice".into(),
        role: "analyst".into(),
        method: "Search".into(),
        question: "--user '花子\n'".into(),
        answered: 12,
        address: "192.0.2.1:5".into(),
        phase: phase.into(),
    };
    asked.act = Some(act.clone());
    let begin = "16:30:00.123 desk-12    · operator    analyst alice from 192.0.2.1:5: \
                 Search --user '花子\\u{a}'";
    assert_eq!(plain(&asked), format!("{begin} {end}"));
    let address = String::new();
    asked.act = Some(OperatorAct { question: "x".repeat(200), address, ..act });
    let line = plain(&asked);
    assert!(line.contains("analyst alice: Search xxx"), "{line}");
    assert!(line.ends_with(&format!("xx… {end}")), "{line}");
}

#[rstest]
#[case("", "", "0")]
#[case("alice", "", "alice")]
#[case("root", "alice", "alice→root")]
#[case("alice", "alice", "alice")]
fn who_became_root_is_shown(#[case] user: &str, #[case] login: &str, #[case] shown: &str) {
    let process = Process { user: user.into(), login_user: login.into(), ..Process::default() };
    assert_eq!(super::user(&process), shown);
}

#[test]
fn names_cannot_break_the_line() {
    let mut open = event(Kind::FileOpen, Operation::Open, Verdict::Allowed);
    open.file = Some(File { path: b"/a\n\x1b[2J\xff".to_vec(), ..File::default() });
    open.errno = Some(13);
    let line = plain(&open);
    assert!(line.ends_with("/a\\u{a}\\u{1b}[2J\\xff  EACCES"), "{line}");
}

#[test]
fn colours_mark_the_denied_and_only_them_red() {
    let denied = event(Kind::FileOpen, Operation::Open, Verdict::Denied);
    let line = show(&denied, false, &TimeZone::UTC);
    assert!(line.contains("\u{1b}[1m\u{1b}[31m✗\u{1b}[0m"), "{line:?}");
    let allowed = event(Kind::FileOpen, Operation::Open, Verdict::Allowed);
    assert!(!show(&allowed, false, &TimeZone::UTC).contains("[31m"));
}

#[rstest]
#[case("ab", 4, "ab  ")]
#[case("abcdef", 4, "abc…")]
#[case("顧客", 5, "顧客 ")]
#[case("顧客情報", 4, "顧… ")]
fn columns_are_counted_as_they_look(#[case] text: &str, #[case] columns: usize, #[case] fit: &str) {
    assert_eq!(super::fit(text, columns), fit);
}

#[rstest]
#[case(0, "0 B")]
#[case(1023, "1023 B")]
#[case(1024, "1.0 KiB")]
#[case(1_048_575, "1.0 MiB")]
#[case(1_073_741_824, "1.0 GiB")]
#[case(u64::MAX, "16.0 EiB")]
fn sizes_are_readable(#[case] count: u64, #[case] text: &str) {
    assert_eq!(bytes(count), text);
}
