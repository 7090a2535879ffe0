//! Addresses that a name must not lead to unless somebody wrote them down: those of this host, of
//! the link, of many hosts, and where clouds keep the credentials of their machines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits))
}

const fn v6(parts: [u16; 8], bits: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = parts;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), bits))
}

/// Special networks, by the registries of RFC 6890, and what people call them.
const SPECIAL: [(IpNet, &str); 13] = [
    (v4(0, 0, 0, 0, 8), "no address of a host"),
    (v4(127, 0, 0, 0, 8), "this host itself"),
    (v4(169, 254, 0, 0, 16), "link-local, where clouds keep credentials"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
    // Alibaba's, Azure's and Oracle's services for their machines, and Amazon's below.
    (v4(100, 100, 100, 200, 32), "where a cloud keeps credentials"),
    (v4(168, 63, 129, 16, 32), "where a cloud keeps credentials"),
    (v4(192, 0, 0, 192, 32), "where a cloud keeps credentials"),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), "where a cloud keeps credentials"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "no address of a host"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "this host itself"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];

/// The special network that an address is in, and what it is.
pub(super) fn special(address: IpAddr) -> Option<&'static (IpNet, &'static str)> {
    let address = innermost(address);
    SPECIAL.iter().find(|(network, _)| network.contains(&address))
}

/// The IPv4 address that an IPv6 address stands for, if it does: mapped (RFC 4291, 2.5.5), or
/// translated on the way (NAT64, RFC 6052 and 8215; 6to4, RFC 3056).
pub(super) fn innermost(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let last = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low] => last(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => last(high, low),
        [0x2002, high, low, ..] => last(high, low),
        _ => address,
    }
}
