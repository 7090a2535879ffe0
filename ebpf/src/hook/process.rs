//! The life of processes: forks, so that every later event has its ancestry, and exits.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use sekimori_abi::event::{counter, kind, operation};
use sekimori_decide::Outcome;

use super::{guard, source};
use crate::{
    count::count,
    emit::Record,
    judge::Policy,
    offset::*,
    read::{pointer, probed, typed},
    task,
};

/// `sched_process_fork(parent, child)`.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let child: *const u8 = ctx.arg(1);
    // SAFETY: typed loads from the tracepoint's argument.
    unsafe {
        let (tgid, pid): (u32, u32) = (typed(child, &TASK_TGID), typed(child, &TASK_PID));
        if tgid != pid {
            return 0;
        }
        count(kind::FORK, counter::SEEN);
        if let Some(mut record) = Record::blank(kind::FORK, operation::FORK) {
            task::describe(child, &mut record.event().process);
            record.send_unjudged();
        }
    }
    0
}

/// `sched_process_exit(task)`, called for each thread; the last one counts.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    let current: *const u8 = ctx.arg(0);
    let signal = pointer(current, &TASK_SIGNAL);
    if probed::<u32>(signal, &SIGNAL_LIVE) != 0 {
        return 0;
    }
    // SAFETY: a typed load from the tracepoint's argument.
    let tgid = unsafe { typed(current, &TASK_TGID) };
    guard::ended(tgid);
    source::ended(tgid);
    count(kind::EXIT, counter::SEEN);
    let Some(policy) = Policy::in_force() else {
        return 0;
    };
    if let Some(mut record) = Record::begin(kind::EXIT, operation::EXIT) {
        let group: u32 = probed(signal, &SIGNAL_EXIT_CODE);
        let own: u32 = probed(current, &TASK_EXIT_CODE);
        record.event().exit_code = if group != 0 { group } else { own } as u16;
        record.send(&policy, Outcome::default());
    }
    0
}
