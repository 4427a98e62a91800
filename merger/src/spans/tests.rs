use std::sync::Mutex;

use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracerProvider, Span as SdkSpan, SpanData, SpanProcessor,
};

use super::*;

/// Keeps ended spans.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Kept {
    fn on_start(&self, _: &mut SdkSpan, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: std::time::Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Kept {
    fn named(&self, name: &str) -> SpanData {
        let spans = self.0.lock().unwrap();
        spans
            .iter()
            .find(|span| span.name == name)
            .expect(name)
            .clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn spans(ratio: f64) -> (Spans, Kept) {
    let kept = Kept::default();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler)
        .with_span_processor(kept.clone())
        .build();
    let tracing = Tracing {
        tracer: provider.tracer("weft"),
        begins_traces: ratio > 0.0,
    };
    (Spans(Some(tracing)), kept)
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn headers(parent: Option<&str>) -> HeaderMap {
    let value = |parent| (http::HeaderName::from_static(TRACEPARENT), parent);
    let parent = parent.map(|parent| HeaderValue::from_str(parent).unwrap());
    parent.map(value).into_iter().collect()
}

#[test]
fn a_request_is_traced_exactly_if_its_sender_says_so() {
    for (flags, ratio, traced) in [
        ("01", 0.0, true),
        ("03", 0.0, true),
        ("00", 0.0, false),
        ("00", 1.0, false),
        ("02", 1.0, false),
    ] {
        let (spans, kept) = spans(ratio);
        let headers = headers(Some(&format!("00-{TRACE}-b7ad6b7169203331-{flags}")));
        let span = spans.server(&Method::GET, &headers);
        assert_eq!(span.is_traced(), traced, "{flags}, {ratio}");
        assert_eq!(span.traceparent().is_some(), traced);
        drop(span);
        assert_eq!(kept.count(), usize::from(traced));
    }
}

#[test]
fn a_request_of_which_nothing_is_said_is_traced_by_chance_only() {
    for parent in [None, Some("nonsense"), Some("00-zz-zz-01")] {
        for (ratio, traced) in [(0.0, false), (1.0, true)] {
            let (spans, _) = spans(ratio);
            let span = spans.server(&Method::GET, &headers(parent));
            assert_eq!(span.is_traced(), traced, "{parent:?}, {ratio}");
        }
    }
    let off = Spans::default();
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let span = off.server(&Method::GET, &headers(Some(&parent)));
    assert!(!span.is_traced());
}

#[test]
fn phases_and_requests_are_beneath_what_they_belong_to() {
    let (spans, kept) = spans(0.0);
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let server = spans.server(&Method::POST, &headers(Some(&parent)));
    let scatter = server.phase("scatter");
    let client = scatter.client(&Method::POST, || "shard-1".to_owned());
    let header = client.traceparent().unwrap();
    client.answered(StatusCode::NOT_FOUND, true);
    drop((client, scatter));
    server.rename(|| "POST search".to_owned());
    server.answered(StatusCode::OK, false);
    drop(server);
    let [server, scatter, client] =
        ["POST search", "scatter", "POST shard-1"].map(|name| kept.named(name));
    assert_eq!(
        server.parent_span_id,
        SpanId::from_hex("b7ad6b7169203331").unwrap()
    );
    assert!(server.parent_span_is_remote);
    assert_eq!(scatter.parent_span_id, server.span_context.span_id());
    assert_eq!(client.parent_span_id, scatter.span_context.span_id());
    let own = client.span_context.span_id();
    assert_eq!(header, format!("00-{TRACE}-{own}-01"));
    assert_eq!(
        [server.span_kind, scatter.span_kind, client.span_kind],
        [SpanKind::Server, SpanKind::Internal, SpanKind::Client]
    );
    assert_eq!(server.status, Status::Unset);
    assert!(matches!(client.status, Status::Error { .. }));
    let code = KeyValue::new("http.response.status_code", 404_i64);
    assert!(client.attributes.contains(&code));
}

#[test]
fn a_long_text_is_cut_and_not_in_the_middle_of_a_letter() {
    let (spans, kept) = spans(1.0);
    let span = spans.server(&Method::GET, &headers(None));
    span.set("url.path", || "ä".repeat(LONGEST_TEXT).into());
    drop(span);
    let span = kept.named("GET");
    let path = span
        .attributes
        .iter()
        .find(|one| one.key.as_str() == "url.path");
    assert_eq!(path.unwrap().value.as_str().len(), LONGEST_TEXT);
    assert_eq!(cut("aä"), "aä");
    assert_eq!(
        cut(&format!("a{}", "ä".repeat(600))).len(),
        LONGEST_TEXT - 1
    );
}

#[test]
fn what_is_not_traced_has_nothing_to_say() {
    let none = Span::default();
    let phase = none.phase("plan");
    let client = phase.client(&Method::GET, || unreachable!("no name is made"));
    client.set("weft.shard", || unreachable!("no value is made"));
    client.failed("timeout", || unreachable!("no text is made"));
    assert!(!client.is_traced());
}

#[test]
fn a_collector_is_named_by_an_address_without_a_path() {
    for good in [
        "http://127.0.0.1:4317",
        "http://collector:4317/",
        "http://[::1]:4317",
        "https://collector:4317",
    ] {
        let endpoint = good.parse::<Endpoint>().unwrap();
        assert_eq!(endpoint.is_encrypted(), good.starts_with("https"), "{good}");
    }
    for bad in [
        "",
        "collector:4317",
        "http://collector",
        "http://collector:0",
        "http://collector:4317/v1/traces",
        "grpc://collector:4317",
    ] {
        let refused = bad.parse::<Endpoint>().unwrap_err();
        assert!(matches!(refused, EndpointError::Form(_)), "{bad}");
    }
}

#[test]
fn the_trace_of_a_request_is_read_where_it_is_sampled() {
    let read = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", value.parse().unwrap());
        sampled_trace(&headers)
    };
    let parent = |flags: &str| format!("00-{TRACE}-b7ad6b7169203331-{flags}");
    assert_eq!(read(&parent("01")), Some(TRACE.to_owned()));
    assert_eq!(read(&parent("00")), None);
    assert_eq!(read(&parent("01").replace("0af7", "\"}}\"")), None);
    assert_eq!(read("nonsense"), None);
    assert_eq!(sampled_trace(&HeaderMap::new()), None);
}
