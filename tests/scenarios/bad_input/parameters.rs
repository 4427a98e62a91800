//! Requests for other operations, with invalid parameters, bodies and keys.

use super::wire::{same, same_json};
use super::{Case, INDEX};
use crate::support::MASTER_KEY;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = searches();
    cases.extend(reads());
    cases.extend(changes());
    cases.extend(keys());
    cases
}

fn searches() -> Vec<Case> {
    let bodies = r##"
null
[]
1
{
{"q":1}
{"q":["a"]}
{"unknown":1}
{"limit":-1}
{"limit":"1"}
{"limit":1.5}
{"limit":18446744073709551616}
{"offset":-1}
{"page":-1}
{"page":"1"}
{"hitsPerPage":-1}
{"filter":"group ="}
{"filter":"nothing = 1"}
{"filter":1}
{"filter":{}}
{"filter":[[["a"]]]}
{"sort":"group:asc"}
{"sort":["group"]}
{"sort":["name:asc"]}
{"sort":[1]}
{"facets":["nothing"]}
{"facets":"group"}
{"attributesToRetrieve":1}
{"matchingStrategy":"none"}
{"rankingScoreThreshold":2}
{"rankingScoreThreshold":"x"}
{"showRankingScore":1}
{"distinct":1}
{"vector":["a"]}
{"hybrid":{}}
{"hybrid":{"embedder":"none"}}
{"locales":["xx"]}
{"cropLength":-1}
{"attributesToSearchOn":["nothing"]}
{"q":"a","q":"b"}
{"q":"\ud800"}
"##
    .trim()
    .lines()
    .chain([""]);
    let mut cases: Vec<Case> = bodies
        .into_iter()
        .map(|body| same_json(&format!("POST /indexes/{INDEX}/search"), body))
        .collect();
    let queries = r##"
limit=a
limit=-1
limit=1.5
offset=x
page=x
unknown=1
q=%ff
q=%zz
filter=group%20%3D
sort=group
facets=nothing
showRankingScore=1
matchingStrategy=none
limit=1&limit=2
limit
hybridSemanticRatio=2
rankingScoreThreshold=-1
"##
    .trim()
    .lines();
    for query in queries {
        let line = format!("GET /indexes/{INDEX}/search?{query}");
        cases.push(same(line.clone(), &line, &[], b""));
    }
    let several = r##"
[]
{}
{"queries":1}
{"queries":[1]}
{"queries":[{}]}
{"queries":[{"indexUid":1}]}
{"queries":[{"indexUid":"no such"}]}
{"queries":[{"indexUid":"nothing"}]}
{"queries":[{"indexUid":"things","limit":-1}]}
{"queries":[],"federation":1}
{"queries":[{"indexUid":"things","limit":1}],"federation":{}}
{"queries":[{"indexUid":"things","federationOptions":{"weight":1}}]}
{"queries":[{"indexUid":"things","federationOptions":{"weight":-1}}],"federation":{}}
"##
    .trim()
    .lines()
    .chain([""]);
    cases.extend(
        several
            .into_iter()
            .map(|body| same_json("POST /multi-search", body)),
    );
    for body in [
        "{}",
        "{\"facetName\":1}",
        "{\"facetName\":\"nothing\"}",
        "{\"facetName\":\"group\",\"facetQuery\":1}",
    ] {
        cases.push(same_json(
            &format!("POST /indexes/{INDEX}/facet-search"),
            body,
        ));
    }
    cases
}

fn reads() -> Vec<Case> {
    let lines = r##"
GET /indexes?limit=x
GET /indexes?offset=-1
GET /indexes?unknown=1
GET /indexes/nothing
GET /indexes/no%20such
GET /indexes/nothing/stats
GET /indexes/nothing/settings
GET /indexes/nothing/documents/1
GET /indexes/nothing/search
GET /indexes/things/documents?limit=x
GET /indexes/things/documents?fields
GET /indexes/things/documents?filter=x
GET /indexes/things/documents?unknown=1
GET /indexes/things/documents/1?fields=name&unknown=1
GET /indexes/things/documents/no%20such
GET /indexes/things/documents/%00
GET /indexes/things/documents/%C3%A9
GET /tasks?limit=x
GET /tasks?statuses=odd
GET /tasks?types=odd
GET /tasks?uids=a
GET /tasks?from=-1
GET /tasks?afterEnqueuedAt=yesterday
GET /tasks?indexUids=no%20such
GET /tasks?unknown=1
GET /tasks/abc
GET /tasks/4000000000
GET /tasks/-1
GET /tasks/99999999999999999999
GET /batches/abc
GET /batches/4000000000
DELETE /tasks
DELETE /tasks?uids=x
GET /keys/none
GET /keys?limit=x
"##
    .trim()
    .lines();
    lines
        .into_iter()
        .map(|line| same(line, line, &[], b""))
        .collect()
}

fn changes() -> Vec<Case> {
    let requests = [
        ("POST /indexes", "[]"),
        ("POST /indexes", "{}"),
        ("POST /indexes", "{\"uid\":1}"),
        ("POST /indexes", "{\"uid\":\"\"}"),
        ("POST /indexes", "{\"uid\":\"no such\"}"),
        ("POST /indexes", "{\"uid\":\"a\",\"primaryKey\":1}"),
        ("POST /indexes", "{\"uid\":\"a\",\"unknown\":1}"),
        ("POST /indexes", "{\"uid\":\"things\"}"),
        ("PATCH /indexes/things", "{\"primaryKey\":1}"),
        ("PATCH /indexes/things", "{\"primaryKey\":\"other\"}"),
        ("PATCH /indexes/things", "{\"unknown\":1}"),
        ("POST /swap-indexes", "{}"),
        ("POST /swap-indexes", "[{\"indexes\":[\"things\"]}]"),
        (
            "POST /swap-indexes",
            "[{\"indexes\":[\"things\",\"no such\"]}]",
        ),
        ("PATCH /indexes/things/settings", "[]"),
        ("PATCH /indexes/things/settings", "{\"unknown\":1}"),
        (
            "PATCH /indexes/things/settings",
            "{\"rankingRules\":[\"odd rule\"]}",
        ),
        (
            "PATCH /indexes/things/settings",
            "{\"pagination\":{\"maxTotalHits\":-1}}",
        ),
        (
            "PATCH /indexes/things/settings",
            "{\"searchableAttributes\":1}",
        ),
        ("PUT /indexes/things/settings/stop-words", "{}"),
        ("PUT /indexes/things/settings/stop-words", "[1]"),
        ("PUT /indexes/things/settings/synonyms", "[]"),
        (
            "PATCH /indexes/things/settings/typo-tolerance",
            "{\"minWordSizeForTypos\":{\"oneTypo\":9,\"twoTypos\":5}}",
        ),
        (
            "PATCH /indexes/things/settings/faceting",
            "{\"maxValuesPerFacet\":\"many\"}",
        ),
        ("POST /indexes/things/documents/delete-batch", "{}"),
        ("POST /indexes/things/documents/delete-batch", "[[1]]"),
        ("POST /indexes/things/documents/delete-batch", "[{}]"),
        (
            "POST /indexes/things/documents/delete-batch",
            "[\"a b\",null,4000]",
        ),
        ("POST /indexes/things/documents/delete-batch", "[1"),
        ("POST /indexes/things/documents/delete-batch", ""),
        ("POST /indexes/nothing/documents/delete-batch", "[1]"),
        ("POST /indexes/things/documents/delete", "{}"),
        ("POST /indexes/things/documents/delete", "{\"filter\":\"\"}"),
        (
            "POST /indexes/things/documents/delete",
            "{\"filter\":\"group ~ 1\"}",
        ),
        (
            "POST /indexes/things/documents/delete",
            "{\"filter\":\"nothing = 1\"}",
        ),
        (
            "POST /indexes/things/documents/delete",
            "{\"filter\":1,\"unknown\":1}",
        ),
        ("POST /indexes/things/documents/fetch", "{\"limit\":-1}"),
        (
            "POST /indexes/things/documents/fetch",
            "{\"filter\":\"nothing = 1\"}",
        ),
        ("POST /indexes/things/documents/fetch", "[]"),
        ("POST /keys", "{}"),
        (
            "POST /keys",
            "{\"actions\":[\"odd\"],\"indexes\":[\"*\"],\"expiresAt\":null}",
        ),
        (
            "POST /keys",
            "{\"actions\":[\"*\"],\"indexes\":[\"no such\"],\"expiresAt\":null}",
        ),
        (
            "POST /keys",
            "{\"actions\":[\"*\"],\"indexes\":[\"*\"],\"expiresAt\":\"yesterday\"}",
        ),
        (
            "POST /keys",
            "{\"actions\":[\"*\"],\"indexes\":[\"*\"],\"expiresAt\":null,\"uid\":\"x\"}",
        ),
        ("PATCH /keys/none", "{\"name\":\"x\"}"),
        ("PATCH /experimental-features", "{\"odd\":true}"),
        ("POST /tasks/cancel", ""),
        ("POST /tasks/cancel?uids=x", ""),
    ];
    let mut cases: Vec<Case> = requests
        .into_iter()
        .map(|(line, body)| same_json(line, body))
        .collect();
    for line in [
        "DELETE /indexes/nothing",
        "DELETE /indexes/no%20such",
        "DELETE /indexes/things/documents/no%20such",
        "DELETE /indexes/things/documents/%C3%A9",
        "DELETE /indexes/nothing/documents/1",
        "DELETE /keys/none",
    ] {
        cases.push(same(line, line, &[], b""));
    }
    cases
}

fn keys() -> Vec<Case> {
    let long = format!("authorization: Bearer {}", "x".repeat(20_000));
    let key = MASTER_KEY;
    let headers: Vec<String> = vec![
        "authorization:".to_owned(),
        "authorization: Bearer".to_owned(),
        "authorization: Bearer ".to_owned(),
        "authorization: Bearer wrong".to_owned(),
        format!("authorization: {key}"),
        format!("authorization: bearer {key}"),
        format!("authorization: Bearer  {key}"),
        format!("authorization: Bearer {key} "),
        format!("authorization: Bearer {key} more"),
        format!("authorization: Basic {key}"),
        "authorization: Bearer a.b.c".to_owned(),
        "authorization: Bearer eyJhbGciOiJub25lIn0.e30.".to_owned(),
        "authorization: Bearer é".to_owned(),
        long,
    ];
    let mut cases = Vec::new();
    for header in &headers {
        for line in [
            "GET /tasks?limit=0",
            "GET /indexes/things/documents/1",
            "GET /indexes/things/search?q=x",
        ] {
            let start: String = header.chars().take(60).collect();
            cases.push(same(format!("{line}, {start}"), line, &[header], b""));
        }
    }
    cases
}
