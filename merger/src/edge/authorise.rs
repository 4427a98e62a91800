//! Who may do what: a node's rules, for what the merger answers or changes itself.
//!
//! Reads that a node answers carry the client's own key to the node, which judges it again; tenant tokens, which are
//! for searching only, are judged there alone.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use time::OffsetDateTime;
use tokio::time::Instant;
use weft_routing::operation::Operation;

use super::errors::ApiError;
use crate::app::App;
use crate::call::{Call, Grant};
use crate::clock::now_utc;
use crate::upstream::{NodeRequest, Target, UpstreamError};

/// How old the list of keys may be. Changes made through Weft are seen at once.
const FRESH: Duration = Duration::from_secs(5);
/// How soon an unknown key makes the list be read again.
const AGAIN: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(5);

/// The API keys as a node lists them.
#[derive(Default)]
pub struct Keys {
    known: RwLock<Known>,
    reading: tokio::sync::Mutex<()>,
    changing: tokio::sync::Mutex<()>,
}

#[derive(Default, Clone)]
struct Known {
    by_value: Arc<HashMap<String, Key>>,
    read_at: Option<Instant>,
    /// How often the list was forgotten.
    forgotten: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    key: String,
    actions: Vec<String>,
    indexes: Vec<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}

#[derive(Deserialize)]
struct KeyList {
    results: Vec<Key>,
}

impl Keys {
    /// Whoever changes keys on several nodes does so alone: who compares the nodes meanwhile would undo it on some.
    pub async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Forgets the list: a key was changed.
    pub fn forget(&self) {
        let mut known = self.write();
        known.read_at = None;
        known.forgotten += 1;
    }

