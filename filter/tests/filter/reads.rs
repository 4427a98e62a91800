use weft_filter::host::Step;
use weft_filter::request::Request;
use weft_routing::{Epoch, RoutingTable, RoutingValue};

use crate::mock::{Filter, Mock, by_tenant, owner, table};

#[test]
fn a_document_is_read_from_its_owner() {
    let filter = Filter::new();
    for id in ["1", "2", "42", "abc"] {
        let path = format!("/indexes/wide/documents/{id}");
        assert_eq!(filter.routed("GET", &path, &[]), owner(id));
    }
    assert_eq!(filter.metric("weft_filter_requests_direct_read"), 4);
}

#[test]
fn a_search_is_marked_for_the_merger() {
    let filter = Filter::new();
    assert_eq!(filter.routed("POST", "/indexes/wide/search", &[]), "merger");
    assert_eq!(filter.host.sent("x-weft-op"), ["search-post"]);
    assert_eq!(filter.metric("weft_filter_requests_merged"), 1);
}

#[test]
fn a_single_shard_index_is_read_from_its_shard() {
    let filter = Filter::new();
    assert_eq!(
        filter.routed("POST", "/indexes/tiny/search", &[]),
        "shard-2"
    );
    assert_eq!(
        filter.routed("GET", "/indexes/tiny/settings", &[]),
        "shard-2"
    );
    assert_eq!(filter.routed("GET", "/indexes/tiny/stats", &[]), "merger");
}

#[test]
fn a_read_reaches_its_shard_only_when_its_body_is_complete() {
    let filter = Filter::new();
    let path = "/indexes/tiny/search";
    let mut request = filter.request("POST", path, &[]);
    assert_eq!(request.on_request_headers(false), Step::Hold);
    assert_eq!(request.on_request_body(10, false), Step::Hold);
    assert_eq!(filter.host.cluster(), "merger");
    assert_eq!(request.on_request_body(20, true), Step::Continue);
    assert_eq!(filter.host.cluster(), "shard-2");

    let mut request = filter.request("POST", path, &[]);
    assert_eq!(request.on_request_headers(false), Step::Hold);
    assert_eq!(request.on_request_trailers(), Step::Continue);
    assert_eq!(filter.host.cluster(), "shard-2");
    assert_eq!(filter.metric("weft_filter_requests_direct_read"), 2);
}

#[test]
fn a_read_with_a_large_body_goes_to_the_merger() {
    let filter = Filter::new();
    let path = "/indexes/tiny/search";
    let mut request = filter.request("POST", path, &[("content-length", "65537")]);
    assert_eq!(request.on_request_headers(false), Step::Continue);
    assert_eq!(filter.host.cluster(), "merger");
    assert_eq!(filter.host.sent("x-weft-op"), ["search-post"]);

    let mut request = filter.request("POST", path, &[]);
    assert_eq!(request.on_request_headers(false), Step::Hold);
    assert_eq!(request.on_request_body(65_537, false), Step::Continue);
    assert_eq!(request.on_request_body(70_000, true), Step::Continue);
    assert_eq!(filter.host.cluster(), "merger");
}

fn home(tenant: &str) -> String {
    let value = RoutingValue::from_text(tenant).unwrap();
    format!("shard-{}", by_tenant().shard_of_value(&value))
}

const ACME: &[u8] = br#"{"filter":"tenant = acme"}"#;

/// Begins a search of a tenant whose body is on its way.
fn begin(filter: &Filter, more: &[(&str, &str)]) -> Request<Mock> {
    let json = ("content-type", "application/json");
    let all: Vec<_> = more.iter().copied().chain([json]).collect();
    let mut request = filter.request("POST", "/indexes/tenants/search", &all);
    assert_eq!(request.on_request_headers(false), Step::Hold);
    request
}

