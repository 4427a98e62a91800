//! Cross-origin requests: the headers that a browser needs before it lets a page of another origin use an answer.
//!
//! Place in the flow: the listener answers preflights with [`preflight`] before anything else, and adds headers to every other
//! answer with [`mark`]. Nodes do the same for requests that the filter sends to them directly, and `envoy.yaml` for Envoy's own
//! answers. All headers are the same as a node's.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use weft_routing::Origins;

use crate::answer::Answer;

/// The methods that a page may use: all methods of HTTP.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT, TRACE";
/// How long a browser may remember a preflight's answer, in seconds: a day.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");
/// The request headers that answers depend on, for caches.
const DEPENDS_ON: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);

/// The answer to a preflight; `None` for any other request.
pub(super) fn preflight(origins: &Origins, request: &Parts) -> Option<Answer> {
    if *origins == Origins::None || request.method != Method::OPTIONS {
        return None;
    }
    let asked = request.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    let method = Method::from_bytes(asked.as_bytes()).ok()?;
    let origin = origin(&request.headers);
    if origin.is_none() && !origins.is_any() {
        return Some(refusal(
            "Request header `Origin` is required but was not provided",
        ));
    }
    // A node also answers a preflight without an origin.
    let Some(allowed) = origins.allow(origin.or(Some(""))) else {
        return Some(refusal("Origin is not allowed to make this request"));
    };
    if !METHODS.split(", ").any(|known| known == method.as_str()) {
        return Some(refusal("Requested method is not allowed"));
    }
    let mut answer = Answer::empty(StatusCode::OK);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        answer = answer.with_header(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    }
    answer = answer.with_header(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(METHODS),
    );
    if let Some(wanted) = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        answer = answer.with_header(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    Some(
        answer
            .with_header(ACCESS_CONTROL_MAX_AGE, MAX_AGE)
            .with_header(VARY, DEPENDS_ON),
    )
}

/// Adds headers to an answer that say which pages may read it.
pub(super) fn mark(origins: &Origins, request: &HeaderMap, answer: &mut Answer) {
    if *origins == Origins::None {
        return;
    }
    let allowed = origins.allow(origin(request));
    if let Some(Ok(allowed)) = allowed.map(HeaderValue::from_str) {
        answer.headers.push((ACCESS_CONTROL_ALLOW_ORIGIN, allowed));
    }
    answer.headers.push((VARY, DEPENDS_ON));
}

fn origin(request: &HeaderMap) -> Option<&str> {
    request.get(ORIGIN).and_then(|origin| origin.to_str().ok())
}

fn refusal(reason: &'static str) -> Answer {
    Answer {
        body: reason.into(),
        ..Answer::empty(StatusCode::BAD_REQUEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri("/any/path?x=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn values<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
        let of_name = answer.headers.iter().filter(|(known, _)| known == name);
        of_name.map(|(_, value)| value.to_str().unwrap()).collect()
    }

    const PAGE: (&str, &str) = ("origin", "https://shop.example");

    #[test]
    fn any_method_and_any_header_pass_a_preflight() {
        for method in METHODS.split(", ") {
            let wanted = "authorization,x-meilisearch-client,meili-include-metadata,x-weft-partial";
            let asks = [
                PAGE,
                ("access-control-request-method", method),
                ("access-control-request-headers", wanted),
            ];
            let answer = preflight(&Origins::Any, &request("OPTIONS", &asks)).unwrap();
            assert_eq!(answer.status, StatusCode::OK);
            assert!(answer.body.is_empty());
            assert_eq!(values(&answer, "access-control-allow-origin"), ["*"]);
            assert_eq!(values(&answer, "access-control-allow-methods"), [METHODS]);
            assert_eq!(values(&answer, "access-control-allow-headers"), [wanted]);
            assert_eq!(values(&answer, "access-control-max-age"), ["86400"]);
            assert_eq!(values(&answer, "vary"), [DEPENDS_ON.to_str().unwrap()]);
        }
    }

    #[test]
    fn what_is_no_preflight_goes_on_to_the_api() {
        let asks = ("access-control-request-method", "GET");
        for (method, headers) in [
            ("OPTIONS", vec![PAGE]),
            ("GET", vec![PAGE, asks]),
            ("OPTIONS", vec![PAGE, ("access-control-request-method", "")]),
            (
                "OPTIONS",
                vec![PAGE, ("access-control-request-method", "a b")],
            ),
        ] {
            let request = request(method, &headers);
            assert!(
                preflight(&Origins::Any, &request).is_none(),
                "{method} {headers:?}"
            );
        }
        assert!(preflight(&Origins::None, &request("OPTIONS", &[PAGE, asks])).is_none());
    }

    #[test]
    fn a_preflight_is_refused_as_a_node_would() {
        let listed: Origins = "https://other.example".parse().unwrap();
        let asks = ("access-control-request-method", "GET");
        for (origins, headers, reason) in [
            (
                &listed,
                vec![PAGE, asks],
                "Origin is not allowed to make this request",
            ),
            (
                &listed,
                vec![asks],
                "Request header `Origin` is required but was not provided",
            ),
            (
                &Origins::Any,
                vec![PAGE, ("access-control-request-method", "put")],
                "Requested method is not allowed",
            ),
        ] {
            let answer = preflight(origins, &request("OPTIONS", &headers)).unwrap();
            assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            assert_eq!(answer.body, reason);
            assert!(answer.headers.is_empty());
        }
    }

    #[test]
    fn an_answer_says_who_may_read_it_where_a_page_asks() {
        let listed: Origins = "https://shop.example,https://b.example".parse().unwrap();
        for (origins, headers, allowed) in [
            (&Origins::Any, vec![PAGE], vec!["*"]),
            (&Origins::Any, vec![], vec![]),
            (&listed, vec![PAGE], vec!["https://shop.example"]),
            (&listed, vec![("origin", "https://c.example")], vec![]),
        ] {
            let mut answer = Answer::empty(StatusCode::NOT_FOUND);
            mark(origins, &request("GET", &headers).headers, &mut answer);
            assert_eq!(values(&answer, "access-control-allow-origin"), allowed);
            assert_eq!(values(&answer, "vary"), [DEPENDS_ON.to_str().unwrap()]);
        }
        let mut answer = Answer::empty(StatusCode::OK);
        mark(
            &Origins::None,
            &request("GET", &[PAGE]).headers,
            &mut answer,
        );
        assert!(answer.headers.is_empty());
    }
}
