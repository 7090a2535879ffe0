//! A private apt root: the machine's own mirror and keys, more suites than the machine uses,
//! nothing installed. Signatures are checked as always.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cache, process};

/// Suites that are looked at first.
const SUITES: [&str; 4] =
    ["bookworm", "bookworm-updates", "bookworm-backports", "trixie-backports"];
/// Suites on the security mirror.
const SECURITY_SUITES: [&str; 1] = ["bookworm-security"];
/// Suites that are big and only looked at when the others have no answer.
const FURTHER_SUITES: [&str; 3] = ["trixie", "forky", "sid"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt that reads and writes only below the cache directory.
#[derive(Debug)]
pub struct PrivateApt {
    root: PathBuf,
}

impl PrivateApt {
    /// Prepares the private root, and reads the mirror's indexes when there are none yet or
    /// `refresh` asks for it.
    ///
    /// # Errors
    /// When the machine has no apt, no Debian mirror, or the mirror cannot be reached.
    pub fn open(refresh: bool) -> Result<Self> {
        if process::find_program("apt-get").is_none() {
            bail!("this machine has no apt-get: kernels are taken from a Debian mirror");
        }
        let apt = Self { root: cache::directory()?.join("apt") };
        for directory in ["lists/partial", "archives/partial", "unpacked", "none"] {
            cache::make(&apt.root.join(directory))?;
        }
        std::fs::write(apt.root.join("status"), "")?;
        if refresh || !apt.root.join("updated").is_file() {
            apt.update(false)?;
        }
        Ok(apt)
    }

    /// All versions of a package, newest first, as the suites offer them.
    ///
    /// # Errors
    /// When apt fails.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = process::output(self.command("apt-cache").args(["madison", package]))?;
        Ok(versions_in(&table))
    }

    /// The newest version that `accept` takes; the further suites are read when the usual ones
    /// have none.
    ///
    /// # Errors
    /// When apt fails.
    pub fn find(&self, package: &str, accept: impl Fn(&str) -> bool) -> Result<Option<String>> {
        let found = self.versions(package)?.into_iter().find(|version| accept(version));
        if found.is_some() || self.root.join("updated-further").is_file() {
            return Ok(found);
        }
        self.update(true)?;
        Ok(self.versions(package)?.into_iter().find(|version| accept(version)))
    }

    /// Names of the packages that this package version depends on.
    ///
    /// # Errors
    /// When apt fails or does not know the package.
    pub fn dependencies(&self, package: &str, version: &str) -> Result<Vec<(String, String)>> {
        let wanted = format!("{package}={version}");
        let record = process::output(self.command("apt-cache").args(["show", &wanted]))?;
        Ok(dependencies_in(&record, version))
    }

    /// Downloads a package and unpacks it below the cache; returns the directory. A package that
    /// is there already is not fetched again.
    ///
    /// # Errors
    /// When the download, its signature or the unpacking fails.
    pub fn unpack(&self, package: &str, version: &str) -> Result<PathBuf> {
        let target = self.root.join("unpacked").join(format!("{package}_{version}"));
        self.unpack_into(package, version, &target)?;
        Ok(target)
    }

    /// Like [`Self::unpack`], into a directory of the caller's choice, which several packages may
    /// share.
    ///
    /// # Errors
    /// When the download, its signature or the unpacking fails.
    pub fn unpack_into(&self, package: &str, version: &str, target: &Path) -> Result<()> {
        let done = target.join(format!(".{package}_{version}.unpacked"));
        if done.is_file() {
            return Ok(());
        }
        let downloads = self.root.join("archives").join(package);
        let _ = std::fs::remove_dir_all(&downloads);
        cache::make(&downloads)?;
        cache::make(target)?;
        let mut download = self.command("apt-get");
        download.current_dir(&downloads).arg("download").arg(format!("{package}={version}"));
        process::output(&mut download)?;
        let archive = std::fs::read_dir(&downloads)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get download {package} left no .deb"))?;
        process::output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(target))?;
        std::fs::remove_dir_all(&downloads)?;
        std::fs::write(done, "")?;
        Ok(())
    }

    /// Reads the mirror's indexes. A suite that the mirror does not have is not an error.
    fn update(&self, further: bool) -> Result<()> {
        let mirror = Mirror::of_this_machine(&self.root)?;
        std::fs::write(self.root.join("sources.list"), mirror.sources(further))?;
        let failure = process::output(self.command("apt-get").arg("update")).err();
        let indexes = std::fs::read_dir(self.root.join("lists"))?
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
            .count();
        if indexes == 0 {
            let why = failure.map_or_else(String::new, |error| format!(": {error:#}"));
            bail!("no package index could be read from the Debian mirror{why}");
        }
        std::fs::write(self.root.join("updated"), "")?;
        if further {
            std::fs::write(self.root.join("updated-further"), "")?;
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8");
        for (option, value) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "none"),
            ("Dir::State::Lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "."),
            ("Dir::Cache::archives", "archives"),
        ] {
            command.arg("-o").arg(format!("{option}={}", self.root.join(value).display()));
        }
        // Downloads are written below the user's cache, which the `_apt` user cannot enter.
        command.args(["-o", "APT::Sandbox::User=root", "-o", "APT::Architecture=amd64"]);
        command.args(["-o", "APT::Architectures=amd64", "-o", "Acquire::Languages=none", "-qq"]);
        command
    }
}

