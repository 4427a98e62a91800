//! Features, keys and webhooks.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::Target;
use crate::cli::backup::BackupError;
use crate::cli::remote::RemoteError;

/// How many shards the cluster has.
pub(super) async fn shard_count(target: &Target<'_>) -> Result<usize, BackupError> {
    let shards = target.get("/_cluster/shards").await?;
    let shards = shards.get("shards").and_then(Value::as_array);
    Ok(shards.map_or(0, Vec::len))
}

/// Switches features to what they were. One that the cluster doesn't have is named.
pub(super) async fn restore_features(
    target: &mut Target<'_>,
    state: &Map<String, Value>,
) -> Result<(), BackupError> {
    let path = "/experimental-features";
    let now = target.get(path).await?;
    let mut change = Map::new();
    for (name, value) in state
        .get("features")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        match now.get(name) {
            None if *value == Value::Bool(true) => {
                let warning = format!("the nodes don't have the feature `{name}`");
                target.warnings.push(warning);
            }
            Some(is) if is != value => {
                change.insert(name.clone(), value.clone());
            }
            _ => {}
        }
    }
    if change.is_empty() {
        return Ok(());
    }
    let change = Value::Object(change);
    target.send(Method::PATCH, path, &change).await.map(drop)
}

/// Makes the keys that aren't there. Returns how many.
pub(super) async fn restore_keys(
    target: &mut Target<'_>,
    state: &Map<String, Value>,
) -> Result<usize, BackupError> {
    let mut made = 0;
    for key in state
        .get("keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let text = |field: &str| key.get(field).and_then(Value::as_str).unwrap_or_default();
        let uid = text("uid");
        let there = match target.get(&format!("/keys/{uid}")).await {
            Ok(there) => Some(there),
            Err(BackupError::Remote(RemoteError::Refused { status, .. }))
                if status == StatusCode::NOT_FOUND =>
            {
                None
            }
            Err(error) => return Err(error),
        };
        let there = match there {
            Some(there) => there,
            None => {
                let body = creation(key);
                match target.send(Method::POST, "/keys", &body).await {
                    Ok(key) => {
                        made += 1;
                        key
                    }
                    // It has expired meanwhile: it would open nothing.
                    Err(BackupError::Remote(RemoteError::Refused { code, .. }))
                        if code == "invalid_api_key_expires_at" =>
                    {
                        target.warnings.push(format!("the key {uid} has expired"));
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        for field in ["actions", "indexes", "expiresAt"] {
            if there.get(field) != key.get(field) {
                target.warnings.push(format!(
                    "the key {uid} is there already, with other `{field}`: it was left as it is"
                ));
            }
        }
        if there.get("key") != key.get("key") {
            target.warnings.push(format!(
                "the key {uid} has another value, because the master key is another one"
            ));
        }
    }
    Ok(made)
}

fn creation(key: &Value) -> Value {
    let fields = [
        "uid",
        "name",
        "description",
        "actions",
        "indexes",
        "expiresAt",
    ];
    let given = fields.iter().filter_map(|field| {
        let value = key.get(*field)?;
        Some(((*field).to_owned(), value.clone()))
    });
    Value::Object(given.collect())
}

/// Makes the webhooks that aren't there. Their uuids are new. Returns how many.
pub(super) async fn restore_webhooks(
    target: &mut Target<'_>,
    state: &Map<String, Value>,
) -> Result<usize, BackupError> {
    let now = target.get("/webhooks").await?;
    let now = now.get("results").and_then(Value::as_array).cloned();
    let now = now.unwrap_or_default();
    let mut made = 0;
    for hook in state
        .get("webhooks")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let (url, headers) = (hook.get("url"), hook.get("headers"));
        if now.iter().any(|there| there.get("url") == url) {
            continue;
        }
        let body = json!({"url": url, "headers": headers});
        target.send(Method::POST, "/webhooks", &body).await?;
        made += 1;
    }
    Ok(made)
}
