//! Paths that resemble other paths, and headers that only Weft itself may send.

use super::wire::{request, same};
use super::{Case, Expected};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = tricks();
    cases.extend(internal());
    cases
}

fn tricks() -> Vec<Case> {
    let lines = r##"
GET /
GET //
GET /nothing
GET /indexes/
GET //indexes
GET /indexes//things
GET //indexes///things//stats//
GET /indexes/things/
GET /indexes/things/documents/1/
GET /indexes/things/documents/1/2
GET /Indexes
GET /indexes/things/Stats
GET /../indexes
GET /indexes/../tasks
GET /indexes/things/../things
GET /./indexes
GET /indexes/./things
GET /%2e%2e/indexes
GET /indexes/%2e%2e/tasks
GET /indexes/things/%2e%2e/things/stats
GET /indexes/%2e
GET /%2findexes
GET /indexes%2fthings
GET /indexes%2Fthings%2Fstats
GET /indexes/things%2fstats
GET /indexes/things%2Fdocuments%2F1
GET /indexes/things/documents/1%2F2
GET /indexes/things/documents/..%2f1
GET /indexes/things/documents/%31
GET /%69ndexes/things/stats
GET /indexes/t%68ings/documents/1
GET /indexes/things/documents/1%20
GET /indexes/things/documents/%20
GET /indexes/things/documents/1%00
GET /indexes/things%00/stats
GET /indexes/things/documents/%ff
GET /indexes/%ff/stats
GET /indexes/things/documents/%25%32%65
GET /indexes/things/documents/%252e
GET /indexes/things/documents/1;a=b
GET /indexes/things/documents/1+1
GET /indexes/things/documents/a%2Bb
GET /indexes/things/documents/1?
GET /indexes/things?a?b
GET /indexes/things/documents/fetch
GET /indexes/things/documents/delete
GET /indexes/*/stats
GET /indexes/things,other/stats
POST /indexes/things
PUT /indexes
DELETE /indexes
PATCH /tasks
POST /health
DELETE /version
PUT /indexes/things/search
PATCH /indexes/things/documents
OPTIONS /indexes/things
TRACE /indexes/things/documents/1
GET /indexes/things/settings/nothing
GET /health/
GET /health?a=b
GET /stats/x
"##
    .trim()
    .lines();
    let mut cases: Vec<Case> = lines
        .into_iter()
        .map(|line| same(line, line, &[], b""))
        .collect();
    // Envoy accepts only registered methods.
    for line in ["BREW /indexes/things", "get /indexes/things/stats"] {
        cases.push(same(line, line, &[], b"").expect(Expected::Status(&[400, 405])));
    }
    for length in [400, 401, 3_000] {
        let uid = "u".repeat(length);
        cases.push(same(
            format!("an index name of {length} bytes"),
            &format!("GET /indexes/{uid}/stats"),
            &[],
            b"",
        ));
        cases.push(same(
            format!("a document id of {length} bytes"),
            &format!("GET /indexes/things/documents/{uid}"),
            &[],
            b"",
        ));
    }
    let long = format!("GET /indexes/things/search?q={}", "x".repeat(20_000));
    cases.push(same("a query of 20,000 bytes", &long, &[], b""));
    let deep = format!("GET /indexes/things{}", "/x".repeat(5_000));
    cases.push(same("a path of 5,000 segments", &deep, &[], b""));
    cases.push(same(
        "many slashes",
        &format!("GET /indexes{}things", "/".repeat(10_000)),
        &[],
        b"",
    ));
    cases
}

/// Paths and headers that filter, merger and nodes use among themselves: clients can't use them.
fn internal() -> Vec<Case> {
    let mut cases = Vec::new();
    for line in [
        "GET /_weft",
        "GET /_weft/",
        "GET /_weft/table",
        "POST /_weft/register",
        "GET /_weft/metrics",
        "GET /_weft/ready/shard-0-node-0",
        "GET //_weft/table",
        "GET /%5fweft/table",
        "GET /%5Fweft/table",
        "GET /_%77eft/table",
        "GET /_weft%2ftable",
        "GET /_weft/../_weft/table",
        "GET /./_weft/table",
        "GET /indexes/../_weft/table",
        "GET /_weft?x=/indexes",
        "DELETE /_weft/table",
        "GET /%2f_weft/table",
    ] {
        cases.push(Case {
            name: line.to_owned(),
            bytes: request(line, &[], b""),
            expected: Expected::Status(&[404]),
            cut: false,
        });
    }
    // Headers by which a client poses as the filter, the merger or Envoy have no effect.
    let headers = r##"
x-weft-cluster: node
X-WEFT-CLUSTER: shard-0
x-weft-cluster: merger
x-weft-op: get-task
x-weft-index: other
x-weft-epoch: 999999
x-weft-shards: 0
x-weft-degraded: shards=0
x-weft-anything: 1
x-envoy-original-dst-host: 127.0.0.1:1
x-envoy-upstream-rq-timeout-ms: 1
x-envoy-retry-on: 5xx
x-envoy-original-path: /_weft/table
x-original-url: /_weft/table
x-forwarded-for: 127.0.0.1
x-http-method-override: DELETE
x-request-id: é
traceparent: odd
x-weft-write: async
"##
    .trim()
    .lines();
    for header in headers {
        let kind = "content-type: application/json";
        cases.push(same(
            format!("read, {header}"),
            "GET /indexes/things/documents/2",
            &[header],
            b"",
        ));
        cases.push(same(
            format!("search, {header}"),
            "POST /indexes/things/search",
            &[kind, header],
            b"{\"q\":\"number 2\"}",
        ));
        cases.push(same(
            format!("write, {header}"),
            "POST /indexes/things/documents",
            &[kind, header],
            b"{\"id\":1100}",
        ));
    }
    // An invalid mode of writing is refused before anything is written.
    cases.push(Case {
        name: "write, x-weft-write: odd".to_owned(),
        bytes: request(
            "POST /indexes/things/documents",
            &["content-type: application/json", "x-weft-write: odd"],
            b"{\"id\":1100}",
        ),
        expected: Expected::Status(&[400]),
        cut: false,
    });
    cases
}
