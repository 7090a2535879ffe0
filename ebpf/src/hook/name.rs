//! What the traffic calls its destinations: the first bytes that are sent over a socket, as far as
//! they may be TLS, QUIC, HTTP or SMTP, and DNS answers. The agent reads them.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use sekimori_abi::{
    event::{kind, operation},
    limits::{DATAGRAM_BYTES_MAX, FLOW_BYTES_MAX, HTTP_BYTES_MAX},
};

use crate::{
    emit::Record,
    judge::Policy,
    maps::{SOCKETS, SocketSum},
    offset::*,
    read::{pointer, probed, probed_at},
};

/// `IPPROTO_UDP`.
const UDP: u16 = 17;
/// Port of DNS.
const DNS: u16 = 53;
/// A TLS record with a handshake (RFC 8446, 5.1), and its header's bytes.
const TLS_HANDSHAKE: u8 = 22;
const TLS_HEADER_BYTES: u32 = 5;
/// Header of a handshake message (RFC 8446, 4).
const HANDSHAKE_HEADER_BYTES: u32 = 4;
/// The two bits of a QUIC packet with a long header, and the versions that are known (RFC 9000, 17.2;
/// RFC 9369, 3.1).
const QUIC_LONG: u8 = 0xc0;
const QUIC_1: u32 = 1;
const QUIC_2: u32 = 0x6b33_43cf;
/// Makes four letters capitals.
const CAPITALS: u32 = 0xdfdf_dfdf;
/// What SMTP and LMTP clients begin with, in whatever case (RFC 5321, 2.4).
const GREETINGS: [u32; 3] =
    [u32::from_be_bytes(*b"EHLO"), u32::from_be_bytes(*b"HELO"), u32::from_be_bytes(*b"LHLO")];
/// Sends that are looked at.
const TLS_PIECES: u32 = 8;
const QUIC_PIECES: u32 = 4;
const HTTP_PIECES: u32 = 2;
const SMTP_PIECES: u32 = 16;
/// Bytes that tell what it is.
const HEAD_BYTES: usize = 12;

/// In [`SocketSum::wanted`]: nothing more.
pub const NAMED: u32 = u32::MAX;

/// Reports what is about to be sent over the socket with this address.
#[inline(always)]
pub fn look_into(sk: u64, message: *const u8) {
    let Some(sum) = SOCKETS.get_ptr_mut(sk) else { return };
    match payload(message) {
        Some((address, length, all)) => {
            sniff(sk, address as u64, length, (all > length) as u64);
        }
        // What comes from elsewhere is not looked at, and what follows it is no beginning.
        // SAFETY: map values live as long as the program runs.
        None => unsafe { (*sum).wanted = NAMED },
    }
}

/// Reports that much user memory; `last`: something else follows it in the same send.
///
/// A function of its own, with numbers for arguments: the verifier looks at it once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sniff(sk: u64, address: u64, length: u64, last: u64) -> u32 {
    let address = address as *const u8;
    let Some(sum) = SOCKETS.get_ptr_mut(sk) else { return 0 };
    // SAFETY: map values live as long as the program runs.
    unsafe {
        if (*sum).wanted == NAMED || length == 0 {
            return 0;
        }
        let datagram = (*sum).peer.protocol == UDP;
        // Sent before, not only given to a send.
        let sent = (*sum).bytes;
        if (*sum).wanted == 0 {
            let records = Policy::in_force().is_some_and(|it| it.records(kind::NET_UPLOAD));
            if sent != 0 || !records {
                (*sum).wanted = NAMED;
                return 0;
            }
            classify(sum, address, length, datagram);
            if (*sum).wanted == NAMED {
                return 0;
            }
        }
        let wanted = (*sum).wanted as u64;
        if !datagram && sent >= wanted {
            (*sum).wanted = NAMED;
            return 0;
        }
        let room = if datagram { DATAGRAM_BYTES_MAX as u64 } else { wanted - sent };
        let bytes = if length > room { room } else { length };
        if let Some(mut record) = Record::begin(kind::NOTE, operation::PAYLOAD) {
            let event = record.event();
            event.inode = (*sum).flow;
            event.size = sent;
            event.protocol = (*sum).peer.protocol;
            record.user_bytes(address, bytes);
            record.send_unjudged();
        }
        (*sum).pieces = (*sum).pieces.wrapping_sub(1);
        if (*sum).pieces == 0 || last != 0 {
            (*sum).wanted = NAMED;
        }
    }
    0
}

