//! All calls to Envoy, behind one trait: the filter's only contact with the outside.
//!
//! `entry` implements it with proxy-wasm's host calls; the tests implement it with a mock.

use std::time::Duration;

use crate::head_block::HeadBlock;

/// The result of a callback, as told to Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Continue.
    Continue,
    /// Hold what has arrived until more arrives, or until a call is answered.
    Hold,
}

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only increases.
    Counter,
    /// Can increase and decrease.
    Gauge,
    /// A distribution.
    Histogram,
}

/// What all workers of an Envoy share under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedData {
    /// Nothing yet.
    Absent,
    /// A value, with the number that says which one it is.
    Value {
        /// The value.
        bytes: Vec<u8>,
        /// Its number, which is another one after each change.
        version: u32,
    },
    /// Envoy doesn't say.
    Unknown,
}

/// What became of a change of shared data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is made.
    Made,
    /// Another worker has made one meanwhile.
    Overtaken,
    /// Envoy refuses.
    Refused,
}

/// What the filter needs from Envoy. A failure is a `None` or ignored: the filter can always continue without.
pub trait Host {
    /// Milliseconds of a monotonic clock.
    fn now_ms(&self) -> u64;
    /// Writes to Envoy's log.
    fn warn(&self, message: &str);

    /// All headers of the request, in one call.
    fn request_headers(&self) -> HeadBlock;
    /// A header of the request; the values of a repeated one joined by commas.
    fn request_header(&self, name: &str) -> Option<Vec<u8>>;
    /// Sets a header of the request.
    fn set_request_header(&self, name: &str, value: &str);
    /// Removes a header of the request, including repetitions.
    fn remove_request_header(&self, name: &str);
    /// Makes Envoy pick the route again.
    fn clear_route_cache(&self);
    /// Up to `max_bytes` of the held body of the request.
    fn request_body(&self, max_bytes: u32) -> Option<Vec<u8>>;

    /// A header of the response.
    fn response_header(&self, name: &str) -> Option<Vec<u8>>;
    /// Sets a header of the response.
    fn set_response_header(&self, name: &str, value: &str);
    /// Removes a header of the response, including repetitions.
    fn remove_response_header(&self, name: &str);
    /// Up to `max_bytes` of the held body of the response.
    fn response_body(&self, max_bytes: u32) -> Option<Vec<u8>>;
    /// Replaces the held body of the response.
    fn replace_response_body(&self, body: &[u8]);
    /// Lets a held response continue.
    fn resume_response(&self);
    /// Answers instead of any upstream, without a body.
    fn respond(&self, status: u16);
    /// Answers instead of any upstream, with these headers and this body.
    fn respond_with(&self, status: u16, headers: &[(&str, &str)], body: &str);

    /// Reads what the workers share under this key.
    fn shared_data(&self, key: &str) -> SharedData;
    /// Sets what the workers share under this key, if it still is of this version. If there is nothing yet, any version will do; if
    /// there is something, version 0 would overwrite whatever it is.
    fn set_shared_data(&self, key: &str, value: &[u8], version: u32) -> Change;

    /// Sends a request to a cluster; the answer arrives with the same token. `None` if it can't be sent.
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

    /// Sets how often the root's tick is called.
    fn set_tick_period(&self, period: Duration);

    /// Defines a metric; the same name gives the same metric.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32>;
    /// Adds to a counter.
    fn add_to_metric(&self, id: u32, amount: i64);
    /// Sets a gauge, or records into a histogram.
    fn record_metric(&self, id: u32, value: u64);
}
