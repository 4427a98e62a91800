//! The head of a request, read in one pass over its headers.

use std::borrow::Cow;

use weft_routing::{BodyFormat, Facts, headers};

use crate::head_block::HeadBlock;

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

/// The request's headers that identify a registration.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) request_id: Option<String>,
    pub(crate) parent: Option<String>,
}

impl<'h> Head<'h> {
    pub(crate) fn read(all: &'h HeadBlock) -> Self {
        let mut head = Self::default();
        for (name, value) in all.iter() {
            match name {
                ":method" => head.method = text(value),
                // A path that isn't UTF-8 must still be recognised as internal or not.
                ":path" => head.path = String::from_utf8_lossy(value),
                "content-type" => head.facts.body.format = BodyFormat::of_content_type(text(value)),
                "content-length" => head.facts.body.length = text(value).parse().ok(),
                "content-encoding" => head.facts.body.encoded = true,
                // Which of two a node takes isn't judged here.
                "authorization" if head.facts.authorization.is_some() => head.facts.special = true,
                "authorization" => head.facts.authorization = Some(text(value)),
                "x-request-id" => head.request_id = Some(text(value)),
                "traceparent" => head.parent = Some(text(value)),
                "origin" => head.origin = Some(text(value)),
                _ => head.judge(name, value),
            }
        }
        head
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
