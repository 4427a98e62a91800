//! The host calls of proxy-wasm (ABI 0.2.1) that the filter uses, as safe functions.
//!
//! The SDK isn't used: it exports every callback that there is, each of which Envoy then calls for every request, and it panics
//! where Envoy returns a status that it doesn't expect. Here a status is a number, and all but the known ones count as a refusal.

#![allow(
    unsafe_code,
    reason = "the host reads and writes memory by address; each use says why it is sound"
)]

use std::ptr::{null, null_mut};

use crate::host::{Change, SharedData};

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const CAS_MISMATCH: u32 = 8;

/// The level of what is logged.
const WARN: u32 = 3;
/// The response, as a stream that can be resumed.
const HTTP_RESPONSE: u32 = 1;
/// No status of gRPC.
const NO_GRPC: i32 = -1;

/// A map of headers.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Map {
    Request = 0,
    Response = 2,
    CallResponse = 6,
}

/// A buffer of the host.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

/// A kind of metric.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Metric {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *mut *mut u8,
        data_size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *const u8,
        data_size: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
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
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        results: *mut *mut u8,
        results_size: *mut usize,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, amount: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
}

/// Memory that the host fills and that the function which asked for it frees; null if there is none.
pub(crate) fn allocate(size: usize) -> *mut u8 {
    match std::alloc::Layout::array::<u8>(size) {
        // SAFETY: the layout's size isn't zero.
        Ok(layout) if size > 0 => unsafe { std::alloc::alloc(layout) },
        _ => null_mut(),
    }
}

/// What the host wrote into memory that it got from [`allocate`].
fn filled(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, u32> {
    let (mut data, mut size) = (null_mut(), 0);
    match call(&raw mut data, &raw mut size) {
        OK if data.is_null() => Ok(Vec::new()),
        // SAFETY: `allocate` handed out exactly this size, and the host doesn't touch it again.
        OK => Ok(unsafe { Vec::from_raw_parts(data, size, size) }),
        status => Err(status),
    }
}

/// Writes to Envoy's log.
pub(crate) fn warn(message: &str) {
    // SAFETY: the host reads the text, and keeps no address of it; so do all functions below that pass texts.
    unsafe { proxy_log(WARN, message.as_ptr(), message.len()) };
}

pub(crate) fn set_tick_period(milliseconds: u32) {
    // SAFETY: no memory is passed.
    unsafe { proxy_set_tick_period_milliseconds(milliseconds) };
}

/// Up to so many bytes of a buffer.
pub(crate) fn buffer(buffer: Buffer, max_bytes: usize) -> Option<Vec<u8>> {
    // SAFETY: the host writes both before it returns `OK`; so for all functions below with `filled`.
    filled(|data, size| unsafe { proxy_get_buffer_bytes(buffer as u32, 0, max_bytes, data, size) })
        .ok()
}

/// Replaces a whole buffer.
pub(crate) fn replace_buffer(buffer: Buffer, bytes: &[u8]) {
    // Envoy replaces at most what is there, so the size may exceed it.
    // SAFETY: see `warn`.
    unsafe { proxy_set_buffer_bytes(buffer as u32, 0, usize::MAX, bytes.as_ptr(), bytes.len()) };
}

/// All headers of a map in one block.
pub(crate) fn header_pairs(map: Map) -> Option<Vec<u8>> {
    // SAFETY: see `buffer`.
    filled(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) }).ok()
}

/// The value of a header; that of a repeated one is joined by commas.
pub(crate) fn header(map: Map, name: &str) -> Option<Vec<u8>> {
    filled(|data, size| {
        let (name, length) = (name.as_ptr(), name.len());
        // SAFETY: see `buffer`.
        unsafe { proxy_get_header_map_value(map as u32, name, length, data, size) }
    })
    .ok()
}

/// Sets a header, in place of all with this name.
pub(crate) fn set_header(map: Map, name: &str, value: &str) {
    let (name, name_size, value, size) = (name.as_ptr(), name.len(), value.as_ptr(), value.len());
    // SAFETY: see `warn`.
    unsafe { proxy_replace_header_map_value(map as u32, name, name_size, value, size) };
}

/// Removes a header, including repetitions.
pub(crate) fn remove_header(map: Map, name: &str) {
    // SAFETY: see `warn`.
    unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) };
}

/// What is shared under a key.
pub(crate) fn shared_data(key: &str) -> SharedData {
    let mut version = 0;
    let (key, length) = (key.as_ptr(), key.len());
    // SAFETY: see `buffer`; the version is written, too.
    let found = filled(|data, size| unsafe {
        proxy_get_shared_data(key, length, data, size, &raw mut version)
    });
    match found {
        Ok(bytes) if bytes.is_empty() => SharedData::Unknown,
        Ok(bytes) => SharedData::Value { bytes, version },
        Err(NOT_FOUND) => SharedData::Absent,
        Err(_) => SharedData::Unknown,
    }
}

/// Sets what is shared under a key.
pub(crate) fn set_shared_data(key: &str, value: &[u8], version: u32) -> Change {
    let (key, length, data, size) = (key.as_ptr(), key.len(), value.as_ptr(), value.len());
    // SAFETY: see `warn`.
    match unsafe { proxy_set_shared_data(key, length, data, size, version) } {
        OK => Change::Made,
        CAS_MISMATCH => Change::Overtaken,
        _ => Change::Refused,
    }
}

/// Lets a held response continue.
pub(crate) fn resume_response() {
    // SAFETY: no memory is passed.
    unsafe { proxy_continue_stream(HTTP_RESPONSE) };
}

/// Answers instead of any upstream; `headers` is a block.
pub(crate) fn respond(status: u16, headers: &[u8], body: &str) {
    // SAFETY: see `warn`.
    unsafe {
        proxy_send_local_response(
            u32::from(status),
            null(),
            0,
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC,
        )
    };
}

/// Sends a request to a cluster; `headers` and `trailers` are blocks. Returns the token of the answer.
pub(crate) fn call(
    cluster: &str,
    headers: &[u8],
    body: &[u8],
    trailers: &[u8],
    timeout_ms: u32,
) -> Option<u32> {
    let mut token = 0;
    // SAFETY: see `warn`; the token is written before the host returns `OK`.
    let status = unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            timeout_ms,
            &raw mut token,
        )
    };
    (status == OK).then_some(token)
}

/// Makes the next host calls those of another context.
pub(crate) fn set_effective_context(context: u32) {
    // SAFETY: no memory is passed.
    unsafe { proxy_set_effective_context(context) };
}

/// Calls a function of this Envoy's own, without arguments, whatever it returns.
pub(crate) fn call_foreign_function(name: &str) {
    let (name, length) = (name.as_ptr(), name.len());
    // SAFETY: see `buffer`. The results are freed.
    let _ = filled(|data, size| unsafe {
        proxy_call_foreign_function(name, length, null(), 0, data, size)
    });
}

/// Defines a metric; returns its id.
pub(crate) fn define_metric(kind: Metric, name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: see `warn`; the id is written before the host returns `OK`.
    let status =
        unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) };
    (status == OK).then_some(id)
}

pub(crate) fn increment_metric(id: u32, amount: i64) {
    // SAFETY: no memory is passed.
    unsafe { proxy_increment_metric(id, amount) };
}

pub(crate) fn record_metric(id: u32, value: u64) {
    // SAFETY: no memory is passed.
    unsafe { proxy_record_metric(id, value) };
}
