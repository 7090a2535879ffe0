//! Bytes that leave through sockets: judged once per socket and peer, summed in the kernel, reported
//! at the first send and at the close.

use aya_ebpf::{
    macros::{fentry, fexit, lsm},
    programs::{FEntryContext, FExitContext, LsmContext},
};
use core::ptr::null;
use sekimori_abi::{
    event::{counter, family, kind, operation},
    table::SET_NONE,
};
use sekimori_decide::{Facts, Outcome};

use super::{
    ALLOWED, REFUSED,
    connect::remember,
    name::{NAMED, flow_of, look_into, report_answer},
};
use crate::{
    count::{add, count},
    emit::Record,
    judge::Policy,
    maps::{Peer, SOCKETS},
    offset::*,
    read::{Probed, Typed, copy, pointer, probed, probed_at, typed},
    task,
};

/// `TCP_CLOSE` (include/net/tcp_states.h).
pub const TCP_CLOSE: u8 = 7;
/// `MSG_PEEK` (include/linux/socket.h).
const MSG_PEEK: u32 = 2;
/// `MSG_FASTOPEN` (include/linux/socket.h).
const MSG_FASTOPEN: u32 = 0x2000_0000;
/// `SOCK_STREAM` (include/linux/net.h).
pub const STREAM: u16 = 1;
/// `IPPROTO_TCP`.
const TCP: u16 = 6;

#[lsm(hook = "socket_sendmsg")]
pub fn socket_sendmsg(ctx: LsmContext) -> i32 {
    let Some(policy) = Policy::in_force() else {
        return ALLOWED;
    };
    let socket: *const u8 = ctx.arg(0);
    let message: *const u8 = ctx.arg(1);
    // SAFETY: typed loads from the hook's arguments.
    let (sk, name, peer) = unsafe {
        let sk: *const u8 = typed(socket, &SOCKET_SK);
        if sk.is_null() {
            return ALLOWED;
        }
        let name = named_by(sk, message);
        let own = name.is_null();
        let peer = if own { Peer::of_socket::<Typed>(sk) } else { Peer::of_address(name, sk) };
        (sk, name, peer)
    };
    let Some(peer) = peer else {
        return ALLOWED;
    };
    count(kind::NET_UPLOAD, counter::SEEN);
    let known = SOCKETS.get_ptr_mut(sk as u64);
    let mut same_peer = false;
    if let Some(sum) = known {
        // SAFETY: map values live as long as the program runs.
        unsafe {
            same_peer = (*sum).peer.address[0] == peer.address[0]
                && (*sum).peer.address[1] == peer.address[1]
                && (*sum).peer.port == peer.port;
            if same_peer
                && (*sum).allowed_by == policy.generation as u64
                && (*sum).allowed_to == task::actor()
            {
                if (*sum).wanted != NAMED {
                    look_into((*sum).sk, message);
                }
                return ALLOWED;
            }
        }
    }
    let facts = Facts { destinations: policy.destination_groups(&peer), ..policy.actor() };
    let mut outcome = policy.judge(kind::NET_UPLOAD, SET_NONE, &facts);
    let mut kind = kind::NET_UPLOAD;
    // A message that names its own address does what a connect does.
    if !name.is_null() && !outcome.denies() {
        let connect = policy.judge(kind::NET_CONNECT, SET_NONE, &facts);
        if connect.action > outcome.action {
            kind = kind::NET_CONNECT;
            outcome = connect;
        }
    }
    if outcome.denies() {
        if let Some(mut record) = Record::begin(kind, operation::WRITE) {
            peer.describe(&mut record);
            record.send(&policy, outcome);
        }
        return REFUSED;
    }
    if let (true, Some(sum)) = (same_peer, known) {
        // SAFETY: map values live as long as the program runs.
        unsafe {
            (*sum).allowed_by = policy.generation as u64;
            (*sum).allowed_to = task::actor();
        }
    } else if let Some(sum) = known {
        // SAFETY: map values live as long as the program runs.
        let (number, used) =
            unsafe { ((&raw const (*sum).sk).read_volatile(), (*sum).calls | (*sum).bytes_in) };
        if used != 0 {
            report_socket(number, operation::CLOSE as u32);
        }
    }
    if let Some(mut record) = Record::begin(kind, operation::WRITE) {
        peer.describe(&mut record);
        if !same_peer {
            remember(&mut record, sk, peer, policy.generation);
        }
        // A number, as functions of their own take them. The record comes later: it has the name.
        let number = pointer(socket, &SOCKET_SK) as u64;
        look_into(number, message);
        // What no rule speaks of is reported with its bytes, once they are sent.
        if outcome.action == 0 {
            record.discard();
        } else {
            record.event().inode = flow_of(number);
            record.happens_now();
            record.send(&policy, outcome);
        }
    }
    ALLOWED
}

/// The address that a message names; null when it goes to the socket's peer. A connected stream
/// ignores the address in the message, and so do we; so does IPv6 for one without a family
/// (`udpv6_sendmsg`).
///
/// # Safety
/// Both must be typed pointers.
#[inline(always)]
unsafe fn named_by(sk: *const u8, message: *const u8) -> *const u8 {
    // SAFETY: by contract.
    let (name, flags, kind, state, family) = unsafe {
        (
            typed::<*const u8>(message, &MSG_NAME),
            typed::<u32>(message, &MSG_FLAGS),
            typed::<u16>(sk, &SOCK_TYPE),
            typed::<u8>(sk, &SOCK_STATE),
            typed::<u16>(sk, &SOCK_FAMILY),
        )
    };
    if name.is_null() {
        return null();
    }
    // With fast open it fails there, unless another thread takes the connection away meanwhile.
    if kind == STREAM && state != TCP_CLOSE && flags & MSG_FASTOPEN == 0 {
        return null();
    }
    if probed_at::<u16>(name) == family::UNSPECIFIED && family == family::INET6 {
        return null();
    }
    name
}

