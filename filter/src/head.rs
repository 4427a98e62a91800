//! The head of a request: read in one pass over all its headers, or from single ones where that is enough.
//!
//! All headers must be read where the filter has to find those that a client may not set. Where Envoy has removed these before,
//! most requests need method and path alone.

use std::borrow::Cow;

use weft_routing::{BodyFormat, Facts, Needs, headers};

use crate::head_block::HeadBlock;
use crate::host::Host;

/// The parts of a head by which a request is routed.
#[derive(Default)]
pub(crate) struct Head<'h> {
    pub(crate) method: &'h str,
    pub(crate) path: Cow<'h, str>,
    pub(crate) facts: Facts<'h>,
    pub(crate) forbidden: Vec<&'h str>,
    request_id: Option<&'h str>,
    parent: Option<&'h str>,
    pub(crate) origin: Option<&'h str>,
}

/// Headers of a request.
pub(crate) enum Headers {
    /// All of them.
    All(HeadBlock),
    /// Those that were asked for and are there.
    Single(Vec<(&'static str, Vec<u8>)>),
}

/// By which a request is classified.
const FIRST: [&str; 2] = [":method", ":path"];
/// By which a request with a body is decided, beside the public headers.
const BODY: [&str; 4] = [
    "content-type",
    "content-length",
    "content-encoding",
    "authorization",
];
/// What identifies a registration.
const TRACE: [&str; 2] = ["x-request-id", "traceparent"];

impl Headers {
    pub(crate) fn all(host: &impl Host) -> Self {
        Self::All(host.request_headers())
    }

    pub(crate) fn first(host: &impl Host) -> Self {
        Self::single(host, FIRST)
    }

    /// What the rest of the work with a request needs, where `may_write` says that it may be a direct write, and `by_origin` that
    /// not every page may read the answer.
    pub(crate) fn needed(host: &impl Host, needs: Needs, may_write: bool, by_origin: bool) -> Self {
        let none: &[&str] = &[];
        let lists = [
            (needs != Needs::Nothing, headers::PUBLIC.as_slice()),
            (needs == Needs::All, &BODY),
            (may_write && needs != Needs::Nothing, &TRACE),
            (by_origin, &["origin"]),
        ];
        let lists = lists.into_iter();
        let names = lists.flat_map(|(wanted, names)| if wanted { names } else { none });
        Self::single(host, names.copied())
    }

    fn single(host: &impl Host, names: impl IntoIterator<Item = &'static str>) -> Self {
        let found = names
            .into_iter()
            .filter_map(|name| Some((name, host.request_header(name)?)));
        Self::Single(found.collect())
    }
}

/// The request's headers that identify a registration.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) request_id: Option<String>,
    pub(crate) parent: Option<String>,
}

impl<'h> Head<'h> {
    /// What these headers say.
    pub(crate) fn of(headers: &'h Headers) -> Self {
        let mut head = Self::default();
        match headers {
            Headers::All(block) => block
                .iter()
                .for_each(|(name, value)| head.take(name, value)),
            Headers::Single(found) => found
                .iter()
                .for_each(|(name, value)| head.take(name, value)),
        }
        head
    }

    fn take(&mut self, name: &'h str, value: &'h [u8]) {
        match name {
            ":method" => self.method = text(value),
            // A path that isn't UTF-8 must still be recognised as internal or not.
            ":path" => self.path = String::from_utf8_lossy(value),
            "content-type" => self.facts.body.format = BodyFormat::of_content_type(text(value)),
            "content-length" => self.facts.body.length = text(value).parse().ok(),
            "content-encoding" => self.facts.body.encoded = true,
            // Which of two a node takes isn't judged here. Two that were asked for as one are joined by a comma.
            "authorization" if self.facts.authorization.is_some() || value.contains(&b',') => {
                self.facts.special = true;
            }
            "authorization" => self.facts.authorization = Some(text(value)),
            "x-request-id" => self.request_id = Some(text(value)),
            "traceparent" => self.parent = Some(text(value)),
            "origin" => self.origin = Some(text(value)),
            _ => self.judge(name, value),
        }
    }

    fn judge(&mut self, name: &'h str, value: &[u8]) {
        match headers::judge(name) {
            headers::ClientHeader::Foreign => {}
            headers::ClientHeader::Public => {
                self.facts.special |= !headers::asks_for_nothing_special(name, text(value));
            }
            headers::ClientHeader::Forbidden => self.forbidden.push(name),
        }
    }

    pub(crate) fn trace(&self) -> Trace {
        Trace {
            request_id: self.request_id.map(str::to_owned),
            parent: self.parent.map(str::to_owned),
        }
    }
}

/// A header's value if it is text, which is true of every header that matters.
fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}
