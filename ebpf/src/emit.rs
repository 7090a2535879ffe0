//! Building a record in a buffer of one's own, and sending it.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{
        bpf_get_current_task_btf, bpf_get_smp_processor_id,
        generated::{
            bpf_d_path, bpf_ktime_get_boot_ns, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
            bpf_probe_read_user, bpf_ringbuf_output,
        },
    },
    maps::RingBuf,
};
use core::{ffi::c_void, hint::black_box, ptr::from_ref};
use sekimori_abi::{
    event::{ABI_VERSION, Device, EVENT_BYTES, Event, counter, flag, verdict},
    limits::{PATH_BYTES_MAX, SCRATCH_PER_CPU, TEXT_BYTES_MAX},
    table::STATE_DEAD,
};
use sekimori_decide::Outcome;

use crate::{
    atomic,
    count::count,
    environment,
    host_mount::root_of_plain_mounts,
    judge::Policy,
    log::log_outcome,
    maps::{DENIALS, SCRATCH, SEQUENCES, Scratch, TELEMETRY, TEXT_ROOM},
    offset::*,
    path::{self, Place},
    read::{copy, typed},
    task,
};

/// A buffer of this program's own. It must end in `release`.
#[derive(Clone, Copy)]
pub struct Buffer {
    index: u32,
    scratch: *mut Scratch,
}

impl Buffer {
    /// Takes a free buffer. `None` when hooks have preempted each other `SCRATCH_PER_CPU` deep.
    #[inline(always)]
    pub fn acquire() -> Option<Self> {
        // SAFETY: the helper has no preconditions.
        let first = unsafe { bpf_get_smp_processor_id() } * SCRATCH_PER_CPU;
        for at in 0..SCRATCH_PER_CPU {
            let index = first + at;
            let scratch = SCRATCH.get_ptr_mut(index)?;
            // SAFETY: map values are 8-byte aligned and live as long as the program runs.
            if unsafe { atomic::swap(&raw mut (*scratch).busy, 1) } == 0 {
                // SAFETY: ours now.
                unsafe { (&raw mut (*scratch).used).write_volatile(0) };
                return Some(Self { index, scratch });
            }
        }
        None
    }

    /// Gives the buffer back.
    #[inline(always)]
    pub fn release(self) {
        // SAFETY: ours until here.
        unsafe { atomic::swap(&raw mut (*self.scratch).busy, 0) };
    }

    /// Its number.
    #[inline(always)]
    pub fn index(self) -> u32 {
        self.index
    }

    /// What it holds.
    #[inline(always)]
    pub fn scratch(self) -> *mut Scratch {
        self.scratch
    }

    /// A typed pointer as a mere number, which functions of their own can be given.
    #[inline(always)]
    pub fn number_of(self, address: *const u8) -> u64 {
        // SAFETY: the buffer is ours.
        unsafe {
            let cell = &raw mut (*self.scratch).dentry;
            cell.write_volatile(address as u64);
            cell.read_volatile()
        }
    }

    /// The automaton's state of a path; `None` when the path is not known to its end.
    #[inline(always)]
    pub fn state_of(self, policy: &Policy, place: Place) -> Option<u32> {
        match self.walk(place, path::HASHES) {
            path::COMPLETE => Some(path::path_state(self.index, policy.slot)),
            path::FOREIGN => Some(STATE_DEAD),
            _ => None,
        }
    }

    /// Whether the last walk depended on the mount that the file was reached by.
    #[inline(always)]
    pub fn walked_by_own_mount(self) -> bool {
        // SAFETY: the buffer is ours.
        unsafe { (&raw const (*self.scratch).own).read_volatile() != 0 }
    }

    /// Walks a path; answers how that ended.
    #[inline(always)]
    fn walk(self, place: Place, wanted: u64) -> u64 {
        // SAFETY: the buffer is ours. The verifier lets a typed pointer into memory, not into a
        // function's arguments.
        unsafe {
            (&raw mut (*self.scratch).wanted).write_volatile(wanted);
            (&raw mut (*self.scratch).mount).write_volatile(place.mount as u64);
            (&raw mut (*self.scratch).dentry).write_volatile(place.dentry as u64);
        }
        path::walk_path(self.index)
    }
}

