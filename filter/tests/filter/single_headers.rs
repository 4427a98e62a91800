//! Where Envoy has removed what clients may not set, the filter asks for single headers, and decides as if it had read all.

use weft_filter::host::Step;
use weft_routing::{Epoch, RoutingTable};

use crate::mock::{Filter, owner, table};

const ALL: &str = r#"{"body_routing": true}"#;
const SINGLE: &str = r#"{"body_routing": true, "headers_removed": true}"#;

/// What the client of a request hears or its upstream gets, and how the request ends.
fn outcome(
    filter: &Filter,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> String {
    filter.host.0.responded.set(None);
    *filter.host.0.request_body.borrow_mut() = body.unwrap_or_default().to_vec();
    let mut request = filter.request(method, path, headers);
    let head = request.on_request_headers(body.is_none());
    let rest = body.map(|body| request.on_request_body(body.len(), true));
    let sent = (filter.host.cluster(), filter.host.sent("x-weft-op"));
    let answered = filter.host.0.responded.get();
    format!("{head:?} {rest:?} {sent:?} {answered:?}")
}

#[test]
fn single_headers_lead_to_the_decisions_that_all_of_them_do() {
    let (all, single) = (Filter::configured(ALL), Filter::configured(SINGLE));
    let json = ("content-type", "application/json");
    let heads: [&[(&str, &str)]; 9] = [
        &[],
        &[json],
        &[json, ("content-length", "20")],
        &[json, ("content-encoding", "gzip")],
        &[json, ("authorization", "Bearer a.b.c")],
        &[json, ("x-weft-read", "any")],
        &[json, ("x-weft-read", "primary")],
        &[json, ("x-weft-explain", "")],
        &[json, ("x-weft-write", "async"), ("traceparent", "t")],
    ];
    let bodies: [Option<&[u8]>; 4] = [
        None,
        Some(br#"{"filter":"tenant = acme"}"#),
        Some(br#"{"id":42,"title":"a"}"#),
        Some(b"[1]"),
    ];
    let mut different = std::collections::BTreeSet::new();
    for index in ["wide", "tiny", "tenants", "nosuch"] {
        for rest in [
            "search",
            "search?filter=tenant%3D1",
            "documents",
            "documents/7",
            "settings",
            "stats",
        ] {
            for method in ["GET", "POST", "DELETE"] {
                let path = format!("/indexes/{index}/{rest}");
                for headers in heads {
                    for body in bodies {
                        let asked = (method, path.as_str());
                        let expected = outcome(&all, asked, headers, body);
                        let found = outcome(&single, asked, headers, body);
                        assert_eq!(found, expected, "{method} {path} {headers:?} {body:?}");
                        different.insert(found);
                    }
                }
            }
        }
    }
    for (method, path) in [
        ("GET", "/_weft/table"),
        ("GET", "/health"),
        ("", ""),
        ("GET", "/x"),
    ] {
        let found = outcome(&single, (method, path), &[], None);
        assert_eq!(found, outcome(&all, (method, path), &[], None), "{path}");
        different.insert(found);
    }
    assert!(different.len() > 10, "{different:?}");
}

#[test]
fn the_most_frequent_requests_need_few_headers() {
    let filter = Filter::configured(SINGLE);
    for (method, path, most) in [
        ("GET", "/indexes/wide/documents/7", 7),
        ("POST", "/indexes/tiny/search", 7),
        ("POST", "/indexes/wide/search", 2),
        ("GET", "/keys", 2),
    ] {
        filter.host.0.asked_singly.set(0);
        filter.request(method, path, &[]).on_request_headers(false);
        assert_eq!(filter.host.0.asked_singly.get(), most, "{method} {path}");
    }
    assert_eq!(filter.host.0.asked_for_all.get(), 0);
}

#[test]
fn two_keys_are_not_judged() {
    let filter = Filter::configured(SINGLE);
    let path = "/indexes/tenants/search?filter=tenant%3D1";
    let key = ("authorization", "Bearer key");
    assert_ne!(filter.routed("GET", path, &[key]), "merger");
    assert_eq!(filter.routed("GET", path, &[key, key]), "merger");
}

#[test]
fn a_direct_write_is_registered_with_its_trace() {
    let filter = Filter::configured(SINGLE);
    let trace = [("x-request-id", "r"), ("traceparent", "t")];
    let mut request = filter.request("DELETE", "/indexes/wide/documents/7", &trace);
    assert_eq!(request.on_request_headers(true), Step::Continue);
    assert_eq!(filter.host.cluster(), owner("7"));
    filter
        .host
        .0
        .response
        .borrow_mut()
        .insert(":status".to_owned(), "202".to_owned());
    assert_eq!(request.on_response_headers(false), Step::Hold);
    let answer = br#"{"taskUid":17,"indexUid":"wide","type":"documentDeletion"}"#;
    *filter.host.0.response_body.borrow_mut() = answer.to_vec();
    assert_eq!(request.on_response_body(answer.len(), true), Step::Hold);
    let call = filter.host.last_call();
    assert_eq!(call.header("x-request-id"), Some("r"));
    assert_eq!(call.header("traceparent"), Some("t"));
}

#[test]
fn the_origin_is_asked_for_where_not_every_page_may_read() {
    let mut filter = Filter::configured(SINGLE);
    let newer = RoutingTable {
        epoch: Epoch(8),
        origins: "https://shop.example".parse().unwrap(),
        ..table()
    };
    filter.root.on_tick();
    filter.answer_poll(200, newer.to_json().unwrap().as_bytes());
    let page = [("origin", "https://shop.example")];
    let mut request = filter.request("GET", "/indexes/tiny/search", &page);
    request.on_request_headers(true);
    request.on_response_headers(false);
    let said = filter.host.response("access-control-allow-origin");
    assert_eq!(said, "https://shop.example");
}

#[test]
fn no_operation_is_named_where_nobody_logs_it() {
    let filter = Filter::configured(r#"{"log_operation": "none"}"#);
    for path in ["/health", "/indexes/wide/search", "/indexes/tiny/search"] {
        filter.routed("GET", path, &[]);
        assert!(filter.host.sent("x-weft-op").is_empty(), "{path}");
    }
}
