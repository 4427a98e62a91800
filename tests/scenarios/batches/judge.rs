//! The merger's judge of documents, compared with the engine on random documents.

use reqwest::Method;
use serde_json::{Map, Value};
use weft_cluster::{Api, Single};
use weft_merger::internals::Trial;
use weft_merger::write::Format;

use super::{clear, judged_settings, prepare, write};

/// A random value, made of parts that have a meaning in `_vectors` or `_geo`.
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
            // The engine fails on objects among numbers.
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

/// True if vectors hold an object where the engine expects numbers: it fails on that.
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
async fn the_judge_and_the_engine_agree_on_random_documents() {
    let seed =
        std::env::var("WEFT_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let single = Single::start(None).await.unwrap();
    let one = Api::new(single.url(), None);
    prepare(&one, "x", &judged_settings()).await;
    let version = one.get("/version").await.unwrap();
    let read = one.get("/indexes/x/settings").await.unwrap();
    let settings: Map<String, Value> = read.body.as_object().unwrap().clone();
    let (mut refused, mut accepted) = (0, 0);
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
        // If an update repeats an id, the engine may name another bad document than the judge, so only whether there is an error
        // is compared.
        if updates && repeats_an_id(&body) {
            assert_eq!(judged.is_null(), task["error"].is_null(), "{said}");
        } else {
            assert_eq!(judged, task["error"], "{said}");
        }
        match task["status"] == "failed" {
            true => refused += 1,
            false => {
                accepted += 1;
                clear(&one, "x").await;
            }
        }
    }
    assert!(
        refused > 30 && accepted > 30,
        "{refused} refused, {accepted} accepted"
    );
}
