//! The source of Rust's core library, which the kernel programs are compiled with.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::PrivateApt;
use crate::process;

/// Names a zstd tarball that holds `library/`, for machines that can download nothing.
pub const TARBALL_VARIABLE: &str = "SEKIMORI_RUST_SRC";

/// A way to get the source, and what to call it.
type Attempt = (&'static str, fn(&Toolchain) -> Result<()>);

/// What `rustc` says about itself.
#[derive(Debug, Clone)]
struct Toolchain {
    release: String,
    sysroot: PathBuf,
}

impl Toolchain {
    fn ask() -> Result<Self> {
        let verbose = process::output(Command::new("rustc").arg("-Vv"))?;
        let release = verbose
            .lines()
            .find_map(|line| line.strip_prefix("release: "))
            .context("`rustc -Vv` names no release")?
            .to_owned();
        let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
        Ok(Self { release, sysroot: PathBuf::from(sysroot.trim()) })
    }

    fn source(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust")
    }

    fn has_source(&self) -> bool {
        self.source().join("library/core/src/lib.rs").is_file()
            && self.source().join("library/Cargo.lock").is_file()
    }
}

/// Puts the source into the sysroot when it is missing; returns the toolchain's version.
///
/// # Errors
/// When no source of exactly this version can be had; the error names what was tried.
pub fn ensure() -> Result<String> {
    let toolchain = Toolchain::ask()?;
    if toolchain.has_source() {
        return Ok(toolchain.release);
    }
    println!("get    rust-src {}", toolchain.release);
    let attempts: [Attempt; 3] = [
        ("rustup component add rust-src", from_rustup),
        ("the distribution's rust-src package", from_package),
        ("the tarball that SEKIMORI_RUST_SRC names", from_tarball),
    ];
    let mut failures = String::new();
    for (name, attempt) in attempts {
        match attempt(&toolchain) {
            Ok(()) if toolchain.has_source() => return Ok(toolchain.release),
            Ok(()) => failures.push_str(&format!("\n  {name}: it holds no library/")),
            Err(error) => failures.push_str(&format!("\n  {name}: {error:#}")),
        }
    }
    bail!(
        "the source of Rust {}'s core library could not be had:{failures}\n\
         run `rustup component add rust-src`, or set {TARBALL_VARIABLE} to a .tar.zst of that \
         version that holds library/",
        toolchain.release
    );
}

fn from_tarball(toolchain: &Toolchain) -> Result<()> {
    let Some(tarball) = std::env::var_os(TARBALL_VARIABLE) else { bail!("it is not set") };
    let target = toolchain.source();
    std::fs::create_dir_all(&target)
        .with_context(|| format!("cannot make {}", target.display()))?;
    process::output(
        Command::new("tar").arg("--zstd").arg("-xf").arg(tarball).arg("-C").arg(&target),
    )?;
    Ok(())
}

fn from_rustup(_: &Toolchain) -> Result<()> {
    process::output(Command::new("rustup").args(["component", "add", "rust-src"]))?;
    Ok(())
}

/// Debian packages the same source; any suite will do as long as the version is ours.
fn from_package(toolchain: &Toolchain) -> Result<()> {
    let apt = PrivateApt::open(false)?;
    let wanted = format!("{}+", toolchain.release);
    let versions = apt.versions("rust-src")?;
    let Some(version) = versions.iter().find(|version| version.starts_with(&wanted)) else {
        bail!("the mirror has {}, not {}", versions.join(", "), toolchain.release);
    };
    let unpacked = apt.unpack("rust-src", version)?;
    let library = unpacked.join(format!("usr/src/rustc-{}/library", toolchain.release));
    copy_tree(&library, &toolchain.source())
}

fn copy_tree(from: &Path, to_parent: &Path) -> Result<()> {
    std::fs::create_dir_all(to_parent)?;
    process::output(Command::new("cp").arg("-a").arg(from).arg(to_parent))?;
    Ok(())
}
