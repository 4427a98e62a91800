//! A batch is all or nothing, and so is a change of settings: as on one node, whichever shards are concerned.

use reqwest::Method;
use serde_json::{Map, Value, json};
use weft_cluster::{Api, Cluster, Single};
use weft_merger::internals::Trial;
use weft_merger::write::Format;

use crate::support::{documents, ids, node, start};

/// What documents say of their vectors, right and wrong.
const VECTORS: [&str; 46] = [
    r#""x""#,
    "null",
    "[1,2,3]",
    r#"{"m":null}"#,
    r#"{"m":"t"}"#,
    r#"{"m":[1,2]}"#,
    r#"{"m":[1,2,3,4]}"#,
    r#"{"m":[1,null,3]}"#,
    r#"{"m":[1,"a",3]}"#,
    r#"{"m":[null,1,2]}"#,
    r#"{"m":["a"]}"#,
    r#"{"m":[]}"#,
    r#"{"m":[[1,2,3],[1,2]]}"#,
    r#"{"m":[[1,2,3],4]}"#,
    r#"{"m":[[1,2,null]]}"#,
    r#"{"m":[1,[2,3]]}"#,
    r#"{"m":{}}"#,
    r#"{"m":{"regenerate":true}}"#,
    r#"{"m":{"regenerate":false}}"#,
    r#"{"m":{"regenerate":"yes"}}"#,
    r#"{"m":{"regenerate":null}}"#,
    r#"{"m":{"regenerate":true,"embeddings":[1,2,3]}}"#,
    r#"{"m":{"regenerate":true,"embeddings":[1,2]}}"#,
    r#"{"m":{"regenerate":true,"embeddings":null}}"#,
    r#"{"m":{"regenerate":false,"embeddings":null}}"#,
    r#"{"m":{"regenerate":false,"embeddings":"x"}}"#,
    r#"{"m":{"regenerate":false,"embeddings":[[1,2,3],"x"]}}"#,
    r#"{"m":{"embeddings":[1,2,3]}}"#,
    r#"{"m":{"regenerate":false,"foo":1}}"#,
    r#"{"m":{"foo":1}}"#,
    r#"{"m":5}"#,
    r#"{"m":-5}"#,
    r#"{"m":1.5}"#,
    r#"{"m":true}"#,
    r#"{"other":[1,2,3]}"#,
    r#"{"other":"x","m":[1,2,3]}"#,
    r#"{"mm":[1,2,3]}"#,
    r#"{}"#,
    r#"{"m":[true,1]}"#,
    r#"{"m":[1.5,-2,3]}"#,
    r#"{"m":[[],[1,2,3]]}"#,
    r#"{"m":[[[1]]]}"#,
    r#"{"m":{"regenerate":false,"embeddings":[1,2,3],"regenerate":true}}"#,
    r#"{"m":{"regener\u0061te":true}}"#,
    r#"{"m":[1,2,3],"m":[1]}"#,
    r#"{"m":[ 1 , 2 ]}"#,
];

const PLACES: [&str; 22] = [
    "null",
    "5",
    r#""48,2""#,
    "[1,2]",
    "{}",
    r#"{"lat":3}"#,
    r#"{"lng":3}"#,
    r#"{"lat":1,"lng":2}"#,
    r#"{"lat":1,"lng":2,"x":3,"y":{"a":1}}"#,
    r#"{"x":3,"lat":1,"y":[],"lng":2,"z":0}"#,
    r#"{"lat":"1.5","lng":"2"}"#,
    r#"{"lat":"a","lng":2}"#,
    r#"{"lat":1,"lng":"b"}"#,
    r#"{"lat":null,"lng":[1]}"#,
    r#"{"lat":"nan","lng":1}"#,
    r#"{"lat":"inf","lng":1}"#,
    r#"{"lat":" 1","lng":1}"#,
    r#"{"lat":true,"lng":{}}"#,
    "true",
    r#"{"lat":1000,"lng":-1000}"#,
    r#"{"lat":1,"lat":"x","lng":2}"#,
    r#"{"lat":1,"l\u006eg":2}"#,
];

