//! `socket_connect`: where a process wants to send.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use sekimori_abi::{
    event::{counter, family, kind, operation},
    table::SET_NONE,
};
use sekimori_decide::{Facts, Outcome};

use super::{
    ALLOWED, REFUSED,
    send::{STREAM, TCP_CLOSE, settle},
};
use crate::{
    count::count,
    emit::Record,
    judge::Policy,
    maps::{Peer, SOCKETS},
    offset::*,
    read::{Read, copy, pointer, probed, probed_at},
    task,
};

/// `sun_path` within `struct sockaddr_un`.
const UNIX_PATH_AT: usize = 2;
/// Bytes of `sun_path`.
const UNIX_PATH_BYTES: u32 = 108;

#[lsm(hook = "socket_connect")]
pub fn socket_connect(ctx: LsmContext) -> i32 {
    let Some(policy) = Policy::in_force() else {
        return ALLOWED;
    };
    let socket: *const u8 = ctx.arg(0);
    let address: *const u8 = ctx.arg(1);
    let sk = pointer(socket, &SOCKET_SK);
    if probed_at::<u16>(address) == family::UNIX {
        unix(&policy, address, ctx.arg::<i32>(2) as u64);
        return ALLOWED;
    }
    // Without a family it takes a connection away.
    if probed_at::<u16>(address) == family::UNSPECIFIED {
        settle(sk as u64);
        return ALLOWED;
    }
    let Some(peer) = Peer::of_address(address, sk) else {
        return ALLOWED;
    };
    count(kind::NET_CONNECT, counter::SEEN);
    let facts = Facts { destinations: policy.destination_groups(&peer), ..policy.actor() };
    let upload = policy.judge(kind::NET_UPLOAD, SET_NONE, &facts);
    let connect = policy.judge(kind::NET_CONNECT, SET_NONE, &facts);
    // A peer that nothing may be sent to needs no connection.
    let (kind, outcome) = if upload.denies() && !connect.denies() {
        (kind::NET_UPLOAD, upload)
    } else {
        (kind::NET_CONNECT, connect)
    };
    if let Some(mut record) = Record::begin(kind, operation::CONNECT) {
        peer.describe(&mut record);
        if !outcome.denies() && !keeps_its_peer(sk) {
            settle(sk as u64);
            let judged = if upload.action == 0 { policy.generation } else { 0 };
            remember(&mut record, sk, peer, judged);
        }
        record.send(&policy, outcome);
    }
    if outcome.denies() { REFUSED } else { ALLOWED }
}

/// Whether a connect changes nothing: a stream that is connected, or about to be, answers `EISCONN`
/// or `EALREADY` (`__inet_stream_connect`, net/ipv4/af_inet.c).
#[inline(always)]
fn keeps_its_peer(sk: *const u8) -> bool {
    probed::<u16>(sk, &SOCK_TYPE) == STREAM && probed::<u8>(sk, &SOCK_STATE) != TCP_CLOSE
}

/// Connections to local sockets are recorded, never refused.
#[inline(always)]
fn unix(policy: &Policy, address: *const u8, address_bytes: u64) {
    let path = address.wrapping_add(UNIX_PATH_AT);
    let name_bytes = address_bytes.wrapping_sub(UNIX_PATH_AT as u64);
    if name_bytes == 0 || name_bytes > UNIX_PATH_BYTES as u64 || !policy.records(kind::NET_CONNECT)
    {
        return;
    }
    count(kind::NET_CONNECT, counter::SEEN);
    if let Some(mut record) = Record::begin(kind::NET_CONNECT, operation::CONNECT) {
        record.event().family = family::UNIX;
        // The name of an abstract socket begins with NUL and ends where the address does.
        if probed_at::<u8>(path) == 0 {
            record.kernel_bytes(path, name_bytes);
        } else {
            record.kernel_string::<UNIX_PATH_BYTES>(path);
        }
        record.send(policy, Outcome::default());
    }
}

/// Begins the sum over a socket and a peer.
#[inline(always)]
pub fn remember(record: &mut Record, sk: *const u8, peer: Peer, allowed_by: u32) {
    let scratch = record.scratch();
    // SAFETY: our buffer.
    unsafe {
        let sum = &raw mut (*scratch).socket_sum;
        (&raw mut (*sum).sk).write_volatile(sk as u64);
        // Read back, the address is a mere number, with which one may reckon.
        (*sum).flow = (*scratch).event.time_ns ^ (&raw const (*sum).sk).read_volatile();
        (*sum).bytes = 0;
        (*sum).bytes_in = 0;
        (*sum).calls = 0;
        (*sum).flags = 0;
        (*sum).wanted = 0;
        (*sum).pieces = 0;
        (*sum).allowed_by = allowed_by as u64;
        (*sum).allowed_to = task::actor();
        (*sum).peer = peer;
        copy(&raw const (*scratch).event.process, &raw mut (*sum).process);
        if SOCKETS.insert(sk as u64, &*sum, 0).is_err() {
            count(kind::NET_UPLOAD, counter::LOST_TABLE);
        }
    }
}

impl Peer {
    /// Of a `struct sockaddr` in kernel memory; `None` when it is not an IP address.
    #[inline(always)]
    pub fn of_address(address: *const u8, sk: *const u8) -> Option<Self> {
        // One read for all of a `struct sockaddr_in6`; the kernel has room for the longest address.
        let words: [u64; 3] = probed_at(address);
        let [first, _, _] = words;
        let mut family = first as u16;
        // Datagrams over IPv4 take an address without a family for one of theirs (`udp_sendmsg`).
        if family == family::UNSPECIFIED {
            family = probed(sk, &SOCK_FAMILY);
        }
        let port = u16::from_be((first >> 16) as u16);
        let address = match family {
            family::INET => mapped((first >> 32) as u32),
            family::INET6 => [words[1], words[2]],
            _ => return None,
        };
        Some(Self { address, port, family, protocol: protocol(sk), reserved: 0 })
    }

    /// Of a connected socket; `None` when it is not an IP socket.
    ///
    /// # Safety
    /// That of `R` for `sk`.
    #[inline(always)]
    pub unsafe fn of_socket<R: Read>(sk: *const u8) -> Option<Self> {
        // SAFETY: by contract.
        unsafe {
            let family: u16 = R::field(sk, &SOCK_FAMILY);
            let address = match family {
                family::INET => mapped(R::field(sk, &SOCK_DADDR)),
                family::INET6 if SOCK_V6_DADDR.exists() => {
                    let at = sk.wrapping_add(SOCK_V6_DADDR.get());
                    [probed_at(at), probed_at(at.wrapping_add(8))]
                }
                _ => return None,
            };
            let port = u16::from_be(R::field(sk, &SOCK_DPORT));
            let protocol = R::field(sk, &SOCK_PROTOCOL);
            Some(Self { address, port, family, protocol, reserved: 0 })
        }
    }

    /// Writes down where bytes go.
    #[inline(always)]
    pub fn describe(&self, record: &mut Record) {
        let event = record.event();
        // SAFETY: both are 16 bytes.
        unsafe { (&raw mut event.address).cast::<[u64; 2]>().write_unaligned(self.address) };
        event.port = self.port;
        event.family = self.family;
        event.protocol = self.protocol;
    }
}

#[inline(always)]
fn protocol(sk: *const u8) -> u16 {
    probed(sk, &SOCK_PROTOCOL)
}

/// `::ffff:a.b.c.d` as two words of memory; `v4` is the address as it lies in memory.
#[inline(always)]
const fn mapped(v4: u32) -> [u64; 2] {
    [0, (v4 as u64) << 32 | 0xffff_0000]
}