/// TCP, UDP and raw sockets over IPv4 (net/ipv4/af_inet.c).
#[fexit(function = "inet_sendmsg")]
pub fn inet_sendmsg(ctx: FExitContext) -> i32 {
    sent(socket_of(&ctx), returned(&ctx))
}

/// The same over IPv6.
#[fexit(function = "inet6_sendmsg")]
pub fn inet6_sendmsg(ctx: FExitContext) -> i32 {
    sent(socket_of(&ctx), returned(&ctx))
}

/// sendfile and splice on kernels that still have sendpage (up to 6.4): no LSM hook sees them.
#[fexit(function = "inet_sendpage")]
pub fn inet_sendpage(ctx: FExitContext) -> i32 {
    sent(socket_of(&ctx), returned(&ctx))
}

/// The `struct sock` of a function on a `struct socket`.
#[inline(always)]
fn socket_of(ctx: &FExitContext) -> *const u8 {
    // SAFETY: a typed load from the function's own argument.
    unsafe { typed(ctx.arg(0), &SOCKET_SK) }
}

#[inline(always)]
fn returned(ctx: &FExitContext) -> i32 {
    ctx.ret::<i32>().unwrap_or(0)
}

#[inline(always)]
fn sent(sk: *const u8, bytes: i32) -> i32 {
    if bytes <= 0 {
        return 0;
    }
    let known = SOCKETS.get_ptr_mut(sk as u64).or_else(|| {
        begin(sk);
        SOCKETS.get_ptr_mut(sk as u64)
    });
    if let Some(sum) = known {
        // SAFETY: map values live as long as the program runs.
        unsafe {
            let before = (*sum).calls;
            add(&raw mut (*sum).bytes, bytes as u64);
            add(&raw mut (*sum).calls, 1);
            if before == 0 && (*sum).flags == 0 {
                (*sum).flags = REPORTED;
                report_socket((*sum).sk, operation::WRITE as u32);
            }
        }
    }
    0
}

/// In `SocketSum::flags`: the first send is on record.
const REPORTED: u64 = 1;

/// A socket that no hook has judged yet.
#[inline(always)]
fn begin(sk: *const u8) {
    // SAFETY: probes take any address.
    let Some(peer) = (unsafe { Peer::of_socket::<Probed>(sk) }) else {
        return;
    };
    if let Some(mut record) = Record::begin(kind::NET_UPLOAD, operation::WRITE) {
        remember(&mut record, sk, peer, 0);
        record.discard();
    }
}

/// A datagram is given to a process, whatever the address family (net/ipv4/udp.c). Its own header
/// is pulled off when it is queued.
#[fexit(function = "__skb_recv_udp")]
pub fn skb_recv_udp(ctx: FExitContext) -> i32 {
    let skb = ctx.ret::<u64>().unwrap_or(0) as *const u8;
    // One that is only peeked at stays where it is.
    if skb.is_null() || ctx.arg::<u32>(1) & MSG_PEEK != 0 {
        return 0;
    }
    if let Some(sum) = SOCKETS.get_ptr_mut(ctx.arg::<u64>(0)) {
        let bytes: u32 = probed(skb, &SKB_LENGTH);
        // SAFETY: map values live as long as the program runs.
        let port = unsafe {
            add(&raw mut (*sum).bytes_in, bytes as u64);
            (*sum).peer.port
        };
        report_answer(skb, port);
    }
    0
}

/// The last descriptor of an IP socket is closed; IPv6 comes by here too.
#[fentry(function = "inet_release")]
pub fn inet_release(ctx: FEntryContext) -> i32 {
    settle(pointer(ctx.arg(0), &SOCKET_SK) as u64);
    0
}

/// A socket is freed. The kernel may have left out the program above, as it leaves out every program
/// of its kind that a process was preempted in; it never leaves out this one.
#[lsm(hook = "sk_free_security")]
pub fn socket_free(ctx: LsmContext) -> i32 {
    settle(ctx.arg::<u64>(0));
    ALLOWED
}

/// The socket has its present peer no longer: what went over it becomes a record, and it is
/// forgotten.
#[inline(always)]
pub fn settle(sk: u64) {
    let Some(sum) = SOCKETS.get_ptr_mut(sk) else {
        return;
    };
    // SAFETY: map values live as long as the program runs.
    unsafe {
        if (*sum).peer.protocol == TCP {
            (*sum).bytes_in = probed(sk as *const u8, &TCP_BYTES_RECEIVED);
        }
        // The number that is noted: a hook's own argument is no number to the verifier.
        let number = (&raw const (*sum).sk).read_volatile();
        if (*sum).calls != 0 || (*sum).bytes_in != 0 {
            report_socket(number, operation::CLOSE as u32);
        }
        let _ = SOCKETS.remove(number);
    }
}

/// Sends the sum over a socket.
///
/// A function of its own, with numbers for arguments: the verifier looks at it once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_socket(sk: u64, operation: u32) -> u32 {
    let Some(policy) = Policy::in_force() else { return 0 };
    let Some(sum) = SOCKETS.get_ptr(sk) else { return 0 };
    let Some(mut record) = Record::blank(kind::NET_UPLOAD, operation as u8) else { return 0 };
    // SAFETY: map values live as long as the program runs.
    unsafe {
        let event = record.event();
        event.inode = (*sum).flow;
        copy(&raw const (*sum).process, &raw mut event.process);
        event.bytes = (*sum).bytes;
        event.bytes_in = (*sum).bytes_in;
        event.calls = (*sum).calls;
        (*sum).peer.describe(&mut record);
    }
    record.send(&policy, Outcome::default());
    1
}
