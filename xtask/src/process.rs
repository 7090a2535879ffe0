//! Running other programs, and finding things.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The repository's root: the directory above this crate.
///
/// # Errors
/// When the tree the binary was built from is gone.
pub fn repository() -> Result<PathBuf> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crate_dir.parent().context("xtask lies in no directory")?;
    if !root.join("Cargo.toml").is_file() {
        bail!("{} is no longer the repository: run this through `cargo xtask`", root.display());
    }
    Ok(root.to_path_buf())
}

/// Looks `name` up in PATH and in the administrator's directories, which an ordinary user's PATH
/// does not name.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Runs a command that speaks to the terminal for itself.
///
/// # Errors
/// When it cannot be started or does not end with success.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails; the error carries what it wrote to stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let result = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !result.status.success() {
        let why = String::from_utf8_lossy(&result.stderr);
        bail!("{} ended with {}: {}", line(command), result.status, why.trim());
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// The command as a person would type it.
#[must_use]
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Whether we may install packages.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
