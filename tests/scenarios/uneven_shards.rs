//! Irregular documents on very uneven shards (one holds a hundredth of the documents, one holds none): every read gives what one
//! node gives.

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::oracle::compare;
use weft_cluster::{Api, Cluster, Reply, Single};

use crate::support::{MASTER_KEY, node, start};

const COLOURS: [&str; 7] = ["amber", "birch", "cedar", "dune", "ember", "fern", "grey"];
const THINGS: [&str; 6] = ["lamp", "table", "ladder", "lantern", "bottle", "basket"];

/// A document whose fields may be missing, null, empty or lists.
fn document(at: usize) -> Value {
    let (colour, thing) = (COLOURS[at * 5 % 7], THINGS[at * 7 % 6]);
    let mut document = json!({
        "id": format!("thing_{at}-{colour}"),
        "title": format!("{colour} {thing} {} of {}", at % 13, COLOURS[at % 7]),
        "maker": {"name": format!("{} works", COLOURS[at / 3 % 7]), "size": at % 11},
        // Only few documents have vectors, because with many a node's semantic search is only approximate.
        "_vectors": {"own": Value::Null},
    });
    if at.is_multiple_of(16) {
        let vector = [
            (at % 17) as f64 + 0.25,
            (at % 5) as f64,
            (at % 29) as f64 / 3.0,
        ];
        document["_vectors"]["own"] = json!(vector);
    }
    let members = document.as_object_mut().unwrap();
    match at % 5 {
        0 => members.insert("tags".to_owned(), json!([colour, thing, "both"])),
        1 => members.insert("tags".to_owned(), Value::Null),
        2 => members.insert("tags".to_owned(), json!([])),
        3 => members.insert("tags".to_owned(), json!(thing)),
        _ => None,
    };
    match at % 7 {
        0 => members.insert("price".to_owned(), Value::Null),
        1 => None,
        _ => members.insert("price".to_owned(), json!((at * 37 % 101) as f64 / 4.0)),
    };
    if !at.is_multiple_of(3) {
        let place =
            json!({"lat": (at * 11 % 90) as f64 - 45.0, "lng": (at * 17 % 180) as f64 - 90.0});
        members.insert("_geo".to_owned(), place);
    }
    document
}

fn settings() -> Value {
    json!({
        "searchableAttributes": ["title", "maker.name", "tags"],
        "filterableAttributes": ["tags", "maker.name", "maker.size", "price", "_geo"],
        "sortableAttributes": ["price", "maker.name", "maker.size", "_geo", "id"],
        "embedders": {"own": {"source": "userProvided", "dimensions": 3}},
    })
}

async fn load(api: &Api, documents: &[Value]) {
    let create = json!({"uid": "x", "primaryKey": "id"});
    api.succeed(&api.post("/indexes", &create).await.unwrap())
        .await
        .unwrap();
    let set = api
        .json(Method::PATCH, "/indexes/x/settings", &settings())
        .await
        .unwrap();
    api.succeed(&set).await.unwrap();
    let added = api.post("/indexes/x/documents", &json!(documents)).await;
    api.succeed(&added.unwrap()).await.unwrap();
}

async fn ids_on(cluster: &Cluster, shard: u16) -> Vec<String> {
    let path = "/indexes/x/documents?limit=10000&fields=id";
    let list = node(cluster, shard).get(path).await.unwrap();
    let results = list.at("/results").as_array().unwrap();
    let id = |document: &Value| document["id"].as_str().unwrap().to_owned();
    results.iter().map(id).collect()
}

/// The same documents on one node and on a cluster whose shards hold 200, 2 and none of them.
async fn uneven() -> (Single, Api, Cluster, Api) {
    let (cluster, many) = start(Cluster::builder().shards(3)).await;
    let all: Vec<Value> = (0..640).map(document).collect();
    load(&many, &all).await;
    let mut kept = ids_on(&cluster, 0).await;
    kept.truncate(200);
    kept.extend(ids_on(&cluster, 1).await.into_iter().take(2));
    assert_eq!(kept.len(), 202);
    let id = |document: &Value| document["id"].as_str().unwrap().to_owned();
    let (kept, others): (Vec<Value>, Vec<Value>) = all
        .into_iter()
        .partition(|document| kept.contains(&id(document)));
    let others: Vec<String> = others.iter().map(id).collect();
    let gone = many
        .post("/indexes/x/documents/delete-batch", &json!(others))
        .await
        .unwrap();
    many.succeed(&gone).await.unwrap();
    assert!(ids_on(&cluster, 2).await.is_empty());
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let one = Api::new(single.url(), Some(MASTER_KEY));
    load(&one, &kept).await;
    (single, one, cluster, many)
}

