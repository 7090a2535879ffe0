//! A reader of Parquet that shares no code with ours: `duckdb` for Python, in an environment of its
//! own below the cache. The tests of archives ask it what it finds.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{cache, process};

/// The environment's directory in the cache; the tests look for it there.
const DIRECTORY: &str = "parquet-reader";
const PACKAGE: &str = "duckdb";
const VERSION: &str = "2.0.1";

/// Installs it unless it is there; the answer is its version.
///
/// # Errors
/// When Python has no `venv`, or the package cannot be had; the error says what to run.
pub fn ensure() -> Result<String> {
    let directory = cache::directory()?.join(DIRECTORY);
    let python = directory.join("bin/python");
    let ask = || {
        let mut ask = Command::new(&python);
        process::output(ask.args(["-c", "import duckdb; print(duckdb.__version__)"]))
    };
    if ask().is_ok_and(|version| version.trim() == VERSION) {
        return Ok(VERSION.to_owned());
    }
    println!("get    {PACKAGE} {VERSION}");
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&directory);
    if let Err(error) = process::output(&mut make) {
        bail!(
            "cannot make an environment for Python: {error:#}\nrun  apt-get install python3-venv"
        );
    }
    let mut install = Command::new(&python);
    let wanted = format!("{PACKAGE}=={VERSION}");
    install.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:", &wanted]);
    if let Err(error) = process::output(&mut install) {
        bail!("cannot install {wanted}: {error:#}\nrun  {}", process::line(&install));
    }
    Ok(ask()?.trim().to_owned())
}
