//! Every operator of filters, in every request that takes a filter.

use reqwest::Method;
use serde_json::{Value, json};
use weft_merger::filters::unequal::{fields, reworded};

use super::{Both, FIELDS, assert_no_difference, with_query};

/// Every operator on a field, alone and combined with others.
fn conditions(field: &str) -> Vec<Value> {
    let mut all: Vec<Value> = [
        "{} != 'only here'",
        "{}!=7",
        "\"{}\" != \"SOME\"",
        "'{}' != nothing",
        "{} = 'only here'",
        "{} = 7",
        "NOT {} = 'only here'",
        "NOT {} != 'only here'",
        "NOT NOT {} != 7",
        "{} IN ['only here', 7]",
        "{} NOT IN ['only here', 7]",
        "{} EXISTS",
        "{} NOT EXISTS",
        "NOT {} EXISTS",
        "{} IS NULL",
        "{} IS NOT NULL",
        "{} IS EMPTY",
        "{} IS NOT EMPTY",
        "{} CONTAINS 'her'",
        "{} NOT CONTAINS 'her'",
        "{} STARTS WITH 'only'",
        "{} NOT STARTS WITH 'only'",
        "{} > 3",
        "NOT {} <= 3",
        "{} 3 TO 8",
        "NOT {} 3 TO 8",
        "{} != 7 AND group != 3",
        "group != 3 AND{} != 7",
        "({} != 7 OR group = 3) AND NOT ({} != 'only here' AND group != 4)",
        "({} = 7 OR({} != 7))AND never != 1",
        "group = '{} != 7' OR {} != '!= AND'",
        "{} != 7 AND rare != 'only here' AND some != 7",
        "{} != 7 AND _geoRadius(10, 20, 1000)",
        "{} != 7 OR NOT _geoRadius(10, 20, 1000)",
        "{} != 7 AND NOT _geoBoundingBox([45, 45], [-45, -45])",
        // Refused with the same error as by one node.
        "{} != 7 AND title = 1",
        "title != 7 AND {} != 7",
        "{} != ",
        "{} != 7 AND",
        "({} != 7",
        "{} != 'seven",
        "{} != 7 AND _geoRadius(100, 20, 1000)",
    ]
    .iter()
    .map(|text| {
        Value::from(
            text.replace("AND{}", &format!("AND \"{field}\""))
                .replace("{}", field),
        )
    })
    .collect();
    let unequal = format!("{field} != 7");
    all.push(json!([unequal, "group != 3"]));
    all.push(json!([
        [unequal, "group = 3"],
        ["never != 1", format!("NOT {unequal}")]
    ]));
    all.push(json!([[unequal]]));
    all.push(json!([unequal, 7]));
    all.push(json!([]));
    all
}

/// A filter in the form of a query string.
fn as_text(filter: &Value) -> String {
    filter
        .as_str()
        .map_or_else(|| filter.to_string(), str::to_owned)
}

/// Every read that takes a filter.
fn reads(filter: &Value) -> Vec<(Method, String, Value)> {
    let text = as_text(filter);
    let post = |path: &str, body: Value| (Method::POST, path.to_owned(), body);
    let get = |path: &str, pairs: &[(&str, &str)]| {
        let mut pairs = pairs.to_vec();
        pairs.push(("filter", &text));
        (Method::GET, with_query(path, &pairs), Value::Null)
    };
    let query = |q: &str| json!({"indexUid": "x", "q": q, "filter": filter, "limit": 200, "attributesToRetrieve": ["id"]});
    vec![
        post(
            "/indexes/x/search",
            json!({"filter": filter, "limit": 200, "attributesToRetrieve": ["id"], "facets": ["group"]}),
        ),
        post(
            "/indexes/x/search",
            json!({"q": "amber", "filter": filter, "hitsPerPage": 200, "attributesToRetrieve": ["id"], "showRankingScore": true}),
        ),
        get(
            "/indexes/x/search",
            &[("limit", "200"), ("attributesToRetrieve", "id")],
        ),
        post(
            "/multi-search",
            json!({"queries": [query(""), query("fern")]}),
        ),
        post(
            "/multi-search",
            json!({"queries": [query(""), query("fern")], "federation": {"limit": 200}}),
        ),
        post(
            "/indexes/x/facet-search",
            json!({"facetName": "tags", "filter": filter}),
        ),
        post(
            "/indexes/x/documents/fetch",
            json!({"filter": filter, "limit": 200, "fields": ["id"]}),
        ),
        get(
            "/indexes/x/documents",
            &[("limit", "200"), ("fields", "id")],
        ),
        post(
            "/indexes/x/similar",
            json!({"id": 3, "embedder": "own", "filter": filter, "limit": 200, "attributesToRetrieve": ["id"]}),
        ),
        get(
            "/indexes/x/similar",
            &[
                ("id", "3"),
                ("embedder", "own"),
                ("limit", "200"),
                ("attributesToRetrieve", "id"),
            ],
        ),
    ]
}

