//! Envoy's entry points: proxy-wasm's contexts, each a line or two, and the host calls behind [`Host`].
//!
//! The SDK's convenience methods unwrap. Its `hostcalls` return results, which are turned into `Option`s here. Values are
//! read as bytes, because a header that isn't UTF-8 would make the text variants panic.

use std::rc::Rc;
use std::time::{Duration, Instant};

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel, MapType, MetricType};

use crate::config::Mode;
use crate::guard::Guarded;
use crate::head_block::HeadBlock;
use crate::host::{Change, Host, MetricKind, SharedData, Step};
use crate::request::Request;
use crate::root::{Root, Shared};

#[allow(
    unsafe_code,
    reason = "the SDK's macro calls the constructors that the linker made"
)]
mod start {
    proxy_wasm::main! {{
        proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Warn);
        proxy_wasm::set_root_context(|_| Box::new(super::RootCallbacks::default()));
    }}
}

#[allow(
    unsafe_code,
    reason = "the SDK gives the first call only with two allocations for each header, and panics in the others if Envoy refuses"
)]
mod abi {
    use proxy_wasm::types::{MapType, Status};

    use crate::host::{Change, SharedData};

    /// Statuses as numbers: one that the SDK doesn't know must not become one of its enum.
    const OK: u32 = Status::Ok as u32;
    const NOT_FOUND: u32 = Status::NotFound as u32;
    const CAS_MISMATCH: u32 = Status::CasMismatch as u32;

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        fn proxy_get_header_map_pairs(map: MapType, data: *mut *mut u8, size: *mut usize)
        -> Status;
        fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
            version: *mut u32,
        ) -> u32;
        fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            data: *const u8,
            size: usize,
            version: u32,
        ) -> u32;
    }

    /// All headers of a map in one block.
    pub(super) fn header_pairs(map: MapType) -> Option<Vec<u8>> {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        // SAFETY: the host writes both before it returns `Ok`.
        let status = unsafe { proxy_get_header_map_pairs(map, &raw mut data, &raw mut size) };
        if status != Status::Ok || data.is_null() {
            return None;
        }
        // SAFETY: the host got the memory from the SDK's `proxy_on_memory_allocate`, which hands out boxed slices of
        // exactly this size, and doesn't touch it again.
        Some(unsafe { Vec::from_raw_parts(data, size, size) })
    }

    /// What is shared under a key.
    pub(super) fn shared_data(key: &str) -> SharedData {
        let (mut data, mut size, mut version) = (std::ptr::null_mut(), 0, 0);
        // SAFETY: the host reads the key, and writes the three before it returns `Ok`.
        let status = unsafe {
            proxy_get_shared_data(
                key.as_ptr(),
                key.len(),
                &raw mut data,
                &raw mut size,
                &raw mut version,
            )
        };
        match status {
            // SAFETY: as for the headers.
            OK if !data.is_null() => SharedData::Value {
                bytes: unsafe { Vec::from_raw_parts(data, size, size) },
                version,
            },
            NOT_FOUND => SharedData::Absent,
            _ => SharedData::Unknown,
        }
    }

    /// Sets what is shared under a key.
    pub(super) fn set_shared_data(key: &str, value: &[u8], version: u32) -> Change {
        // SAFETY: the host reads key and value, and keeps neither address.
        let status = unsafe {
            proxy_set_shared_data(
                key.as_ptr(),
                key.len(),
                value.as_ptr(),
                value.len(),
                version,
            )
        };
        match status {
            OK => Change::Made,
            CAS_MISMATCH => Change::Overtaken,
            _ => Change::Refused,
        }
    }
}

/// Envoy, through proxy-wasm.
#[derive(Clone, Copy, Debug)]
struct Envoy {
    started: Instant,
}

impl Host for Envoy {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn warn(&self, message: &str) {
        hostcalls::log(LogLevel::Warn, message).unwrap_or_default();
    }

    fn request_headers(&self) -> HeadBlock {
        HeadBlock::new(abi::header_pairs(MapType::HttpRequestHeaders).unwrap_or_default())
    }

