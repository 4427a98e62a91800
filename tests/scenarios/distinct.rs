//! `distinct`, numbered pages and everything else that an answer counts: a cluster gives what one node gives.
//!
//! Every document has a different `rank`, by which all searches are sorted. So no two hits are equal, and complete answers can be
//! compared.

use reqwest::Method;
use serde_json::{Map, Value, json};
use weft_cluster::{Api, Cluster, Single};

const THINGS: [&str; 6] = ["lamp", "table", "ladder", "lantern", "bottle", "basket"];
const BRANDS: [&str; 5] = ["Amber", "birch", "Cedar", "dune", "Ember"];

/// 320 documents in 30 sections, and some in none. The values of all facets depend only on the section.
fn documents() -> Vec<Value> {
    let document = |at: usize| {
        let section = at * 37 % 320 % 30;
        let mut document = json!({
            "id": format!("d-{at}"),
            "title": format!("a {} of {}", THINGS[at * 7 % 6], BRANDS[at % 5]),
            "rank": at * 101 % 320,
            "half": at % 2,
        });
        if !at.is_multiple_of(23) {
            document["section"] = match section {
                5 => json!(5),
                6 => json!(true),
                section => json!(format!("Section {section}")),
            };
            document["brand"] = json!(BRANDS[section % 5]);
            document["grade"] = json!(section as f64 / 4.0);
        }
        document
    };
    (0..320).map(document).collect()
}

struct Both {
    one: Api,
    many: Api,
    _processes: (Single, Cluster),
}

impl Both {
    async fn start() -> Self {
        let single = Single::start(None).await.unwrap();
        let cluster = Cluster::builder().shards(3).start().await.unwrap();
        Self {
            one: Api::new(single.url(), None),
            many: Api::new(cluster.url(), None),
            _processes: (single, cluster),
        }
    }

    /// Creates an index on both sides, with `documents()` and these settings in addition to those that all indexes have.
    async fn index(&self, uid: &str, settings: Value) {
        self.index_of(uid, &Value::from(documents()), settings)
            .await;
    }

    async fn index_of(&self, uid: &str, documents: &Value, settings: Value) {
        let mut all = json!({
            "filterableAttributes": ["section", "brand", "grade", "half", "mix"],
            "sortableAttributes": ["rank"],
            "rankingRules": ["sort", "words", "typo", "proximity", "attribute", "exactness"],
        });
        all.as_object_mut()
            .unwrap()
            .extend(settings.as_object().cloned().unwrap());
        for api in [&self.one, &self.many] {
            let create = json!({"uid": uid, "primaryKey": "id"});
            api.succeed(&api.post("/indexes", &create).await.unwrap())
                .await
                .unwrap();
            let path = format!("/indexes/{uid}/settings");
            let set = api.json(Method::PATCH, &path, &all).await.unwrap();
            api.succeed(&set).await.unwrap();
            let path = format!("/indexes/{uid}/documents");
            api.succeed(&api.post(&path, documents).await.unwrap())
                .await
                .unwrap();
        }
    }

    /// Both answers to one request, without the fields that are different each time.
    async fn ask(&self, path: &str, body: &Value) -> (Value, Value) {
        let (one, many) =
            tokio::try_join!(self.one.post(path, body), self.many.post(path, body)).unwrap();
        assert_eq!(one.status, 200, "{path} {body}: {}", one.text);
        (plain(&one.body), plain(&many.body))
    }

    async fn assert_same(&self, path: &str, body: &Value) {
        let (one, many) = self.ask(path, body).await;
        // Compared as texts, because the order of a facet's values is part of the answer.
        assert_eq!(one.to_string(), many.to_string(), "{path} {body}");
    }
}

fn plain(answer: &Value) -> Value {
    match answer {
        Value::Object(members) => {
            let kept = members.iter().filter(|(name, _)| {
                !matches!(
                    name.as_str(),
                    "processingTimeMs" | "requestUid" | "performanceDetails"
                )
            });
            Value::Object(
                kept.map(|(name, value)| (name.clone(), plain(value)))
                    .collect(),
            )
        }
        Value::Array(elements) => elements.iter().map(plain).collect(),
        value => value.clone(),
    }
}

