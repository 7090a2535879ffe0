//! Loading: offsets in, object loaded, nothing attached yet.

use std::path::Path;

use aya::{Btf, Ebpf, EbpfLoader};
use procfs::process::{MountInfo, Process};
use sekimori_abi::limits::SCRATCH_PER_CPU;

use super::{KernelError, OBJECT, offsets::Offsets, pins::Set};

/// The kernel's list of active security modules.
pub(crate) const LSM_PATH: &str = "/sys/kernel/security/lsm";

/// Programs that are not attached yet.
pub(super) struct Loaded {
    /// Maps and programs.
    pub(super) ebpf: Ebpf,
    /// The kernel's types.
    pub(super) btf: Btf,
    /// See `Offsets`.
    pub(super) setattr_takes_idmap: bool,
}

/// Loads the programs' maps and gives the programs their constants.
pub(super) fn load(program_logs: bool) -> Result<Loaded, KernelError> {
    if OBJECT.is_empty() {
        return Err(KernelError::Unsupported(
            "this agent was built without the kernel programs; build it with `cargo xtask build`"
                .to_owned(),
        ));
    }
    let offsets = Offsets::resolve()?;
    let btf = Btf::from_sys_fs()
        .map_err(|error| KernelError::from_aya("reading the kernel's types", &error))?;
    let cpus = aya::util::nr_cpus()
        .map_err(|(what, error)| KernelError::Other(format!("{what}: {error}")))?;
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX / SCRATCH_PER_CPU);
    let logs = u32::from(program_logs);
    let (root_device, root_upper_device) = (root_device()?, root_upper_device()?);
    let host_namespace = host_namespace()?;

    tracing::debug!(cpus, "offsets resolved");
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf)).allow_unsupported_maps();
    loader.map_max_entries("SCRATCH", cpus.saturating_mul(SCRATCH_PER_CPU));
    for (constant, value) in &offsets.values {
        // A constant that no program reads is not in the object.
        loader.override_global(constant, value, false);
    }
    loader.override_global("ROOT_DEVICE", &root_device, true);
    loader.override_global("ROOT_UPPER_DEVICE", &root_upper_device, true);
    loader.override_global("HOST_NAMESPACE", &host_namespace, true);
    loader.override_global("PROGRAM_LOGS", &logs, true);
    let ebpf = loader
        .load(OBJECT)
        .map_err(|error| KernelError::from_aya("loading the kernel programs", &error))?;
    tracing::debug!("maps created");
    Ok(Loaded { ebpf, btf, setattr_takes_idmap: offsets.setattr_takes_idmap })
}

/// What makes the same programs another build when they are loaded: their constants, apart from
/// the fields of the kernel, which do not change while it runs.
pub(super) fn variant(program_logs: bool) -> Result<String, KernelError> {
    let devices = (root_device()?, root_upper_device()?);
    Ok(format!("{} {} {} {program_logs}", devices.0, devices.1, host_namespace()?))
}

/// The kernel's number (`s_dev`) of the host's root file system.
///
/// # Errors
/// When the mounts of the first process cannot be read.
fn root_device() -> Result<u32, KernelError> {
    kernel_device(&root_mount()?.majmin)
        .ok_or_else(|| KernelError::Other("process 1 has no root file system".to_owned()))
}

/// The same of what the host's root writes to when it is an overlay, so that a machine without a
/// disk of its own does not count its own files as a share; 0 when it is none, or the place cannot
/// be found any more.
///
/// # Errors
/// When the mounts of the first process cannot be read.
fn root_upper_device() -> Result<u32, KernelError> {
    let root = root_mount()?;
    let upper = root.super_options.get("upperdir").filter(|_| root.fs_type == "overlay");
    let upper =
        upper.and_then(Option::as_ref).and_then(|path| nix::sys::stat::stat(path.as_str()).ok());
    Ok(upper.map_or(0, |it| {
        let (major, minor) = (nix::sys::stat::major(it.st_dev), nix::sys::stat::minor(it.st_dev));
        u32::try_from(major << MINOR_BITS | minor).unwrap_or(0)
    }))
}

fn root_mount() -> Result<MountInfo, KernelError> {
    // What is mounted last on `/` hides the rest.
    let root = host_mounts()?.into_iter().rev().find(|mount| mount.mount_point == Path::new("/"));
    root.ok_or_else(|| KernelError::Other("process 1 has no root file system".to_owned()))
}

/// The mounts of the first process, in the order in which they were made.
pub(super) fn host_mounts() -> Result<Vec<MountInfo>, KernelError> {
    let mounts = Process::new(1).and_then(|first| first.mountinfo());
    mounts.map(|mounts| mounts.0).map_err(|error| {
        KernelError::Other(format!("the mounts of process 1 cannot be read: {error}"))
    })
}

/// The number of the host's mount namespace.
///
/// # Errors
/// When process 1 does not tell.
fn host_namespace() -> Result<u32, KernelError> {
    const LINK: &str = "/proc/1/ns/mnt";
    let target = std::fs::read_link(LINK).map_err(|error| KernelError::from_aya(LINK, &error))?;
    // mnt:[4026531841]
    let text = target.to_string_lossy();
    let number = text.strip_prefix("mnt:[").and_then(|rest| rest.strip_suffix(']'));
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| KernelError::Other(format!("{LINK} says {text:?}")))
}

/// Bits of a minor number within the kernel (`MINORBITS`, include/linux/kdev_t.h).
const MINOR_BITS: u32 = 20;

/// The kernel's number of a device that `/proc/PID/mountinfo` gives as `MAJOR:MINOR`.
pub(super) fn kernel_device(majmin: &str) -> Option<u32> {
    let (major, minor) = majmin.split_once(':')?;
    Some(major.parse::<u32>().ok()? << MINOR_BITS | minor.parse::<u32>().ok()?)
}

/// Pins the maps, so that they can be opened by name from here on and by the next agent.
pub(super) fn pin_maps(loaded: &Loaded, set: &Set) -> Result<(), KernelError> {
    for (name, map) in loaded.ebpf.maps() {
        // Constants belong to the programs, and the BPF file system takes no dots.
        if !name.starts_with('.') {
            map.pin(set.map_path(name))
                .map_err(|error| KernelError::from_aya(&format!("pinning map {name}"), &error))?;
        }
    }
    Ok(())
}

/// Whether BPF programs may decide.
///
/// # Errors
/// When `bpf` is not among the active security modules; says how to change that.
pub(super) fn check_lsm() -> Result<String, KernelError> {
    let list = std::fs::read_to_string(LSM_PATH).map_err(|error| {
        KernelError::Unsupported(format!(
            "{LSM_PATH}: {error}; is securityfs mounted? (mount -t securityfs securityfs \
             /sys/kernel/security)"
        ))
    })?;
    let list = list.trim();
    if list.split(',').any(|name| name == "bpf") {
        return Ok(list.to_owned());
    }
    Err(KernelError::Unsupported(format!(
        "bpf is not among the active security modules ({list}); boot with lsm={list},bpf"
    )))
}
