//! The server name in a ClientHello (RFC 8446, 4.1.2; RFC 6066, 3).

use tls_parser::{
    SNIType, TlsExtension, TlsRecordType, parse_tls_extension_sni_content,
    parse_tls_handshake_client_hello, parse_tls_record_header,
};

use super::{Reading, host};

/// A handshake record; the major version is the same in all versions since SSL 3.
const RECORD_BEGINS: [u8; 2] = [22, 3];
/// Types of handshake messages and extensions (IANA, "TLS Parameters").
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// The first byte of `ENCRYPTED_CLIENT_HELLO` when the true ClientHello is inside of it
/// (RFC 9849, 5).
const OUTER: u8 = 0;
/// The type and the length of a handshake message.
const HANDSHAKE_HEADER_BYTES: usize = 4;

/// The name that a client says it wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerName {
    pub(super) name: String,
    /// The true name is encrypted (ECH), or the client makes it look as if: that cannot be told.
    pub(super) outer: bool,
}

/// Reads TLS records from the beginning of a connection.
pub(super) fn read(records: &[u8]) -> Reading<ServerName> {
    match handshake(records) {
        Some(message) if message.is_empty() => Reading::More,
        Some(message) => read_message(&message),
        None => Reading::Nothing,
    }
}

/// The same when no more records come.
pub(super) fn read_rest(records: &[u8]) -> Option<ServerName> {
    read_message_rest(&handshake(records)?)
}

/// Reads a ClientHello without records.
pub(super) fn read_message(message: &[u8]) -> Reading<ServerName> {
    let Some((body, whole)) = body(message) else {
        return Reading::Nothing;
    };
    if !whole {
        return Reading::More;
    }
    server_name(body).map_or(Reading::Nothing, Reading::Found)
}

/// Reads a ClientHello that is cut off: the name when it stands in front. Whether it is the outer
/// one may stand behind the cut.
pub(super) fn read_message_rest(message: &[u8]) -> Option<ServerName> {
    server_name(body(message)?.0)
}

/// The content of TLS records that hold the parts of one handshake message.
fn handshake(mut records: &[u8]) -> Option<Vec<u8>> {
    if !RECORD_BEGINS.iter().zip(records).all(|(expected, byte)| expected == byte) {
        return None;
    }
    let mut message = Vec::new();
    while let Ok((behind, header)) = parse_tls_record_header(records) {
        if header.record_type != TlsRecordType::Handshake {
            break;
        }
        let (content, behind) = behind.split_at_checked(header.len.into()).unwrap_or((behind, &[]));
        message.extend_from_slice(content);
        records = behind;
    }
    Some(message)
}

/// What stands in a ClientHello so far, and whether it is all of it.
fn body(message: &[u8]) -> Option<(&[u8], bool)> {
    let (&kind, rest) = message.split_first()?;
    if kind != CLIENT_HELLO {
        return None;
    }
    let &[high, middle, low, ..] = rest else {
        return Some((&[], false));
    };
    let bytes = usize::try_from(u32::from_be_bytes([0, high, middle, low])).ok()?;
    let rest = message.get(HANDSHAKE_HEADER_BYTES..)?;
    Some(rest.get(..bytes).map_or((rest, false), |body| (body, true)))
}

fn server_name(body: &[u8]) -> Option<ServerName> {
    let (behind, hello) = parse_tls_handshake_client_hello(body).ok()?;
    // Extensions that are cut off are left behind with their length in front.
    let mut extensions = hello.ext.or_else(|| behind.get(2..))?;
    let mut name = None;
    let mut outer = false;
    while let Some(extension) = next(&mut extensions) {
        match extension.kind {
            SERVER_NAME if extension.whole && name.is_none() => name = host_name(extension.data),
            ENCRYPTED_CLIENT_HELLO => outer |= extension.data.first() == Some(&OUTER),
            _ => {}
        }
    }
    Some(ServerName { name: name?, outer })
}

struct Extension<'a> {
    kind: u16,
    data: &'a [u8],
    whole: bool,
}

fn next<'a>(extensions: &mut &'a [u8]) -> Option<Extension<'a>> {
    let (kind, rest) = extensions.split_first_chunk()?;
    let (bytes, rest) = rest.split_first_chunk()?;
    let cut = rest.split_at_checked(u16::from_be_bytes(*bytes).into());
    let (data, behind) = cut.unwrap_or((rest, &[]));
    *extensions = behind;
    Some(Extension { kind: u16::from_be_bytes(*kind), data, whole: cut.is_some() })
}

fn host_name(data: &[u8]) -> Option<String> {
    let Ok((_, TlsExtension::SNI(names))) = parse_tls_extension_sni_content(data) else {
        return None;
    };
    names.iter().find(|(kind, _)| *kind == SNIType::HostName).and_then(|(_, name)| host(name))
}
