//! The server of the bus that several collectors share: `nats-server`, from the Debian mirror,
//! unpacked below the cache. The tests of the bus start a cluster of it.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::PrivateApt;
use crate::{cache, process};

const PACKAGE: &str = "nats-server";
/// The directory in the cache; the tests look for the program there.
const DIRECTORY: &str = "nats";
const PROGRAM: &str = "usr/sbin/nats-server";

/// Fetches it unless it is there; the answer is its version.
///
/// # Errors
/// When the mirror has none, or it does not run here.
pub fn ensure() -> Result<String> {
    let directory = cache::directory()?.join(DIRECTORY);
    let program = directory.join(PROGRAM);
    if !program.is_file() {
        let apt = PrivateApt::open(false)?;
        let version = apt
            .find(PACKAGE, |_| true)?
            .with_context(|| format!("no suite of the mirror has {PACKAGE}"))?;
        println!("get    {PACKAGE} {version}");
        apt.unpack_into(PACKAGE, &version, &directory)?;
    }
    let told = process::output(Command::new(&program).arg("--version"))?;
    let version = told.trim().rsplit(' ').next().unwrap_or_default();
    Ok(version.trim_start_matches('v').to_owned())
}
