//! All parameters except filters that name fields.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Both, FIELDS, assert_no_difference, with_query};

/// A search by itself, among other searches, and federated.
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

async fn check(both: &Both, requests: Vec<(Method, String, Value)>, in_order: bool) {
    let asked = requests.len();
    let mut differences = Vec::new();
    for (method, path, body) in requests {
        differences.extend(match in_order {
            true => both.difference_in_order(method, &path, &body).await,
            false => both.difference(method, &path, &body).await,
        });
    }
    assert_no_difference(&differences, asked);
}

#[tokio::test]
async fn hits_are_sorted_by_fields_that_only_some_shards_know() {
    let both = Both::start().await;
    let mut requests = Vec::new();
    let places = ["_geoPoint(10, 20)", "_geoPoint(-80, -20)"];
    for (field, way) in FIELDS
        .iter()
        .chain(&places)
        .flat_map(|field| [(field, "asc"), (field, "desc")])
    {
        let sort = json!([format!("{field}:{way}"), "id:desc"]);
        for q in ["", "amber"] {
            requests.extend(searches(
                &json!({"q": q, "sort": sort, "limit": 200, "attributesToRetrieve": ["id", field]}),
            ));
        }
        requests.extend(searches(&json!({"sort": sort, "offset": 3, "limit": 5})));
        let fetch = json!({"sort": sort, "limit": 200, "fields": ["id"]});
        requests.push((Method::POST, "/indexes/x/documents/fetch".to_owned(), fetch));
        let filtered =
            json!({"sort": sort, "limit": 20, "fields": ["id"], "filter": "rare != 'only here'"});
        requests.push((
            Method::POST,
            "/indexes/x/documents/fetch".to_owned(),
            filtered,
        ));
        let sort = format!("{field}:{way},id:desc");
        let list = with_query(
            "/indexes/x/documents",
            &[("sort", &sort), ("limit", "7"), ("fields", "id")],
        );
        requests.push((Method::GET, list, Value::Null));
        let get = with_query("/indexes/x/search", &[("sort", &sort), ("limit", "9")]);
        requests.push((Method::GET, get, Value::Null));
    }
    check(&both, requests, true).await;
}

#[tokio::test]
async fn sorting_by_distance_is_refused_if_no_document_has_coordinates() {
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
    let mut requests = Vec::new();
    for uid in ["x", "y"] {
        let sort = json!({"sort": ["_geoPoint(1, 2):asc", "id:asc"], "limit": 5, "fields": ["id"]});
        requests.push((
            Method::POST,
            format!("/indexes/{uid}/documents/fetch"),
            sort.clone(),
        ));
        requests.push((
            Method::POST,
            format!("/indexes/{uid}/search"),
            json!({"sort": sort["sort"], "limit": 5}),
        ));
    }
    check(&both, requests, true).await;
}

