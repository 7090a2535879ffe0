//! Program launches: refused at `bprm_check_security`, recorded when they succeeded.

use aya_ebpf::{
    macros::{btf_tracepoint, lsm},
    programs::{BtfTracePointContext, LsmContext},
};
use sekimori_abi::{
    event::{counter, flag, kind, operation},
    limits::{ARGUMENT_BYTES_MAX, NAME_BYTES_MAX},
    table::action,
};
use sekimori_decide::{Facts, Outcome};

use super::{
    ALLOWED, REFUSED,
    open::{describe_device, describe_file},
};
use crate::{
    count::count,
    emit::Record,
    judge::Policy,
    offset::*,
    path::Place,
    read::{Typed, pointer, probed, typed},
    task,
};

/// Called for the program and again for each interpreter it asks for.
#[lsm(hook = "bprm_check_security")]
pub fn bprm_check(ctx: LsmContext) -> i32 {
    let bprm: *const u8 = ctx.arg(0);
    let Some(policy) = Policy::in_force() else {
        return ALLOWED;
    };
    count(kind::EXEC, counter::SEEN);
    // SAFETY: typed loads from the hook's argument.
    unsafe {
        let file: *const u8 = typed(bprm, &BPRM_FILE);
        if file.is_null() {
            return ALLOWED;
        }
        let set = policy.set_of_file(file);
        if !policy.judges(kind::EXEC, set) {
            return ALLOWED;
        }
        let facts = Facts { programs: policy.programs_of(set), ..policy.actor() };
        let outcome = policy.judge(kind::EXEC, set, &facts);
        if outcome.action < action::DENY {
            keep(bprm, &policy, outcome);
            return ALLOWED;
        }
        if let Some(mut record) = Record::begin(kind::EXEC, operation::EXEC) {
            describe_file::<Typed>(&mut record, file);
            describe_device(&mut record, file);
            record.path(Place::of_file(file));
            record.second_path(working_directory());
            record.kernel_string::<{ NAME_BYTES_MAX as u32 }>(pointer(bprm, &BPRM_FILENAME));
            record.send(&policy, outcome);
        }
        REFUSED
    }
}

/// Keeps the strongest outcome of this launch for the record of its success.
#[inline(always)]
fn keep(bprm: *const u8, policy: &Policy, outcome: Outcome) {
    if outcome.action == 0 {
        return;
    }
    let note = task::note(true);
    if note.is_null() {
        return;
    }
    // SAFETY: not null, and only its own task touches it.
    unsafe {
        if (*note).bprm != bprm as u64 || (*note).exec_action < outcome.action {
            (*note).bprm = bprm as u64;
            (*note).exec_action = outcome.action;
            (*note).exec_rule = outcome.rule;
            (*note).exec_generation = policy.generation;
        }
    }
}

#[inline(always)]
fn kept(bprm: *const u8, policy: &Policy) -> Outcome {
    let note = task::note(false);
    if note.is_null() {
        return Outcome::default();
    }
    // SAFETY: not null, and only its own task touches it.
    unsafe {
        let fits = (*note).bprm == bprm as u64 && (*note).exec_generation == policy.generation;
        (*note).bprm = 0;
        if fits {
            Outcome { action: (*note).exec_action, rule: (*note).exec_rule }
        } else {
            Outcome::default()
        }
    }
}

/// `sched_process_exec(task, old_pid, bprm)`: the new program is in place.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    let current: *const u8 = ctx.arg(0);
    let bprm: *const u8 = ctx.arg(2);
    let Some(policy) = Policy::in_force() else {
        return 0;
    };
    let Some(mut record) = Record::begin(kind::EXEC, operation::EXEC) else {
        return 0;
    };
    // SAFETY: the tracepoint's own argument; the program's file is held by it.
    let file = unsafe { typed::<*const u8>(bprm, &BPRM_FILE) };
    // SAFETY: likewise.
    unsafe {
        describe_file::<Typed>(&mut record, file);
        describe_device(&mut record, file);
    }
    record.event().size = probed::<u32>(bprm, &BPRM_ARGC) as u64;
    record.path(Place::of_file(file));
    record.second_path(working_directory());
    let mm = pointer(current, &TASK_MM);
    let start: u64 = probed(mm, &MM_ARG_START);
    let end: u64 = probed(mm, &MM_ARG_END);
    let mut bytes = end.wrapping_sub(start);
    if bytes > ARGUMENT_BYTES_MAX as u64 {
        bytes = ARGUMENT_BYTES_MAX as u64;
        record.event().flags |= flag::ARGUMENTS_TRUNCATED;
    }
    record.user_bytes(start as *const u8, bytes);
    record.environment(probed(mm, &MM_ENV_START), probed(mm, &MM_ENV_END));
    record.send(&policy, kept(bprm, &policy));
    0
}

#[inline(always)]
fn working_directory() -> Place {
    // SAFETY: the helper answers the current task.
    let current = unsafe { aya_ebpf::helpers::bpf_get_current_task_btf() } as *const u8;
    Place::of_path(pointer(current, &TASK_FS).wrapping_add(FS_PWD.get()))
}
