//! One request: its sender, its parameters and its body.

use std::io::Read as _;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use deserr::Deserr;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

use crate::auth::{Action, Grant};
use crate::errors::{ApiError, ApiResult, Code};
use crate::node::Node;
use crate::queue::Work;
use crate::validate::{self, InBody, InQuery};

/// A request, before anything in it is checked.
pub(crate) struct Call {
    /// The node that it was sent to.
    pub(crate) node: Arc<Node>,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its query string.
    pub(crate) query: String,
    body: Body,
}

impl FromRequest<Arc<Node>> for Call {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, node: &Arc<Node>) -> Result<Self, Self::Rejection> {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default().to_owned();
        Ok(Call {
            node: Arc::clone(node),
            headers: head.headers,
            query,
            body,
        })
    }
}

impl Call {
    /// Checks that the sender may do something, on an index if the path names one.
    pub(crate) fn authorize(&self, action: Action, index: Option<&str>) -> ApiResult<Grant> {
        self.node
            .keys
            .authorize(self.header(header::AUTHORIZATION), action, index)
    }

    /// A header's value if it is text.
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The query parameters.
    pub(crate) fn parameters<T: Deserr<InQuery>>(&self) -> ApiResult<T> {
        validate::query(&self.query)
    }

    /// The body, decompressed.
    pub(crate) async fn bytes(&mut self) -> ApiResult<Vec<u8>> {
        let limit = self.node.options.http_payload_size_limit;
        let body = std::mem::replace(&mut self.body, Body::empty());
        let packed = match Limited::new(body, limit).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(too_large(limit)),
            Err(error) => {
                return Err(ApiError::new(
                    Code::BadRequest,
                    format!("An internal error has occurred. `{error}`."),
                ));
            }
        };
        match self.header(header::CONTENT_ENCODING) {
            None | Some("identity" | "") => Ok(packed.to_vec()),
            Some(encoding) => unpack(&packed, encoding, limit),
        }
    }

    /// The body as any JSON value.
    pub(crate) async fn json(&mut self) -> ApiResult<Value> {
        self.expect_json()?;
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Err(ApiError::new(
                Code::MissingPayload,
                "A json payload is missing.",
            ));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            ApiError::new(
                Code::MalformedPayload,
                format!("The json payload provided is malformed. `{error}`."),
            )
        })
    }

    /// The body as a request of a known shape.
    pub(crate) async fn body<T: Deserr<InBody>>(&mut self) -> ApiResult<T> {
        validate::body(self.json().await?)
    }

    fn expect_json(&self) -> ApiResult<()> {
        match self.content_type() {
            Some("application/json") => Ok(()),
            other => Err(wrong_content_type(other, &["application/json"])),
        }
    }

    /// The media type of the body, without its parameters.
    pub(crate) fn content_type(&self) -> Option<&str> {
        let media_type = self.header(header::CONTENT_TYPE)?;
        Some(media_type.split(';').next().unwrap_or_default().trim())
    }

    /// Enqueues a task and answers with its summary.
    pub(crate) async fn accept(
        self,
        work: Work,
        details: Value,
        metadata: Option<String>,
    ) -> ApiResult<Response> {
        let node = self.node;
        let task = blocking(move || node.queue.register(work, details, metadata)).await?;
        Ok((StatusCode::ACCEPTED, Json(task.summary())).into_response())
    }
}

/// Runs a slow function on a thread where it blocks no other request.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> ApiResult<T> + Send + 'static,
) -> ApiResult<T> {
    tokio::task::spawn_blocking(work).await?
}

/// The error for a wrong media type of the body.
pub(crate) fn wrong_content_type(found: Option<&str>, accepted: &[&str]) -> ApiError {
    let accepted: Vec<String> = accepted.iter().map(|name| format!("`{name}`")).collect();
    let accepted = format!(
        "Accepted values for the Content-Type header are: {}",
        accepted.join(", ")
    );
    match found {
        Some(found) => ApiError::new(
            Code::InvalidContentType,
            format!("The Content-Type `{found}` is invalid. {accepted}"),
        ),
        None => ApiError::new(
            Code::MissingContentType,
            format!("A Content-Type header is missing. {accepted}"),
        ),
    }
}

fn unpack(packed: &[u8], encoding: &str, limit: usize) -> ApiResult<Vec<u8>> {
    let most = limit as u64 + 1;
    let mut bytes = Vec::new();
    let read = match encoding {
        "gzip" | "x-gzip" => {
            let mut decoder = flate2::bufread::GzDecoder::new(packed);
            let read = decoder.by_ref().take(most).read_to_end(&mut bytes);
            nothing_behind(read, bytes.len() > limit, decoder.into_inner())
        }
        "deflate" => {
            let mut decoder = flate2::bufread::ZlibDecoder::new(packed);
            let read = decoder.by_ref().take(most).read_to_end(&mut bytes);
            nothing_behind(read, bytes.len() > limit, decoder.into_inner())
        }
        "br" => brotli::Decompressor::new(packed, 4096)
            .take(most)
            .read_to_end(&mut bytes),
        "zstd" => zstd::Decoder::new(packed)
            .and_then(|decoder| decoder.take(most).read_to_end(&mut bytes)),
        _ => return Ok(packed.to_vec()),
    };
    read.map_err(|_| {
        ApiError::new(
            Code::BadRequest,
            "The provided payload is incomplete and cannot be parsed",
        )
    })?;
    if bytes.len() > limit {
        Err(too_large(limit))
    } else {
        Ok(bytes)
    }
}

/// The decompressed data, if the body ends with it: a second gzip member isn't part of the first.
fn nothing_behind(
    read: std::io::Result<usize>,
    cut_short: bool,
    behind: &[u8],
) -> std::io::Result<usize> {
    match read {
        Ok(_) if !cut_short && !behind.is_empty() => Err(std::io::ErrorKind::InvalidData.into()),
        read => read,
    }
}

fn too_large(limit: usize) -> ApiError {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut size = limit as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    ApiError::new(
        Code::PayloadTooLarge,
        format!(
            "The provided payload reached the size limit. The maximum accepted payload size is {size} {unit}."
        ),
    )
}