#[tokio::test]
async fn facets_and_distinct_values_are_those_of_all_shards() {
    let both = Both::start().await;
    let mut requests = Vec::new();
    for field in FIELDS {
        for q in ["", "amber"] {
            for facets in [json!([field]), json!(["*"]), json!(["tags", field])] {
                requests.extend(searches(&json!({"q": q, "facets": facets, "limit": 0})));
            }
        }
        let federated = json!({
            "queries": [{"indexUid": "x", "q": "amber"}],
            "federation": {"limit": 0, "facetsByIndex": {"x": [field, "group"]}},
        });
        requests.push((Method::POST, "/multi-search".to_owned(), federated));
        for facet_query in [json!(null), json!("o"), json!("7")] {
            let body = json!({"facetName": field, "facetQuery": facet_query, "q": "amber"});
            requests.push((Method::POST, "/indexes/x/facet-search".to_owned(), body));
        }
        let name = with_query("/indexes/x/search", &[("facets", field), ("limit", "0")]);
        requests.push((Method::GET, name, Value::Null));
    }
    // Documents without a value of the distinct attribute are never left out.
    for field in ["rare", "never"] {
        let distinct = json!({"distinct": field, "sort": ["id:asc"], "limit": 200, "attributesToRetrieve": ["id"]});
        requests.push((Method::POST, "/indexes/x/search".to_owned(), distinct));
    }
    for name in ["title", "nowhere"] {
        requests.extend(searches(&json!({"facets": [name]})));
        requests.extend(searches(&json!({"distinct": name})));
        requests.extend(searches(&json!({"sort": [format!("{name}:asc")]})));
        requests.push((
            Method::POST,
            "/indexes/x/facet-search".to_owned(),
            json!({"facetName": name}),
        ));
    }
    check(&both, requests, true).await;
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
    let mut requests = Vec::new();
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
            requests.extend(searches(&common));
            let mut paged = json!({"q": q, "attributesToSearchOn": list, "page": 1, "hitsPerPage": 4, "facets": ["group"]});
            paged["sort"] = json!(["id:asc"]);
            paged["attributesToRetrieve"] = json!(["id"]);
            requests.push((Method::POST, "/indexes/x/search".to_owned(), paged));
            let facets = json!({"facetName": "tags", "q": q, "attributesToSearchOn": list});
            requests.push((Method::POST, "/indexes/x/facet-search".to_owned(), facets));
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
                requests.push((Method::GET, get, Value::Null));
            }
        }
        let hybrid = json!({
            "q": "amber", "attributesToSearchOn": list, "limit": 200, "attributesToRetrieve": ["id"],
            "hybrid": {"embedder": "own", "semanticRatio": 0.0}, "vector": [1.0, 2.0, 3.0],
        });
        requests.push((Method::POST, "/indexes/x/search".to_owned(), hybrid));
    }
    check(&both, requests, false).await;
}

#[tokio::test]
async fn documents_are_shown_with_fields_that_only_some_shards_know() {
    let both = Both::start().await;
    let mut requests = Vec::new();
    for field in FIELDS
        .iter()
        .chain(&["content.meta.author", "content.*", "_geo"])
    {
        let shown = json!({
            "q": "amber", "limit": 200, "attributesToRetrieve": ["id", field], "attributesToHighlight": [field],
            "attributesToCrop": [format!("{field}:1")], "showMatchesPosition": true,
        });
        requests.extend(searches(&shown));
        requests.push((
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
        requests.push((Method::GET, get, Value::Null));
    }
    for embedder in ["own", "nobody's"] {
        let hybrid = json!({"hybrid": {"embedder": embedder, "semanticRatio": 1.0}, "vector": [1.0, 2.0, 3.0], "limit": 200, "attributesToRetrieve": ["id"]});
        requests.extend(searches(&hybrid));
        let similar =
            json!({"id": 3, "embedder": embedder, "limit": 200, "attributesToRetrieve": ["id"]});
        requests.push((Method::POST, "/indexes/x/similar".to_owned(), similar));
    }
    check(&both, requests, false).await;
}

#[tokio::test]
async fn a_value_in_place_of_a_nested_attribute_is_shown_whichever_shard_knows_the_attribute() {
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
    // One document has attributes that no other document has.
    let whole = json!({"author": "amber", "deep": {"down": 1}});
    documents.push(json!({"id": first[1], "book": whole}));
    both.each(Method::PUT, "/indexes/x/documents", &json!(documents))
        .await;
    let mut requests = Vec::new();
    for names in [
        json!(["id", "book.author"]),
        json!(["id", "book.deep.down", "book.other"]),
        json!(["id", "book.deep", "book.deep.down"]),
        json!(["id", "book", "book.author"]),
        json!(["book.author"]),
        json!(["id", "book.nobody's"]),
        json!(["*", "book.author"]),
    ] {
        requests.extend(searches(
            &json!({"q": "amber", "limit": 200, "attributesToRetrieve": names}),
        ));
        requests.extend(searches(&json!({
            "q": "amber", "limit": 200, "attributesToRetrieve": names, "attributesToHighlight": ["id", "title"],
        })));
        requests.push((
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
        requests.push((
            Method::GET,
            with_query("/indexes/x/search", &get),
            Value::Null,
        ));
        let list = [("fields", names.as_str()), ("limit", "200")];
        requests.push((
            Method::GET,
            with_query("/indexes/x/documents", &list),
            Value::Null,
        ));
    }
    let highlight = json!({
        "q": "amber", "limit": 200, "attributesToRetrieve": ["id"], "attributesToHighlight": ["book.author"],
    });
    requests.extend(searches(&highlight));
    check(&both, requests, false).await;
}
