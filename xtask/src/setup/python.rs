//! Packages for Python, each in an environment of its own below the cache.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{cache, process};

/// One of them. It is a module of the same name.
pub struct Package {
    /// The environment's directory in the cache; the tests look for it there.
    pub directory: &'static str,
    /// Its name on PyPI.
    pub name: &'static str,
    /// What else is wanted of it, as `[server]`, or nothing.
    pub extras: &'static str,
    /// Its version.
    pub version: &'static str,
}

impl Package {
    /// Installs it unless it is there; the answer is its version.
    ///
    /// # Errors
    /// When Python has no `venv`, or the package cannot be had; the error says what to run.
    pub fn ensure(&self) -> Result<String> {
        let Package { name, extras, version, .. } = self;
        let directory = cache::directory()?.join(self.directory);
        let python = directory.join("bin/python");
        let question =
            format!("import importlib.metadata as it, {name}; print(it.version('{name}'))");
        let ask = || process::output(Command::new(&python).args(["-c", &question]));
        if ask().is_ok_and(|found| found.trim() == *version) {
            return Ok((*version).to_owned());
        }
        println!("get    {name} {version}");
        let mut make = Command::new("python3");
        make.args(["-m", "venv", "--clear"]).arg(&directory);
        if let Err(error) = process::output(&mut make) {
            bail!(
                "cannot make an environment for Python: {error:#}\nrun  apt-get install python3-venv"
            );
        }
        let mut install = Command::new(&python);
        let wanted = format!("{name}{extras}=={version}");
        install.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:", &wanted]);
        if let Err(error) = process::output(&mut install) {
            bail!("cannot install {wanted}: {error:#}\nrun  {}", process::line(&install));
        }
        Ok(ask()?.trim().to_owned())
    }
}