/// The number that tells a flow from all others.
#[inline(always)]
pub fn flow_of(sk: u64) -> u64 {
    // SAFETY: map values live as long as the program runs.
    SOCKETS.get_ptr(sk).map_or(0, |sum| unsafe { (*sum).flow })
}

/// By its first bytes: how much of it could name the destination.
///
/// # Safety
/// `sum` must be a map value.
#[inline(always)]
unsafe fn classify(sum: *mut SocketSum, address: *const u8, length: u64, datagram: bool) {
    let mut head = [0u8; HEAD_BYTES];
    let mut bytes = length;
    if bytes > HEAD_BYTES as u64 {
        bytes = HEAD_BYTES as u64;
    }
    // SAFETY: it is our array, and no more than its length.
    let failed =
        unsafe { bpf_probe_read_user(head.as_mut_ptr().cast(), bytes as u32, address.cast()) };
    let (wanted, pieces) = if failed != 0 {
        (NAMED, 0)
    } else if datagram {
        let version = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let quic = head[0] & QUIC_LONG == QUIC_LONG && (version == QUIC_1 || version == QUIC_2);
        if quic { (FLOW_BYTES_MAX, QUIC_PIECES) } else { (NAMED, 0) }
    } else if head[0] == TLS_HANDSHAKE {
        let record = u16::from_be_bytes([head[3], head[4]]) as u32;
        let hello = u32::from_be_bytes([0, head[6], head[7], head[8]]) + HANDSHAKE_HEADER_BYTES;
        // A hello in several records is longer than it says.
        let whole = bytes == HEAD_BYTES as u64 && hello <= record;
        (if whole { record + TLS_HEADER_BYTES } else { FLOW_BYTES_MAX }, TLS_PIECES)
    } else if GREETINGS
        .contains(&(u32::from_be_bytes([head[0], head[1], head[2], head[3]]) & CAPITALS))
    {
        (FLOW_BYTES_MAX, SMTP_PIECES)
    } else if head[..3].iter().all(u8::is_ascii_uppercase) {
        (HTTP_BYTES_MAX, HTTP_PIECES)
    } else {
        (NAMED, 0)
    };
    // SAFETY: by contract.
    unsafe {
        (*sum).wanted =
            if wanted != NAMED && wanted > FLOW_BYTES_MAX { FLOW_BYTES_MAX } else { wanted };
        (*sum).pieces = pieces;
    }
}

/// Where the first part of what is sent lies in user memory, its length, and that of all parts;
/// `None` when it lies elsewhere.
#[inline(always)]
fn payload(message: *const u8) -> Option<(*const u8, u64, u64)> {
    let iterator = message.wrapping_add(MSG_ITER.get());
    let kind = probed::<u8>(iterator, &ITER_TYPE) as usize;
    let all: u64 = probed(iterator, &ITER_COUNT);
    if ITER_UBUF.exists() && kind == ITER_UBUF.get() {
        let at: u64 = probed(iterator, &ITER_OFFSET);
        let address = pointer(iterator, &ITER_ADDRESS).wrapping_add(at as usize);
        return Some((address, all, all));
    }
    if kind != ITER_IOVEC.get() {
        return None;
    }
    let vector = if ITER_VECTOR.exists() {
        pointer(iterator, &ITER_VECTOR)
    } else {
        pointer(iterator, &ITER_VECTOR_BEFORE)
    };
    // `struct iovec` (include/uapi/linux/uio.h).
    let address: u64 = probed_at(vector);
    let length = probed_at(vector.wrapping_add(size_of::<u64>()));
    Some((address as *const u8, length, all))
}

/// Reports a datagram that came to a socket whose peer is a name server.
#[inline(always)]
pub fn report_answer(skb: *const u8, peer_port: u16) {
    if peer_port != DNS
        || !Policy::in_force().is_some_and(|policy| policy.records(kind::NET_CONNECT))
    {
        return;
    }
    let whole: u32 = probed(skb, &SKB_LENGTH);
    let mut bytes = whole.wrapping_sub(probed::<u32>(skb, &SKB_FRAGMENTS_LENGTH)) as u64;
    if bytes > FLOW_BYTES_MAX as u64 {
        bytes = FLOW_BYTES_MAX as u64;
    }
    if let Some(mut record) = Record::begin(kind::NOTE, operation::ANSWER) {
        record.kernel_bytes(pointer(skb, &SKB_DATA), bytes);
        record.send_unjudged();
    }
}
