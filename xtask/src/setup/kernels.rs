//! The kernels of the test matrix: resolved on the mirror, unpacked below the cache, not installed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::apt::PrivateApt;
use crate::{cache, process};

/// How deep a meta package may lie above the one with the image.
const DEPENDENCY_DEPTH_MAX: usize = 6;
/// Only these are followed: they hold the image and its modules, and no scripts or tools.
const PACKAGE_PREFIXES: [&str; 4] =
    ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-"];

/// `tests/vm/kernels.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// The series that is booted when nobody asks for one.
    pub default: String,
    /// All series.
    pub kernel: Vec<Series>,
}

/// One line of kernel versions, such as 6.12.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Leading parts of the version number.
    pub series: String,
    /// The package that depends on the newest image.
    pub package: String,
}

/// A kernel in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// The series it was resolved for.
    pub series: String,
    /// The package version, such as `6.12.95-1~bpo12+1`.
    pub version: String,
    /// What `uname -r` says in the guest.
    pub release: String,
    /// The image.
    pub image: PathBuf,
    /// The directory that is `/lib/modules/$(uname -r)` in the guest.
    pub modules: PathBuf,
}

impl Matrix {
    /// Reads the matrix of this repository.
    ///
    /// # Errors
    /// When the file is missing or wrong; the error has line and column.
    pub fn read() -> Result<Self> {
        let path = process::repository()?.join("tests/vm/kernels.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
    }

    /// The series named `name`, or the default one.
    ///
    /// # Errors
    /// When the matrix has no such series; the error lists those it has.
    pub fn series(&self, name: Option<&str>) -> Result<&Series> {
        let name = name.unwrap_or(&self.default);
        self.kernel.iter().find(|kernel| kernel.series == name).with_context(|| {
            let known: Vec<_> = self.kernel.iter().map(|kernel| kernel.series.as_str()).collect();
            format!("no kernel series {name} in tests/vm/kernels.toml: it has {}", known.join(", "))
        })
    }
}

impl Series {
    /// Whether a package version belongs to this series: 6.1 takes 6.1.192-2 and not 6.12.95-1.
    fn takes(&self, version: &str) -> bool {
        version.strip_prefix(&self.series).is_some_and(|rest| rest.starts_with(['.', '-', '~']))
    }

    /// The kernel in the cache, without any network.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn cached(&self) -> Result<Option<Kernel>> {
        let Ok(text) = std::fs::read_to_string(self.record_path()?) else {
            return Ok(None);
        };
        let kernel: Option<Kernel> = serde_json::from_str(&text).ok();
        Ok(kernel.filter(|kernel| {
            kernel.image.is_file() && kernel.modules.join("modules.dep").is_file()
        }))
    }

    /// The kernel in the cache, fetched when it is missing.
    ///
    /// # Errors
    /// When the mirror has none of this series or a download fails.
    pub fn ensure(&self, refresh: bool) -> Result<Kernel> {
        if let Some(kernel) = self.cached()?.filter(|_| !refresh) {
            return Ok(kernel);
        }
        let apt = PrivateApt::open(false)?;
        let version = apt
            .find(&self.package, |version| self.takes(version))?
            .with_context(|| format!("no suite of the mirror has a kernel {}", self.series))?;
        if let Some(kernel) = self.cached()?.filter(|kernel| kernel.version == version) {
            return Ok(kernel);
        }
        println!("get    linux {version}");
        let tree = self.directory()?.join(&version);
        for (package, version) in image_packages(&apt, &self.package, &version)? {
            apt.unpack_into(&package, &version, &tree)?;
        }
        let kernel = self.examine(&tree, version)?;
        std::fs::write(self.record_path()?, serde_json::to_string_pretty(&kernel)?)?;
        Ok(kernel)
    }

    fn directory(&self) -> Result<PathBuf> {
        let path = cache::directory()?.join("kernels").join(&self.series);
        cache::make(&path)?;
        Ok(path)
    }

    fn record_path(&self) -> Result<PathBuf> {
        Ok(self.directory()?.join("kernel.json"))
    }

    fn examine(&self, tree: &Path, version: String) -> Result<Kernel> {
        let (base, modules) = ["usr", ""]
            .iter()
            .map(|prefix| tree.join(prefix))
            .find_map(|base| Some((base.clone(), only_entry(&base.join("lib/modules"), "")?)))
            .with_context(|| format!("{} has no lib/modules", tree.display()))?;
        let release = modules
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .context("the modules have no directory name")?;
        let image = [tree.join("boot"), modules.clone()]
            .iter()
            .find_map(|directory| only_entry(directory, "vmlinuz"))
            .with_context(|| format!("{} has no vmlinuz", tree.display()))?;
        if !modules.join("modules.dep").is_file() {
            let depmod = process::find_program("depmod").context("depmod is missing (kmod)")?;
            process::output(Command::new(depmod).arg("-b").arg(&base).arg(&release))?;
        }
        Ok(Kernel { series: self.series.clone(), version, release, image, modules })
    }
}

/// The packages below `package` that hold the kernel, found by following exact dependencies.
fn image_packages(
    apt: &PrivateApt,
    package: &str,
    version: &str,
) -> Result<BTreeSet<(String, String)>> {
    let mut found = BTreeSet::new();
    let mut layer = BTreeSet::from([(package.to_owned(), version.to_owned())]);
    for _ in 0..DEPENDENCY_DEPTH_MAX {
        let mut below = BTreeSet::new();
        for (name, version) in &layer {
            let dependencies = apt.dependencies(name, version)?;
            below.extend(dependencies.into_iter().filter(|(name, exact)| {
                exact == version && PACKAGE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            }));
        }
        below.retain(|entry| !found.contains(entry));
        if below.is_empty() {
            break;
        }
        found.extend(below.iter().cloned());
        layer = below;
    }
    // `linux-base` alone is the tool package of older releases.
    found.retain(|(name, _)| name != "linux-base");
    if found.is_empty() {
        bail!("{package} {version} depends on no kernel image");
    }
    Ok(found)
}

/// The first entry of a directory whose name starts with `prefix`.
fn only_entry(directory: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(directory)
        .ok()?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    entries.into_iter().next()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{Matrix, Series};

    #[test]
    fn a_series_takes_its_own_versions_only() {
        let series = |name: &str| Series { series: name.into(), package: String::new() };
        assert!(series("6.1").takes("6.1.192-2"));
        assert!(!series("6.1").takes("6.12.95-1~bpo12+1"));
        assert!(series("7").takes("7.3.4-1~bpo13+1"));
        assert!(!series("7").takes("6.7.1-1"));
    }

    #[test]
    fn an_unknown_series_is_refused_with_the_known_ones() {
        let matrix: Matrix =
            toml::from_str("default = \"1\"\n[[kernel]]\nseries = \"1\"\npackage = \"p\"\n")
                .unwrap();
        assert_eq!(matrix.series(None).ok().map(|found| found.series.as_str()), Some("1"));
        let refusal = matrix.series(Some("2")).map(|_| ()).unwrap_err().to_string();
        assert!(refusal.ends_with("it has 1"), "{refusal}");
    }
}