fn with(base: &Value, more: &Value) -> Value {
    let mut members: Map<String, Value> = base.as_object().cloned().unwrap();
    members.extend(more.as_object().cloned().unwrap());
    Value::Object(members)
}

/// Parameters for numbered pages, from the first page to pages after the last.
fn pages() -> Vec<Value> {
    vec![
        json!({"page": 1, "hitsPerPage": 5}),
        json!({"page": 2, "hitsPerPage": 7}),
        json!({"page": 7, "hitsPerPage": 5}),
        json!({"hitsPerPage": 100}),
        json!({"page": 3}),
        json!({"page": 0, "hitsPerPage": 5}),
        json!({"page": 1, "hitsPerPage": 0}),
        json!({"page": 99, "hitsPerPage": 4}),
    ]
}

#[tokio::test]
async fn distinct_values_are_counted_exactly_on_numbered_pages() {
    let both = Both::start().await;
    both.index("shown", json!({})).await;
    both.index("set", json!({"distinctAttribute": "section"}))
        .await;
    // Neither the value nor the facets are shown in hits.
    both.index(
        "hidden",
        json!({"displayedAttributes": ["id", "title", "rank"]}),
    )
    .await;
    both.index("little", json!({"pagination": {"maxTotalHits": 6}}))
        .await;
    let facets = json!({"facets": ["section", "brand", "grade"]});
    let queries = [
        json!({}),
        json!({"q": "lamp"}),
        json!({"q": "a", "filter": "half = 1"}),
    ];
    for page in pages() {
        for query in &queries {
            let sorted = with(&with(query, &page), &json!({"sort": ["rank:asc"]}));
            let own = with(&sorted, &json!({"distinct": "section"}));
            for (index, body) in [
                ("shown", &own),
                ("set", &sorted),
                ("hidden", &own),
                ("little", &own),
            ] {
                let path = format!("/indexes/{index}/search");
                both.assert_same(&path, body).await;
                both.assert_same(
                    &path,
                    &with(body, &json!({"attributesToRetrieve": ["title"]})),
                )
                .await;
                if index != "little" {
                    both.assert_same(&path, &with(body, &facets)).await;
                }
                let several = json!({"queries": [
                    with(body, &json!({"indexUid": index})),
                    with(body, &json!({"indexUid": "set", "q": "table"})),
                ]});
                both.assert_same("/multi-search", &several).await;
            }
        }
    }
    // If a node looks at all hits, its estimate is exact, too.
    for index in ["shown", "hidden"] {
        let body = json!({"distinct": "section", "sort": ["rank:desc"], "limit": 60});
        let path = format!("/indexes/{index}/search");
        both.assert_same(&path, &with(&body, &facets)).await;
    }
    let path = "/indexes/shown/search?distinct=section&hitsPerPage=5&sort=rank:asc&q=a";
    let (one, many) = (
        both.one.get(path).await.unwrap(),
        both.many.get(path).await.unwrap(),
    );
    assert_eq!(plain(&one.body), plain(&many.body));
}