/// Whether a file's name is not among those that can be looked up (`d_unhashed`, include/linux/dcache.h).
///
/// # Safety
/// `file` must be a typed pointer to a `struct file`.
#[inline(always)]
unsafe fn is_unhashed(file: *const u8) -> bool {
    // SAFETY: typed loads.
    unsafe {
        let dentry: *const u8 = typed(file.add(FILE_PATH.get()), &PATH_DENTRY);
        typed::<u64>(dentry.add(DENTRY_HASH.get()), &HASH_NODE_BEFORE) == 0
    }
}

/// A record under construction. It must end in `send` or `discard`.
pub struct Record {
    buffer: Buffer,
}

impl Record {
    /// Begins a record of what the current task does. Counts the loss when there is no buffer.
    #[inline(always)]
    pub fn begin(kind: u8, operation: u8) -> Option<Self> {
        let record = Self::blank(kind, operation)?;
        // SAFETY: the helper answers the current task, typed; the field belongs to our buffer.
        unsafe {
            let current = bpf_get_current_task_btf() as *const task_struct;
            task::describe(current.cast(), &raw mut (*record.buffer.scratch).event.process);
        }
        Some(record)
    }

    /// Begins a record without an actor.
    #[inline(always)]
    pub fn blank(kind: u8, operation: u8) -> Option<Self> {
        let Some(buffer) = Buffer::acquire() else {
            count(kind, counter::LOST_SCRATCH);
            return None;
        };
        let scratch = buffer.scratch;
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
        Some(Self { buffer })
    }

    /// The fixed part.
    #[inline(always)]
    pub fn event(&mut self) -> &mut Event {
        // SAFETY: the buffer is ours until `send`.
        unsafe { &mut (*self.buffer.scratch).event }
    }

    /// What it tells of comes after what was reported since it was begun.
    #[inline(always)]
    pub fn happens_now(&mut self) {
        // SAFETY: the helper has no preconditions.
        self.event().time_ns = unsafe { bpf_ktime_get_boot_ns() };
    }

    /// The buffer, for sums under construction.
    #[inline(always)]
    pub fn scratch(&mut self) -> *mut Scratch {
        self.buffer.scratch
    }

    /// Writes down the device below the file.
    #[inline(always)]
    pub fn device(&mut self, device: &Device) {
        // SAFETY: both are map values; a device is ten words, aligned in both.
        unsafe { copy(device, &raw mut self.event().device) };
    }

    /// Bytes of text in use.
    #[inline(always)]
    fn used(&self) -> u64 {
        // SAFETY: the buffer is ours until `send`.
        unsafe { (&raw const (*self.buffer.scratch).used).read_volatile() }
    }

    /// Appends a path; answers its length and how the walk ended.
    #[inline(always)]
    fn walk(&mut self, place: Place, wanted: u64) -> (u16, u64) {
        let before = self.used();
        let end = self.buffer.walk(place, wanted);
        // SAFETY: the buffer is ours until `send`.
        let cut = unsafe { (&raw const (*self.buffer.scratch).cut).read_volatile() };
        ((self.used() - before) as u16, if cut == 0 { end } else { path::INCOMPLETE })
    }

    /// Appends the first text: a path. Only when nothing was appended before.
    #[inline(always)]
    pub fn path(&mut self, place: Place) {
        let (bytes, end) = self.walk(place, path::TEXT);
        let event = self.event();
        event.text_bytes[0] = bytes;
        match end {
            path::INCOMPLETE => event.flags |= flag::PATH_TRUNCATED,
            path::IN_FILE_SYSTEM => event.flags |= flag::PATH_IN_FILE_SYSTEM,
            _ => {}
        }
    }