const QUERIES: [&str; 9] = [
    "",
    "amber",
    "cedar lamp",
    "lant",
    "birhc table",
    "works of grey",
    "\"ember ladder\"",
    "lamp -cedar",
    "the dune basket 7",
];

/// The parameters that are added to each query.
fn ways() -> Vec<(&'static str, Value)> {
    vec![
        ("plain", json!({})),
        ("page", json!({"page": 2, "hitsPerPage": 7})),
        ("deep", json!({"offset": 150, "limit": 60})),
        (
            "nested filter",
            json!({"filter": "maker.size > 4 AND maker.name = 'cedar works'"}),
        ),
        (
            "nothing there",
            json!({"filter": "tags IS EMPTY OR price IS NULL OR tags NOT EXISTS"}),
        ),
        (
            "facets",
            json!({"facets": ["tags", "maker.size", "maker.name", "price"]}),
        ),
        ("all facets", json!({"facets": ["*"], "limit": 0})),
        (
            "sort with gaps",
            json!({"sort": ["price:desc"], "limit": 202}),
        ),
        (
            "sort within",
            json!({"sort": ["maker.name:asc", "maker.size:desc"], "limit": 90}),
        ),
        (
            "nearest",
            json!({"sort": ["_geoPoint(3.5, 12.25):asc"], "limit": 202}),
        ),
        ("within", json!({"filter": "_geoRadius(0, 0, 5000000)"})),
        (
            "one attribute",
            json!({"attributesToSearchOn": ["maker.name"]}),
        ),
        ("threshold", json!({"rankingScoreThreshold": 0.6})),
        ("locales", json!({"locales": ["eng"]})),
        ("all words", json!({"matchingStrategy": "all"})),
        (
            "frequency",
            json!({"matchingStrategy": "frequency", "limit": 202}),
        ),
        ("distinct", json!({"distinct": "maker.name"})),
        (
            "formatted",
            json!({"attributesToHighlight": ["*"], "attributesToCrop": ["title"], "cropLength": 2,
            "showMatchesPosition": true}),
        ),
        ("few attributes", json!({"attributesToRetrieve": ["title"]})),
        (
            "vectors shown",
            json!({"retrieveVectors": true, "limit": 3}),
        ),
        (
            "semantic",
            json!({"vector": [3.0, 1.0, 2.0], "hybrid": {"embedder": "own", "semanticRatio": 1.0}}),
        ),
        (
            "hybrid",
            json!({"vector": [3.0, 1.0, 2.0], "hybrid": {"embedder": "own", "semanticRatio": 0.5}}),
        ),
    ]
}

/// What may differ, as tests/README.md says.
fn may_differ(way: &str, what: &str) -> bool {
    what == "totals" && matches!(way, "threshold" | "distinct")
}

