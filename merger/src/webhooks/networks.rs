//! Decides which addresses webhooks may call: public ones, and the private ones that the operator allows. Pure.
//!
//! A webhook's URL comes from a client. Without this check, a client could reach servers that only the merger can reach.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// The private networks that webhooks may call; `any` allows all addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    any: bool,
    allowed: Vec<IpNet>,
}

impl Networks {
    /// Whether an address may be called.
    pub(super) fn allow(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.any || is_public(address) || self.allowed.iter().any(|net| net.contains(&address))
    }
}

impl FromStr for Networks {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "any" {
            return Ok(Self {
                any: true,
                allowed: Vec::new(),
            });
        }
        let allowed = text
            .split(',')
            .map(|net| net.trim().parse())
            .collect::<Result<_, _>>()?;
        Ok(Self {
            any: false,
            allowed,
        })
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.any {
            return f.write_str("any");
        }
        let list: Vec<String> = self.allowed.iter().map(IpNet::to_string).collect();
        f.write_str(&list.join(","))
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Whether the address is not in the registry of special-purpose addresses (RFC 6890).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || a >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18))
}

/// Whether the address is global unicast, is not for documentation, and embeds no IPv4 address that isn't public.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([w, x], [y, z]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(w, x, y, z))
    };
    match (a, b, c, d, e, f) {
        (0x64, 0xff9b, 0, 0, 0, 0) => embedded(g, h),
        (0x2002, ..) => embedded(b, c),
        (0x2001, 0xdb8, ..) => false,
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_called_only_where_they_are_allowed() {
        let none = Networks::default();
        let some: Networks = "10.1.0.0/16, fd00::/8".parse().unwrap();
        let any: Networks = "any".parse().unwrap();
        for (address, public, allowed) in [
            ("1.1.1.1", true, true),
            ("2606:4700::1111", true, true),
            ("10.1.2.3", false, true),
            ("::ffff:10.1.2.3", false, true),
            ("10.2.2.3", false, false),
            ("127.0.0.1", false, false),
            ("169.254.169.254", false, false),
            ("100.64.0.1", false, false),
            ("192.168.1.1", false, false),
            ("0.0.0.0", false, false),
            ("255.255.255.255", false, false),
            ("::1", false, false),
            ("fe80::1", false, false),
            ("fd00::1", false, true),
            ("64:ff9b::7f00:1", false, false),
            ("2002:7f00:1::1", false, false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(none.allow(address), public, "{address}");
            assert_eq!(some.allow(address), allowed, "{address}");
            assert!(any.allow(address));
        }
        assert!("10.0.0.0/8;x".parse::<Networks>().is_err());
        assert_eq!(some.to_string(), "10.1.0.0/16,fd00::/8");
    }
}
