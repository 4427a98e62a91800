//! A client that waits for nothing creates, deletes, renames and writes to indexes, and changes their primary keys. Each task ends
//! as on one node, and in the end both hold the same.

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Reply, Single};

use crate::support::{MASTER_KEY, start};

const NAMES: [&str; 3] = ["p", "q", "r"];
const KEYS: [&str; 2] = ["id", "sku"];

/// A request that a client may send.
#[derive(Debug, Clone)]
struct Step {
    method: Method,
    path: String,
    body: Option<Value>,
}

impl Step {
    fn random(random: &mut fastrand::Rng) -> Self {
        let mut names = NAMES;
        random.shuffle(&mut names);
        let [uid, other, _] = names;
        let key = random.choice(KEYS).unwrap();
        let index = format!("/indexes/{uid}");
        let documents = format!("{index}/documents");
        let (method, path, body) = match random.u8(0..16) {
            0..5 => {
                let count = if random.u8(0..4) == 0 { 40 } else { 1 };
                let first = random.u64(0..60);
                // Either field can be the primary key, and they place a document on different shards.
                let document =
                    |id: u64| json!({"id": id, "sku": id + 1_000, "name": random.u64(0..100)});
                let body: Value = (first..first + count).map(document).collect();
                let path = match random.bool() {
                    true => documents,
                    false => format!("{documents}?primaryKey={key}"),
                };
                (
                    random.choice([Method::POST, Method::PUT]).unwrap(),
                    path,
                    Some(body),
                )
            }
            5 => {
                let path = format!("{documents}/{}", random.u64(0..60));
                (Method::DELETE, path, None)
            }
            6 => {
                let first = random.u64(0..60);
                let ids: Value = (first..first + 8).collect();
                (Method::POST, format!("{documents}/delete-batch"), Some(ids))
            }
            7 => (Method::DELETE, documents, None),
            8..10 => {
                let key = random.choice([Value::Null, json!(key)]).unwrap();
                let body = json!({"uid": uid, "primaryKey": key});
                (Method::POST, "/indexes".to_owned(), Some(body))
            }
            10 => (Method::PATCH, index, Some(json!({"primaryKey": key}))),
            11 => {
                let name = json!({"uid": other});
                let both = json!({"uid": other, "primaryKey": key});
                (Method::PATCH, index, random.choice([name, both]))
            }
            12 | 13 => (Method::DELETE, index, None),
            14 => {
                let swap = json!([{"indexes": [uid, other]}]);
                (Method::POST, "/swap-indexes".to_owned(), Some(swap))
            }
            _ => {
                let path = format!("{index}/settings/sortable-attributes");
                let body = random.choice([json!(["name"]), json!(["name", "sku"])]);
                (Method::PUT, path, body)
            }
        };
        Self { method, path, body }
    }

    /// Whether it deletes all documents of an index. A node skips the writes that are before it in the same batch, so that the index
    /// may or may not get its primary key from them: the batches are chance.
    fn empties_an_index(&self) -> bool {
        self.method == Method::DELETE && self.path.ends_with("/documents")
    }

    async fn ask(&self, api: &Api) -> Reply {
        let reply = match &self.body {
            Some(body) => api.json(self.method.clone(), &self.path, body).await,
            None => {
                let method = self.method.clone();
                api.send(method, &self.path, &[], Vec::new()).await
            }
        };
        reply.unwrap()
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = self
            .body
            .as_ref()
            .map_or_else(String::new, Value::to_string);
        let body: String = body.chars().take(80).collect();
        write!(f, "{} {} {body}", self.method, self.path)
    }
}

fn numbered(steps: &[Step]) -> String {
    let lines = steps.iter().enumerate();
    lines
        .map(|(number, step)| format!("\n  {number}: {step}"))
        .collect()
}

/// Waits until all tasks of these answers have ended.
async fn settle(api: &Api, replies: &[Reply]) {
    for reply in replies.iter().filter(|reply| reply.status == 202) {
        api.settle(reply).await.unwrap();
    }
}

/// The outcome of a request: its error, or how its task ended.
async fn end(api: &Api, reply: &Reply) -> Value {
    if reply.status != 202 {
        return json!({"status": reply.status, "code": reply.at("/code")});
    }
    let task = api.settle(reply).await.unwrap();
    json!({
        "type": task["type"], "indexUid": task["indexUid"], "status": task["status"], "code": task["error"]["code"],
    })
}

/// What an instance holds: each index's primary key, settings and documents.
async fn state(api: &Api) -> Value {
    let mut indexes = serde_json::Map::new();
    for uid in NAMES {
        let path = format!("/indexes/{uid}");
        let index = api.get(&path).await.unwrap();
        let held = match index.status {
            200 => {
                let settings = format!("{path}/settings/sortable-attributes");
                let documents = format!("{path}/documents?limit=1000");
                let documents = api.get(&documents).await.unwrap();
                let mut documents = documents.at("/results").as_array().unwrap().clone();
                documents.sort_by_key(|document| document["id"].as_u64());
                json!({
                    "primaryKey": index.at("/primaryKey"),
                    "sortable": api.get(&settings).await.unwrap().at(""),
                    "documents": documents,
                })
            }
            status => json!(status),
        };
        indexes.insert(uid.to_owned(), held);
    }
    Value::Object(indexes)
}

/// `WEFT_FUZZ_SEED=7` tries other requests.
#[tokio::test]
async fn created_changed_and_deleted_indexes_are_as_on_one_node() {
    let seed = std::env::var("WEFT_FUZZ_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("WEFT_FUZZ_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let one = Api::new(single.url(), Some(MASTER_KEY));
    let (_cluster, many) = start(Cluster::builder().shards(3)).await;
    for round in 0..12 {
        let steps: Vec<Step> = (0..25).map(|_| Step::random(&mut random)).collect();
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        for step in &steps {
            if step.empties_an_index() {
                settle(&one, &expected).await;
                settle(&many, &found).await;
            }
            expected.push(step.ask(&one).await);
            found.push(step.ask(&many).await);
        }
        // A swap changes the index name in earlier tasks, so all tasks must have ended before the first is compared.
        settle(&one, &expected).await;
        settle(&many, &found).await;
        for (number, step) in steps.iter().enumerate() {
            let (expected, found) = (
                end(&one, &expected[number]).await,
                end(&many, &found[number]).await,
            );
            assert_eq!(
                expected,
                found,
                "seed {seed}, round {round}, step {number}, {step} of {}",
                numbered(&steps)
            );
        }
        assert_eq!(
            state(&one).await,
            state(&many).await,
            "seed {seed}, round {round}: {}",
            numbered(&steps)
        );
        for uid in NAMES {
            for api in [&one, &many] {
                let gone = api.delete(&format!("/indexes/{uid}")).await.unwrap();
                api.settle(&gone).await.unwrap();
            }
        }
    }
}