fn end(filter: &Filter, mut request: Request<Mock>, body: &[u8]) -> String {
    *filter.host.0.request_body.borrow_mut() = body.to_vec();
    assert_eq!(request.on_request_body(body.len(), true), Step::Continue);
    filter.host.cluster()
}

#[test]
fn a_tenants_search_goes_to_its_shard_by_its_query_or_its_body() {
    let filter = Filter::new();
    let path = "/indexes/tenants/search?filter=tenant+%3D+acme&q=a";
    assert_eq!(filter.routed("GET", path, &[]), home("acme"));
    assert_eq!(end(&filter, begin(&filter, &[]), ACME), home("acme"));
    assert_eq!(filter.metric("weft_filter_requests_direct_read"), 2);
    assert_eq!(end(&filter, begin(&filter, &[]), b"{}"), "merger");
    assert_eq!(filter.host.sent("x-weft-op"), ["search-post"]);
    assert_eq!(filter.metric("weft_filter_requests_body_looked_at"), 2);
    assert_eq!(filter.metric("weft_filter_requests_merged"), 1);
}

#[test]
fn a_tenants_token_counts_and_two_are_the_mergers() {
    let filter = Filter::new();
    // {"searchRules":{"*":{"filter":"tenant = acme"}}} and {"searchRules":{"*":{"filter":"group != 1"}}}
    let acme = "Bearer e30.eyJzZWFyY2hSdWxlcyI6eyIqIjp7ImZpbHRlciI6InRlbmFudCA9IGFjbWUifX19.s";
    let other = "Bearer e30.eyJzZWFyY2hSdWxlcyI6eyIqIjp7ImZpbHRlciI6Imdyb3VwICE9IDEifX19.s";
    let path = "/indexes/tenants/search";
    let token = ("authorization", acme);
    assert_eq!(filter.routed("GET", path, &[token]), home("acme"));
    assert_eq!(end(&filter, begin(&filter, &[token]), b"{}"), home("acme"));
    assert_eq!(filter.routed("GET", path, &[token, token]), "merger");
    let held = begin(&filter, &[("authorization", other)]);
    assert_eq!(end(&filter, held, ACME), "merger");
}

#[test]
fn a_tenants_search_is_judged_by_the_table_that_holds_when_its_body_is_there() {
    let mut filter = Filter::new();
    let held = begin(&filter, &[]);
    let mut moving = RoutingTable {
        epoch: Epoch(8),
        ..table()
    };
    moving.indexes.get_mut("tenants").unwrap().direct_reads = false;
    filter.host.0.now_ms.set(500);
    filter.root.on_tick();
    filter.answer_poll(200, moving.to_json().unwrap().as_bytes());
    assert_eq!(end(&filter, held, ACME), "merger");
    assert_eq!(
        filter.routed("GET", "/indexes/tenants/search?filter=tenant=acme", &[]),
        "merger"
    );

    let filter = Filter::new();
    let held = begin(&filter, &[]);
    filter.host.0.now_ms.set(1_000);
    assert_eq!(end(&filter, held, ACME), "merger", "the lease is over");

    let filter = Filter::new();
    let mut held = begin(&filter, &[]);
    assert_eq!(held.on_request_body(65_537, false), Step::Continue);
    assert_eq!(filter.host.cluster(), "merger", "the body is too large");
}

#[test]
fn where_bodies_may_not_be_held_a_read_goes_to_its_shard_at_once() {
    let filter = Filter::configured("{}");
    let mut request = filter.request("POST", "/indexes/tiny/search", &[]);
    assert_eq!(request.on_request_headers(false), Step::Continue);
    assert_eq!(filter.host.cluster(), "shard-2");
}

