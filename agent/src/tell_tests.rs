//! What people read, and how often.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::Read as _;
use std::os::fd::AsFd as _;

use rstest::rstest;
use sekimori_proto::v1::{Destination, Device, File as ProtoFile};

use super::*;

fn denied(kind: Kind, operation: Operation, path: &[u8]) -> Event {
    let usb = matches!(kind, Kind::UsbWrite | Kind::UsbMount);
    let device = usb.then(|| Device {
        class: "usb".into(),
        vendor: "0951".into(),
        product: "1666".into(),
        serial: "E0D55".into(),
        ..Device::default()
    });
    Event {
        kind: kind.into(),
        operation: operation.into(),
        verdict: Verdict::Denied.into(),
        rule: "usb-only-company".into(),
        process: Some(Process { tty: "pts/3".into(), ..Process::default() }),
        file: Some(ProtoFile { path: path.to_vec(), device, ..ProtoFile::default() }),
        ..Event::default()
    }
}

#[test]
fn the_message_has_the_text_the_rule_and_what_was_refused() {
    let event = denied(Kind::UsbWrite, Operation::Open, "/media/顧客.xlsx".as_bytes());
    assert_eq!(
        message(&event, "USBメモリは使えません。\nAsk it@corp.example.\n", 0),
        "\r\nSekimori: USBメモリは使えません。\r\n  Ask it@corp.example.\r\n  \
         rule usb-only-company: write to /media/顧客.xlsx on USB 0951:1666 E0D55\r\n"
    );
}

#[rstest]
#[case(Kind::Exec, Operation::Exec, "launch of /a\\u{1b}[2Jb")]
#[case(Kind::Exec, Operation::Load, "load of /a\\u{1b}[2Jb")]
#[case(Kind::FileOpen, Operation::Open, "open of /a\\u{1b}[2Jb")]
#[case(Kind::UsbWrite, Operation::Mkdir, "creation of /a\\u{1b}[2Jb on USB 0951:1666 E0D55")]
#[case(Kind::UsbWrite, Operation::Unlink, "removal of /a\\u{1b}[2Jb on USB 0951:1666 E0D55")]
#[case(Kind::UsbMount, Operation::Mount, "mount on USB 0951:1666 E0D55")]
fn names_cannot_steer_the_terminal(
    #[case] kind: Kind,
    #[case] operation: Operation,
    #[case] text: &str,
) {
    assert_eq!(refused(&denied(kind, operation, b"/a\x1b[2Jb")), text);
}

#[rstest]
#[case("192.0.2.7", "connection to 192.0.2.7:443 (tcp)")]
#[case("2001:db8::7", "connection to [2001:db8::7]:443 (tcp)")]
fn a_peer_is_named(#[case] ip: &str, #[case] text: &str) {
    let mut event = denied(Kind::NetConnect, Operation::Connect, b"");
    let (ip, protocol) = (ip.into(), "tcp".into());
    event.destination = Some(Destination { ip, port: 443, protocol, ..Default::default() });
    assert_eq!(refused(&event), text);
}

#[test]
fn a_long_name_is_cut_between_characters() {
    let event = denied(Kind::FileOpen, Operation::Open, "あ".repeat(1300).as_bytes());
    let message = message(&event, "no", 0);
    assert!(message.ends_with("あ…\r\n"), "{message:?}");
    assert!(message.len() <= TELL_BYTES_MAX + 8);
}

#[test]
fn three_at_once_then_one_in_two_seconds() {
    let mut tell = Tell::new();
    let start = Instant::now();
    let answers: Vec<_> = (0..5).map(|_| tell.admit("pts/1", "r", start)).collect();
    assert_eq!(answers, [Some(0), Some(0), Some(0), None, None]);
    assert_eq!(tell.admit("pts/2", "r", start), Some(0), "another terminal has its own count");
    assert_eq!(tell.admit("pts/1", "s", start), Some(0), "another rule has its own count");
    let later = start + Duration::from_millis(2100);
    assert_eq!(tell.admit("pts/1", "r", later), Some(2), "says how many were not told");
    assert_eq!(tell.admit("pts/1", "r", later), None);
}

#[test]
fn all_terminals_together_are_limited() {
    let mut tell = Tell::new();
    let now = Instant::now();
    let told = (0..100).filter(|n| tell.admit(&format!("pts/{n}"), "r", now).is_some()).count();
    assert_eq!(told, 20);
}

#[rstest]
#[case("pts/12", true)]
#[case("tty1", true)]
#[case("ttyS0", true)]
#[case("pts/", false)]
#[case("pts/../sda", false)]
#[case("tty/../sda", false)]
#[case("console", false)]
#[case("../etc/passwd", false)]
fn only_terminals_are_opened(#[case] tty: &str, #[case] good: bool) {
    assert_eq!(device_name(tty).is_ok(), good);
}

#[test]
fn a_file_in_the_place_of_a_terminal_gets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("pts")).unwrap();
    let file = directory.path().join("pts/3");
    std::fs::write(&file, "kept").unwrap();
    let process = Process { tty: "pts/3".into(), ..Process::default() };
    let error = write(directory.path(), &process, "text").unwrap_err();
    assert!(matches!(error, TellError::NotTerminal(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
}

/// A terminal of our own, and the refusal of a launch on it.
fn refused_on_a_terminal() -> (nix::pty::OpenptyResult, Event) {
    let pair = nix::pty::openpty(None, None).unwrap();
    let name = nix::unistd::ttyname(pair.slave.as_fd()).unwrap();
    let tty = name.strip_prefix("/dev").unwrap().to_str().unwrap().to_owned();
    let uid = nix::unistd::getuid().as_raw();
    let mut event = denied(Kind::Exec, Operation::Exec, b"/usr/bin/rclone");
    event.process = Some(Process { tty, uid, ..Process::default() });
    (pair, event)
}

#[test]
fn a_real_terminal_gets_the_message() {
    let (pair, event) = refused_on_a_terminal();
    let mut tell = Tell::new();
    tell.refused(&event, "Not here.", Instant::now());
    assert_eq!(tell.told(), Told { written: 1, ..Told::default() });
    let mut text = [0; 256];
    let count = std::fs::File::from(pair.master).read(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text[..count]).replace('\r', "");
    assert_eq!(text, "\nSekimori: Not here.\n  rule usb-only-company: launch of /usr/bin/rclone\n");
}

/// Somebody held the terminal with ^S, or was writing on it.
#[test]
fn a_busy_terminal_is_tried_again() {
    use nix::sys::termios::{FlowArg, tcflow};

    let (pair, event) = refused_on_a_terminal();
    let mut tell = Tell::new();
    let now = Instant::now();
    tcflow(&pair.slave, FlowArg::TCOOFF).unwrap();
    tell.refused(&event, "Not here.", now);
    tell.refused(&event, "Not here either.", now);
    assert_eq!(tell.told(), Told::default());
    tcflow(&pair.slave, FlowArg::TCOON).unwrap();
    tell.again(now);
    assert_eq!(tell.told(), Told { written: 2, ..Told::default() });
    tcflow(&pair.slave, FlowArg::TCOOFF).unwrap();
    tell.refused(&event, "Not here.", now);
    tell.again(now + TELL_PATIENCE);
    assert_eq!(tell.told(), Told { written: 2, failed: 1, ..Told::default() });
}
