//! The leader's term, by which a guard in front of a node tells an old leader's writes from the present one's.

use crate::operation::classify;

/// The time for which one merger leads. A later one has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl Term {
    /// Reads a header's value; `None` unless it is a number of 64 bits in decimal digits, and nothing else.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(value).ok()?.parse().ok().map(Self)
    }
}

/// Whether a request may change something on a node. What is none of the API's operations may.
#[must_use]
pub fn may_change(method: &str, path_and_query: &str) -> bool {
    match method {
        "GET" | "HEAD" | "OPTIONS" => false,
        "POST" => !classify(method, path_and_query)
            .is_ok_and(|classified| classified.operation.reads_by_post()),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_is_digits_and_nothing_else() {
        for (value, term) in [("0", 0), ("7", 7), ("18446744073709551615", u64::MAX)] {
            assert_eq!(Term::parse(value.as_bytes()), Some(Term(term)));
        }
        for value in [
            "",
            "+7",
            "-7",
            " 7",
            "7 ",
            "7,8",
            "7.0",
            "0x7",
            "seven",
            "٧",
            "18446744073709551616",
        ] {
            assert_eq!(Term::parse(value.as_bytes()), None, "{value}");
        }
        assert_eq!(Term::parse(b"\xff"), None);
        assert!(Term(9) < Term(10));
    }

    #[test]
    fn what_has_another_path_or_method_than_the_apis_may_change_something() {
        for (method, path) in [
            ("GET", "/indexes/x/documents"),
            ("HEAD", "/nowhere"),
            ("OPTIONS", "/indexes/x/documents"),
            ("POST", "//indexes/x/search/?q="),
            ("POST", "/indexes/x/documents/f%65tch"),
        ] {
            assert!(!may_change(method, path), "{method} {path}");
        }
        for (method, path) in [
            ("POST", "/nowhere"),
            ("POST", "/indexes/x%2Fsearch"),
            ("POST", "/indexes/search"),
            ("post", "/indexes/x/search"),
            ("PUT", "/indexes/x/search"),
            ("PROPFIND", "/"),
            ("", ""),
        ] {
            assert!(may_change(method, path), "{method} {path}");
        }
    }
}
