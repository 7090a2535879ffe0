//! Ring records made by hand, as the kernel programs make them.

#![allow(clippy::unwrap_used, reason = "only for tests")]

use sekimori_abi::event::{ABI_VERSION, EVENT_BYTES, Event};
use zerocopy::{FromZeros, IntoBytes};

/// An event of this kind with everything else zero.
pub(crate) fn event(kind: u8, operation: u8) -> Event {
    let mut event = Event::new_zeroed();
    event.abi = ABI_VERSION;
    event.kind = kind;
    event.operation = operation;
    event.process.login_uid = u32::MAX;
    event.process.session_id = u32::MAX;
    event
}

/// `/a/b` as the kernel writes it: `b\0a\0`. The root alone is one empty component.
pub(crate) fn components(path: &str) -> Vec<u8> {
    let mut text = Vec::new();
    for component in path.split('/').rev().filter(|component| !component.is_empty()) {
        text.extend_from_slice(component.as_bytes());
        text.push(0);
    }
    if text.is_empty() && path == "/" {
        text.push(0);
    }
    text
}

/// The record's bytes.
pub(crate) fn record(event: Event, [first, second, third]: [&[u8]; 3]) -> Vec<u8> {
    launch(event, [first, second, third, b""])
}

/// The same with variables of an environment.
pub(crate) fn launch(mut event: Event, texts: [&[u8]; 4]) -> Vec<u8> {
    event.text_bytes = texts.map(|text| u16::try_from(text.len()).unwrap());
    let bytes = EVENT_BYTES + texts.iter().map(|text| text.len()).sum::<usize>();
    event.record_bytes = u32::try_from(bytes).unwrap();
    let mut record = event.as_bytes().to_vec();
    texts.iter().for_each(|text| record.extend_from_slice(text));
    record
}

/// Fills a fixed text field.
pub(crate) fn fixed<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    field[..text.len()].copy_from_slice(text.as_bytes());
    field
}
