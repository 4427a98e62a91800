//! What goes with every request to a node that is made for a client's request.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Asked;
use crate::spans::Span;

/// The client's headers that every node request of this call carries: the client's key and the trace; and the span beneath which
/// the node's work belongs.
#[derive(Debug, Clone, Default)]
pub struct ForwardedHeaders {
    /// The values of [`FORWARDED`], in its order: a map would cost each request an allocation or two for each copy.
    values: [Option<HeaderValue>; COUNT],
    span: Span,
    asked: Asked,
}

/// How many headers these are.
const COUNT: usize = 5;
/// Header names copied from the client to each node request.
const FORWARDED: [HeaderName; COUNT] = [
    AUTHORIZATION,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("baggage"),
];

impl ForwardedHeaders {
    /// Copies the headers to forward from a client's headers, and adds a request id if there is none.
    pub fn from_client(headers: &HeaderMap) -> Self {
        let mut values = FORWARDED.map(|name| headers.get(name).cloned());
        if let [.., id @ None, _] = &mut values {
            *id = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok();
        }
        Self {
            values,
            ..Self::default()
        }
    }

    /// The same headers beneath this span.
    #[must_use]
    pub fn beneath(self, span: &Span) -> Self {
        Self {
            span: span.clone(),
            ..self
        }
    }

    /// The same headers, with a note of who is asked.
    #[must_use]
    pub fn noted_in(self, asked: &Asked) -> Self {
        Self {
            asked: asked.clone(),
            ..self
        }
    }

    /// Where it is noted who is asked.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The span beneath which requests with these headers belong.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// The same trace with another key, or with none.
    pub fn with_key(&self, key: Option<&str>) -> Self {
        let key = key.and_then(|key| HeaderValue::from_str(&format!("Bearer {key}")).ok());
        let mut forwarded = self.clone();
        let [held, ..] = &mut forwarded.values;
        *held = key;
        forwarded
    }

    /// The client's key, as it was sent.
    pub fn authority(&self) -> Option<&HeaderValue> {
        let [key, ..] = &self.values;
        key.as_ref()
    }

    /// The headers.
    pub fn iter(&self) -> impl Iterator<Item = (HeaderName, &HeaderValue)> {
        let named = FORWARDED.into_iter().zip(&self.values);
        named.filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }

    /// A copy with its own memory: a client's headers keep the whole buffer that they were read into.
    pub fn detached(&self) -> Self {
        let copy = |value: &HeaderValue| {
            HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
        };
        Self {
            values: self.values.each_ref().map(|value| value.as_ref().map(copy)),
            span: self.span.clone(),
            asked: self.asked.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(forwarded: &ForwardedHeaders) -> Vec<(String, String)> {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        forwarded
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect()
    }

    #[test]
    fn key_trace_and_request_id_go_on_and_nothing_else() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("cookie", "no"),
            ("authorization", "Bearer mine"),
            ("x-request-id", "7"),
            ("traceparent", "00-1-2-01"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let forwarded = ForwardedHeaders::from_client(&headers);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let others = [pair("traceparent", "00-1-2-01"), pair("x-request-id", "7")];
        let with = |key: &str| [&[pair("authorization", key)][..], &others].concat();
        assert_eq!(pairs(&forwarded), with("Bearer mine"));
        assert_eq!(pairs(&forwarded.detached()), with("Bearer mine"));
        assert_eq!(
            pairs(&forwarded.with_key(Some("other"))),
            with("Bearer other")
        );
        assert_eq!(pairs(&forwarded.with_key(None)), others);
        headers.remove("x-request-id");
        let named = pairs(&ForwardedHeaders::from_client(&headers));
        let id = named
            .iter()
            .find(|(name, _)| name == "x-request-id")
            .unwrap();
        assert_eq!(id.1.len(), 36, "one is made");
    }
}
