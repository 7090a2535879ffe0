//! What the store wants of an event, found in its bytes without making an [`Event`] of them.
//!
//! Nearly all events are plain: of a kind that agents send, short, each field of them known here and
//! there once; only `process` comes in parts, which agents encode apart, and which protobuf merges
//! (protobuf.dev/programming-guides/encoding, "Last One Wins"). Of a plain event this says what decoding and checking it would, without an allocation
//! for each of its texts. Of all others it says nothing. They are decoded and checked, and only there
//! an event is refused.
//!
//! [`Event`]: sekimori_proto::v1::Event

use sekimori_proto::v1::Kind;

use super::Facts;
use crate::limits::{
    ANCESTORS_MAX, ARGV_BYTES_MAX, ARGV_PARTS_MAX, BOOT_BYTES, EVENT_BYTES_MAX, NAME_BYTES_MAX,
    PATH_BYTES_MAX, SENTENCE_BYTES_MAX, SHA256_BYTES,
};
use crate::wire::{Fields, Value, int32, repeated};

/// Bytes of a plain event. So many hold neither too many arguments, of at least two bytes each, nor
/// too long ones: these are not counted here.
const PLAIN_BYTES_MAX: usize = 32 << 10;
const _: () = assert!(
    PLAIN_BYTES_MAX <= EVENT_BYTES_MAX
        && PLAIN_BYTES_MAX <= ARGV_BYTES_MAX
        && PLAIN_BYTES_MAX / 2 <= ARGV_PARTS_MAX
);

const EVENT_REPEATED: u64 = repeated(&[9, 24]);
const PROCESS_REPEATED: u64 = repeated(&[4, 18]);
const DEVICE_REPEATED: u64 = repeated(&[10]);
const DESTINATION_REPEATED: u64 = repeated(&[5]);

/// Of an encoded event; `None` when it is not plain, or not to be taken.
pub fn facts(body: &[u8]) -> Option<Facts<'_>> {
    if body.len() > PLAIN_BYTES_MAX {
        return None;
    }
    let facts = event(body)?;
    let taken = facts.boot.len() == BOOT_BYTES
        && facts.sequence != 0
        && i64::try_from(facts.sequence).is_ok()
        && Kind::try_from(facts.found.kind).is_ok_and(of_agents);
    taken.then_some(facts)
}

/// Kinds that are looked at here. A kind that is not named is decoded: one of the collector's own
/// is refused there.
fn of_agents(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::FileOpen
            | Kind::UsbWrite
            | Kind::UsbMount
            | Kind::NetConnect
            | Kind::NetUpload
            | Kind::Exec
            | Kind::Exit
            | Kind::Tamper
            | Kind::NetSocket
            | Kind::ShareWrite
            | Kind::Loss
            | Kind::Agent
            | Kind::Device
    )
}

fn event(body: &[u8]) -> Option<Facts<'_>> {
    let mut facts = Facts::default();
    let (mut of_file, mut of_event): (&[u8], &[u8]) = (&[], &[]);
    let mut process = Process::default();
    let mut fields = Fields::of(body, EVENT_REPEATED);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(it)) => _ = text(it, usize::MAX)?,
            (2, Value::Bytes(it)) => facts.boot = it,
            (3, Value::Number(it)) => facts.sequence = it,
            (4, Value::Number(it)) => facts.time_ns = it.cast_signed(),
            (5, Value::Number(it)) => facts.found.kind = int32(it),
            (7, Value::Number(it)) => facts.found.verdict = int32(it),
            (8, Value::Bytes(it)) => facts.found.rule = text(it, NAME_BYTES_MAX)?,
            (9, Value::Bytes(it)) => process.part(it, 0)?,
            (10, Value::Bytes(it)) => of_file = file(it)?,
            (14, Value::Bytes(it)) => {
                (facts.found.ip, facts.found.names) = destination(it)?;
            }
            (17, Value::Bytes(it)) => facts.lost = loss(it)?,
            (18 | 27, Value::Bytes(it)) => _ = text(it, SENTENCE_BYTES_MAX)?,
            (24, Value::Bytes(it)) => _ = file(it)?,
            (26, Value::Bytes(it)) => _ = at_most(it, SHA256_BYTES)?,
            (28, Value::Bytes(it)) => of_event = device(it)?,
            (6 | 11..=13 | 15 | 16 | 19..=23 | 25, Value::Number(_)) => {}
            _ => return None,
        }
    }
    facts.found.user = process.user;
    facts.found.login_user = process.login_user;
    facts.found.program = process.exe;
    facts.found.serials = [of_file, of_event];
    Some(facts)
}

