//! What TLS clients send, and packets of QUIC around any bytes.

use std::sync::Arc;

use rustls::crypto::ring::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider};
use rustls::quic::{self, Version};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Side};

const CONNECTION: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
/// Bytes of the tag behind what is encrypted.
const TAG_BYTES: usize = 16;

fn config() -> Option<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    Some(Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
}

/// The first record of a connection to this server.
#[must_use]
pub fn hello(server: &str) -> Option<Vec<u8>> {
    let name = server.to_owned().try_into().ok()?;
    let mut bytes = Vec::new();
    ClientConnection::new(config()?, name).ok()?.write_tls(&mut bytes).ok()?;
    Some(bytes)
}

/// The frame of QUIC with which a connection to this server begins.
#[must_use]
pub fn first_frame(server: &str) -> Option<Vec<u8>> {
    let name = server.to_owned().try_into().ok()?;
    let mut client =
        quic::ClientConnection::new(config()?, Version::V1, name, vec![1, 2, 3]).ok()?;
    let mut message = Vec::new();
    client.write_hs(&mut message);
    let length = (0x4000 | message.len() as u16).to_be_bytes();
    Some([&[6, 0], &length[..], &message].concat())
}

/// An Initial packet of QUIC 1 with these frames in it (RFC 9001, 5).
#[must_use]
pub fn initial(frames: &[u8]) -> Option<Vec<u8>> {
    let mut payload = frames.to_vec();
    payload.resize(frames.len().max(4), 0);
    let mut header = vec![0xc0, 0, 0, 0, 1, CONNECTION.len() as u8];
    header.extend(CONNECTION);
    header.extend([0, 0]);
    let protected = 0x4000 | (1 + payload.len() + TAG_BYTES) as u16 & 0x3fff;
    header.extend(protected.to_be_bytes());
    header.push(0);
    let suite = TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()?;
    let keys = suite.keys(&CONNECTION, Side::Client, Version::V1).local;
    let tag = keys.packet.encrypt_in_place(0, &header, &mut payload).ok()?;
    payload.extend(tag.as_ref());
    let (first, rest) = header.split_first_mut()?;
    let number = rest.split_last_mut()?.0;
    let sample = payload.get(3..3 + TAG_BYTES)?;
    keys.header.encrypt_in_place(sample, first, std::slice::from_mut(number)).ok()?;
    Some([header, payload].concat())
}
