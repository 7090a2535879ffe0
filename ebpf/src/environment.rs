//! The variables of a new program's environment that tell the loader what else to load
//! (`ld.so(8)`).

use aya_ebpf::helpers::generated::bpf_probe_read_user_str;
use sekimori_abi::limits::{
    ENVIRONMENT_BYTES_MAX, ENVIRONMENT_PIECES_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX,
    VARIABLE_BYTES_MAX,
};

use crate::{
    emit::Buffer,
    maps::{SCRATCH, Scratch},
    path::{put, take},
};

/// `LD_PRELOAD=`, `LD_AUDIT=` and `LD_LIBRARY_PATH=`, each in two words: the mask says how much of the
/// second one counts.
const PRELOAD: [u64; 3] = [word(b"LD_PRELO"), word(b"AD=\0\0\0\0\0"), 0xff_ffff];
const AUDIT: [u64; 3] = [word(b"LD_AUDIT"), word(b"=\0\0\0\0\0\0\0"), 0xff];
const LIBRARY_PATH: [u64; 3] = [word(b"LD_LIBRA"), word(b"RY_PATH="), u64::MAX];

const fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*bytes)
}

/// Searches the current task's memory from `start` to `end`, and appends what it finds to the text
/// in the buffer. Answers how many bytes that were, and whether something may be missing.
#[inline(always)]
pub fn search(buffer: Buffer, start: u64, end: u64) -> (u64, bool) {
    let scratch = buffer.scratch();
    // SAFETY: the buffer is the caller's.
    unsafe {
        put(&raw mut (*scratch).variable, start);
        put(&raw mut (*scratch).variables_end, end);
        put(&raw mut (*scratch).within, 0);
        put(&raw mut (*scratch).variables_kept, 0);
        put(&raw mut (*scratch).variables_cut, 0);
        look_through(buffer.index());
        let unseen = take(&raw const (*scratch).variable) < end;
        let cut = take(&raw const (*scratch).variables_cut) != 0;
        (take(&raw const (*scratch).variables_kept), unseen || cut)
    }
}

/// Functions of their own, with numbers for arguments: the verifier looks at each once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_through(buffer: u32) -> u32 {
    for _ in 0..ENVIRONMENT_PIECES_MAX {
        if next_piece(buffer) == 0 {
            break;
        }
    }
    0
}

/// Looks at a variable, or at the next piece of a long one; answers 0 at the end.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn next_piece(buffer: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    // SAFETY: the buffer is the caller's, and `name` is NAME_BYTES_MAX bytes.
    unsafe {
        let at = take(&raw const (*scratch).variable);
        if at >= take(&raw const (*scratch).variables_end) {
            return 0;
        }
        let piece = (&raw mut (*scratch).name).cast::<u64>();
        let got = bpf_probe_read_user_str(piece.cast(), NAME_BYTES_MAX as u32, at as *const _);
        if got <= 0 {
            return 0;
        }
        let within = take(&raw const (*scratch).within) != 0;
        // As many bytes as fit, with a NUL of the helper's own in place of the last: it goes on, if
        // only with the variable's own NUL.
        let goes_on = got as usize == NAME_BYTES_MAX;
        put(&raw mut (*scratch).variable, at + got as u64 - goes_on as u64);
        put(&raw mut (*scratch).within, goes_on as u64);
        if !within && names_what_to_load(piece) {
            keep(scratch, at);
        }
    }
    1
}

#[inline(always)]
unsafe fn names_what_to_load(piece: *const u64) -> bool {
    // SAFETY: the caller's, and longer than two words.
    let (first, second) = unsafe { (take(piece), take(piece.add(1))) };
    let is = |[name, rest, mask]: [u64; 3]| first == name && second & mask == rest;
    is(PRELOAD) || is(AUDIT) || is(LIBRARY_PATH)
}

/// Appends the variable at an address to the text while there is room for it.
#[inline(always)]
unsafe fn keep(scratch: *mut Scratch, at: u64) {
    // SAFETY: the buffer is the caller's, and `used` leaves room for a variable.
    unsafe {
        let used = take(&raw const (*scratch).used);
        let kept = take(&raw const (*scratch).variables_kept);
        if used >= TEXT_BYTES_MAX as u64 || kept >= ENVIRONMENT_BYTES_MAX as u64 {
            put(&raw mut (*scratch).variables_cut, 1);
            return;
        }
        let to = (&raw mut (*scratch).text).cast::<u8>().add(used as usize);
        let got = bpf_probe_read_user_str(to.cast(), VARIABLE_BYTES_MAX as u32, at as *const _);
        if got <= 0 || got as usize == VARIABLE_BYTES_MAX {
            put(&raw mut (*scratch).variables_cut, 1);
        }
        if got > 0 {
            put(&raw mut (*scratch).used, used + got as u64);
            put(&raw mut (*scratch).variables_kept, kept + got as u64);
        }
    }
}
