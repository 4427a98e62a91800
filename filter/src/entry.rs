//! Envoy's entry points: the callbacks of proxy-wasm (ABI 0.2.1) that the filter wants, each of which finds its context and
//! calls it, and the host calls behind [`Host`].
//!
//! Only these are exported: a callback that Envoy finds costs every request a call into the VM, also if it does nothing. So
//! there is none for the end of a stream or for logging, but only for its deletion.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::abi::{self, Buffer, Map, Metric};
use crate::config::Mode;
use crate::guard::Guarded;
use crate::head_block::HeadBlock;
use crate::host::{Change, Host, MetricKind, SharedData, Step};
use crate::request::Request;
use crate::root::{Root, Shared};

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
        abi::warn(message);
    }

    fn request_headers(&self) -> HeadBlock {
        HeadBlock::new(abi::header_pairs(Map::Request).unwrap_or_default())
    }

    fn request_header(&self, name: &str) -> Option<Vec<u8>> {
        abi::header(Map::Request, name)
    }

    fn set_request_header(&self, name: &str, value: &str) {
        abi::set_header(Map::Request, name, value);
    }

    fn remove_request_header(&self, name: &str) {
        abi::remove_header(Map::Request, name);
    }

    fn clear_route_cache(&self) {
        abi::call_foreign_function("clear_route_cache");
    }

    fn request_body(&self, max_bytes: u32) -> Option<Vec<u8>> {
        buffer(Buffer::RequestBody, max_bytes)
    }

    fn response_header(&self, name: &str) -> Option<Vec<u8>> {
        abi::header(Map::Response, name)
    }

    fn set_response_header(&self, name: &str, value: &str) {
        abi::set_header(Map::Response, name, value);
    }

    fn remove_response_header(&self, name: &str) {
        abi::remove_header(Map::Response, name);
    }

    fn response_body(&self, max_bytes: u32) -> Option<Vec<u8>> {
        buffer(Buffer::ResponseBody, max_bytes)
    }

    fn replace_response_body(&self, body: &[u8]) {
        abi::replace_buffer(Buffer::ResponseBody, body);
    }

    fn resume_response(&self) {
        abi::resume_response();
    }

    fn respond(&self, status: u16) {
        self.respond_with(status, &[], "");
    }

    fn respond_with(&self, status: u16, headers: &[(&str, &str)], body: &str) {
        abi::respond(status, HeadBlock::of_texts(headers).as_bytes(), body);
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
        let (headers, trailers) = (HeadBlock::of_texts(headers), HeadBlock::of_texts(&[]));
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let body = body.unwrap_or_default();
        let (headers, trailers) = (headers.as_bytes(), trailers.as_bytes());
        let token = abi::call(cluster, headers, body, trailers, timeout_ms)?;
        CONTEXTS.with(|contexts| contexts.called(token));
        Some(token)
    }

    fn call_status(&self) -> Option<u16> {
        let status = abi::header(Map::CallResponse, ":status")?;
        std::str::from_utf8(&status).ok()?.parse().ok()
    }

    fn call_body(&self, max_bytes: u32) -> Option<Vec<u8>> {
        buffer(Buffer::CallResponseBody, max_bytes)
    }

    fn set_tick_period(&self, period: Duration) {
        abi::set_tick_period(u32::try_from(period.as_millis()).unwrap_or(u32::MAX));
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        let kind = match kind {
            MetricKind::Counter => Metric::Counter,
            MetricKind::Gauge => Metric::Gauge,
            MetricKind::Histogram => Metric::Histogram,
        };
        abi::define_metric(kind, name)
    }

    fn add_to_metric(&self, id: u32, amount: i64) {
        abi::increment_metric(id, amount);
    }

    fn record_metric(&self, id: u32, value: u64) {
        abi::record_metric(id, value);
    }
}

fn buffer(buffer: Buffer, max_bytes: u32) -> Option<Vec<u8>> {
    abi::buffer(buffer, usize::try_from(max_bytes).ok()?)
}

/// One stream. Without a valid configuration there is none, and requests pass unchanged, to the merger.
enum Stream {
    Request(Request<Envoy>),
    Guarded(Guarded<Envoy>),
}

/// Everything that lives in this VM, by the ids that Envoy has given.
#[derive(Default)]
struct Contexts {
    /// A root is there once a valid configuration was read.
    roots: RefCell<HashMap<u32, Root<Envoy>>>,
    streams: RefCell<HashMap<u32, Stream>>,
    /// Whose callback is running.
    active: Cell<u32>,
    /// Who waits for the answers to which calls: Envoy tells only the token.
    callers: RefCell<HashMap<u32, u32>>,
}

thread_local! {
    static CONTEXTS: Contexts = Contexts::default();
}

impl Contexts {
    /// Reads a root's configuration, of so many bytes; false if it isn't valid.
    fn configure(&self, id: u32, size: usize) -> bool {
        self.active.set(id);
        let json = abi::buffer(Buffer::PluginConfiguration, size).unwrap_or_default();
        let envoy = Envoy {
            started: Instant::now(),
        };
        let root = Root::configure(envoy, &json);
        let is_valid = root.is_some();
        let mut roots = self.roots.borrow_mut();
        roots.remove(&id);
        roots.extend(root.map(|root| (id, root)));
        is_valid
    }