fn settings() -> Value {
    json!({
        "filterableAttributes": ["_geo"],
        "embedders": {"m": {"source": "userProvided", "dimensions": 3}}
    })
}

async fn prepare(api: &Api, index: &str, settings: &Value) {
    let made = json!({"uid": index, "primaryKey": "id"});
    let accepted = api.post("/indexes", &made).await.unwrap();
    api.succeed(&accepted).await.unwrap();
    let path = format!("/indexes/{index}/settings");
    let accepted = api.json(Method::PATCH, &path, settings).await.unwrap();
    api.succeed(&accepted).await.unwrap();
}

async fn write(api: &Api, method: &Method, index: &str, body: &str) -> Value {
    let path = format!("/indexes/{index}/documents");
    let headers = [("content-type", "application/json")];
    let accepted = api
        .send(
            method.clone(),
            &path,
            &headers,
            body.to_owned().into_bytes(),
        )
        .await
        .unwrap();
    assert_eq!(accepted.status, 202, "{body}: {}", accepted.text);
    api.settle(&accepted).await.unwrap()
}

async fn clear(api: &Api, index: &str) {
    let path = format!("/indexes/{index}/documents");
    let accepted = api.delete(&path).await.unwrap();
    api.succeed(&accepted).await.unwrap();
}

async fn one_node_and_three_shards(settings: &Value) -> (Single, Api, Cluster, Api) {
    let single = Single::start(None).await.unwrap();
    let one = Api::new(single.url(), None);
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    prepare(&one, "x", settings).await;
    prepare(&api, "x", settings).await;
    (single, one, cluster, api)
}

