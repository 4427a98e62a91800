//! Every parameter beside the filter that names a field.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Both, FIELDS, none_of, with_query};

/// A search by `POST`, among others, and as a federated one.
fn searches(parameters: &Value) -> Vec<(Method, String, Value)> {
    let mut query = parameters.clone();
    let members = query.as_object_mut().unwrap();
    members.insert("indexUid".to_owned(), json!("x"));
    let mut in_federation = query.clone();
    let limit = in_federation.as_object_mut().unwrap().remove("limit");
    for name in ["facets", "page", "hitsPerPage", "offset"] {
        in_federation.as_object_mut().unwrap().remove(name);
    }
    let others = json!({"indexUid": "x", "q": "grey", "limit": 3, "sort": ["id:asc"]});
    vec![
        (
            Method::POST,
            "/indexes/x/search".to_owned(),
            parameters.clone(),
        ),
        (
            Method::POST,
            "/multi-search".to_owned(),
            json!({"queries": [others, query]}),
        ),
        (
            Method::POST,
            "/multi-search".to_owned(),
            json!({"queries": [in_federation], "federation": {"limit": limit}}),
        ),
    ]
}

async fn check(both: &Both, asks: Vec<(Method, String, Value)>, in_order: bool) {
    let asked = asks.len();
    let mut differences = Vec::new();
    for (method, path, body) in asks {
        differences.extend(match in_order {
            true => both.difference_in_order(method, &path, &body).await,
            false => both.difference(method, &path, &body).await,
        });
    }
    none_of(&differences, asked);
}

#[tokio::test]
async fn hits_are_sorted_by_what_any_shard_knows() {
    let both = Both::start().await;
    let mut asks = Vec::new();
    let places = ["_geoPoint(10, 20)", "_geoPoint(-80, -20)"];
    for (field, way) in FIELDS
        .iter()
        .chain(&places)
        .flat_map(|field| [(field, "asc"), (field, "desc")])
    {
        let sort = json!([format!("{field}:{way}"), "id:desc"]);
        for q in ["", "amber"] {
            asks.extend(searches(
                &json!({"q": q, "sort": sort, "limit": 200, "attributesToRetrieve": ["id", field]}),
            ));
        }
        asks.extend(searches(&json!({"sort": sort, "offset": 3, "limit": 5})));
        let fetch = json!({"sort": sort, "limit": 200, "fields": ["id"]});
        asks.push((Method::POST, "/indexes/x/documents/fetch".to_owned(), fetch));
        let filtered =
            json!({"sort": sort, "limit": 20, "fields": ["id"], "filter": "rare != 'only here'"});
        asks.push((
            Method::POST,
            "/indexes/x/documents/fetch".to_owned(),
            filtered,
        ));
        let sort = format!("{field}:{way},id:desc");
        let list = with_query(
            "/indexes/x/documents",
            &[("sort", &sort), ("limit", "7"), ("fields", "id")],
        );
        asks.push((Method::GET, list, Value::Null));
        let get = with_query("/indexes/x/search", &[("sort", &sort), ("limit", "9")]);
        asks.push((Method::GET, get, Value::Null));
    }
    check(&both, asks, true).await;
}

#[tokio::test]
async fn documents_without_a_single_place_are_refused_to_be_sorted_by_places() {
    let both = Both::start().await;
    let gone = json!({"filter": "_geoRadius(10, 20, 1000)"});
    both.each(
        Method::POST,
        "/indexes",
        &json!({"uid": "y", "primaryKey": "id"}),
    )
    .await;
    let settings = json!({"sortableAttributes": ["_geo", "id"], "filterableAttributes": ["_geo"]});
    both.each(Method::PATCH, "/indexes/y/settings", &settings)
        .await;
    let documents: Vec<Value> = (0..20).map(|id| json!({"id": id})).collect();
    both.each(Method::POST, "/indexes/y/documents", &json!(documents))
        .await;
    both.each(Method::POST, "/indexes/x/documents/delete", &gone)
        .await;
    let mut asks = Vec::new();
    for uid in ["x", "y"] {
        let sort = json!({"sort": ["_geoPoint(1, 2):asc", "id:asc"], "limit": 5, "fields": ["id"]});
        asks.push((
            Method::POST,
            format!("/indexes/{uid}/documents/fetch"),
            sort.clone(),
        ));
        asks.push((
            Method::POST,
            format!("/indexes/{uid}/search"),
            json!({"sort": sort["sort"], "limit": 5}),
        ));
    }
    check(&both, asks, true).await;
}

