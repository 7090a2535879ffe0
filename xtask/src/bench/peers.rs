//! `cargo xtask bench --peers`: what other monitors cost that Debian has packages of. They are
//! unpacked below the cache and not installed: auditd would begin to audit this machine.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::figures::{BASE, Figures};
use super::text::{signed, table, whole};
use crate::cache;
use crate::setup::apt::PrivateApt;

/// With the libraries that a machine may lack. bpftrace is not here: the one that Debian 12 has
/// (0.17) ends with a segmentation fault on Linux 6.12.
const PACKAGES: [&str; 8] = [
    "auditd",
    "libauparse0",
    "libaudit1",
    "libcap-ng0",
    "libbpf-tools",
    "libbpf1",
    "libelf1",
    "zlib1g",
];

/// Unpacks them; answers where. Of each package the oldest version that the suites have, so that
/// all fit together and run with this machine's C library.
///
/// # Errors
/// When apt fails or does not know one of them.
pub fn unpack() -> Result<PathBuf> {
    let apt = PrivateApt::open(false)?;
    let directory = cache::directory()?.join("peers");
    for package in PACKAGES {
        let version = apt.versions(package)?.pop();
        let version = version.with_context(|| format!("the mirror has no package {package}"))?;
        println!("get    {package} {version}");
        apt.unpack_into(package, &version, &directory)?;
    }
    Ok(directory)
}

/// What each of them adds to an operation, its own work counted, and how much of what was done is
/// not in its log.
pub fn report(figures: &Figures) -> String {
    let mut setups: Vec<&str> = figures.operations.iter().map(|one| one.setup.as_str()).collect();
    setups.dedup();
    setups.retain(|setup| *setup != BASE);
    let rows: Vec<_> = figures
        .names()
        .into_iter()
        .filter_map(|name| {
            let base = figures.of(name, BASE)?.kernel;
            let cells = setups.iter().map(|setup| {
                let added = figures.added(name, setup, BASE, |one| one.total());
                let lost = figures.of(name, setup).and_then(|one| Some((one.lost?, one.count)));
                let lost = lost.map_or_else(String::new, |(lost, count)| {
                    format!(", {} % lost", whole(lost as f64 / count as f64 * 100.0))
                });
                added.map_or_else(String::new, |added| signed(added) + &lost)
            });
            Some([name.to_owned(), whole(base)].into_iter().chain(cells).collect())
        })
        .collect();
    let header: Vec<_> =
        ["operation", BASE].into_iter().chain(setups.iter().copied()).map(str::to_owned).collect();
    table(&header, &rows)
}

#[cfg(test)]
mod tests {
    use super::{Figures, report};

    #[test]
    fn what_a_peer_adds_is_shown_with_what_it_loses() {
        let line = |setup: &str, kernel: u32, peer: u32, lost: &str| {
            format!(
                r#"{{"setup":"{setup}","operation":"stat","count":100,"kernel":{kernel}.0,
                "agent":{peer}.0,"collector":0.0,"lost":{lost}}}"#
            )
        };
        let mut figures = Figures::default();
        figures.add(&[line("nothing", 3000, 0, "null"), line("audit", 3100, 50, "25")]);
        let last = report(&figures).lines().last().unwrap_or_default().replace(' ', "");
        assert_eq!(last, "|stat|3,000|+150,25%lost|");
    }
}