#[tokio::test]
async fn federated_pages_and_distinct_values_are_those_of_one_node() {
    let both = Both::start().await;
    both.index("all", json!({})).await;
    both.index("some", json!({"pagination": {"maxTotalHits": 50}}))
        .await;
    both.index("set", json!({"distinctAttribute": "section"}))
        .await;
    both.index(
        "hidden",
        json!({"displayedAttributes": ["id", "title", "rank"]}),
    )
    .await;
    let sort = json!({"sort": ["rank:asc"]});
    let query = |index: &str, more: Value| with(&with(&json!({"indexUid": index}), &sort), &more);
    let mut windows = pages();
    windows.extend([
        json!({}),
        json!({"offset": 45, "limit": 20}),
        json!({"offset": 60, "limit": 5}),
        json!({"offset": 0, "limit": 0}),
        json!({"limit": 100}),
        json!({"page": 5, "hitsPerPage": 10}),
        json!({"page": 6, "hitsPerPage": 10}),
    ]);
    for window in &windows {
        for queries in [
            vec![query("some", json!({}))],
            vec![query("some", json!({})), query("all", json!({"q": "lamp"}))],
            vec![
                query("some", json!({"filter": "half = 0"})),
                query("some", json!({"filter": "half = 1"})),
            ],
        ] {
            let body = json!({"federation": window, "queries": queries});
            both.assert_same("/multi-search", &body).await;
        }
    }
    let facets = json!({"facetsByIndex": {"all": ["section", "brand"]}});
    for window in pages() {
        let own = json!({"federation": with(&window, &facets), "queries": [query("all", json!({"distinct": "section"}))]});
        both.assert_same("/multi-search", &own).await;
        let set = json!({"federation": window, "queries": [query("set", json!({})), query("all", json!({"q": "lamp"}))]});
        both.assert_same("/multi-search", &set).await;
        for index in ["all", "hidden"] {
            let across = with(&window, &json!({"distinct": "section"}));
            let body = json!({"federation": across, "queries": [query(index, json!({"q": "a"}))]});
            both.assert_same("/multi-search", &body).await;
        }
    }
    // `distinct` among the hits of all queries, for one index and for two.
    for others in [["all", "all"], ["all", "hidden"]] {
        let queries = [
            query(others[0], json!({"q": "lamp"})),
            query(others[1], json!({"q": "table"})),
        ];
        let body = json!({"federation": {"distinct": "section", "limit": 40}, "queries": queries});
        both.assert_same("/multi-search", &body).await;
    }
}

#[tokio::test]
async fn an_answer_repeats_the_requested_offset() {
    let both = Both::start().await;
    for most in [1, 3, 50] {
        let index = format!("most-{most}");
        both.index(&index, json!({"pagination": {"maxTotalHits": most}}))
            .await;
        for offset in [0, 1, 2, 3, 49, 50, 1000, u64::MAX] {
            for more in [
                json!({}),
                json!({"limit": 0}),
                json!({"limit": 7}),
                json!({"q": "lamp"}),
            ] {
                let body = with(&json!({"offset": offset, "sort": ["rank:asc"]}), &more);
                both.assert_same(&format!("/indexes/{index}/search"), &body)
                    .await;
                let several = json!({"queries": [with(&body, &json!({"indexUid": index}))]});
                both.assert_same("/multi-search", &several).await;
            }
        }
        for page in pages() {
            let body = with(&page, &json!({"sort": ["rank:asc"]}));
            both.assert_same(&format!("/indexes/{index}/search"), &body)
                .await;
        }
    }
}

#[tokio::test]
async fn facets_of_numbers_and_texts_are_cut_as_on_one_node() {
    let both = Both::start().await;
    // Each value is given to a different number of documents, and the numbers also differ on each shard.
    let values = [
        json!(1),
        json!("one"),
        json!(2.5),
        json!(true),
        json!(10),
        json!("Two"),
        json!(-3),
        json!(false),
        json!(7),
        json!("three"),
        json!(8),
        json!(900),
    ];
    let mut documents = Vec::new();
    for (at, value) in values.iter().enumerate() {
        for copy in 0..(4 + at * 9) {
            documents.push(
                json!({"id": format!("m-{at}-{copy}"), "mix": value, "rank": documents.len()}),
            );
        }
    }
    for (most, order) in [
        (4, "count"),
        (4, "alpha"),
        (6, "count"),
        (1, "count"),
        (100, "count"),
        (7, "alpha"),
        (9, "count"),
    ] {
        let index = format!("cut-{most}-{order}");
        let faceting =
            json!({"faceting": {"maxValuesPerFacet": most, "sortFacetValuesBy": {"*": order}}});
        both.index_of(&index, &Value::from(documents.clone()), faceting)
            .await;
        let body = json!({"facets": ["mix"], "limit": 0});
        both.assert_same(&format!("/indexes/{index}/search"), &body)
            .await;
        both.assert_same(
            &format!("/indexes/{index}/search"),
            &json!({"facets": [], "limit": 1, "sort": ["rank:asc"]}),
        )
        .await;
    }
}