#[tokio::test]
async fn searches_over_uneven_shards_give_what_one_node_gives() {
    let (_single, one, _cluster, many) = uneven().await;
    let mut differences = Vec::new();
    for (way, parameters) in ways() {
        for query in QUERIES {
            let mut body =
                json!({"q": query, "showRankingScore": true, "showRankingScoreDetails": true});
            body.as_object_mut()
                .unwrap()
                .extend(parameters.as_object().unwrap().clone());
            let path = "/indexes/x/search";
            let (alone, merged) =
                tokio::try_join!(one.post(path, &body), many.post(path, &body)).unwrap();
            assert_eq!(alone.status, 200, "{body}: {}", alone.text);
            // Without the ids, it is unknown which documents a group of equal hits contains.
            let key = if way == "few attributes" {
                "title"
            } else {
                "id"
            };
            let verdict = compare(
                (200, &alone.body),
                (merged.status, &merged.body),
                &body,
                key,
            );
            for (what, same) in verdict.compared {
                if !same && !may_differ(way, what) {
                    differences.push(format!(
                        "{way}, {query:?}, {what}: {:?}",
                        verdict.difference
                    ));
                }
            }
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}

/// Both answers to one request.
async fn both(one: &Api, many: &Api, path: &str, body: &Value) -> (Reply, Reply) {
    let (alone, merged) = tokio::try_join!(one.post(path, body), many.post(path, body)).unwrap();
    assert_eq!(alone.status, 200, "{path} {body}: {}", alone.text);
    assert_eq!(merged.status, 200, "{path} {body}: {}", merged.text);
    (alone, merged)
}

#[tokio::test]
async fn other_reads_of_uneven_shards_give_what_one_node_gives() {
    let (_single, one, _cluster, many) = uneven().await;
    for body in [
        json!({"facetName": "tags", "facetQuery": "l"}),
        json!({"facetName": "maker.name", "facetQuery": "ceda"}),
        json!({"facetName": "tags", "q": "amber", "filter": "maker.size < 6"}),
    ] {
        let (alone, merged) = both(&one, &many, "/indexes/x/facet-search", &body).await;
        assert_eq!(alone.at("/facetHits"), merged.at("/facetHits"), "{body}");
    }
    for body in [
        json!({"sort": ["id:asc"], "limit": 500}),
        json!({"sort": ["price:desc", "id:asc"], "offset": 20, "limit": 50}),
        json!({"filter": "price > 10 AND maker.size < 8", "sort": ["id:desc"], "limit": 500}),
        json!({"filter": "tags = lamp", "fields": ["title"], "sort": ["id:asc"], "limit": 500}),
    ] {
        let (alone, merged) = both(&one, &many, "/indexes/x/documents/fetch", &body).await;
        assert_eq!(alone.body, merged.body, "{body}");
    }
    let listed = one.get("/indexes/x/documents?limit=5").await.unwrap();
    let some: Vec<&Value> = listed.at("/results").as_array().unwrap().iter().collect();
    let ids: Vec<&Value> = some.iter().map(|document| &document["id"]).collect();
    let (alone, merged) = both(
        &one,
        &many,
        "/indexes/x/documents/fetch",
        &json!({"ids": ids}),
    )
    .await;
    let sorted = |reply: &Reply| {
        let mut texts: Vec<String> = reply
            .at("/results")
            .as_array()
            .unwrap()
            .iter()
            .map(Value::to_string)
            .collect();
        texts.sort_unstable();
        texts
    };
    assert_eq!(sorted(&alone), sorted(&merged));
    let with_vector = |at: &usize| at.is_multiple_of(16);
    let candidates = (0..640).filter(with_vector).map(document);
    let mut asked = 0;
    for id in candidates.map(|document| document["id"].clone()) {
        let path = format!("/indexes/x/documents/{}", id.as_str().unwrap());
        if one.get(&path).await.unwrap().status != 200 {
            continue;
        }
        asked += 1;
        let body = json!({"id": id, "embedder": "own", "limit": 30, "showRankingScore": true});
        let (alone, merged) = both(&one, &many, "/indexes/x/similar", &body).await;
        let scores = |reply: &Reply| -> Vec<Value> {
            let hits = reply.at("/hits").as_array().unwrap();
            hits.iter()
                .map(|hit| hit["_rankingScore"].clone())
                // The search for neighbours is approximate, so it is random which of the farthest documents are found.
                .filter(|score| score.as_f64() != Some(0.0))
                .collect()
        };
        assert_eq!(scores(&alone), scores(&merged), "{id}");
    }
    assert!(asked > 5, "{asked} documents with vectors");
}

#[tokio::test]
async fn federated_searches_over_uneven_shards_give_what_one_node_gives() {
    let (_single, one, _cluster, many) = uneven().await;
    let query = |q: &str, weight: f64| json!({"indexUid": "x", "q": q, "showRankingScore": true, "federationOptions": {"weight": weight}});
    for federation in [
        json!({}),
        json!({"limit": 100}),
        json!({"page": 2, "hitsPerPage": 9}),
        json!({"facetsByIndex": {"x": ["tags", "maker.size"]}}),
        json!({"facetsByIndex": {"x": ["tags", "price"]}, "mergeFacets": {"maxValuesPerFacet": 5}}),
    ] {
        for weight in [1.0, 0.3] {
            let body = json!({"federation": federation, "queries": [query("amber lamp", 1.0), query("cedar", weight)]});
            let (alone, merged) = both(&one, &many, "/multi-search", &body).await;
            let verdict = compare((200, &alone.body), (200, &merged.body), &json!({}), "id");
            assert_eq!(verdict.difference, None, "{body}");
            for what in ["/facetsByIndex", "/facetDistribution", "/facetStats"] {
                assert_eq!(
                    alone.at(what).to_string(),
                    merged.at(what).to_string(),
                    "{what} {body}"
                );
            }
        }
    }
    let several = json!({"queries": [
        {"indexUid": "x", "q": "amber", "facets": ["tags"], "showRankingScore": true},
        {"indexUid": "x", "q": "", "sort": ["price:asc"], "showRankingScore": true},
    ]});
    let (alone, merged) = both(&one, &many, "/multi-search", &several).await;
    for at in 0..2 {
        let result = |reply: &Reply| reply.at(&format!("/results/{at}")).clone();
        let (alone, merged) = (result(&alone), result(&merged));
        let request = if at == 0 {
            json!({"facets": ["tags"]})
        } else {
            json!({})
        };
        let verdict = compare((200, &alone), (200, &merged), &request, "id");
        assert_eq!(verdict.difference, None);
    }
}
