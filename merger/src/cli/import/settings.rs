//! An index and its settings, made in the cluster before any document comes, so that each document is indexed once. And the
//! experimental features that settings may need.

use http::Method;
use serde_json::{Map, Value, json};

use super::digest::digest;
use super::error::ImportError;
use super::journal::Stage;
use super::pipeline::Work;
use super::source::{Index, Server};
use crate::cli::remote::RemoteError;
use crate::upstream::is_hidden;

/// Features that concern one process and not what an index holds.
const NOT_CARRIED: [&str; 4] = [
    "network",
    "logsRoute",
    "chatCompletions",
    "dynamicSearchRules",
];

/// Makes an index as the source has it. `there` is what the cluster has of that name.
pub(super) async fn prepare(
    work: &mut Work<'_>,
    index: &Index,
    there: Option<&Index>,
    settings: Value,
    notes: &mut Vec<String>,
) -> Result<(), ImportError> {
    let uid = &index.uid;
    // Noted first: an index that was made by an import that was killed is known to be ours.
    work.journal.index(uid);
    work.journal.save()?;
    match there {
        None => {
            let key = index.primary_key.as_deref();
            work.target.create(uid, key).await?;
        }
        Some(there) => adopt_primary_key(work, index, there).await?,
    }
    apply(work, uid, settings, there.is_some(), notes).await?;
    work.journal.index(uid).stage = Stage::Documents;
    work.journal.save()
}

/// Gives an index the source's primary key, if it has none yet.
pub(super) async fn adopt_primary_key(
    work: &Work<'_>,
    index: &Index,
    there: &Index,
) -> Result<(), ImportError> {
    let uid = &index.uid;
    let Some(here) = index.primary_key.as_ref() else {
        return Ok(());
    };
    if there.primary_key.as_ref() == Some(here) {
        return Ok(());
    }
    if let Some(other) = &there.primary_key
        && work.target.server.count(uid).await? > 0
    {
        return Err(ImportError::PrimaryKey {
            index: uid.clone(),
            here: here.clone(),
            there: other.clone(),
        });
    }
    let (path, body) = (format!("/indexes/{uid}"), json!({"primaryKey": here}));
    work.target
        .change(uid, "the primary key", Method::PATCH, &path, Some(&body))
        .await
}

/// Applies settings unless they are the ones that were applied last. Returns whether they were.
pub(super) async fn apply(
    work: &mut Work<'_>,
    uid: &str,
    mut settings: Value,
    exists: bool,
    notes: &mut Vec<String>,
) -> Result<bool, ImportError> {
    let digest = digest(&settings);
    if work.journal.index(uid).settings.as_ref() == Some(&digest) {
        return Ok(false);
    }
    for embedder in without_hidden_keys(&mut settings) {
        notes.push(format!(
            "`{uid}`: the source hides the API key of the embedder `{embedder}`; set it in the cluster"
        ));
    }
    if exists {
        let there = work.target.server.settings(uid).await?;
        remove_others(&mut settings, &there);
    }
    let path = format!("/indexes/{uid}/settings");
    work.target
        .change(uid, "the settings", Method::PATCH, &path, Some(&settings))
        .await?;
    work.journal.index(uid).settings = Some(digest);
    work.journal.save()?;
    Ok(true)
}

/// Takes masked API keys out; returns their embedders.
fn without_hidden_keys(settings: &mut Value) -> Vec<String> {
    let mut hidden = Vec::new();
    let embedders = settings.get_mut("embedders").and_then(Value::as_object_mut);
    for (name, embedder) in embedders.into_iter().flatten() {
        if without_hidden_key(embedder) {
            hidden.push(name.clone());
        }
    }
    hidden
}

fn without_hidden_key(value: &mut Value) -> bool {
    let Some(members) = value.as_object_mut() else {
        return false;
    };
    let key = members.get("apiKey").and_then(Value::as_str);
    let mut found = key.is_some_and(is_hidden);
    if found {
        members.remove("apiKey");
    }
    // A composite embedder has two inside.
    for inner in ["searchEmbedder", "indexingEmbedder"] {
        found |= members.get_mut(inner).is_some_and(without_hidden_key);
    }
    found
}

/// Embedders are the one setting that a change adds to: those that only the cluster has are removed by name.
fn remove_others(settings: &mut Value, there: &Value) {
    let Some(there) = there.get("embedders").and_then(Value::as_object) else {
        return;
    };
    if let Some(settings) = settings.as_object_mut() {
        let here = settings
            .entry("embedders")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(here) = here.as_object_mut() {
            for name in there.keys() {
                here.entry(name).or_insert(Value::Null);
            }
        }
    }
}

/// Switches on what the source has switched on.
pub(super) async fn features(
    target: &Server,
    wanted: &Map<String, Value>,
    notes: &mut Vec<String>,
) -> Result<(), ImportError> {
    for (name, on) in wanted {
        if on != &Value::Bool(true) || NOT_CARRIED.contains(&name.as_str()) {
            continue;
        }
        let mut body = Map::new();
        body.insert(name.clone(), Value::Bool(true));
        let path = "/experimental-features";
        match target.ask(Method::PATCH, path, Some(&Value::Object(body))).await {
            Ok(_) => {}
            Err(ImportError::Target(RemoteError::Refused { message, .. })) => notes.push(format!(
                "the experimental feature `{name}` could not be switched on in the cluster: {message}"
            )),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_keys_are_taken_out_and_told() {
        let mut settings = json!({"embedders": {
            "a": {"source": "openAi", "apiKey": "sk-abXXXXXX..."},
            "b": {"source": "rest", "apiKey": "real"},
            "c": {"source": "composite", "searchEmbedder": {"apiKey": "XXX..."}, "indexingEmbedder": {}},
        }});
        assert_eq!(without_hidden_keys(&mut settings), ["a", "c"]);
        assert_eq!(
            settings,
            json!({"embedders": {
                "a": {"source": "openAi"},
                "b": {"source": "rest", "apiKey": "real"},
                "c": {"source": "composite", "searchEmbedder": {}, "indexingEmbedder": {}},
            }})
        );
        assert!(without_hidden_keys(&mut json!({"embedders": null})).is_empty());
    }

    #[test]
    fn embedders_that_only_the_cluster_has_are_removed() {
        let mut settings = json!({"embedders": {"a": {"dimensions": 2}}});
        remove_others(&mut settings, &json!({"embedders": {"a": {}, "b": {}}}));
        assert_eq!(
            settings,
            json!({"embedders": {"a": {"dimensions": 2}, "b": null}})
        );
        let mut none = json!({"stopWords": []});
        remove_others(&mut none, &json!({"embedders": {}}));
        assert_eq!(none["embedders"], json!({}));
        remove_others(&mut none, &json!({}));
    }
}
