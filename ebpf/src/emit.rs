//! Building a record in a buffer of one's own, and sending it.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{
        bpf_get_current_task_btf, bpf_get_smp_processor_id,
        generated::{
            bpf_ktime_get_boot_ns, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
            bpf_probe_read_user, bpf_ringbuf_output,
        },
    },
    maps::RingBuf,
};
use core::ptr::from_ref;
use sekimori_abi::{
    event::{ABI_VERSION, EVENT_BYTES, Event, counter, flag, verdict},
    limits::{SCRATCH_PER_CPU, TEXT_BYTES_MAX},
};
use sekimori_decide::Outcome;

use crate::{
    atomic,
    count::count,
    judge::Policy,
    maps::{DENIALS, SCRATCH, SEQUENCES, Scratch, TELEMETRY, TEXT_ROOM},
    path::{self, Place},
    task,
};

/// Takes a free buffer. `None` when hooks have preempted each other `SCRATCH_PER_CPU` deep.
#[inline(always)]
pub fn acquire() -> Option<*mut Scratch> {
    // SAFETY: the helper has no preconditions.
    let first = unsafe { bpf_get_smp_processor_id() } * SCRATCH_PER_CPU;
    for at in 0..SCRATCH_PER_CPU {
        let Some(scratch) = SCRATCH.get_ptr_mut(first + at) else {
            return None;
        };
        // SAFETY: map values are 8-byte aligned and live as long as the program runs.
        if unsafe { atomic::swap(&raw mut (*scratch).busy, 1) } == 0 {
            return Some(scratch);
        }
    }
    None
}

/// Gives a buffer back.
#[inline(always)]
pub fn release(scratch: *mut Scratch) {
    // SAFETY: taken by `acquire`.
    unsafe { atomic::swap(&raw mut (*scratch).busy, 0) };
}

/// A record under construction. It must end in `send` or `drop_silently`.
pub struct Record {
    scratch: *mut Scratch,
    used: usize,
}

impl Record {
    /// Begins a record of what the current task does. Counts the loss when there is no buffer.
    #[inline(always)]
    pub fn begin(kind: u8, operation: u8) -> Option<Self> {
        let record = Self::blank(kind, operation)?;
        // SAFETY: the helper answers the current task, typed; the field belongs to our buffer.
        unsafe {
            let current = bpf_get_current_task_btf() as *const task_struct;
            task::describe(current.cast(), &raw mut (*record.scratch).event.process);
        }
        Some(record)
    }

    /// Begins a record without an actor.
    #[inline(always)]
    pub fn blank(kind: u8, operation: u8) -> Option<Self> {
        let Some(scratch) = acquire() else {
            count(kind, counter::LOST_SCRATCH);
            return None;
        };
        // SAFETY: our buffer; an event is a whole number of 8-byte words.
        unsafe {
            let words = (&raw mut (*scratch).event).cast::<u64>();
            for word in 0..EVENT_BYTES / 8 {
                words.add(word).write_volatile(0);
            }
            (*scratch).event.abi = ABI_VERSION;
            (*scratch).event.kind = kind;
            (*scratch).event.operation = operation;
            (*scratch).event.time_ns = bpf_ktime_get_boot_ns();
        }
        Some(Self { scratch, used: 0 })
    }

    /// The fixed part.
    #[inline(always)]
    pub fn event(&mut self) -> &mut Event {
        // SAFETY: the buffer is ours until `send`.
        unsafe { &mut (*self.scratch).event }
    }

    /// The buffer, for sums under construction.
    #[inline(always)]
    pub fn scratch(&mut self) -> *mut Scratch {
        self.scratch
    }

    /// Appends the first text: a path. Only when nothing was appended before.
    #[inline(always)]
    pub fn path(&mut self, place: Place) {
        // SAFETY: the buffer is ours.
        let walked = unsafe { path::walk(self.scratch, place, 0) };
        self.used = walked.bytes;
        self.event().text_bytes[0] = walked.bytes as u16;
        self.event().flags |= path::flags_of(walked, place);
    }

    /// Appends the second text: another path.
    #[inline(always)]
    pub fn second_path(&mut self, place: Place) {
        // SAFETY: the buffer is ours.
        let walked = unsafe { path::walk(self.scratch, place, self.used) };
        self.used += walked.bytes;
        self.event().text_bytes[1] = walked.bytes as u16;
        if !walked.complete {
            self.event().flags |= flag::SECOND_PATH_TRUNCATED;
        }
        if place.mount.is_null() {
            self.event().flags |= flag::SECOND_PATH_IN_FILE_SYSTEM;
        }
    }