    /// The keys, read again when the list is older than `fresh`.
    async fn fresh<R>(
        &self,
        fresh: Duration,
        read: impl Fn() -> R,
    ) -> Result<Arc<HashMap<String, Key>>, UpstreamError>
    where
        R: Future<Output = Result<HashMap<String, Key>, UpstreamError>>,
    {
        if let Some(known) = self.newer_than(fresh) {
            return Ok(known);
        }
        let _reading = self.reading.lock().await;
        if let Some(known) = self.newer_than(fresh) {
            return Ok(known);
        }
        loop {
            let forgotten = self.write().forgotten;
            let keys = Arc::new(read().await?);
            let mut known = self.write();
            // What was read before a change may not pass for what is after it.
            if known.forgotten == forgotten {
                known.by_value = Arc::clone(&keys);
                known.read_at = Some(Instant::now());
                return Ok(keys);
            }
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn newer_than(&self, fresh: Duration) -> Option<Arc<HashMap<String, Key>>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .read_at
            .filter(|at| at.elapsed() < fresh)
            .map(|_| Arc::clone(&known.by_value))
    }
}

/// Any shard's list of keys: they are the same on all.
async fn read(app: &App) -> Result<HashMap<String, Key>, UpstreamError> {
    let mut last = None;
    for shard in app.cluster.shards() {
        let target = Target::Shard(shard);
        let request = NodeRequest::new(
            target.clone(),
            Method::GET,
            "/keys?limit=1000",
            &app.own_authority(),
            TIMEOUT,
        );
        match app.upstream.send(request).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                match serde_json::from_slice::<KeyList>(&answer.body) {
                    Ok(list) => {
                        return Ok(list
                            .results
                            .into_iter()
                            .map(|key| (key.key.clone(), key))
                            .collect());
                    }
                    Err(error) => {
                        last = Some(UpstreamError::Unreachable {
                            target,
                            detail: error.to_string(),
                        })
                    }
                }
            }
            Ok(answer) => {
                let detail = format!(
                    "its list of keys is refused to the master key: {}",
                    answer.status
                );
                last = Some(UpstreamError::Unreachable { target, detail });
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or(UpstreamError::Unreachable {
        target: Target::Shard(weft_routing::placement::ShardId(0)),
        detail: "no shard is known yet".to_owned(),
    }))
}

/// Judges the client's key for a call, and says which indexes it is for.
pub(super) async fn authorise(app: &App, call: &Call) -> Result<Grant, ApiError> {
    let Some(master) = app.options.master_key.as_deref() else {
        return Ok(Grant::all());
    };
    let Some(action) = required_action(call.operation) else {
        return Ok(Grant::all());
    };
    let Some(header) = call.header("authorization") else {
        return Err(ApiError::missing_authorization());
    };
    // As a node reads it: one space, and all that follows is the key.
    let token = match header.split_once(' ') {
        Some(("Bearer", token)) => token,
        None if header == "Bearer" => return Err(ApiError::invalid_key()),
        _ => return Err(ApiError::missing_authorization()),
    };
    if bool::from(token.as_bytes().ct_eq(master.as_bytes())) {
        return Ok(Grant::all());
    }
    if action == MASTER_ONLY {
        return Err(ApiError::invalid_key());
    }
    let read = || read(app);
    let mut keys = app.keys.fresh(FRESH, read).await?;
    if !keys.contains_key(token) {
        keys = app.keys.fresh(AGAIN, read).await?;
    }
    let key = keys.get(token).ok_or_else(ApiError::invalid_key)?;
    let expired = key.expires_at.is_some_and(|at| at <= now_utc());
    let grant = Grant::of(key.indexes.clone());
    let for_index = match call.index.as_deref() {
        Some(uid) => grant.allows(uid),
        None => grant.sees_all() || minds_indexes(action),
    };
    if expired || !for_index || !key.actions.iter().any(|granted| covers(granted, action)) {
        return Err(ApiError::invalid_key());
    }
    Ok(grant)
}

/// `*`, `documents.*` and `*.get` stand for more than themselves, as on a node.
fn covers(granted: &str, action: &str) -> bool {
    match granted {
        "*" => true,
        "*.get" => reads(action),
        // Editing by a function may do anything to a document: a node asks for all actions.
        "documents.*" if action == EDIT => false,
        _ => {
            let family = granted
                .strip_suffix('*')
                .filter(|family| family.ends_with('.'));
            granted == action || family.is_some_and(|family| action.starts_with(family))
        }
    }
}

const EDIT: &str = "documents.edit";

/// What `*.get` stands for, among it what isn't named so; not the keys, with which one could be anybody.
fn reads(action: &str) -> bool {
    match action {
        "search" | "export" | "version" | "fields.post" => true,
        "keys.get" => false,
        _ => action.ends_with(".get"),
    }
}

/// Whether a key that is for some indexes may do something that names none in its path: where the answer shows, or the change
/// concerns, those indexes only.
fn minds_indexes(action: &str) -> bool {
    matches!(
        action,
        "indexes.create"
            | "indexes.swap"
            | "tasks.get"
            | "tasks.cancel"
            | "tasks.delete"
            | "chatCompletions"
    )
}

/// No key but the master key will do.
const MASTER_ONLY: &str = "";

/// The action that a key needs. `None`: a node is asked with the client's own key and judges it.
fn required_action(operation: Operation) -> Option<&'static str> {
    use Operation as Op;
    Some(match operation {
        Op::SearchGet
        | Op::SearchPost
        | Op::MultiSearch
        | Op::FacetSearch
        | Op::SimilarGet
        | Op::SimilarPost
        | Op::ListDocuments
        | Op::FetchDocuments
        | Op::GetDocument
        | Op::GetSettings
        | Op::GetSetting(_)
        | Op::ListKeys
        | Op::GetKey
        | Op::GetFeatures
        | Op::Version
        | Op::ListIndexes
        | Op::GetIndex
        | Op::ListFields
        | Op::IndexStats
        | Op::Stats
        | Op::ListChats
        | Op::GetChat
        | Op::GetChatSettings
        | Op::RenderTemplate
        | Op::Health
        | Op::Internal => return None,
        Op::ReplaceDocuments | Op::UpdateDocuments => "documents.add",
        Op::ClearDocuments
        | Op::DeleteDocument
        | Op::DeleteDocumentsBatch
        | Op::DeleteDocumentsByFilter => "documents.delete",
        Op::EditDocuments => EDIT,
        Op::CreateIndex => "indexes.create",
        Op::UpdateIndex => "indexes.update",
        Op::DeleteIndex => "indexes.delete",
        Op::CompactIndex => "indexes.compact",
        Op::SwapIndexes => "indexes.swap",
        Op::UpdateSettings | Op::ResetSettings | Op::UpdateSetting(_) | Op::ResetSetting(_) => {
            "settings.update"
        }
        Op::ListTasks | Op::GetTask | Op::GetTaskDocuments | Op::ListBatches | Op::GetBatch => {
            "tasks.get"
        }
        Op::CancelTasks => "tasks.cancel",
        Op::DeleteTasks => "tasks.delete",
        Op::CompactTasks => "tasks.compact",
        Op::CreateKey => "keys.create",
        Op::UpdateKey => "keys.update",
        Op::DeleteKey => "keys.delete",
        Op::UpdateFeatures => "experimental.update",
        Op::CreateDump => "dumps.create",
        Op::CreateSnapshot => "snapshots.create",
        Op::Export => "export",
        Op::Metrics | Op::UpdateLogTarget | Op::StreamLogs | Op::CancelLogStream => "metrics.get",
        Op::GetNetwork => "network.get",
        Op::UpdateNetwork | Op::ControlNetwork => "network.update",
        Op::ListWebhooks | Op::GetWebhook => "webhooks.get",
        Op::CreateWebhook => "webhooks.create",
        Op::UpdateWebhook => "webhooks.update",
        Op::DeleteWebhook => "webhooks.delete",
        Op::CompleteChat => "chatCompletions",
        Op::DeleteChat => "chats.delete",
        Op::UpdateChatSettings | Op::ResetChatSettings => "chatsSettings.update",
        Op::ListSearchRules | Op::GetSearchRule => "dynamicSearchRules.get",
        Op::UpdateSearchRule => "dynamicSearchRules.update",
        Op::ClearSearchRules | Op::DeleteSearchRule => "dynamicSearchRules.delete",
        Op::IndexShards | Op::Cluster => MASTER_ONLY,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn listed(name: &str) -> HashMap<String, Key> {
        let key = Key {
            key: name.to_owned(),
            actions: Vec::new(),
            indexes: Vec::new(),
            expires_at: None,
        };
        [(name.to_owned(), key)].into()
    }

    #[tokio::test]
    async fn a_list_that_was_read_while_a_key_changed_is_read_again() {
        let (keys, reads) = (Keys::default(), Cell::new(0));
        let read = || {
            reads.set(reads.get() + 1);
            let first = reads.get() == 1;
            if first {
                keys.forget();
            }
            async move { Ok(listed(if first { "old" } else { "new" })) }
        };
        let found = keys.fresh(FRESH, read).await.unwrap();
        assert!(found.contains_key("new"));
        let again = keys.fresh(FRESH, read).await.unwrap();
        assert!(again.contains_key("new"));
        assert_eq!(reads.get(), 2);
    }

    #[test]
    fn an_action_is_covered_by_itself_its_family_and_the_stars() {
        for (granted, action, expected) in [
            ("*", "tasks.get", true),
            ("tasks.get", "tasks.get", true),
            ("tasks.*", "tasks.get", true),
            ("*.get", "tasks.get", true),
            ("*.get", "keys.get", false),
            ("tasks.*", "tasksx.get", false),
            ("tasks.cancel", "tasks.get", false),
            ("documents.*", "documents.add", true),
            ("documents.*", "documents.edit", false),
            ("*", "documents.edit", true),
            ("*.get", "search", true),
            ("*.get", "export", true),
            ("*.get", "documents.add", false),
            ("documents.add", "documents.edit", false),
            ("", "tasks.get", false),
        ] {
            assert_eq!(covers(granted, action), expected, "{granted} {action}");
        }
    }
}
