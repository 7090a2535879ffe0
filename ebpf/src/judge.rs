//! Judging: which policy is in force, what is known of the subjects, what the rules say.

use aya_ebpf::{helpers::bpf_get_current_task_btf, maps::lpm_trie::Key};
use sekimori_abi::{
    event::{Device, counter, kind},
    limits::{CANDIDATES_MAX, RULES_MAX, SERIAL_BYTES_MAX, SETS_MAX},
    table::{
        BucketKey, CANDIDATE_UNLESS_VOID, DEVICE_ANY, DEVICE_CLASS, Head, NETWORK_SLOT_BITS,
        NetworkKey, PortKey, SET_NONE, SET_UNKNOWN, UserKey, action,
    },
};
use sekimori_decide::{Facts, Outcome, outcome, score};

use crate::{
    count::count,
    emit::Buffer,
    maps::*,
    offset::*,
    path::{self, Place, S_IFDIR, S_IFMT},
    read::{copy, typed},
    task,
};

/// The policy in force, read once per event.
#[derive(Clone, Copy)]
pub struct Policy {
    pub slot: u32,
    pub generation: u32,
    pub judged_kinds: u32,
    pub recorded_kinds: u32,
    pub failed_opens: bool,
    pub any_port: u64,
    pub load_programs: u64,
    pub judges_loads: bool,
}

/// The serial of a pattern that does not ask for one.
static NO_SERIAL: [u64; SERIAL_BYTES_MAX / 8] = [0; SERIAL_BYTES_MAX / 8];

#[inline(always)]
const fn any_unless(asked: u32, value: u16) -> u32 {
    if asked == 0 { DEVICE_ANY } else { value as u32 }
}

impl Policy {
    /// `None` before the first policy is in place.
    #[inline(always)]
    pub fn in_force() -> Option<Self> {
        let active = *ACTIVE.get(0)?;
        let slot = (active & 1) as u32;
        let head: &Head = HEADS.get(slot)?;
        (active != 0).then_some(Self {
            slot,
            generation: head.generation,
            judged_kinds: head.judged_kinds,
            recorded_kinds: head.recorded_kinds,
            failed_opens: head.failed_opens != 0,
            any_port: head.any_port,
            load_programs: head.load_programs,
            judges_loads: head.judges_loads != 0,
        })
    }

    /// Whether events of this kind are recorded even when no rule matches.
    #[inline(always)]
    pub fn records(&self, kind: u8) -> bool {
        self.recorded_kinds >> kind & 1 != 0
    }

    /// Whether rules could apply to this kind and set; else nothing needs to be gathered.
    #[inline(always)]
    pub fn judges(&self, kind: u8, set: u32) -> bool {
        (self.judged_kinds >> kind & 1 != 0) || (set != SET_NONE && self.owns(kind, set))
    }

    /// Whether a rule on `exec` names what carries this set: only then a load of it is judged.
    #[inline(always)]
    pub fn judges_load(&self, set: u32) -> bool {
        self.programs_of(set) & self.load_programs != 0 || self.owns(kind::EXEC, set)
    }

    #[inline(always)]
    fn owns(&self, kind: u8, set: u32) -> bool {
        match SETS.get(self.slot * SETS_MAX + set) {
            Some(entry) => entry.own_buckets >> kind & 1 != 0,
            None => false,
        }
    }

    /// Program groups of a set.
    #[inline(always)]
    pub fn programs_of(&self, set: u32) -> u64 {
        match SETS.get(self.slot * SETS_MAX + set) {
            Some(entry) => entry.programs,
            None => 0,
        }
    }

