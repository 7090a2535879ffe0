//! Addresses and ports as they are written in a policy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{finding::shown, model::Cidr};

/// Bits of an IPv6 prefix that holds all IPv4 addresses.
const MAPPED_BITS: u8 = 96;

/// `10.0.0.0/8`, `10.1.2.3`, `2001:db8::/32`, `::1`. IPv4 written as `::ffff:…` becomes IPv4.
///
/// # Errors
/// What is wrong and what to write instead.
pub(super) fn cidr(text: &str) -> Result<Cidr, (String, String)> {
    let bad = || {
        (
            format!("`{}` is not an address or a CIDR block", shown(text)),
            "expected for example `10.0.0.0/8`, `192.0.2.7` or `2001:db8::/32`".to_owned(),
        )
    };
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => width,
        Some(bits) if bits.len() <= 3 && bits.bytes().all(|byte| byte.is_ascii_digit()) => {
            bits.parse().map_err(|_| bad())?
        }
        Some(_) => return Err(bad()),
    };
    if bits > width {
        let message = format!("`{}`: the prefix is longer than the address", shown(text));
        return Err((message, format!("expected at most `/{width}`")));
    }
    let network = masked(address, bits);
    if network != address {
        let message = format!("`{}`: bits behind the prefix are set", shown(text));
        let hint = format!("write `{network}/{bits}` or `{address}/{width}`");
        return Err((message, hint));
    }
    Ok(unmapped(Cidr { address, bits }))
}

fn unmapped(cidr: Cidr) -> Cidr {
    match cidr.address {
        IpAddr::V6(address) if cidr.bits >= MAPPED_BITS => match address.to_ipv4_mapped() {
            Some(address) => Cidr { address: address.into(), bits: cidr.bits - MAPPED_BITS },
            None => cidr,
        },
        _ => cidr,
    }
}

/// The address with all bits behind the prefix cleared.
pub(crate) fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// `443` or `8000-8100`: first and last port.
pub(super) fn ports(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first.trim())?, port(last.trim())?);
    (first <= last).then_some((first, last))
}

fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}
