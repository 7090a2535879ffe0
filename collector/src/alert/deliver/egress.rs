//! Where notices may go at all: `egress:` of alerts.yaml.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;

/// Hosts, and the ports there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Egress(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    /// Everything below this name.
    Below(String),
    Net(IpNet),
}

impl TryFrom<Vec<String>> for Egress {
    type Error = String;

    fn try_from(entries: Vec<String>) -> Result<Egress, String> {
        entries.iter().map(|entry| Entry::parse(entry)).collect::<Result<_, _>>().map(Egress)
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Entry, String> {
        let bad = || {
            format!(
                "egress: {text:?}: expected NAME:PORT, *.NAME:PORT, ADDRESS:PORT, [ADDRESS]:PORT or \
                 NETWORK/BITS:PORT"
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        let host = if let Ok(net) = bare.parse::<IpNet>() {
            Host::Net(net)
        } else if let Ok(address) = bare.parse::<IpAddr>() {
            Host::Net(address.into())
        } else if let Some(name) = host.strip_prefix("*.") {
            Host::Below(name_of(name).ok_or_else(bad)?)
        } else {
            Host::Name(name_of(host).ok_or_else(bad)?)
        };
        Ok(Entry { host, port })
    }
}

fn name_of(text: &str) -> Option<String> {
    let plain = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '.';
    let named = !text.is_empty() && text.chars().all(plain) && !text.starts_with('.');
    named.then(|| text.trim_end_matches('.').to_ascii_lowercase())
}

impl Egress {
    /// Whether this host, a name or an address, may be sent to.
    ///
    /// # Errors
    /// What to write into the file.
    pub fn allows(&self, host: &str, port: u16) -> Result<(), String> {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        let listed = self.0.iter().filter(|entry| entry.port == port).any(|entry| {
            match (&entry.host, address) {
                (Host::Net(net), Some(address)) => net.contains(&address),
                (Host::Name(known), None) => *known == name,
                (Host::Below(known), None) => {
                    name.strip_suffix(known.as_str()).is_some_and(|front| front.ends_with('.'))
                }
                _ => false,
            }
        });
        if listed {
            return Ok(());
        }
        Err(format!("{host}:{port} is not in `egress`: notices go only where that list says"))
    }

    /// Whether an address that a name has may be connected to: one of this machine or link only when
    /// it is listed as such.
    pub fn allows_address(&self, name: &str, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        let local = match address {
            IpAddr::V4(it) => is_local_4(it),
            IpAddr::V6(it) => is_local_6(it),
        };
        let listed = self.0.iter().any(|entry| {
            entry.port == port
                && match &entry.host {
                    Host::Net(net) => net.contains(&address),
                    Host::Name(known) => known == "localhost" && name == "localhost",
                    Host::Below(_) => false,
                }
        });
        !local || listed
    }
}

fn is_local_4(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast()
        || address.octets().first() == Some(&0)
}

fn is_local_6(address: Ipv6Addr) -> bool {
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unicast_link_local()
}
