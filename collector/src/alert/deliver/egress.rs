//! Where the collector may connect to: the `egress:` list of `alerts.yaml`.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use thiserror::Error;

use super::address::{innermost, special};
use super::target::{Host, Target, Written, name, split};
use crate::limits::EGRESS_ENTRIES_MAX;

/// The name of this host, which stands for its loopback addresses.
const LOCALHOST: &str = "localhost";

/// A list of hosts, networks and ports. What is not in it is not connected to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Egress(Arc<[Entry]>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    place: Place,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Name(String),
    /// Every name below this one, which begins with a dot.
    Below(String),
    Network(IpNet),
}

/// The list cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EgressError {
    /// An entry that is none.
    #[error(
        "egress: {0:?} is no host, domain or network with a port: write `host.example.org:443`, \
         `*.example.org:443`, `10.0.0.0/8:514` or `[2001:db8::/32]:6514`"
    )]
    Entry(String),
    /// A network with more than its prefix.
    #[error("egress: {written:?} has bits behind its prefix: write `{network}`")]
    Bits {
        /// As it is written.
        written: String,
        /// As it should be.
        network: IpNet,
    },
    /// Too many.
    #[error("egress: {0} entries, and {EGRESS_ENTRIES_MAX} at most: use a network or a domain")]
    Many(usize),
}

impl Egress {
    /// Reads the list.
    ///
    /// # Errors
    /// [`EgressError`] says which entry cannot be used.
    pub fn new<S: AsRef<str>>(list: &[S]) -> Result<Egress, EgressError> {
        if list.len() > EGRESS_ENTRIES_MAX {
            return Err(EgressError::Many(list.len()));
        }
        let entries = list.iter().map(|written| entry(written.as_ref()));
        Ok(Egress(entries.collect::<Result<_, _>>()?))
    }

    /// Whether something may be sent there at all.
    pub(super) fn permits(&self, target: &Target) -> bool {
        match &target.host {
            Host::Name(name) => self.of(target.port).any(|place| match place {
                Place::Name(it) => it == name,
                Place::Below(it) => name.ends_with(it.as_str()),
                Place::Network(_) => false,
            }),
            Host::Address(address) => {
                let inner = innermost(*address);
                let listed = self.of(target.port).any(|place| {
                    let Place::Network(it) = place else { return false };
                    it.contains(address) || it.contains(&inner)
                });
                listed && self.admits(target, inner).is_ok()
            }
        }
    }

    /// Whether a connection to `target` may go to this address; if not, what it is.
    pub(super) fn admits(&self, target: &Target, address: IpAddr) -> Result<(), &'static str> {
        let address = innermost(address);
        let local = matches!(&target.host, Host::Name(name) if name == LOCALHOST);
        if local && address.is_loopback() {
            return Ok(());
        }
        let Some((network, what)) = special(address) else {
            // Whoever answers for this name on another host is not meant by it.
            return if local { Err("not this host") } else { Ok(()) };
        };
        // Nobody who lists 0.0.0.0/0 means this.
        let named = self.of(target.port).any(|place| {
            matches!(place, Place::Network(it) if network.contains(it) && it.contains(&address))
        });
        if named { Ok(()) } else { Err(what) }
    }

    fn of(&self, port: u16) -> impl Iterator<Item = &Place> {
        self.0.iter().filter(move |entry| entry.port == port).map(|entry| &entry.place)
    }
}

impl TryFrom<Vec<String>> for Egress {
    type Error = EgressError;

    fn try_from(list: Vec<String>) -> Result<Egress, EgressError> {
        Egress::new(&list)
    }
}

fn entry(written: &str) -> Result<Entry, EgressError> {
    let wrong = || EgressError::Entry(written.to_owned());
    let (host, port) = split(written).ok_or_else(wrong)?;
    let network = match host {
        Written::Bracketed(host) if host.contains('/') => {
            Some(IpNet::V6(host.parse::<Ipv6Net>().map_err(|_| wrong())?))
        }
        Written::Bracketed(host) => {
            Some(IpNet::from(IpAddr::V6(host.parse().map_err(|_| wrong())?)))
        }
        Written::Plain(host) if host.contains('/') => {
            Some(IpNet::V4(host.parse::<Ipv4Net>().map_err(|_| wrong())?))
        }
        Written::Plain(host) => host.parse().ok().map(|it| IpNet::from(IpAddr::V4(it))),
    };
    let place = match (network, host) {
        (Some(network), _) if network != network.trunc() => {
            let (written, network) = (written.to_owned(), network.trunc());
            return Err(EgressError::Bits { written, network });
        }
        (Some(network), _) => Place::Network(network),
        (None, Written::Plain(host)) => match host.strip_prefix("*.") {
            Some(below) => Place::Below(format!(".{}", name(below).ok_or_else(wrong)?)),
            None => Place::Name(name(host).ok_or_else(wrong)?),
        },
        (None, Written::Bracketed(_)) => return Err(wrong()),
    };
    Ok(Entry { place, port })
}
