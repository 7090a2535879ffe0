//! Where things that cost a download are kept between runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Names another directory than the user's cache directory.
pub const VARIABLE: &str = "SEKIMORI_CACHE";

/// The cache directory; made when it does not exist.
///
/// # Errors
/// When no home directory is known or the directory cannot be made.
pub fn directory() -> Result<PathBuf> {
    let path = match std::env::var_os(VARIABLE) {
        Some(path) => std::path::absolute(path)?,
        None => user_cache()?.join("sekimori"),
    };
    make(&path)?;
    Ok(path)
}

/// Makes a directory and what is above it.
///
/// # Errors
/// When that fails; the error names the directory.
pub fn make(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

fn user_cache() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let home = std::env::var_os("HOME")
        .with_context(|| format!("HOME is not set: set {VARIABLE} to a directory"))?;
    Ok(PathBuf::from(home).join(".cache"))
}