#[tokio::test]
async fn facets_and_distinct_values_are_those_of_all_shards() {
    let both = Both::start().await;
    let mut asks = Vec::new();
    for field in FIELDS {
        for q in ["", "amber"] {
            for facets in [json!([field]), json!(["*"]), json!(["tags", field])] {
                asks.extend(searches(&json!({"q": q, "facets": facets, "limit": 0})));
            }
        }
        let federated = json!({
            "queries": [{"indexUid": "x", "q": "amber"}],
            "federation": {"limit": 0, "facetsByIndex": {"x": [field, "group"]}},
        });
        asks.push((Method::POST, "/multi-search".to_owned(), federated));
        for facet_query in [json!(null), json!("o"), json!("7")] {
            let body = json!({"facetName": field, "facetQuery": facet_query, "q": "amber"});
            asks.push((Method::POST, "/indexes/x/facet-search".to_owned(), body));
        }
        let name = with_query("/indexes/x/search", &[("facets", field), ("limit", "0")]);
        asks.push((Method::GET, name, Value::Null));
    }
    // Without a value in all documents but one, nothing is left out but that one.
    for field in ["rare", "never"] {
        let distinct = json!({"distinct": field, "sort": ["id:asc"], "limit": 200, "attributesToRetrieve": ["id"]});
        asks.push((Method::POST, "/indexes/x/search".to_owned(), distinct));
    }
    for name in ["title", "nowhere"] {
        asks.extend(searches(&json!({"facets": [name]})));
        asks.extend(searches(&json!({"distinct": name})));
        asks.extend(searches(&json!({"sort": [format!("{name}:asc")]})));
        asks.push((
            Method::POST,
            "/indexes/x/facet-search".to_owned(),
            json!({"facetName": name}),
        ));
    }
    check(&both, asks, true).await;
}

#[tokio::test]
async fn attributes_to_search_on_are_those_of_all_shards() {
    let both = Both::start().await;
    let lists = [
        json!(["content.meta.author"]),
        json!(["content.meta.*"]),
        json!(["content.*"]),
        json!(["*.author"]),
        json!(["title", "content.meta.author"]),
        json!(["content.meta.author", "content.meta.*", "content.text"]),
        json!(["content.meta.author", "content.nowhere"]),
        json!(["content.nowhere", "content.meta.author"]),
        json!(["content.nowhere"]),
        json!(["nowhere", "title"]),
        json!(["rare"]),
        json!(["*", "content.meta.author"]),
        json!(["*", "nowhere"]),
        json!([]),
        json!(null),
    ];
    let mut asks = Vec::new();
    for list in &lists {
        for q in [
            "amber",
            "\"amber fern\"",
            "\"amber lamp\"",
            "",
            "-amber",
            "ambr fern",
            "fern lamp",
        ] {
            let common = json!({
                "q": q, "attributesToSearchOn": list, "limit": 200, "attributesToRetrieve": ["id"], "showRankingScore": true,
            });
            asks.extend(searches(&common));
            let mut paged = json!({"q": q, "attributesToSearchOn": list, "page": 1, "hitsPerPage": 4, "facets": ["group"]});
            paged["sort"] = json!(["id:asc"]);
            paged["attributesToRetrieve"] = json!(["id"]);
            asks.push((Method::POST, "/indexes/x/search".to_owned(), paged));
            let facets = json!({"facetName": "tags", "q": q, "attributesToSearchOn": list});
            asks.push((Method::POST, "/indexes/x/facet-search".to_owned(), facets));
            let names: Option<Vec<&str>> = list
                .as_array()
                .map(|names| names.iter().filter_map(Value::as_str).collect());
            if let Some(names) = names.filter(|names| !names.is_empty()) {
                let get = with_query(
                    "/indexes/x/search",
                    &[
                        ("q", q),
                        ("attributesToSearchOn", &names.join(",")),
                        ("limit", "200"),
                        ("attributesToRetrieve", "id"),
                        ("facets", "group"),
                        ("showRankingScore", "true"),
                    ],
                );
                asks.push((Method::GET, get, Value::Null));
            }
        }
        let hybrid = json!({
            "q": "amber", "attributesToSearchOn": list, "limit": 200, "attributesToRetrieve": ["id"],
            "hybrid": {"embedder": "own", "semanticRatio": 0.0}, "vector": [1.0, 2.0, 3.0],
        });
        asks.push((Method::POST, "/indexes/x/search".to_owned(), hybrid));
    }
    check(&both, asks, false).await;
}

