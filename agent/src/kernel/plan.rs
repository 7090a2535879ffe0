//! Which program goes on which hook, and what is lost without it.

use aya::{Btf, Ebpf, programs::Program};
use aya_obj::btf::BtfKind;
use serde::Serialize;

use super::{KernelError, error::shortened, load::Loaded};

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
    loaded.btf.id_by_type_name_kind("inet_sendpage", BtfKind::Func).is_ok()
}

macro_rules! plan {
    ($(
        $program:literal $kind:ident $hook:literal, $feature:literal
        $(, lost $lost:literal)? $(, needed $needed:ident)?;
    )*) => {
        &[$(Plan {
            program: $program,
            feature: $feature,
            hook: Hook::$kind($hook),
            label: concat!(stringify!($kind), " ", $hook),
            lost: plan!(@lost $($lost)?),
            needed: plan!(@needed $($needed)?),
        }),*]
    };
    (@needed) => { |_| true };
    (@needed $needed:ident) => { $needed };
    (@lost) => { None };
    (@lost $lost:literal) => { Some($lost) };
}

const PLAN: &[Plan] = plan! {
    "bprm_check" Lsm "bprm_check_security", "exec";
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
    "sb_kern_mount" Lsm "sb_kern_mount", "usb.mount";
    "inode_create" Lsm "inode_create", "usb.write";
    "inode_mkdir" Lsm "inode_mkdir", "usb.write";
    "inode_mknod" Lsm "inode_mknod", "usb.write";
    "inode_symlink" Lsm "inode_symlink", "usb.write";
    "inode_link" Lsm "inode_link", "usb.write";
    "inode_unlink" Lsm "inode_unlink", "usb.write";
    "inode_rmdir" Lsm "inode_rmdir", "usb.write";
    "inode_rename" Lsm "inode_rename", "usb.write";
    "inode_setattr" Lsm "inode_setattr", "usb.write", needed plain_setattr;
    "inode_setattr_mapped" Lsm "inode_setattr", "usb.write", needed mapped_setattr;
    "buffered_write" Exit "generic_perform_write", "usb.write (bytes)";
    "direct_write" Exit "generic_file_direct_write", "usb.write (bytes)",
        lost "bytes of direct writes to vfat and exfat";
    "iomap_write" Exit "iomap_file_buffered_write", "usb.write (bytes)",
        lost "bytes of buffered writes on iomap file systems";
    "iomap_direct_write" Entry "iomap_dio_complete", "usb.write (bytes)",
        lost "bytes of direct writes to ext4";
    "file_close" Entry "__fput", "usb.write (close)";
    "socket_connect" Lsm "socket_connect", "net.connect";
    "socket_sendmsg" Lsm "socket_sendmsg", "net.upload";
    "inet_sendmsg" Exit "inet_sendmsg", "net.upload (bytes)";
    "inet6_sendmsg" Exit "inet6_sendmsg", "net.upload (bytes)", lost "bytes sent over IPv6";
    "inet_sendpage" Exit "inet_sendpage", "net.upload (sendfile)", lost "bytes of sendfile",
        needed with_sendpage;
    "udp_recvmsg" Exit "udp_recvmsg", "net.upload (bytes in)", lost "UDP bytes received";
    "udpv6_recvmsg" Exit "udpv6_recvmsg", "net.upload (bytes in)",
        lost "UDP bytes received over IPv6";
    "inet_release" Entry "inet_release", "net.upload (close)";
};

/// Loads and attaches every program. The order is the plan's; nothing judges before a policy is in
/// force.
///
/// # Errors
/// When a required program cannot be loaded or attached.
pub(super) fn attach(loaded: &mut Loaded) -> Result<Vec<Feature>, KernelError> {
    let features = try_attach(loaded);
    let failed: Vec<String> = features
        .iter()
        .filter(|feature| feature.required && !feature.attached)
        .map(|feature| format!("{}: {}", feature.hook, feature.detail))
        .collect();
    if failed.is_empty() {
        return Ok(features);
    }
    Err(KernelError::Unsupported(format!(
        "{} programs cannot be attached:\n{}\n  `sekimori doctor` shows all of them",
        failed.len(),
        failed.join("\n")
    )))
}

/// Loads and attaches what can be.
pub(super) fn try_attach(loaded: &mut Loaded) -> Vec<Feature> {
    let needed: Vec<_> = PLAN.iter().filter(|plan| (plan.needed)(loaded)).collect();
    needed.into_iter().map(|plan| attach_one(plan, loaded)).collect()
}

fn attach_one(plan: &Plan, loaded: &mut Loaded) -> Feature {
    let result = match loaded.ebpf.program_mut(plan.program) {
        Some(program) => {
            put_in_place(program, plan.hook, &loaded.btf).map_err(|error| shortened(&*error))
        }
        None => Err("not among the programs this agent was built with".to_owned()),
    };
    tracing::debug!(hook = plan.label, ?result, "program");
    let (attached, detail) = match (result, plan.lost) {
        (Ok(detail), _) => (true, detail),
        (Err(error), None) => (false, error),
        (Err(error), Some(lost)) => (false, format!("lost: {lost} ({error})")),
    };
    Feature {
        name: plan.feature,
        hook: plan.label,
        attached,
        detail,
        required: plan.lost.is_none(),
    }
}

/// Takes every program off its hook.
pub(super) fn detach(ebpf: &mut Ebpf) {
    for (name, program) in ebpf.programs_mut() {
        let result = match program {
            Program::Lsm(lsm) => lsm.unload(),
            Program::FEntry(entry) => entry.unload(),
            Program::FExit(exit) => exit.unload(),
            Program::BtfTracePoint(tracepoint) => tracepoint.unload(),
            _ => continue,
        };
        // One of two variants was never loaded; that is no fault.
        if let Err(error) = result {
            tracing::debug!("detaching {name}: {error}");
        }
    }
}

type Fault = Box<dyn std::error::Error>;

fn put_in_place(program: &mut Program, hook: Hook, btf: &Btf) -> Result<String, Fault> {
    match (hook, &mut *program) {
        (Hook::Lsm(name), Program::Lsm(lsm)) => {
            lsm.load(name, btf)?;
            lsm.attach()?;
        }
        (Hook::Entry(name), Program::FEntry(entry)) => {
            entry.load(name, btf)?;
            entry.attach()?;
        }
        (Hook::Exit(name), Program::FExit(exit)) => {
            exit.load(name, btf)?;
            exit.attach()?;
        }
        (Hook::Tracepoint(name), Program::BtfTracePoint(tracepoint)) => {
            tracepoint.load(name, btf)?;
            tracepoint.attach()?;
        }
        _ => return Err("is of another kind than the plan says".into()),
    }
    let verified = program.info().ok().and_then(|info| info.verified_instruction_count());
    Ok(verified.map_or_else(
        || "attached".to_owned(),
        |count| format!("attached, {count} instructions verified"),
    ))
}
