//! `socket_create`: sockets that are neither of the Internet nor local. What they carry is not
//! followed; whether there may be one is judged when it is asked for.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use sekimori_abi::{
    event::{counter, family, kind, operation},
    table::SET_NONE,
};

use super::{ALLOWED, REFUSED};
use crate::{count::count, emit::Record, judge::Policy};

#[lsm(hook = "socket_create")]
pub fn socket_create(ctx: LsmContext) -> i32 {
    let [family, _, protocol, by_kernel] = [0, 1, 2, 3].map(|at| ctx.arg::<i32>(at));
    let family = family as u16;
    if by_kernel != 0 || judged_elsewhere(family) {
        return ALLOWED;
    }
    let Some(policy) = Policy::in_force() else {
        return ALLOWED;
    };
    if !policy.judges(kind::NET_SOCKET, SET_NONE) && !policy.records(kind::NET_SOCKET) {
        return ALLOWED;
    }
    count(kind::NET_SOCKET, counter::SEEN);
    let outcome = policy.judge(kind::NET_SOCKET, SET_NONE, &policy.actor());
    if let Some(mut record) = Record::begin(kind::NET_SOCKET, operation::CREATE) {
        let event = record.event();
        event.family = family;
        event.protocol = protocol as u16;
        record.send(&policy, outcome);
    }
    if outcome.denies() { REFUSED } else { ALLOWED }
}

/// Addresses of the Internet are judged when they are used; the others do not leave the machine.
#[inline(always)]
const fn judged_elsewhere(family: u16) -> bool {
    matches!(
        family,
        family::INET | family::INET6 | family::UNIX | family::NETLINK | family::ALG | family::KEY
    )
}
