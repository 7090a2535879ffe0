//! What is tried: one list of everything, by theme.

mod attacks;
mod below;
mod below_commands;
mod compat;
mod conservation;
mod containers;
mod delivery;
mod distributed;
mod drives;
mod evidence;
mod exhaustion;
mod faults;
mod files;
mod fleet;
mod images;
mod inodes;
mod isolation;
mod launches;
mod launches_loaded;
mod launches_more;
mod losses;
mod names;
mod net;
mod net_more;
mod net_passed;
mod net_ways;
mod opens;
mod operator;
mod outlives;
mod own_files;
mod places;
mod policy;
mod prepare;
mod receipts;
mod shares;
mod shares_more;
mod shares_ways;
mod tell;
mod usb;
mod usb_attributes;
mod usb_blocks;
mod usb_calls;
mod usb_denied;
mod usb_fuse;
mod usb_mounts;
mod usb_ways;
mod volumes;

use anyhow::Result;

pub use self::prepare::{Older, prepare};
use crate::run::World;

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
    let themes: [(&str, &[(&str, Run)]); 46] = [
        ("usb", usb::ALL),
        ("receipts", receipts::ALL),
        ("usb-denied", usb_denied::ALL),
        ("usb-ways", usb_ways::ALL),
        ("usb-calls", usb_calls::ALL),
        ("usb-mounts", usb_mounts::ALL),
        ("usb-fuse", usb_fuse::ALL),
        ("shares", shares::ALL),
        ("shares-more", shares_more::ALL),
        ("shares-ways", shares_ways::ALL),
        ("usb-attributes", usb_attributes::ALL),
        ("usb-blocks", usb_blocks::ALL),
        ("containers", containers::ALL),
        ("below", below::ALL),
        ("below-commands", below_commands::ALL),
        ("images", images::ALL),
        ("volumes", volumes::ALL),
        ("drives", drives::ALL),
        ("compat", compat::ALL),
        ("launches", launches::ALL),
        ("launches-more", launches_more::ALL),
        ("launches-loaded", launches_loaded::ALL),
        ("opens", opens::ALL),
        ("files", files::ALL),
        ("places", places::ALL),
        ("inodes", inodes::ALL),
        ("net", net::ALL),
        ("net-more", net_more::ALL),
        ("net-ways", net_ways::ALL),
        ("net-passed", net_passed::ALL),
        ("names", names::ALL),
        ("tell", tell::ALL),
        ("operator", operator::ALL),
        ("policy", policy::ALL),
        ("outlives", outlives::ALL),
        ("attacks", attacks::ALL),
        ("own-files", own_files::ALL),
        ("exhaustion", exhaustion::ALL),
        ("isolation", isolation::ALL),
        ("distributed", distributed::ALL),
        ("delivery", delivery::ALL),
        ("fleet", fleet::ALL),
        // Looks at what all the others have recorded; behind it are floods, which take a translated
        // processor too long to verify.
        ("evidence", evidence::ALL),
        ("losses", losses::ALL),
        ("conservation", conservation::ALL),
        // Ends with a step of the clock, after which times no longer tell what came last.
        ("faults", faults::ALL),
    ];
    let named = |(theme, list): (&'static str, &'static [(&'static str, Run)])| {
        list.iter().map(move |(name, run)| Scenario { name: format!("{theme}.{name}"), run: *run })
    };
    themes.into_iter().flat_map(named).filter(|it| !is_absent(&it.name)).collect()
}

/// What cannot be tried on a kernel: the beginning of its release, and the scenario. SECURITY.md
/// names it, and it counts neither as passed nor as failed.
const ABSENT: &[(&str, &str)] = &[
    // The SMB server of Linux 6.1 tells every client in a guest that it has no such share; why was not
    // found out, so there is nobody to write to.
    ("6.1.", "shares-more.smb"),
    ("6.1.", "shares-more.smb-refused"),
];

fn is_absent(name: &str) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    ABSENT.iter().any(|(kernel, absent)| *absent == name && release.starts_with(kernel))
}