/// Thirty documents, of which the eighth has another value in one field.
fn batch(field: &str, value: Option<&str>) -> String {
    let document = |id: u32| {
        let mut fields = vec![format!("\"id\":{id}")];
        let own = (id == 7).then_some(value);
        let vectors = match own {
            Some(own) if field == "_vectors" => own,
            _ => Some(r#"{"m":[1,2,3]}"#),
        };
        let place = match own {
            Some(own) if field == "_geo" => own,
            _ => Some(r#"{"lat":1,"lng":2}"#),
        };
        fields.extend(vectors.map(|vectors| format!("\"_vectors\":{vectors}")));
        fields.extend(place.map(|place| format!("\"_geo\":{place}")));
        format!("{{{}}}", fields.join(","))
    };
    let all: Vec<String> = (0..30).map(document).collect();
    format!("[{}]", all.join(","))
}

#[tokio::test]
async fn a_batch_with_one_bad_document_is_refused_whole_as_on_one_node() {
    let (_single, one, cluster, api) = one_node_and_three_shards(&settings()).await;
    let vectors = VECTORS.iter().map(|value| ("_vectors", Some(*value)));
    let places = PLACES.iter().map(|value| ("_geo", Some(*value)));
    let missing = [("_vectors", None), ("_geo", None)];
    let mut refused = 0;
    for (round, (field, value)) in vectors.chain(places).chain(missing).enumerate() {
        let body = batch(field, value);
        let method = if round % 2 == 0 {
            Method::POST
        } else {
            Method::PUT
        };
        let expected = write(&one, &method, "x", &body).await;
        let found = write(&api, &method, "x", &body).await;
        let said = format!("{field}: {value:?}: {found}");
        for part in ["status", "error", "details"] {
            assert_eq!(found[part], expected[part], "{said}");
        }
        let documents = ids(&one, "x").await;
        assert_eq!(ids(&api, "x").await, documents, "{said}");
        if expected["status"] == "failed" {
            refused += 1;
            assert!(documents.is_empty());
        }
        clear(&one, "x").await;
        clear(&api, "x").await;
    }
    assert!(refused > 40, "{refused}");
    // The nodes have seen none of it, and do what comes next.
    for shard in 0..3 {
        let failed = node(&cluster, shard).get("/tasks?statuses=failed").await;
        assert_eq!(failed.unwrap().at("/total"), &json!(0));
    }
}

#[tokio::test]
async fn documents_that_are_there_may_be_updated_without_their_vectors_and_new_ones_may_not() {
    let (_single, one, _cluster, api) = one_node_and_three_shards(&settings()).await;
    for api in [&one, &api] {
        let task = write(
            api,
            &Method::POST,
            "x",
            &batch("_vectors", Some(r#"{"m":[1,2,3]}"#)),
        )
        .await;
        assert_eq!(task["status"], "succeeded");
    }
    let known: Vec<Value> = (0..30).map(|id| json!({"id": id, "n": 1})).collect();
    let mut mixed = known.clone();
    mixed.push(json!({"id": 30, "n": 1}));
    mixed.push(json!({"id": 31, "n": 1}));
    for method in [Method::PUT, Method::POST] {
        for (documents, status) in [(&known, "succeeded"), (&mixed, "failed")] {
            let body = serde_json::to_string(documents).unwrap();
            let expected = write(&one, &method, "x", &body).await;
            let found = write(&api, &method, "x", &body).await;
            assert_eq!(expected["status"], status, "{expected}");
            for part in ["status", "error", "details"] {
                assert_eq!(found[part], expected[part], "{found}");
            }
            assert_eq!(ids(&api, "x").await, ids(&one, "x").await);
        }
    }
    // A write behind others that bring the documents finds them.
    let first = r#"[{"id":50,"_vectors":{"m":[1,2,3]}}]"#.to_owned();
    let headers = [("content-type", "application/json")];
    let path = "/indexes/x/documents";
    let sent = api.send(Method::POST, path, &headers, first.into_bytes());
    assert_eq!(sent.await.unwrap().status, 202);
    let task = write(&api, &Method::PUT, "x", r#"[{"id":50,"n":2}]"#).await;
    assert_eq!(task["status"], "succeeded", "{task}");
}

#[tokio::test]
async fn a_refused_first_batch_leaves_an_empty_index_as_on_one_node() {
    let single = Single::start(None).await.unwrap();
    let one = Api::new(single.url(), None);
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    for api in [&one, &api] {
        let task = write(
            api,
            &Method::POST,
            "new",
            &batch("_vectors", Some(r#"{"m":5}"#)),
        )
        .await;
        assert_eq!(task["error"]["code"], "invalid_vectors_type", "{task}");
        assert_eq!(task["details"]["indexedDocuments"], 0);
        let index = api.get("/indexes/new").await.unwrap();
        assert_eq!((index.status, index.at("/primaryKey")), (200, &Value::Null));
        assert!(ids(api, "new").await.is_empty());
        let task = write(api, &Method::POST, "new", r#"[{"key_id":1}]"#).await;
        assert_eq!(task["status"], "succeeded", "{task}");
    }
}

/// A value made of pieces of those above.
fn random_value(random: &mut fastrand::Rng, depth: u32) -> String {
    let simple = [
        "null", "1", "-2", "1.5", "true", "\"a\"", "\"2\"", "[]", "[1,2,3]", "[1,2]",
    ];
    let names = ["m", "lat", "lng", "regenerate", "embeddings", "mm", "other"];
    match random.u32(0..if depth > 3 { 6 } else { 10 }) {
        0..6 => simple[random.usize(0..simple.len())].to_owned(),
        6 | 7 => {
            let items: Vec<_> = (0..random.usize(0..4))
                .map(|_| random_value(random, depth + 2))
                .collect();
            // The engine breaks off at objects among numbers.
            format!("[{}]", items.join(","))
                .replace('{', "[")
                .replace('}', "]")
                .replace(':', ",")
        }
        _ => {
            let fields: Vec<_> = (0..random.usize(0..4))
                .map(|_| {
                    let name = names[random.usize(0..names.len())];
                    let value = match name {
                        "regenerate" if random.bool() => "true".to_owned(),
                        _ => random_value(random, depth + 1),
                    };
                    format!("\"{name}\":{value}")
                })
                .collect();
            format!("{{{}}}", fields.join(","))
        }
    }
}

/// Whether vectors hold an object where the engine expects numbers: it breaks off.
fn breaks_engine(body: &str) -> bool {
    fn holds_object(value: &Value) -> bool {
        match value {
            Value::Object(_) => true,
            Value::Array(all) => all.iter().any(holds_object),
            _ => false,
        }
    }
    let documents: Vec<Value> = serde_json::from_str(body).unwrap();
    documents.iter().any(|document| {
        let given = &document["_vectors"]["m"];
        let given = given.get("embeddings").unwrap_or(given);
        match given {
            Value::Array(all) => all.iter().any(holds_object),
            Value::Object(_) => document["_vectors"]["m"].get("embeddings").is_some(),
            _ => false,
        }
    })
}

fn repeats_an_id(body: &str) -> bool {
    let documents: Vec<Value> = serde_json::from_str(body).unwrap();
    let ids: std::collections::BTreeSet<_> =
        documents.iter().map(|one| one["id"].as_u64()).collect();
    ids.len() < documents.len()
}

#[tokio::test]
async fn the_judge_says_of_random_documents_what_the_engine_says() {
    let seed =
        std::env::var("WEFT_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let single = Single::start(None).await.unwrap();
    let one = Api::new(single.url(), None);
    prepare(&one, "x", &settings()).await;
    let version = one.get("/version").await.unwrap();
    let read = one.get("/indexes/x/settings").await.unwrap();
    let settings: Map<String, Value> = read.body.as_object().unwrap().clone();
    let (mut refused, mut taken) = (0, 0);
    for round in 0..300 {
        let count = random.u32(1..4);
        let document = |random: &mut fastrand::Rng| {
            let id = random.u32(1..4);
            let mut fields = vec![format!("\"id\":{id}")];
            match random.u32(0..8) {
                0 => {}
                1..4 => fields.push(format!("\"_vectors\":{}", random_value(random, 0))),
                _ => fields.push("\"_vectors\":{\"m\":[1,2,3]}".to_owned()),
            }
            if random.bool() {
                fields.push(format!("\"_geo\":{}", random_value(random, 0)));
            }
            format!("{{{}}}", fields.join(","))
        };
        let all: Vec<String> = (0..count).map(|_| document(&mut random)).collect();
        let body = format!("[{}]", all.join(","));
        if breaks_engine(&body) {
            continue;
        }
        let updates = random.bool();
        let trial = Trial {
            settings: settings.clone(),
            version: version.at("/pkgVersion").as_str().unwrap().to_owned(),
            updates,
            ..Trial::default()
        };
        let judged = trial.of("x", Format::Json, body.as_bytes()).unwrap();
        let method = if updates { Method::PUT } else { Method::POST };
        let task = write(&one, &method, "x", &body).await;
        let said = format!("seed {seed}, round {round}: {method} {body}");
        let judged = judged.unwrap_or_default();
        // Of several bad documents the engine names the one whose first version came first, whatever was wrong with that.
        if updates && repeats_an_id(&body) {
            assert_eq!(judged.is_null(), task["error"].is_null(), "{said}");
        } else {
            assert_eq!(judged, task["error"], "{said}");
        }
        match task["status"] == "failed" {
            true => refused += 1,
            false => {
                taken += 1;
                clear(&one, "x").await;
            }
        }
    }
    assert!(
        refused > 30 && taken > 30,
        "{refused} refused, {taken} taken"
    );
}

async fn read_settings(api: &Api) -> Value {
    let mut settings = api.get("/indexes/x/settings").await.unwrap().body;
    // What the engine thinks of a field that it hasn't seen is no setting.
    settings.as_object_mut().unwrap().remove("chat");
    settings
}

#[tokio::test]
async fn settings_that_one_shard_refuses_are_on_none() {
    let (_single, one, cluster, api) =
        one_node_and_three_shards(&json!({"stopWords": ["a"], "sortableAttributes": ["n"]})).await;
    let body = batch("_geo", Some(r#"{"lat":3}"#));
    for api in [&one, &api] {
        assert_eq!(
            write(api, &Method::POST, "x", &body).await["status"],
            "succeeded"
        );
    }
    let changes = [
        json!({"filterableAttributes": ["_geo"], "stopWords": ["b"]}),
        json!({"filterableAttributes": ["n"]}),
        json!({"sortableAttributes": ["_geo", "n"], "synonyms": {"a": ["b"]}}),
        json!({"stopWords": ["c"]}),
    ];
    // One by one, and all at once.
    for at_once in [false, true] {
        let mut ends = Vec::new();
        for api in [&one, &api] {
            let mut accepted = Vec::new();
            for change in &changes {
                let sent = api
                    .json(Method::PATCH, "/indexes/x/settings", change)
                    .await
                    .unwrap();
                if !at_once {
                    api.settle(&sent).await.unwrap();
                }
                accepted.push(sent);
            }
            for sent in &accepted {
                let task = api.settle(sent).await.unwrap();
                ends.push(json!([task["status"], task["error"]["code"]]));
            }
        }
        // With such a place, 1.50 refuses the changes that have nothing to do with places, too; other engines don't.
        let (of_one, of_many) = ends.split_at(changes.len());
        assert_eq!(of_one, of_many);
        let refused = json!(["failed", "invalid_document_geo_field"]);
        assert!(of_one[0] == refused && of_one[2] == refused, "{of_one:?}");
        let expected = read_settings(&one).await;
        assert_eq!(read_settings(&api).await, expected);
        for shard in 0..3 {
            assert_eq!(
                read_settings(&node(&cluster, shard)).await,
                expected,
                "shard {shard}"
            );
        }
    }
    let change = json!(["_geo"]);
    let path = "/indexes/x/settings/filterable-attributes";
    let mut errors = Vec::new();
    for api in [&one, &api] {
        let accepted = api.json(Method::PUT, path, &change).await.unwrap();
        errors.push(api.settle(&accepted).await.unwrap()["error"].clone());
    }
    assert_eq!(errors[0]["code"], errors[1]["code"]);
    let message = errors[1]["message"].as_str().unwrap();
    assert!(
        message.starts_with(errors[0]["message"].as_str().unwrap()),
        "{message}"
    );
    assert!(
        message.contains("The change was undone where it had been made: shard-"),
        "{message}"
    );
}

#[tokio::test]
async fn a_merger_that_dies_while_settings_are_undone_undoes_them_when_it_is_back() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    prepare(&api, "x", &json!({"stopWords": ["a"]})).await;
    let body = batch("_geo", Some(r#"{"lat":3}"#));
    assert_eq!(
        write(&api, &Method::POST, "x", &body).await["status"],
        "succeeded"
    );
    let change = json!({"filterableAttributes": ["_geo"], "stopWords": ["b"]});
    let accepted = api
        .json(Method::PATCH, "/indexes/x/settings", &change)
        .await
        .unwrap();
    cluster.merger().kill().unwrap();
    cluster.merger().restart().unwrap();
    cluster.wait_ready().await.unwrap();
    let task = api.settle(&accepted).await.unwrap();
    assert_eq!(task["status"], "failed", "{task}");
    for shard in 0..3 {
        let settings = read_settings(&node(&cluster, shard)).await;
        assert_eq!(settings["filterableAttributes"], json!([]), "shard {shard}");
        assert_eq!(settings["stopWords"], json!(["a"]), "shard {shard}");
    }
}

#[tokio::test]
async fn an_edition_that_fails_on_one_shard_says_what_was_edited() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    let accepted = api
        .post("/indexes/x/documents?primaryKey=id", &documents(0..90))
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    let edit = json!({"function": "if doc.id == 7 { doc.a = doc.b.c } else { doc.a = 1 }"});
    let path = "/indexes/x/documents/edit";
    let refused = api.post(path, &edit).await.unwrap();
    assert_eq!(
        (refused.status, refused.at("/code")),
        (400, &json!("feature_not_enabled"))
    );
    let on = json!({"editDocumentsByFunction": true});
    let features = api
        .json(Method::PATCH, "/experimental-features", &on)
        .await
        .unwrap();
    assert_eq!(features.status, 200);
    let accepted = api.post(path, &edit).await.unwrap();
    let task = api.settle(&accepted).await.unwrap();
    assert_eq!(
        task["error"]["code"], "edit_documents_by_function_error",
        "{task}"
    );
    let mut edited = 0;
    for shard in 0..3 {
        let node = node(&cluster, shard);
        let stats = node.get("/indexes/x/stats").await.unwrap();
        edited += stats.at("/fieldDistribution/a").as_u64().unwrap_or(0);
    }
    assert_eq!(task["details"]["editedDocuments"], edited, "{task}");
    assert_eq!(task["details"]["deletedDocuments"], Value::Null, "{task}");
    let message = task["error"]["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("were edited: {edited}.")),
        "{message}"
    );
    assert!(!message.contains("is safe"), "{message}");
}

#[tokio::test]
async fn statistics_are_told_in_the_format_that_is_asked_for() {
    let (_single, one, _cluster, api) = one_node_and_three_shards(&json!({})).await;
    for api in [&one, &api] {
        let accepted = api
            .post("/indexes/x/documents", &documents(0..90))
            .await
            .unwrap();
        api.succeed(&accepted).await.unwrap();
    }
    for path in ["/stats", "/indexes/x/stats"] {
        let raw = api.get(&format!("{path}?sizeFormat=raw")).await.unwrap();
        let human = api.get(&format!("{path}?sizeFormat=human")).await.unwrap();
        let size = if path == "/stats" {
            "/indexes/x/rawDocumentDbSize"
        } else {
            "/rawDocumentDbSize"
        };
        assert!(raw.at(size).is_u64(), "{}", raw.text);
        assert!(
            human.at(size).as_str().unwrap().ends_with('B'),
            "{}",
            human.text
        );
        for refused in ["sizeFormat=big", "showInternalDatabaseSizes=2", "a=b"] {
            let path = format!("{path}?{refused}");
            let (expected, found) = (one.get(&path).await.unwrap(), api.get(&path).await.unwrap());
            assert_eq!((found.status, found.text), (400, expected.text));
        }
    }
}

#[tokio::test]
async fn a_deletion_of_a_task_that_is_under_way_waits_for_it() {
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    let accepted = api
        .post("/indexes/x/documents?primaryKey=id", &documents(0..5_000))
        .await
        .unwrap();
    let uid = accepted.at("/taskUid").as_u64().unwrap();
    let deletion = api.delete(&format!("/tasks?uids={uid}")).await.unwrap();
    assert_eq!(deletion.status, 200, "{}", deletion.text);
    let task = api.succeed(&deletion).await.unwrap();
    assert_eq!(
        task["details"],
        json!({"matchedTasks": 1, "deletedTasks": 1, "originalFilter": format!("?uids={uid}")})
    );
    assert_eq!(api.get(&format!("/tasks/{uid}")).await.unwrap().status, 404);
    assert_eq!(ids(&api, "x").await.len(), 5_000);
}
