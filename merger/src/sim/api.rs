//! A node's HTTP API over its [`Disk`]: the requests that the merger sends to nodes, answered as a node answers them.

mod documents;

use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value, json};

use super::disk::{Disk, Index, Task, Work, error, missing};
use super::time_of;

/// A request as a node receives it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) body: Bytes,
}

/// Status and body.
pub(super) type Said = (u16, Value);

/// A request, split into its parts.
struct Request<'a> {
    now: u64,
    takes: u64,
    query: Vec<(String, String)>,
    body: &'a [u8],
}

impl Request<'_> {
    fn param(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.param(name)?.parse().ok()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(self.body).unwrap_or_default()
    }

    fn object(&self) -> Map<String, Value> {
        self.json().as_object().cloned().unwrap_or_default()
    }
}

/// Answers a request at `now`. If the request becomes a task, the task will take `takes` milliseconds.
pub(super) fn answer(disk: &mut Disk, now: u64, takes: u64, asked: &Asked) -> Said {
    disk.advance(now);
    let (path, query) = asked
        .path_and_query
        .split_once('?')
        .unwrap_or((&asked.path_and_query, ""));
    let request = Request {
        now,
        takes,
        query: form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        body: &asked.body,
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match (asked.method.as_str(), parts.as_slice()) {
        ("GET", ["health"]) => (200, json!({"status": "available"})),
        ("GET", ["version"]) => (
            200,
            json!({"commitSha": "", "commitDate": "", "pkgVersion": "1.50.0"}),
        ),
        ("GET", ["stats"]) => (200, stats(disk)),
        ("GET", ["experimental-features"]) => (200, Value::Object(disk.features.clone())),
        ("PATCH", ["experimental-features"]) => {
            disk.features.extend(request.object());
            (200, Value::Object(disk.features.clone()))
        }
        (_, ["tasks", ..]) => tasks(disk, &request, asked.method.as_str(), &parts),
        (_, ["keys", ..]) => keys(disk, &request, asked.method.as_str(), &parts),
        ("POST", ["swap-indexes"]) => swap(disk, &request),
        (method, ["indexes", rest @ ..]) => indexes(disk, &request, method, rest),
        _ => (404, error("not_found", &format!("{} {path}", asked.method))),
    }
}

fn enqueue(
    disk: &mut Disk,
    request: &Request<'_>,
    index: Option<&str>,
    kind: &'static str,
    details: Value,
    work: Work,
) -> Said {
    let uid = disk.enqueue(request.now, request.takes, index, kind, details, work);
    if let Some(task) = disk.tasks.get_mut(&uid) {
        task.custom_metadata = request.param("customMetadata").map(str::to_owned);
    }
    let enqueued = time_of(request.now);
    (
        202,
        json!({"taskUid": uid, "indexUid": index, "status": "enqueued", "type": kind, "enqueuedAt": enqueued}),
    )
}

fn tasks(disk: &mut Disk, request: &Request<'_>, method: &str, parts: &[&str]) -> Said {
    if let ("GET", [_, uid]) = (method, parts) {
        let found = uid
            .parse()
            .ok()
            .and_then(|uid| Some((uid, disk.tasks.get(&uid)?)));
        return match found {
            Some((uid, task)) => (200, task.view(uid)),
            None => (
                404,
                error("task_not_found", &format!("Task `{uid}` not found.")),
            ),
        };
    }
    let list =
        |name: &str| -> Option<Vec<&str>> { Some(request.param(name)?.split(',').collect()) };
    let (uids, statuses, types, names) = (
        list("uids"),
        list("statuses"),
        list("types"),
        list("indexUids"),
    );
    let is_in = |list: &Option<Vec<&str>>, value: &str| {
        list.as_ref().is_none_or(|list| list.contains(&value))
    };
    let matches = |(uid, task): &(&u32, &Task)| {
        is_in(&uids, &uid.to_string())
            && is_in(&statuses, task.status)
            && is_in(&types, task.kind)
            && (names.is_none() || is_in(&names, task.index.as_deref().unwrap_or_default()))
    };
    let mut matched: Vec<u32> = disk
        .tasks
        .iter()
        .filter(matches)
        .map(|(uid, _)| *uid)
        .collect();
    let details = json!({"matchedTasks": matched.len()});
    match (method, parts) {
        ("DELETE", _) => enqueue(
            disk,
            request,
            None,
            "taskDeletion",
            details,
            Work::Forget(matched),
        ),
        ("POST", [_, "cancel"]) => enqueue(
            disk,
            request,
            None,
            "taskCancelation",
            details,
            Work::Cancel(matched),
        ),
        _ => {
            let reverse = request.param("reverse") == Some("true");
            let from = request.param("from").and_then(|from| from.parse().ok());
            if let Some(from) = from {
                matched.retain(|uid: &u32| if reverse { *uid >= from } else { *uid <= from });
            }
            if !reverse {
                matched.reverse();
            }
            let (total, limit) = (matched.len(), request.number("limit").unwrap_or(20));
            let view = |uid: u32| disk.tasks.get(&uid).map(|task| task.view(uid));
            let results: Vec<Value> = matched.into_iter().take(limit).filter_map(view).collect();
            (
                200,
                json!({"results": results, "total": total, "limit": limit, "from": null, "next": null}),
            )
        }
    }
}

fn keys(disk: &mut Disk, request: &Request<'_>, method: &str, parts: &[&str]) -> Said {
    let unknown = |uid: &str| {
        (
            404,
            error("api_key_not_found", &format!("API key `{uid}` not found.")),
        )
    };
    match (method, parts) {
        ("GET", [_]) => {
            let (offset, limit) = (
                request.number("offset").unwrap_or(0),
                request.number("limit").unwrap_or(20),
            );
            let results: Vec<&Value> = disk.keys.values().skip(offset).take(limit).collect();
            (
                200,
                json!({"results": results, "offset": offset, "limit": limit, "total": disk.keys.len()}),
            )
        }
        ("GET", [_, uid]) => disk
            .keys
            .get(*uid)
            .map_or_else(|| unknown(uid), |key| (200, key.clone())),
        ("POST", [_]) => {
            let mut key = request.object();
            let uid = key
                .get("uid")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            if disk.keys.contains_key(&uid) {
                return (409, error("api_key_already_exists", &format!("`{uid}`")));
            }
            key.insert("key".to_owned(), format!("secret-of-{uid}").into());
            disk.keys.insert(uid, Value::Object(key.clone()));
            (201, Value::Object(key))
        }
        ("PATCH", [_, uid]) => match disk.keys.get_mut(*uid).and_then(Value::as_object_mut) {
            Some(key) => {
                key.extend(request.object());
                (200, Value::Object(key.clone()))
            }
            None => unknown(uid),
        },
        ("DELETE", [_, uid]) => match disk.keys.remove(*uid) {
            Some(_) => (204, Value::Null),
            None => unknown(uid),
        },
        _ => (405, Value::Null),
    }
}

fn swap(disk: &mut Disk, request: &Request<'_>) -> Said {
    let mut pairs = Vec::new();
    for pair in request.json().as_array().into_iter().flatten() {
        let name = |place: usize| {
            pair["indexes"][place]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        pairs.push((name(0), name(1), pair["rename"] == true));
    }
    let listed: Vec<Value> = pairs
        .iter()
        .map(|(one, two, rename)| json!({"indexes": [one, two], "rename": rename}))
        .collect();
    enqueue(
        disk,
        request,
        None,
        "indexSwap",
        json!({"swaps": listed}),
        Work::Swap(pairs),
    )
}

fn indexes(disk: &mut Disk, request: &Request<'_>, method: &str, parts: &[&str]) -> Said {
    match (method, parts) {
        ("GET", []) => {
            let limit = request.number("limit").unwrap_or(20);
            let all = disk.indexes.iter().take(limit);
            let results: Vec<Value> = all.map(|(name, index)| describe(name, index)).collect();
            (
                200,
                json!({"results": results, "offset": 0, "limit": limit, "total": disk.indexes.len()}),
            )
        }
        ("POST", []) => {
            let body = request.object();
            let name = body.get("uid").and_then(Value::as_str).unwrap_or_default();
            let key = body
                .get("primaryKey")
                .and_then(Value::as_str)
                .map(str::to_owned);
            let details = json!({"primaryKey": key});
            enqueue(
                disk,
                request,
                Some(name),
                "indexCreation",
                details,
                Work::Create(key),
            )
        }
        ("PATCH", [name]) => {
            let body = request.object();
            let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
            let (key, new) = (text("primaryKey"), text("uid"));
            let mut details = Map::new();
            details.insert("primaryKey".to_owned(), json!(key));
            if let Some(new) = &new {
                details.insert("oldIndexUid".to_owned(), json!(name));
                details.insert("newIndexUid".to_owned(), json!(new));
            }
            let work = Work::Update { key, name: new };
            enqueue(
                disk,
                request,
                Some(name),
                "indexUpdate",
                Value::Object(details),
                work,
            )
        }
        ("DELETE", [name]) => enqueue(
            disk,
            request,
            Some(name),
            "indexDeletion",
            json!({"deletedDocuments": null}),
            Work::Drop,
        ),
        ("GET", [name]) => found(disk, name, |index| describe(name, index)),
        ("GET", [name, "stats"]) => found(
            disk,
            name,
            |index| json!({"numberOfDocuments": index.documents.len(), "isIndexing": false, "fieldDistribution": {}}),
        ),
        ("GET", [name, "settings"]) => found(disk, name, settings),
        ("PATCH" | "DELETE", [name, "settings"]) => {
            let change = match method {
                "PATCH" => request.object(),
                _ => SETTINGS
                    .iter()
                    .map(|name| ((*name).to_owned(), Value::Null))
                    .collect(),
            };
            let details = Value::Object(change.clone());
            enqueue(
                disk,
                request,
                Some(name),
                "settingsUpdate",
                details,
                Work::Settings(change),
            )
        }
        ("POST", [name, "search"]) => found(disk, name, |index| search(index, &request.object())),
        (_, [name, "documents", rest @ ..]) => documents::answer(disk, request, method, name, rest),
        _ => (404, error("not_found", &parts.join("/"))),
    }
}

const SETTINGS: [&str; 3] = ["stopWords", "filterableAttributes", "pagination"];

/// The settings of an index in the form of the API.
pub(super) fn settings(index: &Index) -> Value {
    let value = |name: &&str| {
        let value = index.settings.get(*name).cloned();
        let value = value.unwrap_or_else(|| match *name {
            "pagination" => json!({"maxTotalHits": 1_000}),
            _ => json!([]),
        });
        ((*name).to_owned(), value)
    };
    Value::Object(SETTINGS.iter().map(value).collect())
}

fn found(disk: &Disk, name: &str, show: impl Fn(&Index) -> Value) -> Said {
    disk.indexes
        .get(name)
        .map_or_else(|| (404, missing(name)), |index| (200, show(index)))
}

/// A search without words, in a node's own order. The answer also says which settings the node has.
fn search(index: &Index, body: &Map<String, Value>) -> Value {
    let number = |name: &str, otherwise: usize| {
        let said = body.get(name).and_then(Value::as_u64);
        said.and_then(|number| usize::try_from(number).ok())
            .unwrap_or(otherwise)
    };
    let (offset, limit) = (number("offset", 0), number("limit", 20));
    let documents = index.documents.values().map(|(_, document)| document);
    let hits: Vec<&Map<String, Value>> = documents.skip(offset).take(limit).collect();
    json!({
        "hits": hits, "query": "", "processingTimeMs": 1, "limit": limit, "offset": offset,
        "estimatedTotalHits": index.documents.len(), "settings": settings(index),
    })
}

fn describe(name: &str, index: &Index) -> Value {
    let at = time_of(0);
    json!({"uid": name, "primaryKey": index.primary_key, "createdAt": at, "updatedAt": at})
}

fn stats(disk: &Disk) -> Value {
    let count = |(name, index): (&String, &Index)| {
        (
            name.clone(),
            json!({"numberOfDocuments": index.documents.len(), "isIndexing": false, "fieldDistribution": {}}),
        )
    };
    let indexes: Map<String, Value> = disk.indexes.iter().map(count).collect();
    json!({"databaseSize": 0, "usedDatabaseSize": 0, "lastUpdate": null, "indexes": indexes})
}