#[tokio::test]
async fn a_filter_finds_what_one_node_finds_whichever_shards_know_its_fields() {
    let both = Both::start().await;
    let (mut differences, mut asked) = (Vec::new(), 0);
    for field in FIELDS {
        for filter in conditions(field) {
            for (method, path, body) in reads(&filter) {
                asked += 1;
                differences.extend(both.difference(method, &path, &body).await);
            }
        }
    }
    assert_no_difference(&differences, asked);
    // Documents chosen by their ids are on one shard, which may not know the field.
    let mut differences = Vec::new();
    for id in both.on("x", 2).await.into_iter().take(3) {
        let filter = json!([format!("id = {id}"), "rare != 'only here'"]);
        let body = json!({"filter": filter, "attributesToRetrieve": ["id"]});
        differences.extend(
            both.difference(Method::POST, "/indexes/x/search", &body)
                .await,
        );
    }
    assert_no_difference(&differences, 3);
}

/// A random filter on known fields.
fn random_filter(random: &mut fastrand::Rng, depth: u8) -> String {
    let value = |random: &mut fastrand::Rng| {
        let values = [
            "7",
            "'only here'",
            "SOME",
            "\"7\"",
            "amber",
            "7.0",
            "-1",
            "''",
            "null",
            "'Ämber'",
        ];
        random.choice(values).unwrap()
    };
    if depth == 0 || random.u8(0..3) == 0 {
        let field = random
            .choice([
                "rare",
                "some",
                "group",
                "\"tags\"",
                "content.text",
                "'content.meta.author'",
            ])
            .unwrap();
        let operator = random.choice(["!=", " != ", "!= ", " = ", " > "]).unwrap();
        return format!("{field}{operator}{}", value(random));
    }
    let (a, b) = (
        random_filter(random, depth - 1),
        random_filter(random, depth - 1),
    );
    match random.u8(0..4) {
        0 => format!("({a} AND {b})"),
        1 => format!("({a} OR {b})"),
        2 => format!("NOT {a}"),
        _ => format!("NOT({a})AND {b}"),
    }
}

#[tokio::test]
async fn not_equals_and_a_negated_equals_mean_the_same_where_fields_are_known() {
    let both = Both::start().await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut compared = 0;
    while compared < 300 {
        let filter = Value::from(random_filter(&mut random, 3));
        let Some(other) = reworded(&filter, &|_| true) else {
            continue;
        };
        assert!(fields(&other).is_empty());
        let ids = async |filter: &Value| {
            let body = json!({"filter": filter, "limit": 200, "fields": ["id"]});
            let reply = both.one.post("/indexes/x/documents/fetch", &body).await;
            let reply = reply.unwrap();
            assert_eq!(reply.status, 200, "{filter}: {}", reply.text);
            reply.at("/results").clone()
        };
        assert_eq!(ids(&filter).await, ids(&other).await, "{filter}, {other}");
        compared += 1;
    }
}