#[derive(Default)]
struct Process<'a> {
    exe: &'a [u8],
    user: &'a [u8],
    login_user: &'a [u8],
    /// Fields of the parts that were taken in.
    seen: u64,
}

impl<'a> Process<'a> {
    /// Takes in a part of it: what came in an earlier one does not come again.
    fn part(&mut self, body: &'a [u8], descendants: usize) -> Option<()> {
        if descendants > ANCESTORS_MAX {
            return None;
        }
        let mut fields = Fields::behind(self.seen, body, PROCESS_REPEATED);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (3, Value::Bytes(it)) => self.exe = at_most(it, PATH_BYTES_MAX)?,
                (5, Value::Bytes(it)) => _ = at_most(it, PATH_BYTES_MAX)?,
                (7, Value::Bytes(it)) => self.user = text(it, NAME_BYTES_MAX)?,
                (10, Value::Bytes(it)) => self.login_user = text(it, NAME_BYTES_MAX)?,
                (12, Value::Bytes(it)) => _ = text(it, NAME_BYTES_MAX)?,
                (13, Value::Bytes(it)) => _ = at_most(it, NAME_BYTES_MAX)?,
                (15, Value::Bytes(it)) => Process::default().part(it, descendants + 1)?,
                (4 | 18, Value::Bytes(_)) => {}
                (1 | 2 | 6 | 8 | 9 | 11 | 14 | 16 | 17 | 19, Value::Number(_)) => {}
                _ => return None,
            }
        }
        self.seen = fields.seen();
        Some(())
    }
}

/// The serial of its device.
fn file(body: &[u8]) -> Option<&[u8]> {
    let mut serial: &[u8] = &[];
    let mut fields = Fields::of(body, 0);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1 | 2 | 9, Value::Bytes(it)) => _ = at_most(it, PATH_BYTES_MAX)?,
            (4, Value::Bytes(it)) => serial = device(it)?,
            (3 | 5..=8, Value::Number(_)) => {}
            _ => return None,
        }
    }
    Some(serial)
}

/// Its serial.
fn device(body: &[u8]) -> Option<&[u8]> {
    let mut serial: &[u8] = &[];
    let mut fields = Fields::of(body, DEVICE_REPEATED);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (4, Value::Bytes(it)) => serial = text(it, NAME_BYTES_MAX)?,
            (1..=3 | 7..=10, Value::Bytes(it)) => _ = text(it, NAME_BYTES_MAX)?,
            (14 | 15, Value::Bytes(it)) => _ = text(it, usize::MAX)?,
            (5 | 6, Value::Number(_)) => {}
            _ => return None,
        }
    }
    Some(serial)
}

/// Its address and its names.
fn destination(body: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let (mut ip, mut names): (&[u8], Vec<&[u8]>) = (&[], Vec::new());
    let mut fields = Fields::of(body, DESTINATION_REPEATED);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(it)) => ip = text(it, NAME_BYTES_MAX)?,
            (3, Value::Bytes(it)) => _ = text(it, NAME_BYTES_MAX)?,
            (4, Value::Bytes(it)) => _ = at_most(it, PATH_BYTES_MAX)?,
            (5, Value::Bytes(it)) => names.push(name(it)?),
            (2, Value::Number(_)) => {}
            _ => return None,
        }
    }
    Some((ip, names))
}

fn name(body: &[u8]) -> Option<&[u8]> {
    let mut name: &[u8] = &[];
    let mut fields = Fields::of(body, 0);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(it)) => name = text(it, SENTENCE_BYTES_MAX)?,
            (2, Value::Number(_)) => {}
            _ => return None,
        }
    }
    Some(name)
}

/// Its count.
fn loss(body: &[u8]) -> Option<u64> {
    let mut count = 0;
    let mut fields = Fields::of(body, 0);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(it)) => _ = text(it, NAME_BYTES_MAX)?,
            (2, Value::Number(_)) => {}
            (3, Value::Number(it)) => count = it,
            (4, Value::Bytes(it)) => _ = text(it, SENTENCE_BYTES_MAX)?,
            _ => return None,
        }
    }
    Some(count)
}

fn at_most(bytes: &[u8], limit: usize) -> Option<&[u8]> {
    (bytes.len() <= limit).then_some(bytes)
}

fn text(bytes: &[u8], limit: usize) -> Option<&[u8]> {
    let bytes = at_most(bytes, limit)?;
    std::str::from_utf8(bytes).ok().map(str::as_bytes)
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