    /// Asks the rules.
    #[inline(always)]
    pub fn judge(&self, kind: u8, set: u32, facts: &Facts) -> Outcome {
        let set = if set != SET_NONE && self.owns(kind, set) { set } else { SET_NONE };
        if set == SET_NONE && self.judged_kinds >> kind & 1 == 0 {
            return Outcome::default();
        }
        let Some(buffer) = Buffer::acquire() else {
            // Nobody gains by crowding the buffers: what cannot be judged is refused.
            count(kind, counter::LOST_SCRATCH);
            return Outcome { action: action::DENY, rule: 0 };
        };
        // SAFETY: the buffer is ours. Field by field: else they become a call of `memset`, which
        // goes byte by byte.
        unsafe {
            let to = &raw mut (*buffer.scratch()).facts;
            (&raw mut (*to).programs).write_volatile(facts.programs);
            (&raw mut (*to).users).write_volatile(facts.users);
            (&raw mut (*to).devices).write_volatile(facts.devices);
            (&raw mut (*to).destinations).write_volatile(facts.destinations);
        }
        let best = best_score(buffer.index(), self.slot, (kind as u32) << 24 | set);
        buffer.release();
        outcome(best)
    }

    /// What is known of the acting program and person.
    #[inline(always)]
    pub fn actor(&self) -> Facts {
        Facts { programs: self.current_programs(), users: self.current_users(), ..Facts::default() }
    }

    #[inline(always)]
    fn current_users(&self) -> u64 {
        let uid = task::responsible_uid();
        // SAFETY: the value is read at once.
        match unsafe { USERS.get(UserKey { slot: self.slot, uid }) } {
            Some(mask) => *mask,
            None => 0,
        }
    }

    #[inline(always)]
    fn current_programs(&self) -> u64 {
        // SAFETY: typed loads from the current task; kernel threads have no mm.
        unsafe {
            let current = bpf_get_current_task_btf() as *const u8;
            let mm: *const u8 = typed(current, &TASK_MM);
            if mm.is_null() {
                return 0;
            }
            let file: *const u8 = typed(mm, &MM_EXE_FILE);
            if file.is_null() {
                return 0;
            }
            self.programs_of(self.set_of_file(file))
        }
    }

    /// Set of an open file: remembered, or found by a walk.
    ///
    /// # Safety
    /// `file` must be a typed pointer.
    #[inline(always)]
    pub unsafe fn set_of_file(&self, file: *const u8) -> u32 {
        // SAFETY: typed loads.
        unsafe {
            let inode: *const u8 = typed(file, &FILE_INODE);
            if let Some(set) = path::remembered(self, inode)
                && (set != SET_NONE || !has_other_names(inode))
            {
                return set;
            }
            let Some(buffer) = Buffer::acquire() else {
                return SET_UNKNOWN;
            };
            let stamp = path::stamp(self);
            let state = buffer.state_of(self, Place::of_opened(file, inode));
            // What depends on the mount that this very open came by is not true for others.
            let by_own_mount = buffer.walked_by_own_mount();
            buffer.release();
            let Some(state) = state else {
                return SET_UNKNOWN;
            };
            let set = path::sets_of(self, state).0;
            if !by_own_mount {
                path::remember(stamp, inode, set);
            }
            set
        }
    }

    /// Set of what lies at a place, found by a walk and not remembered.
    #[inline(always)]
    pub fn set_of_place(&self, place: Place) -> u32 {
        let Some(buffer) = Buffer::acquire() else {
            return SET_UNKNOWN;
        };
        let state = buffer.state_of(self, place);
        buffer.release();
        match state {
            Some(state) => path::sets_of(self, state).0,
            None => SET_UNKNOWN,
        }
    }

