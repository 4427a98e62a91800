//! Every operation of the API, sent to a cluster and to one node: the same status and the same code, for each kind of key.

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Reply, Single};

use crate::support::{MASTER_KEY, documents, start};

const OPERATIONS: &str = include_str!("../../filter/routing/tests/golden/operations.tsv");

/// Method, path and body of a request for each operation. The index, the document and the task exist.
fn requests() -> Vec<(Method, String, Option<Value>)> {
    OPERATIONS
        .lines()
        .map(|line| {
            let mut fields = line.split('\t');
            let (method, template) = (fields.next().unwrap(), fields.next().unwrap());
            let path = template
                .replace("{index_uid}", "things")
                .replace("{document_id}", "1")
                .replace("{key}", "11111111-1111-4111-8111-111111111111")
                .replace("{uuid}", "11111111-1111-4111-8111-111111111111")
                .replace("{task_id}", "0")
                .replace("{batch_id}", "0");
            let path: String = match path.split_once('{') {
                Some((start, rest)) => {
                    let end = rest.split_once('}').unwrap().1;
                    format!("{start}some{end}")
                }
                None => path,
            };
            let method: Method = method.parse().unwrap();
            let body = body(template, &method);
            (method, path, body)
        })
        .collect()
}

/// A body that changes little. Most are refused by the operation itself, after the key was checked.
fn body(template: &str, method: &Method) -> Option<Value> {
    let body = match (template, method.as_str()) {
        (_, "GET" | "DELETE") => return None,
        ("/indexes", _) => json!({"uid": "others"}),
        ("/keys", _) => json!({"actions": ["search"], "indexes": ["things"], "expiresAt": null}),
        ("/swap-indexes", _) => json!([{"indexes": ["things", "ghost"]}]),
        ("/multi-search", _) => json!({"queries": [{"indexUid": "things", "q": "amber"}]}),
        ("/webhooks", _) => json!({"url": "nope"}),
        ("/experimental-features", _) => json!({"metrics": false}),
        ("/indexes/{index_uid}/documents", _) => json!([{"id": 1, "name": "amber"}]),
        ("/indexes/{index_uid}/documents/delete-batch", _) => json!([77]),
        ("/indexes/{index_uid}/documents/delete", _) => json!({"filter": "group = 77"}),
        ("/indexes/{index_uid}/facet-search", _) => json!({"facetName": "group"}),
        ("/indexes/{index_uid}/similar", _) => json!({"id": 1, "embedder": "none"}),
        ("/indexes/{index_uid}", "PATCH") => json!({"primaryKey": "id"}),
        _ => json!({}),
    };
    Some(body)
}

async fn ask(api: &Api, request: &(Method, String, Option<Value>)) -> Reply {
    let (method, path, body) = request;
    let reply = match body {
        Some(body) => api.json(method.clone(), path, body).await,
        None => api.send(method.clone(), path, &[], Vec::new()).await,
    };
    reply.unwrap()
}

async fn fill(api: &Api) {
    let accepted = api
        .post("/indexes/things/documents?primaryKey=id", &documents(0..60))
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
}

/// True if Weft itself refuses the operation, as in the table of filter/README.md.
fn is_refused(reply: &Reply) -> bool {
    reply.status == 501 && reply.text.contains("Weft does not answer")
}

/// The most operations that Weft may refuse. They aren't compared, since a node may support them.
const MAX_REFUSED: usize = 12;

/// True for requests that would delete the index that the next requests need, or that never end.
fn is_left_out(path: &str, method: &Method) -> bool {
    // A node that streams its log never ends its answer.
    (path == "/logs/stream" && *method == Method::POST)
        || (path == "/indexes/things" && *method == Method::DELETE)
}