#[test]
fn shards_are_called_as_the_configuration_says() {
    let filter =
        Filter::configured(r#"{"shard_prefix": "outbound|7700||shard-{}.ns.svc.cluster.local"}"#);
    assert_eq!(
        filter.routed("GET", "/indexes/tiny/settings", &[]),
        "outbound|7700||shard-2.ns.svc.cluster.local"
    );
}

#[test]
fn public_headers_stay_and_send_reads_to_the_merger() {
    let filter = Filter::new();
    for (name, value) in [
        ("x-weft-read", "primary"),
        ("x-weft-after-task", "7"),
        ("x-weft-explain", "true"),
        ("x-weft-partial", "wait"),
        ("x-weft-read", ""),
    ] {
        assert_eq!(
            filter.routed("POST", "/indexes/tiny/search", &[(name, value)]),
            "merger",
            "{name}"
        );
        assert_eq!(filter.host.sent(name), [value]);
    }
    let any = [("x-weft-read", "any")];
    assert_eq!(
        filter.routed("POST", "/indexes/tiny/search", &any),
        "shard-2"
    );
}

#[test]
fn what_a_client_may_not_set_is_removed_however_often_it_is_sent() {
    let filter = Filter::new();
    let forged = [
        ("x-weft-cluster", "shard-0"),
        ("x-weft-cluster", "shard-1"),
        ("x-weft-op", "a"),
        ("x-weft-shards", "9"),
        ("x-weft-whatever", "1"),
        ("x-weft-whatever", "2"),
        ("x-envoy-original-dst-host", "127.0.0.1:1"),
        ("x-envoy-original-dst-host", "127.0.0.1:2"),
        ("x-other", "stays"),
    ];
    assert_eq!(filter.routed("GET", "/health", &forged), "merger");
    for gone in [
        "x-weft-shards",
        "x-weft-whatever",
        "x-envoy-original-dst-host",
    ] {
        assert!(filter.host.sent(gone).is_empty(), "{gone}");
    }
    assert_eq!(filter.host.sent("x-weft-op"), ["health"]);
    assert_eq!(filter.host.sent("x-other"), ["stays"]);
    assert_eq!(
        filter.routed("GET", "/indexes/wide/documents/1", &forged),
        owner("1")
    );
    assert!(filter.host.sent("x-weft-op").is_empty());
}

/// The final value of `access-control-allow-origin` on a node's answer to a direct read.
fn readers(origins: &str, origin: Option<&str>) -> Option<String> {
    let mut filter = Filter::new();
    let newer = RoutingTable {
        epoch: Epoch(8),
        origins: origins.parse().unwrap(),
        ..table()
    };
    filter.root.on_tick();
    filter.answer_poll(200, newer.to_json().unwrap().as_bytes());
    let asks: Vec<_> = origin
        .map(|origin| ("origin", origin))
        .into_iter()
        .collect();
    let mut request = filter.request("GET", "/indexes/tiny/search", &asks);
    request.on_request_headers(true);
    assert_eq!(filter.host.cluster(), "shard-2");
    let of_node = [("access-control-allow-origin", "*"), (":status", "200")];
    *filter.host.0.response.borrow_mut() = of_node
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    assert_eq!(request.on_response_headers(false), Step::Continue);
    let said = filter.host.0.response.borrow();
    said.get("access-control-allow-origin").cloned()
}

#[test]
fn a_direct_answer_is_for_the_pages_that_the_table_names() {
    let page = Some("https://shop.example");
    assert_eq!(readers("any", page).as_deref(), Some("*"));
    assert_eq!(readers("https://shop.example", page).as_deref(), page);
    assert_eq!(readers("https://*.example", page).as_deref(), page);
    assert_eq!(readers("https://other.example", page), None);
    assert_eq!(readers("https://shop.example", None), None);
    assert_eq!(readers("none", page), None);
}

#[test]
fn paths_between_filter_and_merger_are_not_for_clients() {
    let filter = Filter::new();
    for path in [
        "/_weft/table",
        "//_weft/register/",
        "/%5Fweft",
        "/_w%65ft/ready?x",
    ] {
        filter.host.0.responded.set(None);
        let mut request = filter.request("POST", path, &[]);
        assert_eq!(request.on_request_headers(false), Step::Hold);
        assert_eq!(filter.host.0.responded.get(), Some(404), "{path}");
    }
    assert_eq!(filter.metric("weft_filter_requests_refused"), 4);
}

#[test]
fn whatever_isnt_understood_goes_to_the_merger_without_marks() {
    let filter = Filter::new();
    for (method, path) in [
        ("GET", "/nothing"),
        ("OPTIONS", "/indexes"),
        ("GET", "*"),
        ("", ""),
    ] {
        assert_eq!(
            filter.routed(method, path, &[]),
            "merger",
            "{method} {path}"
        );
        assert!(filter.host.sent("x-weft-op").is_empty());
    }
    // An index that the table doesn't have.
    assert_eq!(
        filter.routed("GET", "/indexes/a%0d%0ab/documents/1", &[]),
        "merger"
    );
}

#[test]
fn the_route_cache_is_cleared_where_the_configuration_says_so() {
    let filter = Filter::new();
    filter.routed("POST", "/indexes/tiny/search", &[]);
    assert!(!filter.host.0.route_cache_cleared.get());
    let filter = Filter::configured(r#"{"clear_route_cache": true}"#);
    filter.routed("GET", "/health", &[]);
    // The merger's route was chosen first, and stays.
    assert!(!filter.host.0.route_cache_cleared.get());
    filter.routed("POST", "/indexes/tiny/search", &[]);
    assert!(filter.host.0.route_cache_cleared.get());
}

#[test]
fn a_path_that_isnt_utf8_hides_nothing() {
    let filter = Filter::new();
    for (path, cluster, answered) in [
        (&b"/_weft/table?\xff"[..], "merger", Some(404)),
        (b"/indexes/wide/documents/\xff", "merger", None),
        (b"/indexes/tiny/search?q=\xff", "shard-2", None),
    ] {
        filter.host.0.responded.set(None);
        let mut request = filter.request("GET", "", &[]);
        filter.host.0.request.borrow_mut()[1].1 = path.to_vec();
        request.on_request_headers(true);
        assert_eq!(filter.host.cluster(), cluster, "{path:?}");
        assert_eq!(filter.host.0.responded.get(), answered, "{path:?}");
    }
}

#[test]
fn no_head_breaks_the_filter_and_no_forged_header_survives() {
    let filter = Filter::new();
    let words = [
        ":method",
        ":path",
        "GET",
        "PUT",
        "/indexes/wide/documents/7",
        "/indexes/tiny",
        "/%",
        "x-weft-op",
        "x-weft-x",
        "x-weft-read",
        "content-type",
        "application/json",
        "content-length",
        "-1",
        "\u{fffd}",
        "",
        "x-envoy-original-dst-host",
        "traceparent",
    ];
    let mut seed = 1_u64;
    let mut word = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        words[usize::try_from(seed >> 33).unwrap() % words.len()]
    };
    for _ in 0..5_000 {
        let more: Vec<_> = (0..6).map(|_| (word(), word())).collect();
        let mut request = filter.request(word(), word(), &more);
        let step = request.on_request_headers(false);
        for forbidden in ["x-weft-x", "x-envoy-original-dst-host"] {
            assert!(filter.host.sent(forbidden).is_empty(), "{more:?}");
        }
        assert!(
            step == Step::Hold || filter.host.cluster() != "",
            "{more:?}"
        );
    }
}

#[test]
fn the_operation_of_a_direct_read_is_named_where_an_access_log_wants_it() {
    let filter = Filter::new();
    filter.routed("POST", "/indexes/tiny/search", &[]);
    assert!(filter.host.sent("x-weft-op").is_empty());
    let filter = Filter::configured(r#"{"log_operation": true}"#);
    assert_eq!(
        filter.routed("POST", "/indexes/tiny/search", &[]),
        "shard-2"
    );
    assert_eq!(filter.host.sent("x-weft-op"), ["search-post"]);
}