    fn begin(&self, id: u32, root: u32) {
        let shared: Option<Rc<Shared<Envoy>>> = self.roots.borrow().get(&root).map(Root::shared);
        let Some(shared) = shared else { return };
        let stream = match shared.config.mode {
            Mode::Route => Stream::Request(Request::new(shared)),
            Mode::Guard => Stream::Guarded(Guarded::new(shared)),
        };
        self.streams.borrow_mut().insert(id, stream);
    }

    fn end(&self, id: u32) {
        if self.streams.borrow_mut().remove(&id).is_none() {
            self.roots.borrow_mut().remove(&id);
        }
    }

    fn tick(&self, id: u32) {
        self.active.set(id);
        if let Some(root) = self.roots.borrow_mut().get_mut(&id) {
            root.on_tick();
        }
    }

    /// The next step of a stream, as Envoy reads it.
    fn step(&self, id: u32, phase: impl FnOnce(&mut Stream) -> Step) -> u32 {
        self.active.set(id);
        match self.streams.borrow_mut().get_mut(&id).map(phase) {
            Some(Step::Hold) => 1,
            Some(Step::Continue) | None => 0,
        }
    }

    fn called(&self, token: u32) {
        self.callers.borrow_mut().insert(token, self.active.get());
    }

    fn answered(&self, token: u32) {
        let Some(caller) = self.callers.borrow_mut().remove(&token) else {
            return;
        };
        self.active.set(caller);
        if let Some(stream) = self.streams.borrow_mut().get_mut(&caller) {
            abi::set_effective_context(caller);
            if let Stream::Request(request) = stream {
                request.on_call_response(token);
            }
        } else if let Some(root) = self.roots.borrow_mut().get_mut(&caller) {
            abi::set_effective_context(caller);
            root.on_call_response(token);
        }
    }
}

impl Stream {
    fn on_request_headers(&mut self, end_of_stream: bool) -> Step {
        match self {
            Self::Request(request) => request.on_request_headers(end_of_stream),
            Self::Guarded(guarded) => guarded.on_request_headers(end_of_stream),
        }
    }

    fn on_request_body(&mut self, size: usize, end_of_stream: bool) -> Step {
        match self {
            Self::Request(request) => request.on_request_body(size, end_of_stream),
            Self::Guarded(guarded) => guarded.on_request_body(),
        }
    }

    fn on_request_trailers(&mut self) -> Step {
        match self {
            Self::Request(request) => request.on_request_trailers(),
            Self::Guarded(guarded) => guarded.on_request_body(),
        }
    }

    fn of_answer(&mut self, phase: impl FnOnce(&mut Request<Envoy>) -> Step) -> Step {
        match self {
            Self::Request(request) => phase(request),
            Self::Guarded(_) => Step::Continue,
        }
    }
}

/// What Envoy calls.
#[allow(
    unsafe_code,
    reason = "callbacks are found by their names, and `_initialize` calls the constructors that the linker made"
)]
mod exports {
    use super::{CONTEXTS, abi};

    unsafe extern "C" {
        fn __wasm_call_ctors();
    }

    #[unsafe(no_mangle)]
    extern "C" fn _initialize() {
        // SAFETY: Envoy calls this once, before anything else.
        unsafe { __wasm_call_ctors() };
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_abi_version_0_2_1() {}

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
        abi::allocate(size)
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_context_create(context: u32, root: u32) {
        CONTEXTS.with(|contexts| contexts.begin(context, root));
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_configure(context: u32, size: usize) -> u32 {
        CONTEXTS.with(|contexts| u32::from(contexts.configure(context, size)))
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_tick(context: u32) {
        CONTEXTS.with(|contexts| contexts.tick(context));
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_request_headers(context: u32, _headers: u32, end: u32) -> u32 {
        CONTEXTS.with(|all| all.step(context, |stream| stream.on_request_headers(end != 0)))
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_request_body(context: u32, size: usize, end: u32) -> u32 {
        CONTEXTS.with(|all| all.step(context, |stream| stream.on_request_body(size, end != 0)))
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_request_trailers(context: u32, _trailers: u32) -> u32 {
        CONTEXTS.with(|all| all.step(context, |stream| stream.on_request_trailers()))
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_response_headers(context: u32, _headers: u32, end: u32) -> u32 {
        CONTEXTS.with(|all| {
            all.step(context, |stream| {
                stream.of_answer(|request| request.on_response_headers(end != 0))
            })
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_response_body(context: u32, size: usize, end: u32) -> u32 {
        CONTEXTS.with(|all| {
            all.step(context, |stream| {
                stream.of_answer(|request| request.on_response_body(size, end != 0))
            })
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_response_trailers(context: u32, _trailers: u32) -> u32 {
        CONTEXTS.with(|all| {
            all.step(context, |stream| {
                stream.of_answer(crate::request::Request::on_response_trailers)
            })
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_http_call_response(
        _root: u32,
        token: u32,
        _headers: u32,
        _body: u32,
        _trailers: u32,
    ) {
        CONTEXTS.with(|contexts| contexts.answered(token));
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_delete(context: u32) {
        CONTEXTS.with(|contexts| contexts.end(context));
    }
}