#[tokio::test]
async fn a_documents_own_fields_are_kept_whatever_their_names() {
    let both = Both::start().await;
    let names = [
        "_rankingScore",
        "_rankingScoreDetails",
        "_formatted",
        "_matchesPosition",
        "_geoDistance",
        "_semanticScore",
        "_score",
        "degraded",
        "explain",
        "hits",
    ];
    let document = |at: usize| {
        let mut document = json!({"id": at, "title": format!("a {}", THINGS[at % 6]), "rank": at});
        document[names[at % names.len()]] =
            json!({"title": at, "id": "own", "rank": [1, {"a": at}]});
        document
    };
    let documents: Value = (0..60).map(document).collect();
    both.index_of("own", &documents, json!({})).await;
    let fields =
        json!({"fields": ["title", "_rankingScore", "_formatted", "_rankingScoreDetails"]});
    let sorted = json!({"sort": ["rank:asc"], "limit": 60});
    for body in [
        sorted.clone(),
        with(&sorted, &fields),
        json!({"ids": [3], "fields": ["_matchesPosition"]}),
    ] {
        both.assert_same("/indexes/own/documents/fetch", &body)
            .await;
    }
    let list = both
        .many
        .get("/indexes/own/documents?limit=60")
        .await
        .unwrap();
    let mut listed: Vec<Value> = list.body["results"].as_array().unwrap().clone();
    listed.sort_by_key(|document| document["id"].as_u64());
    assert_eq!(Value::from(listed), documents);
    let searches = [
        json!({"limit": 60}),
        json!({"limit": 60, "attributesToRetrieve": ["_rankingScore", "_formatted", "_rankingScoreDetails"]}),
    ];
    for body in &searches {
        let (one, many) = both.ask("/indexes/own/search", body).await;
        let hits = |answer: &Value| {
            let mut hits: Vec<String> = answer["hits"]
                .as_array()
                .unwrap()
                .iter()
                .map(Value::to_string)
                .collect();
            hits.sort();
            hits
        };
        assert_eq!(hits(&one), hits(&many), "{body}");
    }
}

#[tokio::test]
async fn performance_details_are_shown_where_they_are_requested() {
    let both = Both::start().await;
    let embedders = json!({"embedders": {"own": {"source": "userProvided", "dimensions": 2}}});
    let documents: Value = (0..30)
        .map(|at| json!({"id": format!("v-{at}"), "title": "a lamp", "_vectors": {"own": [at, 1]}}))
        .collect();
    both.index_of("all", &documents, embedders).await;
    let asked = json!({"showPerformanceDetails": true});
    let query = json!({"indexUid": "all", "q": "lamp"});
    let details = |answer: &Value, at: &str| {
        let details = answer
            .pointer(at)
            .unwrap_or_else(|| panic!("{at} in {answer}"));
        let steps = details.as_object().unwrap();
        assert!(
            steps.contains_key("ask shards") && steps.contains_key("merge shards"),
            "{details}"
        );
        assert!(steps.len() > 2, "no steps of a node: {details}");
        assert!(
            steps
                .values()
                .all(|took| took.as_str().is_some_and(|took| took.ends_with('s'))),
            "{details}"
        );
    };
    let post = async |path: &str, body: Value| {
        let reply = both.many.post(path, &body).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.body
    };
    details(
        &post("/indexes/all/search", asked.clone()).await,
        "/performanceDetails",
    );
    let several = json!({"queries": [with(&query, &asked), query]});
    let several = post("/multi-search", several).await;
    details(&several, "/results/0/performanceDetails");
    assert!(
        several.pointer("/results/1/performanceDetails").is_none(),
        "{several}"
    );
    let federated = json!({"federation": asked, "queries": [query]});
    details(
        &post("/multi-search", federated).await,
        "/performanceDetails",
    );
    let similar = with(&asked, &json!({"id": "v-3", "embedder": "own"}));
    details(
        &post("/indexes/all/similar", similar).await,
        "/performanceDetails",
    );
    let by_get = both
        .many
        .get("/indexes/all/search?showPerformanceDetails=true")
        .await
        .unwrap();
    details(&by_get.body, "/performanceDetails");
    let without = post("/indexes/all/search", json!({})).await;
    assert!(without.get("performanceDetails").is_none());
}
