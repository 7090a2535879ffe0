//! What is pinned, as bare descriptors. aya's own way to open a pinned program asks the kernel for
//! its types by number, which takes CAP_SYS_ADMIN; these three calls take CAP_BPF and CAP_PERFMON.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya_obj::generated::{bpf_cmd, bpf_prog_info};
use nix::libc::{SYS_bpf, syscall};

use super::KernelError;

/// `BPF_OBJ_PIN` and `BPF_OBJ_GET` of `union bpf_attr` (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `BPF_RAW_TRACEPOINT_OPEN` of `union bpf_attr`. Without a name it means the hook that the program
/// was loaded for.
#[repr(C)]
#[derive(Default)]
struct RawTracepoint {
    name: u64,
    prog_fd: u32,
    reserved: u32,
}

/// Opens what is pinned at `path`.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let object = Object { pathname: name.as_ptr() as u64, ..Object::default() };
    // SAFETY: the attributes are of the command, and the name outlives the call.
    unsafe { descriptor(bpf_cmd::BPF_OBJ_GET, &object) }
}

/// Puts a loaded program on its hook; it leaves it when the answer is closed and not pinned.
pub(super) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let prog_fd = program.as_raw_fd().cast_unsigned();
    let point = RawTracepoint { prog_fd, ..RawTracepoint::default() };
    // SAFETY: the attributes are of the command.
    unsafe { descriptor(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &point) }
}

/// Pins a descriptor at `path`.
pub(super) fn pin(descriptor: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let bpf_fd = descriptor.as_raw_fd().cast_unsigned();
    let object = Object { pathname: name.as_ptr() as u64, bpf_fd, file_flags: 0 };
    // SAFETY: the attributes are of the command, and the name outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &object) }.map(drop)
}

/// `BPF_OBJ_GET_INFO_BY_FD` of `union bpf_attr`.
#[repr(C)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// How often the kernel did not call a program because it was running on the same CPU already: a
/// process that came to the same place had preempted it (`bpf_prog_info.recursion_misses`, since
/// 5.12; programs on LSM hooks are always called from 6.2 on, and by later versions of 6.1).
pub(super) fn skipped(program: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: plain data; zeros mean that nothing more than the numbers is asked.
    let mut answer: bpf_prog_info = unsafe { std::mem::zeroed() };
    let attributes = Info {
        bpf_fd: program.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<bpf_prog_info>()).unwrap_or(0),
        info: std::ptr::from_mut(&mut answer) as u64,
    };
    // SAFETY: the attributes are of the command, and the answer outlives the call and has the
    // length that is said.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &attributes) }.map(|_| answer.recursion_misses)
}

/// `BPF_MAP_GET_NEXT_KEY` of `union bpf_attr`. Without a key it asks for the first.
#[repr(C)]
#[derive(Default)]
struct NextKey {
    map_fd: u32,
    padding: u32,
    key: u64,
    next_key: u64,
}

/// A hash table with keys of eight bytes whose values are nobody's business here.
pub(super) struct Table(OwnedFd);

impl Table {
    /// Opens a pinned table.
    pub(super) fn open(path: &Path) -> Result<Self, KernelError> {
        open(path)
            .map(Self)
            .map_err(|error| KernelError::from_aya(&path.display().to_string(), &error))
    }

    /// Whether it has entries. What cannot be asked counts as yes.
    pub(super) fn holds_any(&self) -> bool {
        let mut first = 0u64;
        let next_key = std::ptr::from_mut(&mut first) as u64;
        let map_fd = self.0.as_raw_fd().cast_unsigned();
        let attributes = NextKey { map_fd, next_key, ..NextKey::default() };
        // SAFETY: the attributes are of the command, and eight bytes are what a key has.
        match unsafe { bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &attributes) } {
            Err(error) => error.kind() != io::ErrorKind::NotFound,
            Ok(_) => true,
        }
    }
}

/// `BPF_MAP_UPDATE_ELEM` and `BPF_MAP_DELETE_ELEM` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Keeps a word with the inode of an open file, in a storage of that kind.
pub(super) fn keep(storage: BorrowedFd<'_>, file: BorrowedFd<'_>, word: u64) -> io::Result<()> {
    let key = file.as_raw_fd();
    let attributes = Element {
        map_fd: storage.as_raw_fd().cast_unsigned(),
        key: std::ptr::from_ref(&key) as u64,
        value: std::ptr::from_ref(&word) as u64,
        ..Element::default()
    };
    // SAFETY: the attributes are of the command; key and value outlive the call and are as long as
    // those of such a storage: a descriptor, and the word.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &attributes) }.map(drop)
}

/// Takes it away again.
pub(super) fn forget(storage: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    let key = file.as_raw_fd();
    let attributes = Element {
        map_fd: storage.as_raw_fd().cast_unsigned(),
        key: std::ptr::from_ref(&key) as u64,
        ..Element::default()
    };
    // SAFETY: as in `keep`.
    unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &attributes) }.map(drop)
}

/// # Safety
/// As [`bpf`], for a command that answers a descriptor.
unsafe fn descriptor<T>(command: bpf_cmd, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: by contract; the kernel gave the descriptor to us alone.
    unsafe { bpf(command, attributes).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// # Safety
/// `attributes` must be those of `command`, and what they point to must outlive the call.
unsafe fn bpf<T>(command: bpf_cmd, attributes: &T) -> io::Result<i32> {
    // SAFETY: by contract.
    let answer =
        unsafe { syscall(SYS_bpf, command as u32, std::ptr::from_ref(attributes), size_of::<T>()) };
    i32::try_from(answer).ok().filter(|answer| *answer >= 0).ok_or_else(io::Error::last_os_error)
}