/// The addresses that the machine's own apt configuration names.
#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    main: String,
    security: Option<String>,
}

impl Mirror {
    fn of_this_machine(private_root: &Path) -> Result<Self> {
        let mut ask = Command::new("apt-get");
        let lists = private_root.join("none");
        ask.arg("-o").arg(format!("Dir::State::Lists={}", lists.display()));
        ask.args(["-o", "Debug::NoLocking=true", "--print-uris", "update"]);
        let printed = process::output(&mut ask)?;
        Self::from_uris(&printed).context(
            "the machine's apt sources name no Debian mirror (a suite such as bookworm or trixie): \
             add one to /etc/apt/sources.list.d",
        )
    }

    /// Reads `apt-get --print-uris update`: one quoted `SITE/dists/SUITE/InRelease` per line.
    fn from_uris(printed: &str) -> Option<Self> {
        let mut main = None;
        let mut security = None;
        for line in printed.lines() {
            let Some(uri) = line.split('\'').nth(1) else {
                continue;
            };
            let Some((site, rest)) = uri.split_once("/dists/") else {
                continue;
            };
            let suite = rest.trim_end_matches("/InRelease");
            match suite {
                _ if suite.ends_with("-security") => security = Some(site.to_owned()),
                "bookworm" | "trixie" | "forky" | "sid" | "stable" | "testing" | "unstable" => {
                    main.get_or_insert_with(|| site.to_owned());
                }
                _ => {}
            }
        }
        Some(Self { main: main?, security })
    }

    fn sources(&self, further: bool) -> String {
        let further = FURTHER_SUITES.iter().filter(|_| further);
        let signed = if Path::new(KEYRING).is_file() {
            format!("[signed-by={KEYRING}] ")
        } else {
            String::new()
        };
        let main = SUITES.iter().chain(further).map(|suite| (&self.main, suite));
        let security = self
            .security
            .iter()
            .flat_map(|site| SECURITY_SUITES.iter().map(move |suite| (site, suite)));
        main.chain(security)
            .map(|(site, suite)| format!("deb {signed}{site} {suite} main\n"))
            .collect()
    }
}

/// Reads `apt-cache madison`: `package | version | index`, newest first.
fn versions_in(table: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    table
        .lines()
        .filter(|line| line.trim_end().ends_with("Packages"))
        .filter_map(|line| line.split('|').nth(1))
        .map(|version| version.trim().to_owned())
        .filter(|version| seen.insert(version.clone()))
        .collect()
}

/// Names in a `Depends:` field with the version it asks for, or `version` when it asks for none.
fn dependencies_in(record: &str, version: &str) -> Vec<(String, String)> {
    let fields = record
        .lines()
        .filter_map(|line| line.strip_prefix("Depends: ").or(line.strip_prefix("Pre-Depends: ")));
    fields
        .flat_map(|field| field.split(','))
        .filter_map(|term| term.split('|').next())
        .map(|term| {
            let (name, bound) = term.trim().split_once(' ').unwrap_or((term.trim(), ""));
            let exact = bound.strip_prefix("(= ").map(|text| text.trim_end_matches(')'));
            (name.to_owned(), exact.unwrap_or(version).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Mirror, dependencies_in, versions_in};

    #[test]
    fn the_mirror_is_the_one_that_has_the_release() {
        let printed = "'http://a.test/sdk/dists/sdk-bookworm/InRelease' x 0 \n\
                       'http://b.test/debian/dists/bookworm-updates/InRelease' x 0 \n\
                       'http://c.test/debian/dists/bookworm/InRelease' x 0 \n\
                       'http://d.test/sec/dists/bookworm-security/InRelease' x 0 \n";
        let expected = Mirror {
            main: "http://c.test/debian".into(),
            security: Some("http://d.test/sec".into()),
        };
        assert_eq!(Mirror::from_uris(printed), Some(expected));
        assert_eq!(Mirror::from_uris("'http://a.test/dists/noble/InRelease' x 0"), None);
    }

    #[test]
    fn a_version_offered_by_two_suites_counts_once_and_sources_do_not() {
        let table = " p | 2-1 | http://m.test a/main amd64 Packages\n p | 2-1 | http://m.test \
                     b/main amd64 Packages\n p | 1-1 | http://m.test a/main Sources\n";
        assert_eq!(versions_in(table), ["2-1"]);
    }

    #[test]
    fn dependencies_carry_the_exact_version_when_there_is_one() {
        let record = "Package: x\nDepends: linux-image-6 (= 6.1-2), kmod | other, base (>= 3)\n";
        let expected = [("linux-image-6", "6.1-2"), ("kmod", "9"), ("base", "9")];
        let expected = expected.map(|(name, version)| (name.to_owned(), version.to_owned()));
        assert_eq!(dependencies_in(record, "9"), expected);
    }
}