    /// Appends the first text: the path of a file that is being opened. The kernel's own words,
    /// where they are the host's, cost less than a walk. Only on hooks that `bpf_d_path` may be called
    /// on, and only when nothing was appended before.
    ///
    /// # Safety
    /// `file` must be a typed pointer to a `struct file`.
    #[inline(always)]
    pub unsafe fn path_of_opened(&mut self, file: *const u8) {
        // SAFETY: typed loads; the helper is given a typed `struct path` and a text of that size.
        unsafe {
            let inode: *const u8 = typed(file, &FILE_INODE);
            if self.kernel_knows_the_path(file, inode) {
                let path = file.add(FILE_PATH.get());
                let text = (&raw mut (*self.buffer.scratch).text).cast();
                let got = bpf_d_path(path.cast_mut().cast(), text, PATH_BYTES_MAX as u32);
                // One that has just been unlinked has another text.
                if got > 0 && got <= PATH_BYTES_MAX as i64 && !is_unhashed(file) {
                    let event = self.event();
                    event.flags |= flag::PATH_WHOLE;
                    event.text_bytes[0] = got as u16;
                    (&raw mut (*self.buffer.scratch).used).write_volatile(got as u64);
                    return;
                }
            }
            self.path(Place::of_opened(file, inode));
        }
    }

    /// Whether what the kernel says of the path is the host's path: of a file with its own name, on
    /// plain mounts of the host, opened by a process whose root is the host's.
    ///
    /// # Safety
    /// Both must be typed pointers.
    #[inline(always)]
    unsafe fn kernel_knows_the_path(&mut self, file: *const u8, inode: *const u8) -> bool {
        // SAFETY: typed loads; the buffer is ours.
        unsafe {
            let path = file.add(FILE_PATH.get());
            let dentry: *const u8 = typed(path, &PATH_DENTRY);
            // One that hangs below no other was opened by its handle, and its place is not known.
            if typed::<*const u8>(dentry, &DENTRY_INODE) != inode
                || typed::<*const u8>(dentry, &DENTRY_PARENT) == dentry
                || is_unhashed(file)
            {
                return false;
            }
            let mount = &raw mut (*self.buffer.scratch).mount;
            mount.write_volatile(typed::<u64>(path, &PATH_MNT));
            mount.write_volatile(mount.read_volatile().wrapping_sub(MOUNT_MNT.get() as u64));
            let root = root_of_plain_mounts(self.buffer.index);
            if root == 0 {
                return false;
            }
            let task = bpf_get_current_task_btf() as *const u8;
            let own: *const u8 = typed(task, &TASK_FS);
            let own = own.add(FS_ROOT.get());
            typed::<u64>(own, &PATH_MNT) == root.wrapping_add(MOUNT_MNT.get() as u64)
                && typed::<u64>(own, &PATH_DENTRY)
                    == (&raw const (*self.buffer.scratch).whole).read_volatile()
        }
    }

    /// Appends the second text: another path.
    #[inline(always)]
    pub fn second_path(&mut self, place: Place) {
        self.append_second(place, path::TEXT);
    }

    /// The same, so that [`Record::last_state`] can be asked. Answers how the walk ended.
    #[inline(always)]
    pub fn second_path_to_judge(&mut self, place: Place) -> u64 {
        self.append_second(place, path::TEXT | path::HASHES)
    }

    #[inline(always)]
    fn append_second(&mut self, place: Place, wanted: u64) -> u64 {
        let (bytes, end) = self.walk(place, wanted);
        let event = self.event();
        event.text_bytes[1] = bytes;
        match end {
            path::INCOMPLETE => event.flags |= flag::SECOND_PATH_TRUNCATED,
            path::IN_FILE_SYSTEM => event.flags |= flag::SECOND_PATH_IN_FILE_SYSTEM,
            _ => {}
        }
        end
    }

    /// The automaton's state of the path that [`Record::second_path_to_judge`] appended.
    #[inline(always)]
    pub fn last_state(&self, policy: &Policy) -> u32 {
        path::path_state(self.buffer.index, policy.slot)
    }