#[tokio::test]
async fn each_operation_is_answered_as_one_node_does_for_every_kind_of_key() {
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let (_cluster, many) = start(Cluster::builder().shards(3)).await;
    let one = Api::new(single.url(), Some(MASTER_KEY));
    fill(&one).await;
    fill(&many).await;
    let mut differ = Vec::new();
    for (name, key) in keys() {
        let (mut values, mut refused) = (Vec::new(), 0);
        for side in [&one, &many] {
            values.push(match &key {
                Key::None => None,
                Key::Master => Some(MASTER_KEY.to_owned()),
                Key::Unknown => Some("nobody-has-this-key".to_owned()),
                Key::Made(body) => {
                    let made = side.post("/keys", body).await.unwrap();
                    assert_eq!(made.status, 201, "{name}: {}", made.text);
                    Some(made.at("/key").as_str().unwrap().to_owned())
                }
            });
        }
        let (one_master, many_master) = (one.clone(), many.clone());
        let (one, many) = (
            one.with_key(values[0].as_deref()),
            many.with_key(values[1].as_deref()),
        );
        for request in requests() {
            let (method, path, _) = &request;
            if is_left_out(path, method) {
                continue;
            }
            let (expected, found) = (ask(&one, &request).await, ask(&many, &request).await);
            // Both sides must be at the same point for the next request.
            for (side, reply) in [(&one_master, &expected), (&many_master, &found)] {
                if reply.at("/taskUid").is_u64() {
                    side.settle(reply).await.unwrap();
                }
            }
            if is_refused(&found) {
                refused += 1;
                continue;
            }
            // The embedded node lacks some operations that Weft answers itself; a real node has them all.
            if expected.status == 501 {
                continue;
            }
            let show = |reply: &Reply| (reply.status, reply.at("/code").clone());
            // On the embedded node, `documents.*` allows edits; a real node demands the exact action, as Weft does.
            if path.ends_with("/documents/edit") && name == "documents and indexes" {
                continue;
            }
            if show(&expected) != show(&found) {
                differ.push(format!(
                    "{name}: {method} {path}\n  node    {} {}\n  cluster {} {}",
                    expected.status, expected.text, found.status, found.text
                ));
            }
        }
        assert!(refused <= MAX_REFUSED, "{name}: {refused} are refused");
    }
    assert!(
        differ.is_empty(),
        "{} differ:\n{}",
        differ.len(),
        differ.join("\n")
    );
}

enum Key {
    None,
    Master,
    Unknown,
    Made(Value),
}

/// No key, an unknown key, keys for some actions or indexes, and the master key.
fn keys() -> Vec<(&'static str, Key)> {
    let made = |actions: &[&str], indexes: &[&str]| {
        Key::Made(json!({"actions": actions, "indexes": indexes, "expiresAt": null}))
    };
    vec![
        ("no key", Key::None),
        ("an unknown key", Key::Unknown),
        ("search only", made(&["search"], &["*"])),
        ("reads of one index", made(&["*.get"], &["things"])),
        ("everything on another index", made(&["*"], &["other"])),
        ("everything on a pattern", made(&["*"], &["th*"])),
        ("tasks and stats", made(&["tasks.*", "stats.get"], &["*"])),
        (
            "documents and indexes",
            made(&["documents.*", "indexes.*"], &["things"]),
        ),
        (
            "settings and keys",
            made(&["settings.*", "keys.get", "keys.create"], &["*"]),
        ),
        (
            "webhooks, dumps, export",
            made(
                &["webhooks.get", "dumps.create", "export", "version"],
                &["*"],
            ),
        ),
        ("the master key", Key::Master),
    ]
}

#[tokio::test]
async fn an_expired_key_is_refused_for_everything_that_weft_answers_itself() {
    let (_cluster, api) = start(Cluster::builder().shards(2)).await;
    fill(&api).await;
    let soon = json!({"actions": ["*"], "indexes": ["*"], "expiresAt": in_seconds(3)});
    let key = api.post("/keys", &soon).await.unwrap();
    let other = api.with_key(key.at("/key").as_str());
    let paths = [
        "/tasks",
        "/tasks/0",
        "/batches",
        "/stats",
        "/indexes",
        "/webhooks",
        "/indexes/things/search",
    ];
    for path in paths {
        assert_eq!(other.get(path).await.unwrap().status, 200, "{path}");
    }
    weft_cluster::until(
        "the key's expiry",
        weft_cluster::Deadline::after(std::time::Duration::from_secs(15)),
        || async {
            let status = other.get("/tasks").await.map(|reply| reply.status);
            match status {
                Ok(403) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await
    .unwrap();
    for path in paths {
        let reply = other.get(path).await.unwrap();
        assert_eq!(
            (reply.status, reply.at("/code").as_str()),
            (403, Some("invalid_api_key")),
            "{path}"
        );
    }
}

/// The time this many seconds from now, in RFC 3339.
fn in_seconds(seconds: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let at = now.unwrap().as_secs() + seconds;
    let (days, rest) = (at / 86_400, at % 86_400);
    // Days since 1970 as a date of the civil calendar.
    let z = i64::try_from(days).unwrap() + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3_600,
        rest % 3_600 / 60,
        rest % 60
    )
}
