//! `host:port`, where the host is an IP address or a DNS name.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The address at which something listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

/// Why a text isn't an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `:port` at the end, or not a number from 1 to 65535.
    #[error("`{0}` needs a port from 1 to 65535: host:port")]
    Port(String),
    /// The host is neither an IP address nor a DNS name.
    #[error("`{0}` is neither an IP address nor a DNS name")]
    Host(String),
}

impl Address {
    /// Makes an address from its two parts.
    pub fn new(host: &str, port: u16) -> Result<Self, AddressError> {
        let host = host
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'))
            .unwrap_or(host);
        if port == 0 {
            return Err(AddressError::Port(format!("{host}:{port}")));
        }
        if host.parse::<IpAddr>().is_err() && !is_dns_name(host) {
            return Err(AddressError::Host(host.to_owned()));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }

    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// True if Envoy can use it without a DNS query.
    pub fn is_ip(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| AddressError::Port(text.to_owned()))?;
        let port = port
            .parse()
            .map_err(|_| AddressError::Port(text.to_owned()))?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(AddressError::Host(host.to_owned()));
        }
        Self::new(host, port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// RFC 1123 labels, and the underscores that Docker and Kubernetes allow in service names.
fn is_dns_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
        // Without this, `300.1.1.1` would count as a name.
        && text.bytes().any(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, ip) in [
            ("127.0.0.1:7700", true),
            ("[::1]:7700", true),
            ("shard-0-node-0:7700", false),
            ("a.b.svc.cluster.local:80", false),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.is_ip(), ip, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a b:1",
            "::1:7700",
            "300.1.1.1:1",
            "-a:1",
            "a}:1",
            "a..b:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
