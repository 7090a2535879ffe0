//! Requests for certificates around any bytes, by somebody who has a key.

use std::sync::LazyLock;

use rcgen::{KeyPair, SigningKey as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The key, which is the same in each run: inputs that are kept have its public half in them.
const SECRET: [u8; 32] = [7; 32];
const PUBLIC: [u8; 64] = [
    0x1e, 0x18, 0x53, 0x2f, 0xd4, 0x75, 0x4c, 0x02, 0xf3, 0x04, 0x1d, 0x9c, 0x75, 0xce, 0xb3, 0x3b,
    0x83, 0xff, 0xd8, 0x1a, 0xc7, 0xce, 0x4f, 0xe8, 0x82, 0xcc, 0xb1, 0xc9, 0x8b, 0xc5, 0x89, 0x6e,
    0xa4, 0x6c, 0x31, 0x1c, 0x4e, 0x2f, 0xf4, 0x0d, 0xd9, 0x6a, 0x36, 0x53, 0xe6, 0xe4, 0x54, 0x45,
    0xd3, 0x2d, 0xfe, 0x48, 0x6e, 0xce, 0xd7, 0x5c, 0x7a, 0x90, 0xc6, 0xa1, 0x88, 0x81, 0xc0, 0xa3,
];
/// What stands around the two halves of a key on P-256 (RFC 5958, RFC 5915).
const BEFORE_SECRET: [u8; 36] = *b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\
    \x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20";
const BEFORE_PUBLIC: [u8; 6] = *b"\xa1\x44\x03\x42\x00\x04";
/// ecdsa-with-SHA256 (RFC 5758).
const ALGORITHM: [u8; 12] = *b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";

static KEY: LazyLock<KeyPair> = LazyLock::new(|| {
    let key = [&BEFORE_SECRET[..], &SECRET, &BEFORE_PUBLIC, &PUBLIC].concat();
    KeyPair::try_from(key).expect("a key")
});

/// A key that signs whatever it is given.
#[must_use]
pub fn key() -> &'static KeyPair {
    &KEY
}

/// A request (RFC 2986) of which this is the signed part.
#[must_use]
pub fn signed_request(part: &[u8]) -> Vec<u8> {
    let signature = key().sign(part).unwrap_or_default();
    let signature = value(0x03, &[&[0], &signature[..]].concat());
    value(0x30, &[part, &ALGORITHM, &signature].concat())
}

/// The signed part of a request.
#[must_use]
pub fn signed_part(request: &[u8]) -> Option<Vec<u8>> {
    let inside = request.get(head(request)?.0..)?;
    let (before, length) = head(inside)?;
    inside.get(..before + length).map(<[u8]>::to_vec)
}

/// The certificate in a PEM text, DER.
#[must_use]
pub fn certificate_of(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate").to_vec()
}

fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = (content.len() as u16).to_be_bytes();
    let length = match (high, low) {
        (0, 0..0x80) => vec![low],
        (0, _) => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag][..], &length, content].concat()
}

/// Bytes before the content of a value, and of the content.
fn head(value: &[u8]) -> Option<(usize, usize)> {
    Some(match *value {
        [_, 0x82, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        [_, 0x81, length, ..] => (3, usize::from(length)),
        [_, length, ..] => (2, usize::from(length)),
        _ => return None,
    })
}