    /// Appends the third text: a NUL-terminated kernel string of at most `LIMIT` bytes.
    #[inline(always)]
    pub fn kernel_string<const LIMIT: u32>(&mut self, address: *const u8) {
        let used = self.used();
        if used >= TEXT_BYTES_MAX as u64 {
            return;
        }
        // SAFETY: checked to end inside the text.
        let got = unsafe {
            let to = (&raw mut (*self.buffer.scratch).text).cast::<u8>().add(used as usize);
            bpf_probe_read_kernel_str(to.cast(), LIMIT, address.cast())
        };
        self.appended(used, got);
    }

    /// Appends the third text: `bytes` bytes of the current task's own memory.
    #[inline(always)]
    pub fn user_bytes(&mut self, address: *const u8, bytes: u64) {
        // SAFETY: `append_bytes` gives room for that many.
        self.append_bytes(bytes, |to, bytes| unsafe {
            bpf_probe_read_user(to, bytes, address.cast())
        });
    }

    /// Appends the third text: `bytes` bytes of kernel memory.
    #[inline(always)]
    pub fn kernel_bytes(&mut self, address: *const u8, bytes: u64) {
        // SAFETY: `append_bytes` gives room for that many.
        self.append_bytes(bytes, |to, bytes| unsafe {
            bpf_probe_read_kernel(to, bytes, address.cast())
        });
    }

    /// Appends the fourth text: what the current task's environment, which lies in its own memory,
    /// tells the loader to load. Only when everything else was appended before.
    #[inline(always)]
    pub fn environment(&mut self, start: u64, end: u64) {
        let (bytes, cut) = environment::search(self.buffer, start, end);
        let event = self.event();
        event.text_bytes[3] = bytes as u16;
        if cut {
            event.flags |= flag::ENVIRONMENT_TRUNCATED;
        }
    }

    #[inline(always)]
    fn append_bytes(&mut self, bytes: u64, read: impl FnOnce(*mut c_void, u32) -> i64) {
        let used = self.used();
        // The verifier of 6.1 forgets the bound of a number that waits on the stack.
        let bytes = black_box(bytes);
        if used >= TEXT_BYTES_MAX as u64 || bytes > (TEXT_ROOM - TEXT_BYTES_MAX) as u64 {
            return;
        }
        // SAFETY: checked to end inside the text.
        let to = unsafe { (&raw mut (*self.buffer.scratch).text).cast::<u8>().add(used as usize) };
        if read(to.cast(), bytes as u32) == 0 {
            self.appended(used, bytes as i64);
        }
    }

    #[inline(always)]
    fn appended(&mut self, used: u64, got: i64) {
        if got > 0 {
            self.event().text_bytes[2] = got as u16;
            // SAFETY: the buffer is ours until `send`.
            unsafe {
                (&raw mut (*self.buffer.scratch).used).write_volatile(used + got as u64);
            }
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
        log_outcome(event.kind as u32, event.operation as u32, event.verdict as u32, event.rule);
        if urgent { self.output(&DENIALS) } else { self.output(&TELEMETRY) }
    }

    /// Gives the buffer back without a record.
    #[inline(always)]
    pub fn discard(self) {
        self.buffer.release();
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
        let mut used = self.used();
        if used > TEXT_ROOM as u64 {
            used = TEXT_ROOM as u64;
        }
        let bytes = EVENT_BYTES as u64 + used;
        self.event().record_bytes = bytes as u32;
        // SAFETY: `event` and `text` lie behind each other in the buffer.
        let failed = unsafe {
            bpf_ringbuf_output(
                from_ref(ring).cast_mut().cast(),
                (&raw mut (*self.buffer.scratch).event).cast(),
                bytes,
                0,
            )
        };
        count(kind, if failed == 0 { counter::EMITTED } else { counter::LOST_RING });
        self.buffer.release();
    }
}
