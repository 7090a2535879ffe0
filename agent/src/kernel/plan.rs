//! Which program goes on which hook, and what is lost without it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::{Program, ProgramInfo};
use aya_obj::btf::BtfKind;
use sekimori_abi::event::kind;
use serde::Serialize;

use super::{KernelError, error::shortened, load::Loaded, pinned, pins::Set};

/// A program of ours on a hook of the kernel's.
#[derive(Clone, Debug, Serialize)]
pub struct Feature {
    /// What it is for, in the words of a policy where there is one.
    pub name: &'static str,
    /// Kind and name of the hook.
    pub hook: &'static str,
    /// It is loaded and attached.
    pub attached: bool,
    /// How it went, or what is lost and why.
    pub detail: String,
    /// The agent does not run without it.
    pub required: bool,
}

#[derive(Clone, Copy)]
enum Hook {
    Lsm(&'static str),
    Entry(&'static str),
    Exit(&'static str),
    Tracepoint(&'static str),
}

struct Plan {
    program: &'static str,
    feature: &'static str,
    hook: Hook,
    label: &'static str,
    /// What is lost without it; `None`: the agent does not run without it.
    lost: Option<&'static str>,
    /// On which kernels there is anything to do for it.
    needed: fn(&Loaded) -> bool,
    /// When it stands on its hook: each call of a hook costs.
    with: With,
}

/// When there is something for a program to see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    Everything,
    Removable,
    Shares,
    /// Removable media or shares.
    Media,
    /// Removable media, where the kernel has btrfs by now.
    Btrfs,
    /// A policy that names what is loaded.
    Loads,
}

/// What is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Present {
    /// Removable media are plugged in.
    pub(super) removable: bool,
    /// Shares are mounted, or other file systems that write in ways of their own.
    pub(super) shares: bool,
    /// Removable media are plugged in, and may be formatted with btrfs.
    pub(super) btrfs: bool,
    /// Rules on `exec` name files by their place.
    pub(super) loads: bool,
}

impl With {
    const fn wanted(self, present: Present) -> bool {
        match self {
            Self::Everything => true,
            Self::Removable => present.removable,
            Self::Shares => present.shares,
            Self::Media => present.removable || present.shares,
            Self::Btrfs => present.btrfs,
            Self::Loads => present.loads,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Everything => "",
            Self::Removable => ", while USB memory is plugged in",
            Self::Shares => ", while shares are mounted",
            Self::Media => ", while USB memory is plugged in or shares are mounted",
            Self::Btrfs => ", while USB memory is plugged in and the kernel has btrfs",
            Self::Loads => ", while rules on exec name programs or labels",
        }
    }
}

/// From 6.10 on the hook's first parameter is an idmap; a program fits one of the two.
const fn plain_setattr(loaded: &Loaded) -> bool {
    !loaded.setattr_takes_idmap
}

const fn mapped_setattr(loaded: &Loaded) -> bool {
    loaded.setattr_takes_idmap
}

/// Up to 6.4 sendfile has a way of its own to a socket; later it goes through sendmsg.
fn with_sendpage(loaded: &Loaded) -> bool {
    has(loaded, "inet_sendpage")
}

/// From 6.8 on splice calls the file system itself; before, a program for shares sees it elsewhere.
/// `splice_file_range` came with the same changes.
fn splice_without_detour(loaded: &Loaded) -> bool {
    loaded.btf.id_by_type_name_kind("splice_file_range", BtfKind::Func).is_ok()
}

/// From 6.9 on there is a hook on the close of a file, and a program on it is never skipped.
fn with_release(loaded: &Loaded) -> bool {
    has(loaded, "bpf_lsm_file_release")
}

/// From 6.2 on access control lists have hooks of their own.
fn with_acl(loaded: &Loaded) -> bool {
    has(loaded, "bpf_lsm_inode_set_acl")
}

/// From 6.8 on, and in later versions of 6.1, 32-bit callers of ioctl have a hook of their own.
fn with_compat(loaded: &Loaded) -> bool {
    has(loaded, "bpf_lsm_file_ioctl_compat")
}

/// From 6.9 on all opens of block devices go through it.
fn with_bdev_open(loaded: &Loaded) -> bool {
    has(loaded, "bdev_open")
}

fn without_bdev_open(loaded: &Loaded) -> bool {
    !with_bdev_open(loaded)
}

fn has(loaded: &Loaded, function: &str) -> bool {
    loaded.btf.id_by_type_name_kind(function, BtfKind::Func).is_ok()
}

macro_rules! plan {
    ($(
        $program:literal $kind:ident $hook:literal, $feature:literal
        $(, lost $lost:literal)? $(, needed $needed:ident)? $(, with $with:ident)?;
    )*) => {
        &[$(Plan {
            program: $program,
            feature: $feature,
            hook: Hook::$kind($hook),
            label: concat!(stringify!($kind), " ", $hook),
            lost: plan!(@lost $($lost)?),
            needed: plan!(@needed $($needed)?),
            with: plan!(@with $($with)?),
        }),*]
    };
    (@needed) => { |_| true };
    (@needed $needed:ident) => { $needed };
    (@with) => { With::Everything };
    (@with $with:ident) => { With::$with };
    (@lost) => { None };
    (@lost $lost:literal) => { Some($lost) };
}

const PLAN: &[Plan] = plan! {
    "bprm_check" Lsm "bprm_check_security", "exec";
    "file_mapped" Lsm "mmap_file", "exec (load)",
        lost "loads of files that rules on exec name", with Loads;
    "mapping_made_executable" Lsm "file_mprotect", "exec (load)",
        lost "files that rules on exec name and that are made executable in memory", with Loads;
    "process_exec" Tracepoint "sched_process_exec", "exec";
    "process_fork" Tracepoint "sched_process_fork", "process ancestry";
    "process_exit" Tracepoint "sched_process_exit", "exit";
    "file_open" Lsm "file_open", "file.open";
    "rename_labelled" Lsm "inode_rename", "file.open (rename)";
    "link_labelled" Lsm "inode_link", "file.open (link)";
    "path_rename" Lsm "path_rename", "file.open (rename)",
        lost "renames out of labelled places on file systems that are mounted in parts";
    "path_link" Lsm "path_link", "file.open (link)",
        lost "hard links out of labelled places on file systems that are mounted in parts";
    "failed_open" Exit "path_openat", "file.open (failed)", lost "failed opens in labelled places";
    "disk_opened" Entry "bdev_open", "usb.mount (btrfs)",
        lost "btrfs on removable media: it counts as on no list", needed with_bdev_open;
    "disk_opened_by_number" Exit "blkdev_get_by_dev", "usb.mount (btrfs)",
        lost "btrfs on removable media: it counts as on no list", needed without_bdev_open;
    "sb_kern_mount" Lsm "sb_kern_mount", "usb.mount";
    "source_opened" Exit "security_file_open", "usb.write (sources)",
        lost "where files on removable media may come from", with Removable;
    "unmount_asked" Lsm "sb_umount", "usb.mount (unmount)", with Removable;
    "inode_create" Lsm "inode_create", "usb.write", with Media;
    "inode_mkdir" Lsm "inode_mkdir", "usb.write", with Media;
    "inode_mknod" Lsm "inode_mknod", "usb.write", with Media;
    "inode_symlink" Lsm "inode_symlink", "usb.write", with Media;
    "inode_link" Lsm "inode_link", "usb.write", with Media;
    "inode_unlink" Lsm "inode_unlink", "usb.write", with Media;
    "inode_rmdir" Lsm "inode_rmdir", "usb.write", with Media;
    "inode_rename" Lsm "inode_rename", "usb.write", with Media;
    "inode_setattr" Lsm "inode_setattr", "usb.write", needed plain_setattr, with Media;
    "inode_setattr_mapped" Lsm "inode_setattr", "usb.write", needed mapped_setattr, with Media;
    "inode_setxattr" Lsm "inode_setxattr", "usb.write", with Media;
    "inode_removexattr" Lsm "inode_removexattr", "usb.write", with Media;
    "inode_set_acl" Lsm "inode_set_acl", "usb.write", needed with_acl, with Media;
    "inode_remove_acl" Lsm "inode_remove_acl", "usb.write", needed with_acl, with Media;
    "file_ioctl" Lsm "file_ioctl", "usb.write (commands)",
        lost "commands to removable media through nodes that are open for reading", with Media;
    "file_ioctl_compat" Lsm "file_ioctl_compat", "usb.write (commands)",
        lost "such commands of 32-bit programs", needed with_compat, with Media;
    "buffered_write" Exit "generic_perform_write", "usb.write (bytes)", with Removable;
    "direct_write" Exit "generic_file_direct_write", "usb.write (bytes)",
        lost "bytes of direct writes to vfat and exfat", with Removable;
    "iomap_write" Exit "iomap_file_buffered_write", "usb.write (bytes)",
        lost "bytes of buffered writes on iomap file systems", with Removable;
    "iomap_direct_write" Entry "iomap_dio_complete", "usb.write (bytes)",
        lost "bytes of direct writes to ext4", with Removable;
    "btrfs_write" Exit "generic_write_checks", "usb.write (bytes)",
        lost "bytes of buffered writes to btrfs", with Btrfs;
    "blocks_shared" Exit "generic_remap_file_range_prep", "usb.write (bytes)",
        lost "bytes of blocks that files share", with Removable;
    "file_release" Lsm "file_release", "usb.write (close)",
        lost "the sum over a file whose close the next program was not called for",
        needed with_release, with Media;
    "file_close" Entry "__fput", "usb.write (close)", with Media;
    "share_gone" Lsm "sb_free_security", "share.write (unmount)",
        lost "when the programs for shares may leave their hooks";
    "share_write" Exit "vfs_write", "share.write (bytes)", with Shares;
    "share_writev" Exit "vfs_writev", "share.write (bytes)",
        lost "bytes of writev to shares", with Shares;
    "share_iter_write" Exit "vfs_iter_write", "share.write (bytes)",
        lost "bytes of overlays and loop devices on shares", with Shares;
    "share_splice" Exit "iter_file_splice_write", "share.write (bytes)",
        lost "bytes of splice, sendfile and copy_file_range to shares",
        needed splice_without_detour, with Shares;
    "share_aio" Entry "aio_complete_rw", "share.write (bytes)",
        lost "bytes of AIO to shares", with Shares;
    "share_ring" Exit "io_write", "share.write (bytes)",
        lost "bytes of io_uring to shares", with Shares;
    "share_ring_later" Entry "io_complete_rw", "share.write (bytes)",
        lost "bytes of io_uring to shares that were not waited for", with Shares;
    "guard_signal" Lsm "task_kill", "tamper (signal)", lost "the guard against signals";
    "guard_limit" Lsm "task_setrlimit", "tamper (limit)", lost "the guard against limits";
    "guard_trace" Lsm "ptrace_access_check", "tamper (trace)", lost "the guard against debuggers";
    "guard_map" Lsm "bpf_map", "tamper (map-open)", lost "the guard of the programs' maps";
    "guard_unlink" Lsm "inode_unlink", "tamper (unpin, replace)",
        lost "the guard of the pins and of the agent's files";
    "guard_rmdir" Lsm "inode_rmdir", "tamper (unpin, replace)",
        lost "the guard of the pins and of the agent's files";
    "guard_rename" Lsm "inode_rename", "tamper (unpin, replace)",
        lost "the guard of the pins and of the agent's files";
    "guard_unmount" Lsm "sb_umount", "tamper (unmount)", lost "the guard of the pins' mount";
    "socket_connect" Lsm "socket_connect", "net.connect";
    "socket_create" Lsm "socket_create", "net.socket";
    "socket_sendmsg" Lsm "socket_sendmsg", "net.upload";
    "inet_sendmsg" Exit "inet_sendmsg", "net.upload (bytes)";
    "inet6_sendmsg" Exit "inet6_sendmsg", "net.upload (bytes)", lost "bytes sent over IPv6";
    "inet_sendpage" Exit "inet_sendpage", "net.upload (sendfile)", lost "bytes of sendfile",
        needed with_sendpage;
    "skb_recv_udp" Exit "__skb_recv_udp", "net.upload (bytes in)",
        lost "bytes that come in over UDP, and names out of DNS answers";
    "socket_free" Lsm "sk_free_security", "net.upload (close)",
        lost "the sum over a socket whose close the next program was not called for";
    "inet_release" Entry "inet_release", "net.upload (close)";
};

/// Programs and their links, open: they stay even if somebody takes the pins away.
#[derive(Default)]
pub(super) struct Open {
    programs: BTreeMap<&'static str, OwnedFd>,
    links: BTreeMap<&'static str, OwnedFd>,
    /// Programs that are not always on their hooks.
    at_times: Vec<&'static Plan>,
}

/// Loads every program, puts it on its hook, and pins both. The order is the plan's; nothing judges
/// before a policy is in force.
///
/// # Errors
/// When a required program cannot be loaded or attached.
pub(super) fn install(loaded: &mut Loaded, set: &Set) -> Result<(), KernelError> {
    let mut failed = Vec::new();
    for plan in PLAN.iter().filter(|plan| !(plan.needed)(loaded)) {
        set.note_unneeded(plan.program)?;
    }
    for plan in needed(loaded) {
        let result = install_one(plan, loaded, set);
        tracing::debug!(hook = plan.label, ?result, "program");
        match (result, plan.lost) {
            (Ok(()), _) => {}
            (Err(_), Some(_)) => set.note_lost(plan.program)?,
            (Err(error), None) => {
                failed.push(format!("{}: {}", plan.label, shortened(&*error)));
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(KernelError::Unsupported(format!(
        "{} programs cannot be attached:\n{}\n  `sekimori doctor` shows all of them",
        failed.len(),
        failed.join("\n")
    )))
}

fn install_one(plan: &Plan, loaded: &mut Loaded, set: &Set) -> Result<(), Fault> {
    let program = verify(plan, loaded)?;
    program.pin(set.program(plan.program))?;
    pinned::pin(attach(program)?.as_fd(), &set.link(plan.program))?;
    Ok(())
}

/// Whether the set has every program that there is something to do for.
pub(super) fn is_whole(set: &Set) -> bool {
    PLAN.iter().all(|plan| set.has_program(plan.program) || set.is_absent(plan.program))
}

/// Puts the programs for what is there on their hooks, and takes the others off. Answers which
/// could not be put there, or not be kept there.
pub(super) fn follow(set: &Set, open: &mut Open, present: Present) -> Vec<String> {
    let mut failed = Vec::new();
    for plan in open.at_times.clone() {
        if plan.with.wanted(present) {
            failed.extend(open.attach(plan, set).err());
        } else if open.links.remove(plan.program).is_some() {
            set.unlink(plan.program);
        }
    }
    failed
}

impl Open {
    /// For what the programs that are on their hooks now are there.
    pub(super) fn watched(&self) -> Present {
        let stands = |with| {
            self.at_times
                .iter()
                .any(|plan| plan.with == with && self.links.contains_key(plan.program))
        };
        Present {
            removable: stands(With::Removable),
            shares: stands(With::Shares),
            btrfs: stands(With::Btrfs),
            loads: stands(With::Loads),
        }
    }

    /// How often the kernel skipped a program, by kind of what was missed.
    pub(super) fn skipped(&self) -> [u64; kind::COUNT] {
        let mut sums = [0; kind::COUNT];
        // Where two see the same close, the one that is always called is enough.
        let twice = |plan: &&Plan| match plan.program {
            "file_close" => self.links.contains_key("file_release"),
            "inet_release" => self.links.contains_key("socket_free"),
            _ => false,
        };
        for plan in PLAN.iter().filter(|plan| !twice(plan)) {
            let program = self.programs.get(plan.program);
            let count = program.and_then(|it| pinned::skipped(it.as_fd()).ok()).unwrap_or(0);
            if let Some(sum) = sums.get_mut(usize::from(plan.kind())) {
                *sum += count * plan.records_at_most();
            }
        }
        sums
    }

    /// Puts a program on its hook unless it is there.
    fn attach(&mut self, plan: &Plan, set: &Set) -> Result<(), String> {
        if self.links.contains_key(plan.program) {
            return Ok(());
        }
        let failed = |what, error| format!("{}: {what}: {error}", plan.label);
        let program = self
            .programs
            .get(plan.program)
            .ok_or_else(|| format!("{}: the program is gone", plan.label))?;
        let link = pinned::attach(program.as_fd()).map_err(|error| failed("attaching", error))?;
        let kept = pinned::pin(link.as_fd(), &set.link(plan.program));
        // Without a pin it is on its hook for as long as this agent lives.
        self.links.insert(plan.program, link);
        kept.map_err(|error| failed("pinning", error))
    }
}

/// Opens the programs and links of a set, puts back on its hook what was taken off, and tells what
/// is there and what is not. The third answer is what had been taken off.
pub(super) fn survey(set: &Set) -> (Open, Vec<Feature>, Vec<String>) {
    let mut open = Open::default();
    let (mut features, mut gone) = (Vec::new(), Vec::new());
    for plan in PLAN.iter().filter(|plan| !set.is_unneeded(plan.program)) {
        if set.is_absent(plan.program) {
            let lost = plan.lost.unwrap_or("what it is for");
            features
                .push(plan.feature(false, format!("lost: {lost} (`sekimori doctor` says why)")));
            continue;
        }
        open.programs.extend(pinned::open(&set.program(plan.program)).map(|it| (plan.program, it)));
        open.links.extend(pinned::open(&set.link(plan.program)).map(|it| (plan.program, it)));
        let mut attached = true;
        if plan.with != With::Everything {
            open.at_times.push(plan);
        } else if !open.links.contains_key(plan.program) {
            let result = open.attach(plan, set);
            attached = open.links.contains_key(plan.program);
            let how = result.err().unwrap_or_else(|| "put back".to_owned());
            gone.push(format!("{} ({how})", plan.label));
        }
        features
            .push(plan.feature(attached, format!("{}{}", verified(plan, set), plan.with.text())));
    }
    (open, features, gone)
}

fn verified(plan: &Plan, set: &Set) -> String {
    attached(ProgramInfo::from_pin(set.program(plan.program)).ok().as_ref())
}

/// Loads and attaches what can be, for a moment.
pub(super) fn try_out(loaded: &mut Loaded) -> Vec<Feature> {
    let mut features = Vec::new();
    for plan in needed(loaded) {
        let result = verify(plan, loaded).and_then(|program| {
            attach(program)?;
            Ok(attached(program.info().ok().as_ref()))
        });
        features.push(match (result, plan.lost) {
            (Ok(detail), _) => plan.feature(true, detail),
            (Err(error), None) => plan.feature(false, shortened(&*error)),
            (Err(error), Some(lost)) => {
                plan.feature(false, format!("lost: {lost} ({})", shortened(&*error)))
            }
        });
    }
    features
}

impl Plan {
    /// The class of what is missed when it is not called.
    fn kind(&self) -> u8 {
        // No record of an event is missing for it.
        if matches!(self.feature, "usb.write (sources)" | "usb.mount (btrfs)") {
            return kind::NOTE;
        }
        match self.feature.split(' ').next().unwrap_or_default() {
            "file.open" => kind::FILE_OPEN,
            "usb.write" => kind::USB_WRITE,
            "share.write" => kind::SHARE_WRITE,
            "net.upload" => kind::NET_UPLOAD,
            "net.socket" => kind::NET_SOCKET,
            "exec" => kind::EXEC,
            "exit" => kind::EXIT,
            "process" => kind::FORK,
            _ => 0,
        }
    }

    /// How many records one call decides on: a send whose bytes nobody counts is missing, and so is
    /// the close of a socket over which nothing else was sent.
    fn records_at_most(&self) -> u64 {
        match self.feature {
            "net.upload (bytes)" | "net.upload (sendfile)" => 2,
            _ => 1,
        }
    }

    fn feature(&self, attached: bool, detail: String) -> Feature {
        let required = self.lost.is_none();
        Feature { name: self.feature, hook: self.label, attached, detail, required }
    }
}

fn needed(loaded: &Loaded) -> Vec<&'static Plan> {
    PLAN.iter().filter(|plan| (plan.needed)(loaded)).collect()
}

fn attached(info: Option<&ProgramInfo>) -> String {
    let verified = info.and_then(ProgramInfo::verified_instruction_count);
    verified.map_or_else(
        || "attached".to_owned(),
        |count| format!("attached, {count} instructions verified"),
    )
}

type Fault = Box<dyn std::error::Error>;

/// Has the kernel check a program for its hook.
fn verify<'a>(plan: &Plan, loaded: &'a mut Loaded) -> Result<&'a mut Program, Fault> {
    let Loaded { ebpf, btf, .. } = loaded;
    let program =
        ebpf.program_mut(plan.program).ok_or("not among the programs this agent was built with")?;
    match (plan.hook, &mut *program) {
        (Hook::Lsm(name), Program::Lsm(lsm)) => lsm.load(name, btf)?,
        (Hook::Entry(name), Program::FEntry(entry)) => entry.load(name, btf)?,
        (Hook::Exit(name), Program::FExit(exit)) => exit.load(name, btf)?,
        (Hook::Tracepoint(name), Program::BtfTracePoint(point)) => point.load(name, btf)?,
        _ => return Err("is of another kind than the plan says".into()),
    }
    Ok(program)
}

/// Puts a program on its hook; it leaves it when the link is closed and not pinned.
fn attach(program: &Program) -> Result<OwnedFd, Fault> {
    Ok(pinned::attach(program.fd()?.as_fd())?)
}