    /// Device groups of a device: all combinations of its own values and "any", and those of its
    /// class, joined.
    #[inline(always)]
    pub fn device_groups(&self, device: &Device) -> u64 {
        if device.kind_of_write().is_none() {
            return 0;
        }
        let Some(buffer) = Buffer::acquire() else {
            return 0;
        };
        // SAFETY: the buffer is ours; both serials are 8-byte aligned there.
        let (key, ours) = unsafe {
            let key = &raw mut (*buffer.scratch()).device_key;
            (key, (&raw mut (*key).serial).cast::<[u64; SERIAL_BYTES_MAX / 8]>())
        };
        let theirs = (&raw const device.serial).cast::<[u64; SERIAL_BYTES_MAX / 8]>();
        let mut mask = 0;
        for combination in 0..8u32 {
            // SAFETY: as above; the value is read at once.
            unsafe {
                (*key).slot = self.slot;
                (*key).vendor = any_unless(combination & 1, device.vendor);
                (*key).product = any_unless(combination & 2, device.product);
                (*key).has_serial = combination >> 2;
                if combination & 4 != 0 {
                    copy(theirs, ours);
                } else {
                    copy(&raw const NO_SERIAL, ours);
                }
                if let Some(groups) = DEVICE_GROUPS.get(&*key) {
                    mask |= *groups;
                }
            }
        }
        // SAFETY: as above.
        unsafe {
            (*key).vendor = DEVICE_CLASS | device.class as u32;
            (*key).product = DEVICE_ANY;
            (*key).has_serial = 0;
            copy(&raw const NO_SERIAL, ours);
            if let Some(groups) = DEVICE_GROUPS.get(&*key) {
                mask |= *groups;
            }
        }
        buffer.release();
        mask
    }

    /// Destination groups of a peer.
    #[inline(always)]
    pub fn destination_groups(&self, peer: &Peer) -> u64 {
        let mut address = [0u8; 16];
        // SAFETY: both are 16 bytes.
        unsafe { (&raw mut address).cast::<[u64; 2]>().write_unaligned(peer.address) };
        let key = Key::new(
            NETWORK_SLOT_BITS + 128,
            NetworkKey { slot: self.slot.to_be_bytes(), address },
        );
        let by_address = match NETWORKS.get(&key) {
            Some(mask) => *mask,
            None => return 0,
        };
        // SAFETY: the value is read at once.
        let by_port =
            match unsafe { PORTS.get(PortKey { slot: self.slot, port: peer.port as u32 }) } {
                Some(mask) => *mask,
                None => 0,
            };
        by_address & (self.any_port | by_port)
    }
}

/// Whether a file has several names. Opened by one that carries no label, it may still carry one
/// by another; a directory's further links are its own and its children's.
#[inline(always)]
unsafe fn has_other_names(inode: *const u8) -> bool {
    // SAFETY: typed loads.
    unsafe {
        typed::<u32>(inode, &INODE_LINKS) > 1
            && typed::<u16>(inode, &INODE_MODE) & S_IFMT != S_IFDIR
    }
}

/// The highest score among the candidates for a kind (bits 24 and up) and a set. The facts are in
/// the buffer.
///
/// A function of its own, with numbers for arguments: the verifier looks at it once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn best_score(buffer: u32, slot: u32, kind_and_set: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    let key = BucketKey { slot, kind: kind_and_set >> 24, set: kind_and_set & 0xff_ffff };
    // SAFETY: buckets of the slot in force are not changed; the buffer is the caller's.
    unsafe {
        let Some(bucket) = BUCKETS.get(key) else {
            return 0;
        };
        let best = &raw mut (*scratch).best;
        best.write_volatile(0);
        for at in 0..CANDIDATES_MAX {
            if at as u32 >= bucket.count {
                break;
            }
            let candidate = (&raw const bucket.candidates).cast::<u32>().add(at).read();
            let score = candidate_score(buffer, slot, candidate) as u64;
            if score > best.read_volatile() {
                best.write_volatile(score);
            }
        }
        best.read_volatile() as u32
    }
}

/// The score of one candidate.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn candidate_score(buffer: u32, slot: u32, candidate: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr(buffer) else {
        return 0;
    };
    let index = candidate & !CANDIDATE_UNLESS_VOID;
    let Some(rule) = RULES.get(slot * RULES_MAX + index) else {
        return 0;
    };
    // SAFETY: the buffer is the caller's.
    score(candidate, rule, unsafe { &(*scratch).facts })
}
