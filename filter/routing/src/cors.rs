//! Which web pages may read answers: the value of `access-control-allow-origin`.
//!
//! The merger and the filter follow the same rule. The merger sets the header on its own answers. The filter sets it on
//! answers that come directly from a node, if it differs from the node's own value, which is "any".

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The header that tells a browser whose pages may read the answer.
pub const ALLOW_ORIGIN: &str = "access-control-allow-origin";

/// The most origins that may be listed: each answer is compared with all of them.
const MAX_ORIGINS: usize = 100;

/// The origins whose pages may read answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origins {
    /// Every origin, as on a node.
    #[default]
    Any,
    /// These origins: `https://shop.example`, or `https://*.shop.example` for everything below that name.
    Listed(Vec<String>),
    /// Weft sets no header: Envoy's own `cors` filter sets it, or nobody does.
    None,
}

/// A text that no browser would send as an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Not in the form of an origin.
    #[error(
        "`{0}` is no origin: expected scheme://host[:port], such as https://shop.example or https://*.shop.example"
    )]
    Malformed(String),
    /// More than `MAX_ORIGINS`.
    #[error("at most {MAX_ORIGINS} origins can be listed")]
    TooMany,
}

impl Origins {
    /// True if pages of every origin may read answers, which nodes say by themselves.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }

    /// The value of [`ALLOW_ORIGIN`] for a request of this origin; `None` means that the header is left out.
    #[must_use]
    pub fn allow<'a>(&self, origin: Option<&'a str>) -> Option<&'a str> {
        let origin = origin?;
        match self {
            Self::Any => Some("*"),
            Self::Listed(listed) => listed
                .iter()
                .any(|pattern| matches(pattern, origin))
                .then_some(origin),
            Self::None => None,
        }
    }
}

/// True if the origin equals the listed one, or lies below it.
fn matches(pattern: &str, origin: &str) -> bool {
    let Some((scheme, parent)) = pattern.split_once('*') else {
        return pattern == origin;
    };
    origin
        .strip_prefix(scheme)
        .and_then(|host| host.strip_suffix(parent))
        .is_some_and(|below| !below.is_empty() && below.bytes().all(is_of_host))
}

fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

impl FromStr for Origins {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        match text.trim() {
            "any" | "*" => return Ok(Self::Any),
            "" | "none" => return Ok(Self::None),
            _ => {}
        }
        let origins = text
            .split(',')
            .map(|origin| normal(origin.trim()))
            .collect::<Result<Vec<_>, _>>()?;
        if origins.len() > MAX_ORIGINS {
            return Err(OriginError::TooMany);
        }
        Ok(Self::Listed(origins))
    }
}

/// An origin as browsers write it: in lower case, without the scheme's own port.
fn normal(text: &str) -> Result<String, OriginError> {
    let malformed = || OriginError::Malformed(text.to_owned());
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://").ok_or_else(malformed)?;
    let bracketed = rest.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match rest.get(bracketed..).and_then(|tail| tail.rfind(':')) {
        Some(colon) => rest.split_at(bracketed + colon),
        None => (rest, ""),
    };
    let name = host.strip_prefix("*.").unwrap_or(host);
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .filter(|address| {
            address
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        });
    let named = !name.is_empty() && name.bytes().all(is_of_host);
    let of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let number = port.strip_prefix(':');
    if scheme.is_empty()
        || !scheme.bytes().all(of_scheme)
        || !(named || address.is_some_and(|address| !address.is_empty()))
        || number.is_some_and(|number| number.parse::<u16>().is_err())
    {
        return Err(malformed());
    }
    let own = matches!((scheme, port), ("http", ":80") | ("https", ":443"));
    let port = if own { "" } else { port };
    Ok(format!("{scheme}://{host}{port}"))
}

impl std::fmt::Display for Origins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Listed(listed) => f.write_str(&listed.join(",")),
            Self::None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Vec<String> {
        match text.parse() {
            Ok(Origins::Listed(listed)) => listed,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn origins_are_kept_as_browsers_write_them() {
        assert_eq!(
            listed("https://Shop.Example:443, http://a:80,http://a:8080,capacitor://localhost"),
            [
                "https://shop.example",
                "http://a",
                "http://a:8080",
                "capacitor://localhost"
            ]
        );
        assert_eq!(listed("http://[::1]:3000"), ["http://[::1]:3000"]);
        assert_eq!(listed("http://[::1]"), ["http://[::1]"]);
        for (text, origins) in [
            ("any", Origins::Any),
            ("*", Origins::Any),
            ("none", Origins::None),
            ("", Origins::None),
        ] {
            assert_eq!(text.parse(), Ok(origins), "{text}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for text in [
            "shop.example",
            "https://",
            "https://shop.example/",
            "https://shop.example/path",
            "https://shop.example:port",
            "https://shop.example:70000",
            "https://user@shop.example",
            "https://a,,https://b",
            "https://*",
            "https://*.",
            "https://a.*.example",
            "https://*shop.example",
            "://a",
            "http://[]",
            "null",
            "all",
        ] {
            let parsed = text.parse::<Origins>();
            assert!(parsed.is_err(), "{text}: {parsed:?}");
        }
        let many = vec!["http://a"; MAX_ORIGINS + 1].join(",");
        assert_eq!(many.parse::<Origins>(), Err(OriginError::TooMany));
    }

    #[test]
    fn an_answer_names_the_origin_that_asks_if_it_is_listed() {
        let listed: Origins = "https://shop.example,https://*.eu.example:8443"
            .parse()
            .unwrap();
        for (origin, allowed) in [
            ("https://shop.example", true),
            ("https://a.eu.example:8443", true),
            ("https://a.b.eu.example:8443", true),
            ("https://eu.example:8443", false),
            ("https://.eu.example:8443", false),
            ("https://a.eu.example", false),
            ("https://evil.example/.eu.example:8443", false),
            ("https://evil.example:1@.eu.example:8443", false),
            ("http://shop.example", false),
            ("https://shop.example.evil", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(
                listed.allow(Some(origin)),
                allowed.then_some(origin),
                "{origin}"
            );
        }
        assert_eq!(listed.allow(None), None);
    }

    #[test]
    fn any_page_may_read_or_none() {
        assert_eq!(Origins::Any.allow(Some("null")), Some("*"));
        assert_eq!(Origins::Any.allow(None), None);
        assert_eq!(Origins::None.allow(Some("http://a")), None);
    }
}
