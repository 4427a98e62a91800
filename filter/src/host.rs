//! Every call to Envoy, behind one trait: the only place where the filter touches the outside.
//!
//! `entry` implements it with proxy-wasm's host calls; the tests implement it with a mock.

use std::time::Duration;

use crate::head_block::HeadBlock;

/// What a callback tells Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on.
    Continue,
    /// Hold what there is until more comes, or an answer to a call.
    Hold,
}

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// What the filter needs of Envoy. Every failure is an `Option` or ignored: the filter has a way on without.
pub trait Host {
    /// Milliseconds of a clock that never goes back.
    fn now_ms(&self) -> u64;
    /// Writes to Envoy's log.
    fn warn(&self, message: &str);

    /// All headers of the request, in one call.
    fn request_headers(&self) -> HeadBlock;
    /// Sets a header of the request.
    fn set_request_header(&self, name: &str, value: &str);
    /// Removes a header of the request, all repetitions.
    fn remove_request_header(&self, name: &str);
    /// Makes Envoy pick the route again.
    fn clear_route_cache(&self);
    /// Up to `max_bytes` of the held body of the request.
    fn request_body(&self, max_bytes: u32) -> Option<Vec<u8>>;

    /// A header of the response.
    fn response_header(&self, name: &str) -> Option<Vec<u8>>;
    /// Sets a header of the response.
    fn set_response_header(&self, name: &str, value: &str);
    /// Removes a header of the response, all repetitions.
    fn remove_response_header(&self, name: &str);
    /// Up to `max_bytes` of the held body of the response.
    fn response_body(&self, max_bytes: u32) -> Option<Vec<u8>>;
    /// Replaces the held body of the response.
    fn replace_response_body(&self, body: &[u8]);
    /// Lets a held response go.
    fn resume_response(&self);
    /// Answers in place of any upstream, without a body.
    fn respond(&self, status: u16);

    /// Sends a request to a cluster; the answer comes back with the token. `None` if it can't be sent.
    fn call(
        &self,
        cluster: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        timeout: Duration,
    ) -> Option<u32>;
    /// The status of the answer to a call, if there was an answer.
    fn call_status(&self) -> Option<u16>;
    /// Up to `max_bytes` of the body of the answer to a call.
    fn call_body(&self, max_bytes: u32) -> Option<Vec<u8>>;

    /// How often the root's tick comes.
    fn set_tick_period(&self, period: Duration);

    /// Makes a metric known; the same name gives the same metric.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32>;
    /// Adds to a counter.
    fn add_to_metric(&self, id: u32, amount: i64);
    /// Sets a gauge, or records into a histogram.
    fn record_metric(&self, id: u32, value: u64);
}
