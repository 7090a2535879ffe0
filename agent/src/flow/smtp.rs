//! SMTP and LMTP in clear (RFC 5321, RFC 2033).

use sekimori_proto::v1::SmtpEnvelope;

use super::Reading;
use crate::limits::{MAIL_ADDRESS_BYTES_MAX, RECIPIENTS_MAX};

/// What a client says first, in capital letters.
const GREETINGS: [&[u8]; 3] = [b"EHLO ", b"HELO ", b"LHLO "];

/// The client's side of a dialogue.
#[derive(Debug, Default)]
pub(super) struct Dialogue {
    envelope: Option<SmtpEnvelope>,
    /// The mail itself follows, so that the envelope is whole.
    whole: bool,
}

/// Whether a connection is SMTP.
pub(super) fn begins(bytes: &[u8]) -> Reading<()> {
    let fits = |greeting: &&[u8]| {
        greeting.iter().zip(bytes).all(|(expected, byte)| *expected == byte.to_ascii_uppercase())
    };
    match GREETINGS.iter().find(|greeting| fits(greeting)) {
        Some(greeting) if bytes.len() >= greeting.len() => Reading::Found(()),
        Some(_) => Reading::More,
        None => Reading::Nothing,
    }
}

impl Dialogue {
    /// Takes the complete lines out of what was sent. Nothing of them is kept but the addresses:
    /// there are passwords among them.
    pub(super) fn read(&mut self, unread: &mut Vec<u8>) -> Reading<()> {
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            if self.ends(line.trim_ascii()) {
                return Reading::Found(());
            }
        }
        Reading::More
    }

    /// The first envelope as far as it is known.
    pub(super) fn envelope(&self) -> Option<SmtpEnvelope> {
        let mut envelope = self.envelope.clone()?;
        envelope.more |= !self.whole;
        Some(envelope)
    }

    /// Reads one line. Answers whether no more lines of an envelope follow.
    fn ends(&mut self, line: &[u8]) -> bool {
        let verb = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        let rest = line.get(verb.len()..).unwrap_or_default();
        match verb.to_ascii_uppercase().as_slice() {
            b"MAIL" => self.sender(rest),
            b"RCPT" => self.recipient(rest),
            b"RSET" => self.envelope = None,
            b"DATA" | b"BDAT" => {
                // The words may also be those of a password.
                self.whole = self.envelope.is_some();
                return self.whole;
            }
            // What follows is TLS.
            b"STARTTLS" => return true,
            _ => {}
        }
        false
    }

    fn sender(&mut self, rest: &[u8]) {
        let Some(rest) = parameter(rest, b"FROM") else { return };
        let from = address(rest);
        let more = from.is_none();
        let from = from.unwrap_or_default();
        self.envelope = Some(SmtpEnvelope { from, to: Vec::new(), more });
    }

    fn recipient(&mut self, rest: &[u8]) {
        let (Some(rest), Some(envelope)) = (parameter(rest, b"TO"), &mut self.envelope) else {
            return;
        };
        match address(rest) {
            Some(to) if !to.is_empty() && envelope.to.len() < RECIPIENTS_MAX => {
                envelope.to.push(to);
            }
            _ => envelope.more = true,
        }
    }
}

/// What stands behind `FROM:` or `TO:`.
fn parameter<'a>(rest: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = rest.trim_ascii_start().split_at_checked(keyword.len())?;
    let rest = rest.trim_ascii_start().strip_prefix(b":")?;
    found.eq_ignore_ascii_case(keyword).then_some(rest.trim_ascii_start())
}

/// An address: up to the `>` that is not quoted, or up to a space when it has no brackets. It may
/// be in UTF-8 (RFC 6531). The sender of a bounce is empty.
fn address(rest: &[u8]) -> Option<String> {
    let (inside, end) = match rest.strip_prefix(b"<") {
        Some(inside) => (inside, b'>'),
        None => (rest, b' '),
    };
    let mut quoted = false;
    let mut escaped = false;
    let found = inside.iter().position(|byte| {
        let ends = *byte == end && !quoted;
        quoted ^= *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && quoted && !escaped;
        ends
    });
    let bytes = match found {
        Some(found) => inside.get(..found)?,
        None if end == b' ' => inside,
        None => return None,
    };
    let text = str::from_utf8(bytes).ok()?;
    let readable = text.len() <= MAIL_ADDRESS_BYTES_MAX && !text.contains(char::is_control);
    readable.then(|| text.to_owned())
}