    /// Appends the third text: a NUL-terminated kernel string of at most `limit` bytes.
    #[inline(always)]
    pub fn kernel_string(&mut self, address: *const u8, limit: usize) {
        if self.used > TEXT_BYTES_MAX || limit > TEXT_ROOM - TEXT_BYTES_MAX {
            return;
        }
        // SAFETY: checked to end inside the text.
        let got = unsafe {
            let to = (&raw mut (*self.scratch).text).cast::<u8>().add(self.used);
            bpf_probe_read_kernel_str(to.cast(), limit as u32, address.cast())
        };
        self.appended(got);
    }

    /// Appends the third text: `bytes` bytes of the current task's own memory.
    #[inline(always)]
    pub fn user_bytes(&mut self, address: *const u8, bytes: usize) {
        if self.used > TEXT_BYTES_MAX || bytes > TEXT_ROOM - TEXT_BYTES_MAX {
            return;
        }
        // SAFETY: checked to end inside the text.
        let failed = unsafe {
            let to = (&raw mut (*self.scratch).text).cast::<u8>().add(self.used);
            bpf_probe_read_user(to.cast(), bytes as u32, address.cast())
        };
        self.appended(if failed == 0 { bytes as i64 } else { 0 });
    }

    /// Appends the third text: `bytes` bytes of kernel memory.
    #[inline(always)]
    pub fn kernel_bytes(&mut self, address: *const u8, bytes: usize) {
        if self.used > TEXT_BYTES_MAX || bytes > TEXT_ROOM - TEXT_BYTES_MAX {
            return;
        }
        // SAFETY: checked to end inside the text.
        let failed = unsafe {
            let to = (&raw mut (*self.scratch).text).cast::<u8>().add(self.used);
            bpf_probe_read_kernel(to.cast(), bytes as u32, address.cast())
        };
        self.appended(if failed == 0 { bytes as i64 } else { 0 });
    }

    #[inline(always)]
    fn appended(&mut self, got: i64) {
        if got > 0 && got <= (TEXT_ROOM - TEXT_BYTES_MAX) as i64 {
            self.event().text_bytes[2] = got as u16;
            self.used += got as usize;
        }
    }

    /// Writes down what was decided and sends the record on the ring it belongs to.
    #[inline(always)]
    pub fn send(mut self, policy: &Policy, outcome: Outcome) {
        let event = self.event();
        event.verdict = outcome.verdict();
        event.rule = outcome.rule;
        event.generation = policy.generation;
        let urgent = event.verdict != verdict::ALLOWED;
        event.ring = urgent as u8;
        if event.verdict == verdict::DENIED {
            count(event.kind, counter::DENIED);
        }
        if urgent {
            self.output(&DENIALS)
        } else {
            self.output(&TELEMETRY)
        }
    }

    /// Gives the buffer back without a record.
    #[inline(always)]
    pub fn discard(self) {
        release(self.scratch);
    }

    /// Sends a record that no rule judged.
    #[inline(always)]
    pub fn send_unjudged(mut self) {
        self.output(&TELEMETRY);
    }

    #[inline(always)]
    fn output(&mut self, ring: &RingBuf) {
        let kind = self.event().kind;
        let which = self.event().ring;
        if let Some(last) = SEQUENCES.get_ptr_mut((which & 1) as u32) {
            // SAFETY: map values are 8-byte aligned.
            let before = unsafe { atomic::fetch_add(last, 1) };
            self.event().sequence = before + 1;
        }
        let mut used = self.used;
        if used > TEXT_ROOM {
            used = TEXT_ROOM;
        }
        let bytes = EVENT_BYTES + used;
        self.event().record_bytes = bytes as u32;
        // SAFETY: `event` and `text` lie behind each other in the buffer.
        let failed = unsafe {
            bpf_ringbuf_output(
                from_ref(ring).cast_mut().cast(),
                (&raw mut (*self.scratch).event).cast(),
                bytes as u64,
                0,
            )
        };
        count(
            kind,
            if failed == 0 {
                counter::EMITTED
            } else {
                counter::LOST_RING
            },
        );
        release(self.scratch);
    }
}
