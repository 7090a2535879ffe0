//! The wire format by hand, for what is in every record: the numbers are those of `Process` in
//! `event.proto`, and a test holds them equal.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// `process` in `Event`.
pub(super) const PROCESS: u32 = 9;
pub(super) const PID: u32 = 1;
pub(super) const START_NS: u32 = 2;
pub(super) const EXE: u32 = 3;
pub(super) const ARGV: u32 = 4;
pub(super) const CWD: u32 = 5;
pub(super) const UID: u32 = 6;
pub(super) const USER: u32 = 7;
pub(super) const GID: u32 = 8;
pub(super) const LOGIN_UID: u32 = 9;
pub(super) const LOGIN_USER: u32 = 10;
pub(super) const SESSION_ID: u32 = 11;
pub(super) const TTY: u32 = 12;
pub(super) const COMM: u32 = 13;
pub(super) const CGROUP_ID: u32 = 14;
pub(super) const PARENT: u32 = 15;
pub(super) const TID: u32 = 16;
pub(super) const EXE_INODE: u32 = 17;
pub(super) const ENVIRONMENT: u32 = 18;
pub(super) const ENVIRONMENT_TRUNCATED: u32 = 19;

/// A number that is there although it is 0.
pub(super) fn present(tag: u32, number: u64, out: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, out);
    encode_varint(number, out);
}

/// A number; 0 is not written.
pub(super) fn number(tag: u32, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        present(tag, number, out);
    }
}

/// A number with a sign, in two's complement.
pub(super) fn signed(tag: u32, value: i64, out: &mut Vec<u8>) {
    number(tag, value.cast_unsigned(), out);
}

/// A message, or one of repeated texts: there although it is empty.
pub(super) fn message(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A text; an empty one is not written.
pub(super) fn text(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        message(tag, bytes, out);
    }
}

/// Bytes that [`number`] writes.
pub(super) fn number_bytes(tag: u32, number: u64) -> usize {
    if number == 0 { 0 } else { key_len(tag) + encoded_len_varint(number) }
}

/// Bytes that [`text`] writes.
pub(super) fn text_bytes(tag: u32, bytes: &[u8]) -> usize {
    match bytes.len() {
        0 => 0,
        length => key_len(tag) + encoded_len_varint(length as u64) + length,
    }
}
