//! Programs that building and booting need.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// A program and the Debian package it comes in.
const PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("mkfs.vfat", "dosfstools"),
    ("mkfs.exfat", "exfatprogs"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("cpio", "cpio"),
    ("zstd", "zstd"),
    ("xz", "xz-utils"),
    ("depmod", "kmod"),
    ("modprobe", "kmod"),
    ("curl", "curl"),
    ("ip", "iproute2"),
    ("python3", "python3"),
    ("script", "bsdutils"),
    ("setpriv", "util-linux"),
    ("flock", "util-linux"),
    ("cryptsetup", "cryptsetup-bin"),
    ("dmsetup", "dmsetup"),
    ("losetup", "mount"),
    ("lvm", "lvm2"),
    ("mdadm", "mdadm"),
    ("mtp-sendfile", "mtp-tools"),
    ("rpc.nfsd", "nfs-kernel-server"),
    ("ksmbd.mountd", "ksmbd-tools"),
    ("sshfs", "sshfs"),
    ("protoc", "protobuf-compiler"),
    ("/usr/lib/python3/dist-packages/grpc/__init__.py", "python3-grpcio"),
    ("/usr/lib/python3/dist-packages/google/protobuf/__init__.py", "python3-protobuf"),
    ("/usr/lib/python3/dist-packages/pip/__init__.py", "python3-pip"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("/usr/lib/openssh/sftp-server", "openssh-sftp-server"),
    ("dpkg-deb", "dpkg"),
    ("cc", "gcc"),
];

/// Programs that cargo builds: name, version, and where the program looks for its version.
const CRATES: [(&str, &str); 2] = [("bpf-linker", "0.10.4"), ("cargo-nextest", "0.9.143")];

/// Installs the packages whose programs are missing; returns how many programs there are.
///
/// # Errors
/// When something is missing and we may not install it, or apt fails.
pub fn ensure_packages() -> Result<usize> {
    let missing = missing_packages();
    if missing.is_empty() {
        return Ok(PROGRAMS.len());
    }
    let list = missing.join(" ");
    let by_hand = format!("apt-get update && apt-get install -y --no-install-recommends {list}");
    if !process::is_root() {
        bail!("programs are missing and installing them needs root: run\n  sudo sh -c '{by_hand}'");
    }
    println!("get    {list}");
    let mut update = Command::new("apt-get");
    let updated = process::output(update.args(["update", "-qq"]));
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    if let Err(error) = process::output(&mut install) {
        let update = updated.err().map_or_else(String::new, |error| format!("\n{error:#}"));
        bail!("cannot install packages: {error:#}{update}\nrun as root\n  {by_hand}");
    }
    let still = missing_packages();
    if !still.is_empty() {
        bail!("{} installed without the programs that were expected in it", still.join(", "));
    }
    Ok(PROGRAMS.len())
}

fn missing_packages() -> Vec<&'static str> {
    let mut missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, _)| match process::find_program(program) {
            None => true,
            Some(path) => *program == "busybox" && !is_static(&path),
        })
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    missing
}

/// The initramfs has no loader: a program that asks for one cannot run there.
fn is_static(program: &Path) -> bool {
    const LOADER: &[u8] = b"/lib64/ld-linux-x86-64.so.2\0";
    std::fs::read(program)
        .is_ok_and(|bytes| !bytes.windows(LOADER.len()).any(|window| window == LOADER))
}

/// Installs what cargo builds; calls `report` with name and version of each.
///
/// # Errors
/// When cargo cannot build one; the error names the command to run.
pub fn ensure_crates(mut report: impl FnMut(&str, &str)) -> Result<()> {
    for (name, version) in CRATES {
        // Any nextest will do; the linker must fit the compiler's LLVM.
        let installed = installed_version(name);
        let fits = match &installed {
            Some(found) => name != "bpf-linker" || found == version,
            None => false,
        };
        if !fits {
            println!("get    {name} {version}");
            let mut cargo = Command::new("cargo");
            cargo
                .args(["install", "--quiet", "--locked", name, "--version", version, "--force"])
                .env_remove("RUSTFLAGS")
                .env_remove("CARGO_TARGET_DIR");
            if let Err(error) = process::output(&mut cargo) {
                bail!("cannot install {name}: {error:#}\nrun {}", process::line(&cargo));
            }
        }
        report(name, installed.as_deref().filter(|_| fits).unwrap_or(version));
    }
    Ok(())
}

/// `NAME VERSION …` on the first line of what the program says about itself.
fn installed_version(name: &str) -> Option<String> {
    process::find_program(name)?;
    let mut ask = match name.strip_prefix("cargo-") {
        Some(subcommand) => {
            let mut cargo = Command::new("cargo");
            cargo.arg(subcommand);
            cargo
        }
        None => Command::new(name),
    };
    let said = process::output(ask.arg("--version")).ok()?;
    said.lines().next()?.split_whitespace().nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::is_static;

    #[test]
    fn a_program_with_a_loader_is_not_static() {
        let directory = tempfile::tempdir().unwrap();
        for (content, expected) in [
            (&b"\x7fELF /lib64/ld-linux-x86-64.so.2\0"[..], false),
            (&b"\x7fELF nothing"[..], true),
        ] {
            let path = directory.path().join("program");
            std::fs::write(&path, content).unwrap();
            assert_eq!(is_static(&path), expected);
        }
    }
}
