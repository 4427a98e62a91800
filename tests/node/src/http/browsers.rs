//! What browsers need for every request: CORS headers that let pages of any origin use the answer, and compressed answers.
//! Both are done as a real server does them.

use std::io::Write as _;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_ENCODING, CONTENT_LENGTH, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

const METHODS: &str = "PATCH, TRACE, GET, HEAD, POST, OPTIONS, PUT, CONNECT, DELETE";
const DEPENDS_ON: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
const ANY: HeaderValue = HeaderValue::from_static("*");

/// Answers preflight requests, and adds headers and compression to every other answer.
pub(super) async fn serve(request: Request, next: Next) -> Response {
    let coding = Coding::wanted(request.headers());
    if let Some(answer) = preflight(&request) {
        return answer;
    }
    let of_page = request.headers().contains_key(ORIGIN);
    let mut answer = next.run(request).await;
    let headers = answer.headers_mut();
    if of_page {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    }
    headers.append(VARY, HeaderValue::from_static(DEPENDS_ON));
    match coding {
        Some(coding) => coding.apply(answer).await,
        None => answer,
    }
}

fn preflight(request: &Request) -> Option<Response> {
    let headers = request.headers();
    let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    let method = Method::from_bytes(asked.as_bytes()).ok()?;
    if request.method() != Method::OPTIONS {
        return None;
    }
    let mut answer = Response::new(Body::empty());
    if !METHODS.split(", ").any(|known| known == method.as_str()) {
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        *answer.body_mut() = Body::from("Requested method is not allowed");
        return Some(answer);
    }
    let said = answer.headers_mut();
    said.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    said.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(METHODS),
    );
    if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        said.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    said.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    said.insert(VARY, HeaderValue::from_static(DEPENDS_ON));
    Some(answer)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Coding {
    Deflate,
    Gzip,
    Brotli,
}

impl Coding {
    /// The encoding that the client prefers; of equally preferred ones, the one that compresses best.
    fn wanted(headers: &HeaderMap) -> Option<Self> {
        let accepted = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
        let wishes = accepted.split(',').filter_map(|item| {
            let (name, weight) = item.split_once(';').unwrap_or((item, "q=1"));
            let weight: f32 = weight.trim().strip_prefix("q=")?.parse().ok()?;
            let coding = match name.trim() {
                "br" => Some(Self::Brotli),
                "gzip" => Some(Self::Gzip),
                "deflate" => Some(Self::Deflate),
                "identity" => None,
                _ => return None,
            };
            (weight > 0.0).then_some((weight, coding))
        });
        let best = wishes.max_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        best?.1
    }

    fn name(self) -> &'static str {
        match self {
            Self::Deflate => "deflate",
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        }
    }

    async fn apply(self, answer: Response) -> Response {
        let (mut head, body) = answer.into_parts();
        let Ok(plain) = to_bytes(body, usize::MAX).await else {
            return Response::from_parts(head, Body::empty());
        };
        if plain.is_empty() || head.headers.contains_key(CONTENT_ENCODING) {
            return Response::from_parts(head, plain.into());
        }
        let Ok(packed) = self.pack(&plain) else {
            return Response::from_parts(head, plain.into());
        };
        head.headers.remove(CONTENT_LENGTH);
        head.headers
            .insert(CONTENT_ENCODING, HeaderValue::from_static(self.name()));
        head.headers
            .append(VARY, HeaderValue::from_static("accept-encoding"));
        Response::from_parts(head, packed.into())
    }

    fn pack(self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        let fast = flate2::Compression::fast();
        match self {
            Self::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), fast);
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Self::Brotli => {
                let mut packed = Vec::new();
                let mut encoder = brotli::CompressorWriter::new(&mut packed, 4096, 3, 18);
                encoder.write_all(plain)?;
                drop(encoder);
                Ok(packed)
            }
        }
    }
}
