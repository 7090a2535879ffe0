//! What is tried: one list of everything, by theme.

mod delivery;
mod faults;
mod files;
mod launches;
mod losses;
mod net;
mod net_more;
mod opens;
mod operator;
mod places;
mod policy;
mod prepare;
mod tell;
mod usb;
mod usb_denied;

use anyhow::Result;

pub use self::prepare::{Older, prepare};
use crate::run::World;

/// Scenarios that have passed on every kernel of the matrix. `cargo xtask test` runs these; the
/// others run when they are named, and nothing in SECURITY.md rests on them yet.
pub const SETTLED: &[&str] = &[
    "usb.file-open-before-the-agent",
    "usb.cp",
    "usb.dd-block-sizes",
    "usb.dd-direct",
    "usb.append",
    "usb.names",
    "usb.links-on-ext4",
    "usb.dd-direct-on-ext4",
    "usb.tar",
    "usb.sendfile-and-copy-file-range",
    "usb.mmap-is-seen-as-open-for-write",
    "usb.pulled-out-during-a-write",
    "usb.another-stick-in-its-place",
    "usb-denied.copies-refused",
    "usb-denied.changes-refused",
    "usb-denied.reading-works",
    "usb-denied.bind-mount-refused",
    "usb-denied.mount-namespace-refused",
    "launches.arguments-and-place",
    "launches.login-uid-and-user",
    "launches.long-arguments-are-flagged",
    "launches.forbidden-program-refused",
    "launches.forbidden-script-refused",
    "launches.forbidden-interpreter-refused",
    "launches.older-program-is-known",
    "launches.exit-code",
    "launches.ended-by-signal",
    "launches.alert-rule",
    "opens.refused-for-every-program",
    "opens.refused-for-python-open-and-openat2",
    "opens.refused-by-io-uring",
    "opens.refused-through-path-descriptor",
    "opens.refused-through-other-names",
    "opens.refused-in-japanese-directory",
    "opens.refused-below-the-walk",
    "opens.exempted-program-reads",
    "opens.user-condition-honours-login-uid",
    "opens.observe-mode-lets-pass",
    "opens.alert-rule",
    "opens.record-rule",
    "opens.record-every-open",
    "files.failed-opens-recorded",
    "files.failed-opens-of-nobody",
    "files.failed-opens-elsewhere-not-recorded",
    "files.rename-out-refused",
    "files.rename-of-parent-refused",
    "files.rename-inside-allowed",
    "files.link-out-refused",
    "files.older-hard-link",
    "files.name-of-255-bytes",
    "files.name-that-is-not-utf-8",
    "files.path-of-4000-bytes",
];

/// A scenario's code.
pub type Run = fn(&mut World) -> Result<()>;

/// One scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Theme and name.
    pub name: String,
    /// Its code.
    pub run: Run,
}

/// All scenarios, in the order in which they run. Those that end daemons come late: a start of the
/// agent takes long here.
pub fn all() -> Vec<Scenario> {
    let themes: [(&str, &[(&str, Run)]); 14] = [
        ("usb", usb::ALL),
        ("usb-denied", usb_denied::ALL),
        ("launches", launches::ALL),
        ("opens", opens::ALL),
        ("files", files::ALL),
        ("places", places::ALL),
        ("net", net::ALL),
        ("net-more", net_more::ALL),
        ("tell", tell::ALL),
        ("operator", operator::ALL),
        ("policy", policy::ALL),
        ("delivery", delivery::ALL),
        ("faults", faults::ALL),
        ("losses", losses::ALL),
    ];
    let named = |(theme, list): (&'static str, &'static [(&'static str, Run)])| {
        list.iter().map(move |(name, run)| Scenario { name: format!("{theme}.{name}"), run: *run })
    };
    themes.into_iter().flat_map(named).collect()
}
