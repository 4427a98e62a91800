//! Spans of clients' requests, for a collector that speaks OTLP over gRPC.
//!
//! ```text
//! edge: Spans::server ─► Span (in the call's ForwardedHeaders) ─┬─► phase("scatter") ─► client(…), one for each request to a node
//!                                                               └─► phase("merge")
//! ended spans ─► bounded queue ─► batches ─► collector
//! ```
//!
//! Whether a request is traced is decided before it comes here: by the `sampled` flag of its `traceparent`. A [`Span`] of a request
//! that isn't traced is `None` inside, and everything that can be said about it costs one comparison and allocates nothing.
//!
//! Invariants: no request ever waits for the collector or fails because of it. What finds no room in the queue, and what the
//! collector doesn't take, is dropped and counted.

mod collector;
#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;

pub use collector::{Collector, CollectorError, Endpoint, EndpointError, SpanOptions};

/// The W3C header by which a request says what it belongs to.
const TRACEPARENT: &str = "traceparent";
/// How much of a text a span keeps, in bytes: paths may be as long as a request's head.
const LONGEST_TEXT: usize = 1024;

/// Makes the spans of requests; or none, if nobody asked for traces. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Spans(Option<Tracing>);

#[derive(Debug, Clone)]
struct Tracing {
    tracer: SdkTracer,
    /// Whether a request without a `traceparent` may be traced.
    begins_traces: bool,
}

impl Spans {
    /// The span of a client's request: beneath the sender's, if that is sampled.
    pub fn server(&self, method: &Method, headers: &HeaderMap) -> Ending {
        let Some(tracing) = &self.0 else {
            return Ending::default();
        };
        match is_sampled(headers) {
            Some(false) => return Ending::default(),
            None if !tracing.begins_traces => return Ending::default(),
            Some(true) | None => {}
        }
        let outside = TraceContextPropagator::new().extract_with_context(
            &Context::new(),
            // The crate's own way to read a map of headers is in another crate.
            &Headers(headers),
        );
        let builder = SpanBuilder::from_name(method.to_string())
            .with_kind(SpanKind::Server)
            .with_attributes([text("http.request.method", method.as_str())]);
        Ending(Span::begin(&tracing.tracer, builder, &outside))
    }
}

/// A span that is under way, or none. Clones are the same span.
#[derive(Debug, Clone, Default)]
pub struct Span(Option<Arc<UnderWay>>);

#[derive(Debug)]
struct UnderWay {
    context: Context,
    tracer: SdkTracer,
}

impl Span {
    fn begin(tracer: &SdkTracer, builder: SpanBuilder, above: &Context) -> Self {
        let span = tracer.build_with_context(builder, above);
        // A trace that begins here may not be among those that are kept.
        if !opentelemetry::trace::Span::is_recording(&span) {
            return Self::default();
        }
        Self(Some(Arc::new(UnderWay {
            context: above.with_span(span),
            tracer: tracer.clone(),
        })))
    }

    /// The trace's id in hexadecimal digits, if the request is traced.
    pub fn trace_id(&self) -> Option<String> {
        let under_way = self.0.as_ref()?;
        let id = under_way.context.span().span_context().trace_id();
        Some(id.to_string())
    }

    /// Whether the request is traced.
    pub fn is_traced(&self) -> bool {
        self.0.is_some()
    }

    /// A part of the work, beneath this span, which ends when the result is dropped.
    pub fn phase(&self, name: &'static str) -> Ending {
        self.beneath(|| SpanBuilder::from_name(name))
    }

    /// A request to somebody else, beneath this span, which ends when the result is dropped.
    pub fn client(&self, method: &Method, to: impl FnOnce() -> String) -> Ending {
        self.beneath(|| {
            let to = to();
            SpanBuilder::from_name(format!("{method} {to}"))
                .with_kind(SpanKind::Client)
                .with_attributes([
                    text("http.request.method", method.as_str()),
                    KeyValue::new("server.address", to),
                ])
        })
    }

    fn beneath(&self, builder: impl FnOnce() -> SpanBuilder) -> Ending {
        Ending(self.0.as_ref().map_or_else(Self::default, |span| {
            Self::begin(&span.tracer, builder(), &span.context)
        }))
    }

    /// Sets an attribute.
    pub fn set(&self, key: &'static str, value: impl FnOnce() -> Value) {
        if let Some(span) = &self.0 {
            let value = match value() {
                Value::String(long) if long.as_str().len() > LONGEST_TEXT => {
                    cut(long.as_str()).to_owned().into()
                }
                value => value,
            };
            span.context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Renames the span, where its name is known only later.
    pub fn rename(&self, name: impl FnOnce() -> String) {
        if let Some(span) = &self.0 {
            span.context.span().update_name(name());
        }
    }

    /// Says how the request ended. By the conventions, a server's span has failed from 500 on, a client's from 400 on.
    pub fn answered(&self, status: StatusCode, has_failed: bool) {
        let Some(span) = &self.0 else { return };
        let span = span.context.span();
        let code = i64::from(status.as_u16());
        span.set_attribute(KeyValue::new("http.response.status_code", code));
        if has_failed {
            span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
            span.set_status(Status::error(""));
        }
    }

    /// Says that there was no answer.
    pub fn failed(&self, kind: &'static str, detail: impl FnOnce() -> String) {
        let Some(span) = &self.0 else { return };
        let span = span.context.span();
        span.set_attribute(KeyValue::new("error.type", kind));
        span.set_status(Status::error(cut(&detail()).to_owned()));
    }

    /// The header that puts what another program does beneath this span; `None` if it isn't traced.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        let context = &self.0.as_ref()?.context;
        let span = context.span();
        let own = span.span_context();
        let header = format!("00-{}-{}-01", own.trace_id(), own.span_id());
        HeaderValue::from_str(&header).ok()
    }
}

/// A span that ends with this.
#[derive(Debug, Default)]
pub struct Ending(Span);

impl Deref for Ending {
    type Target = Span;

    fn deref(&self) -> &Span {
        &self.0
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(span) = &self.0.0 {
            span.context.span().end();
        }
    }
}

/// What the sender decided; `None` if it said nothing, or nothing that can be read.
fn is_sampled(headers: &HeaderMap) -> Option<bool> {
    // Version, trace, span and flags, all of fixed length: 00-<32>-<16>-<2>.
    let value = headers.get(TRACEPARENT)?.as_bytes();
    let flags = value.get(53..55)?;
    let flags = u8::from_str_radix(std::str::from_utf8(flags).ok()?, 16).ok()?;
    Some(flags & 1 == 1)
}

/// The id of the trace to which the sender says that the request belongs, if it is sampled.
pub fn sampled_trace(headers: &HeaderMap) -> Option<String> {
    is_sampled(headers).filter(|is_sampled| *is_sampled)?;
    let trace = headers.get(TRACEPARENT)?.as_bytes().get(3..35)?;
    let is_hex = trace.iter().all(u8::is_ascii_hexdigit);
    is_hex.then(|| String::from_utf8_lossy(trace).into_owned())
}

fn text(key: &'static str, value: &str) -> KeyValue {
    KeyValue::new(key, value.to_owned())
}

/// The beginning of a text, at most [`LONGEST_TEXT`] bytes.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// A request's headers, as propagators read them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
