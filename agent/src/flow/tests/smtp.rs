//! SMTP in clear.

use rstest::rstest;
use sekimori_proto::v1::{Destination, SmtpEnvelope};

use super::{SOCKET, described, sent};
use crate::flow::Flows;
use crate::limits::RECIPIENTS_MAX;

fn envelope(from: &str, to: &[&str], more: bool) -> Option<SmtpEnvelope> {
    let to = to.iter().map(|it| (*it).to_owned()).collect();
    Some(SmtpEnvelope { from: from.to_owned(), to, more })
}

const DIALOGUE: &str = "EHLO pc\r\nMAIL FROM:<a@example.jp> SIZE=9\r\nRCPT TO:<b@example.com>\r\n\
    RCPT TO:<c@example.com> NOTIFY=NEVER\r\nDATA\r\nRCPT TO:<d@example.com>\r\n";

#[test]
fn an_envelope_is_found_in_pieces_of_every_size() {
    let expected = envelope("a@example.jp", &["b@example.com", "c@example.com"], false);
    for cut in 0..=DIALOGUE.len() {
        assert_eq!(sent([&DIALOGUE[..cut], &DIALOGUE[cut..]]).smtp, expected, "cut at {cut}");
    }
    assert_eq!(sent(DIALOGUE.lines().map(|line| format!("{line}\n"))).smtp, expected);
}

#[rstest]
#[case::small("helo a\nmail from:<a@b>\nrcpt to:<c@d>\ndata\n", "a@b", &["c@d"])]
#[case::lmtp("LHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "a@b", &["c@d"])]
#[case::chunks("EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 9 LAST\r\n", "a@b", &["c@d"])]
#[case::bounce("EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "", &["c@d"])]
#[case::spaces("EHLO a\r\nMAIL  FROM : <a@b>\r\nRCPT TO: c@d X=Y\r\nDATA\r\n", "a@b", &["c@d"])]
#[case::quotes(
    "EHLO a\r\nMAIL FROM:<\"a\\\">\"@b>\r\nRCPT TO:<\"c>\"@d>\r\nDATA\r\n",
    "\"a\\\">\"@b",
    &["\"c>\"@d"]
)]
#[case::utf_8(
    "EHLO a\r\nMAIL FROM:<太郎@例え.jp> SMTPUTF8\r\nRCPT TO:<花子@例え.jp>\r\nDATA\r\n",
    "太郎@例え.jp",
    &["花子@例え.jp"]
)]
#[case::reset(
    "EHLO a\r\nMAIL FROM:<x@y>\r\nRCPT TO:<x@z>\r\nRSET\r\n\
     MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
    "a@b",
    &["c@d"]
)]
fn an_envelope_is_whole(#[case] dialogue: &str, #[case] from: &str, #[case] to: &[&str]) {
    let destination = sent([dialogue]);
    assert_eq!(destination.smtp, envelope(from, to, false));
    assert_eq!(destination.names, []);
}

#[rstest]
#[case::no_data("EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f", &["c@d"])]
#[case::nobody("EHLO a\r\nMAIL FROM:<a@b>\r\n", &[])]
#[case::control(
    "EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<\u{1}@d>\r\nDATA\r\n",
    &["c@d"]
)]
#[case::no_bracket(
    "EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@d\r\nDATA\r\n",
    &["c@d"]
)]
fn what_is_not_known_is_said(#[case] dialogue: &str, #[case] to: &[&str]) {
    assert_eq!(sent([dialogue]).smtp, envelope("a@b", to, true));
}

#[test]
fn an_address_that_is_too_long_is_not_kept() {
    let long = "a".repeat(400);
    let dialogue = format!("EHLO a\r\nMAIL FROM:<{long}@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    assert_eq!(sent([dialogue]).smtp, envelope("", &["c@d"], true));
}

#[test]
fn only_so_many_recipients_are_named() {
    let recipients: String = (0..100).map(|number| format!("RCPT TO:<{number}@d>\r\n")).collect();
    let found = sent([format!("EHLO a\r\nMAIL FROM:<a@b>\r\n{recipients}DATA\r\n")]).smtp.unwrap();
    assert_eq!(found.to.len(), RECIPIENTS_MAX);
    assert_eq!(found.to.last().unwrap(), "63@d");
    assert!(found.more);
}

#[test]
fn passwords_are_not_kept() {
    let mut flows = Flows::default();
    let lines =
        ["EHLO a\r\n", "AUTH PLAIN c2VjcmV0\r\n", "AUTH LOGIN\r\n", "DATA\r\n", "c2VjcmV0\r\n"];
    let dialogue = lines.concat();
    flows.payload(SOCKET, false, 0, dialogue.as_bytes());
    let crate::flow::State::Stream(stream) = &flows.sockets.0.peek(&SOCKET).unwrap().state else {
        unreachable!("it goes on")
    };
    assert_eq!(stream.unread(), b"");
    let rest = "MAIL FROM:<a@b> AUTH=c2VjcmV0\r\nRCPT TO:<c@d>\r\nDATA\r\n";
    flows.payload(SOCKET, false, dialogue.len() as u64, rest.as_bytes());
    assert_eq!(described(&flows).smtp, envelope("a@b", &["c@d"], false));
}

#[rstest]
#[case("EHLO a\r\nQUIT\r\n")]
#[case("EHLO a\r\nRCPT TO:<c@d>\r\nDATA\r\n")]
#[case("EHLO a\r\nSTARTTLS\r\nMAIL FROM:<a@b>\r\n")]
#[case("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")]
fn other_dialogues_say_nothing(#[case] dialogue: &str) {
    assert_eq!(sent([dialogue]), Destination::default());
}