    fn request_header(&self, name: &str) -> Option<Vec<u8>> {
        hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name)
            .ok()
            .flatten()
    }

    fn set_request_header(&self, name: &str, value: &str) {
        hostcalls::set_map_value(MapType::HttpRequestHeaders, name, Some(value))
            .unwrap_or_default();
    }

    fn remove_request_header(&self, name: &str) {
        hostcalls::remove_map_value(MapType::HttpRequestHeaders, name).unwrap_or_default();
    }

    fn clear_route_cache(&self) {
        hostcalls::call_foreign_function("clear_route_cache", None).unwrap_or_default();
    }

    fn request_body(&self, max_bytes: u32) -> Option<Vec<u8>> {
        buffer(BufferType::HttpRequestBody, max_bytes)
    }

    fn response_header(&self, name: &str) -> Option<Vec<u8>> {
        hostcalls::get_map_value_bytes(MapType::HttpResponseHeaders, name)
            .ok()
            .flatten()
    }

    fn set_response_header(&self, name: &str, value: &str) {
        hostcalls::set_map_value(MapType::HttpResponseHeaders, name, Some(value))
            .unwrap_or_default();
    }

    fn remove_response_header(&self, name: &str) {
        hostcalls::remove_map_value(MapType::HttpResponseHeaders, name).unwrap_or_default();
    }

    fn response_body(&self, max_bytes: u32) -> Option<Vec<u8>> {
        buffer(BufferType::HttpResponseBody, max_bytes)
    }

    fn replace_response_body(&self, body: &[u8]) {
        // Envoy replaces at most what is there, so the size may exceed it.
        hostcalls::set_buffer(BufferType::HttpResponseBody, 0, usize::MAX, body)
            .unwrap_or_default();
    }

    fn resume_response(&self) {
        hostcalls::resume_http_response().unwrap_or_default();
    }

    fn respond(&self, status: u16) {
        hostcalls::send_http_response(u32::from(status), Vec::new(), None).unwrap_or_default();
    }

    fn respond_with(&self, status: u16, headers: &[(&str, &str)], body: &str) {
        let body = Some(body.as_bytes());
        hostcalls::send_http_response(u32::from(status), headers.to_vec(), body)
            .unwrap_or_default();
    }

    fn shared_data(&self, key: &str) -> SharedData {
        abi::shared_data(key)
    }

    fn set_shared_data(&self, key: &str, value: &[u8], version: u32) -> Change {
        abi::set_shared_data(key, value, version)
    }

    fn call(
        &self,
        cluster: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        timeout: Duration,
    ) -> Option<u32> {
        hostcalls::dispatch_http_call(cluster, headers.to_vec(), body, Vec::new(), timeout).ok()
    }

    fn call_status(&self) -> Option<u16> {
        let status = hostcalls::get_map_value_bytes(MapType::HttpCallResponseHeaders, ":status");
        std::str::from_utf8(&status.ok()??).ok()?.parse().ok()
    }

    fn call_body(&self, max_bytes: u32) -> Option<Vec<u8>> {
        buffer(BufferType::HttpCallResponseBody, max_bytes)
    }

    fn set_tick_period(&self, period: Duration) {
        hostcalls::set_tick_period(period).unwrap_or_default();
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        let kind = match kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
            MetricKind::Histogram => MetricType::Histogram,
        };
        hostcalls::define_metric(kind, name).ok()
    }

    fn add_to_metric(&self, id: u32, amount: i64) {
        hostcalls::increment_metric(id, amount).unwrap_or_default();
    }

    fn record_metric(&self, id: u32, value: u64) {
        hostcalls::record_metric(id, value).unwrap_or_default();
    }
}

fn buffer(buffer: BufferType, max_bytes: u32) -> Option<Vec<u8>> {
    hostcalls::get_buffer(buffer, 0, usize::try_from(max_bytes).ok()?)
        .ok()
        .flatten()
}

/// The root of the VM. It holds no root of Weft's until a valid configuration was read.
#[derive(Default)]
struct RootCallbacks {
    root: Option<Root<Envoy>>,
}

impl Context for RootCallbacks {
    fn on_http_call_response(
        &mut self,
        token: u32,
        _headers: usize,
        _body: usize,
        _trailers: usize,
    ) {
        if let Some(root) = &mut self.root {
            root.on_call_response(token);
        }
    }
}

impl RootContext for RootCallbacks {
    fn on_configure(&mut self, size: usize) -> bool {
        let json = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, size);
        let json = json.ok().flatten().unwrap_or_default();
        self.root = Root::configure(
            Envoy {
                started: Instant::now(),
            },
            &json,
        );
        self.root.is_some()
    }

    fn on_tick(&mut self) {
        if let Some(root) = &mut self.root {
            root.on_tick();
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        let shared: Option<Rc<Shared<Envoy>>> = self.root.as_ref().map(Root::shared);
        Some(match shared {
            Some(shared) if shared.config.mode == Mode::Guard => {
                Box::new(GuardCallbacks(Guarded::new(shared)))
            }
            shared => Box::new(RequestCallbacks {
                request: shared.map(Request::new),
            }),
        })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One request. Without a configuration it passes unchanged, to the merger.
struct RequestCallbacks {
    request: Option<Request<Envoy>>,
}

impl RequestCallbacks {
    fn step(&mut self, phase: impl FnOnce(&mut Request<Envoy>) -> Step) -> Action {
        self.request
            .as_mut()
            .map_or(Action::Continue, |request| action(phase(request)))
    }
}

impl Context for RequestCallbacks {
    fn on_http_call_response(
        &mut self,
        token: u32,
        _headers: usize,
        _body: usize,
        _trailers: usize,
    ) {
        if let Some(request) = &mut self.request {
            request.on_call_response(token);
        }
    }
}

impl HttpContext for RequestCallbacks {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        self.step(|request| request.on_request_headers(end_of_stream))
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.step(|request| request.on_request_body(size, end_of_stream))
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.step(Request::on_request_trailers)
    }

    fn on_http_response_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        self.step(|request| request.on_response_headers(end_of_stream))
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.step(|request| request.on_response_body(size, end_of_stream))
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.step(Request::on_response_trailers)
    }
}

/// One request to a node.
struct GuardCallbacks(Guarded<Envoy>);

impl Context for GuardCallbacks {}

impl HttpContext for GuardCallbacks {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        action(self.0.on_request_headers(end_of_stream))
    }

    fn on_http_request_body(&mut self, _size: usize, _end_of_stream: bool) -> Action {
        action(self.0.on_request_body())
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        action(self.0.on_request_body())
    }
}

fn action(step: Step) -> Action {
    match step {
        Step::Hold => Action::Pause,
        Step::Continue => Action::Continue,
    }
}
