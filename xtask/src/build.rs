//! `cargo xtask build`: the kernel programs first, then everything that embeds or runs them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::setup::rust_src;

/// What to build.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Options {
    /// Build only the kernel programs
    #[arg(long)]
    pub ebpf_only: bool,
    /// Optimise the user-space programs
    #[arg(long)]
    pub release: bool,
}

/// Directory, below the repository, that the kernel programs are built in. It is not the main
/// target directory so that neither build waits for the other's lock.
const BPF_TARGET_DIR: &str = "target/bpf";
const BPF_TARGET: &str = "bpfel-unknown-none";
const BPF_FLAGS: &str = "-C linker=bpf-linker -C debuginfo=2 -C link-arg=--btf -C target-cpu=v3";
/// What a guest finds on its PATH.
pub const GUEST_PROGRAMS: [&str; 4] =
    ["sekimori", "sekimori-agent", "sekimori-collector", "sekimori-scenarios"];
const USER_CRATES: [&str; 3] = ["sekimori-agent", "sekimori-collector", "sekimori-tests"];

/// Builds what `options` asks for.
///
/// # Errors
/// When a tool is missing or a build fails; cargo has then already printed why.
pub fn run(options: Options) -> Result<()> {
    let repository = process::repository()?;
    kernel_programs(&repository)?;
    if options.ebpf_only {
        return Ok(());
    }
    user_programs(&repository, options.release)
}

/// Builds the kernel programs; the agent's build script finds the object where cargo leaves it.
///
/// # Errors
/// When a tool is missing or they do not compile.
pub fn kernel_programs(repository: &Path) -> Result<()> {
    rust_src::ensure()?;
    if process::find_program("bpf-linker").is_none() {
        bail!("bpf-linker is missing: run `cargo xtask setup`");
    }
    println!("build  kernel programs ({BPF_TARGET})");
    let mut cargo = cargo(repository);
    cargo
        .args(["build", "-p", "sekimori-ebpf", "--profile", "bpf", "-Z", "build-std=core"])
        .args(["--target", BPF_TARGET, "--target-dir", BPF_TARGET_DIR])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", BPF_FLAGS);
    process::run(&mut cargo).context("the kernel programs did not build")?;
    let object = repository.join(BPF_TARGET_DIR).join(BPF_TARGET).join("bpf/sekimori");
    let size = std::fs::metadata(&object)
        .with_context(|| format!("cargo built no {}", object.display()))?
        .len();
    println!("ok     {} ({size} bytes)", object.display());
    Ok(())
}

/// Builds what runs in user space, with the kernel programs in it.
///
/// # Errors
/// When a crate does not compile.
pub fn user_programs(repository: &Path, release: bool) -> Result<()> {
    println!("build  agent, collector, scenarios");
    let mut cargo = cargo(repository);
    cargo.arg("build");
    for name in USER_CRATES {
        cargo.args(["-p", name]);
    }
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo).context("the user-space programs did not build")?;
    println!("ok     {}", repository.join(profile_dir(release)).display());
    Ok(())
}

/// Builds the same programs together with the unit tests. Both in one go get the same features of
/// their dependencies; one after the other, most dependencies would be compiled twice.
///
/// # Errors
/// When a crate or a test does not compile.
pub fn user_programs_and_tests(repository: &Path) -> Result<()> {
    println!("build  agent, collector, scenarios, unit tests");
    process::run(cargo(repository).args(["build", "--bins", "--tests"]))
        .context("the programs or their unit tests did not build")
}

/// Where cargo leaves the programs, relative to the repository.
#[must_use]
pub fn profile_dir(release: bool) -> &'static str {
    if release { "target/release" } else { "target/debug" }
}

/// A cargo that does not inherit what the `cargo xtask` around us was started with.
#[must_use]
pub fn cargo(repository: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    // Build scripts are run again when what they know of the package around them changes.
    let around_us =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(around_us) {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(repository)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS");
    cargo
}