#[tokio::test]
async fn documents_are_shown_with_what_any_shard_knows() {
    let both = Both::start().await;
    let mut asks = Vec::new();
    for field in FIELDS
        .iter()
        .chain(&["content.meta.author", "content.*", "_geo"])
    {
        let shown = json!({
            "q": "amber", "limit": 200, "attributesToRetrieve": ["id", field], "attributesToHighlight": [field],
            "attributesToCrop": [format!("{field}:1")], "showMatchesPosition": true,
        });
        asks.extend(searches(&shown));
        asks.push((
            Method::POST,
            "/indexes/x/documents/fetch".to_owned(),
            json!({"fields": ["id", field], "limit": 200}),
        ));
        let get = with_query(
            "/indexes/x/search",
            &[
                ("q", "amber"),
                ("limit", "200"),
                ("attributesToRetrieve", &format!("id,{field}")),
                ("attributesToHighlight", field),
                ("attributesToCrop", field),
            ],
        );
        asks.push((Method::GET, get, Value::Null));
    }
    for embedder in ["own", "nobody's"] {
        let hybrid = json!({"hybrid": {"embedder": embedder, "semanticRatio": 1.0}, "vector": [1.0, 2.0, 3.0], "limit": 200, "attributesToRetrieve": ["id"]});
        asks.extend(searches(&hybrid));
        let similar =
            json!({"id": 3, "embedder": embedder, "limit": 200, "attributesToRetrieve": ["id"]});
        asks.push((Method::POST, "/indexes/x/similar".to_owned(), similar));
    }
    check(&both, asks, false).await;
}

#[tokio::test]
async fn what_stands_in_place_of_a_nested_attribute_is_shown_whoever_knows_it() {
    let both = Both::start().await;
    let (first, second) = (both.on("x", 0).await, both.on("x", 1).await);
    let in_place = [
        json!("text"),
        json!(5.5),
        json!({"other": 1, "deep": {"x": 1}}),
        json!([{"other": 1}, "amber", 3, [{"other": 2}], {"author": "nested"}]),
        json!(null),
        json!({}),
        json!({"deep": "flat"}),
    ];
    let mut documents: Vec<Value> = second
        .iter()
        .zip(&in_place)
        .map(|(id, value)| json!({"id": id, "title": "amber", "book": value}))
        .collect();
    // One document has what none of the others has.
    let whole = json!({"author": "amber", "deep": {"down": 1}});
    documents.push(json!({"id": first[1], "book": whole}));
    both.each(Method::PUT, "/indexes/x/documents", &json!(documents))
        .await;
    let mut asks = Vec::new();
    for names in [
        json!(["id", "book.author"]),
        json!(["id", "book.deep.down", "book.other"]),
        json!(["id", "book.deep", "book.deep.down"]),
        json!(["id", "book", "book.author"]),
        json!(["book.author"]),
        json!(["id", "book.nobody's"]),
        json!(["*", "book.author"]),
    ] {
        asks.extend(searches(
            &json!({"q": "amber", "limit": 200, "attributesToRetrieve": names}),
        ));
        asks.extend(searches(&json!({
            "q": "amber", "limit": 200, "attributesToRetrieve": names, "attributesToHighlight": ["id", "title"],
        })));
        asks.push((
            Method::POST,
            "/indexes/x/documents/fetch".to_owned(),
            json!({"fields": names, "limit": 200}),
        ));
        let names: Vec<&str> = names
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let names = names.join(",");
        let get = [
            ("q", "amber"),
            ("limit", "200"),
            ("attributesToRetrieve", &names),
        ];
        asks.push((
            Method::GET,
            with_query("/indexes/x/search", &get),
            Value::Null,
        ));
        let list = [("fields", names.as_str()), ("limit", "200")];
        asks.push((
            Method::GET,
            with_query("/indexes/x/documents", &list),
            Value::Null,
        ));
    }
    let highlight = json!({
        "q": "amber", "limit": 200, "attributesToRetrieve": ["id"], "attributesToHighlight": ["book.author"],
    });
    asks.extend(searches(&highlight));
    check(&both, asks, false).await;
}
