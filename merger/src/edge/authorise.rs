//! Checks what a client may do, by a node's rules, for everything that the merger answers or changes itself.
//!
//! Reads that a node answers carry the client's own key to the node, which checks it again. Tenant tokens are for searching only,
//! and only nodes enforce their rules.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use subtle::ConstantTimeEq;
use weft_routing::operation::Operation;

use super::errors::ApiError;
use super::token::Token;
use crate::answer::Answer;
use crate::call::{Call, Grant};
use crate::clock::now_utc;
use crate::edge::Reading;
use crate::keys::{By, FRESH, JUDGED_AGAIN, Key};
use crate::search::canonical;
use crate::upstream::{NodeRequest, Target, UpstreamError};

/// Checks the client's key for a call, and returns which indexes it is for.
pub(super) async fn authorise(ctx: &Reading, call: &Call) -> Result<Grant, ApiError> {
    let Some(master) = ctx.master_key.as_deref() else {
        return Ok(Grant::all());
    };
    let Some(action) = required_action(call.operation) else {
        return Ok(Grant::all());
    };
    let Some(header) = call.header("authorization") else {
        return Err(ApiError::missing_authorization());
    };
    let token = bearer(header)?;
    if bool::from(token.as_bytes().ct_eq(master.as_bytes())) {
        return Ok(Grant::all());
    }
    if action == MASTER_ONLY {
        return Err(ApiError::invalid_key());
    }
    let key = ctx.keys.find(ctx, By::Value(token), FRESH).await?;
    let key = key.ok_or_else(ApiError::invalid_key)?;
    let grant = Grant::of(key.indexes.clone());
    if let Some(uid) = call.index.as_deref()
        && !grant.allows(uid)
    {
        return Err(ApiError::foreign_index(uid, &key.indexes));
    }
    if !may(&key, action, call.index.as_deref()) {
        return Err(ApiError::invalid_key());
    }
    Ok(grant)
}

/// Reads the header as a node does: after one space, all that follows is the key.
fn bearer(header: &str) -> Result<&str, ApiError> {
    match header.split_once(' ') {
        Some(("Bearer", token)) => Ok(token),
        None if header == "Bearer" => Err(ApiError::invalid_key()),
        _ => Err(ApiError::missing_authorization()),
    }
}

/// Whether a key allows this action on this index, or without an index.
fn may(key: &Key, action: &str, index: Option<&str>) -> bool {
    let grant = Grant::of(key.indexes.clone());
    let for_index = match index {
        Some(uid) => grant.allows(uid),
        None => grant.sees_all() || minds_indexes(action),
    };
    for_index && !key.has_expired() && key.actions.iter().any(|granted| covers(granted, action))
}

/// What the first check of a read's key comes to.
pub(super) enum Door {
    /// The key can't be valid: a node's refusal, in the node's own words.
    Shut(Answer),
    /// A node may accept the key. With all that a search's answer depends on of what the key allows, if that is known.
    Open(Option<String>),
}

/// For a read for which nodes check the key: a first check before the merger works on it. If the node doesn't refuse, its decision
/// counts.
pub(super) async fn judge_at_the_door(ctx: &Reading, call: &Call) -> Result<Door, ApiError> {
    let Some(action) = judged_by_nodes(call.operation) else {
        return Ok(Door::Open(None));
    };
    let unlimited = || Ok(Door::Open(Some(String::new())));
    let Some(master) = ctx.master_key.as_deref() else {
        return unlimited();
    };
    let judged = |refusal: Option<Answer>| refusal.map_or(Door::Open(None), Door::Shut);
    let Some(Ok(token)) = call.header("authorization").map(bearer) else {
        return refusal(ctx, call).await.map(judged);
    };
    if bool::from(token.as_bytes().ct_eq(master.as_bytes())) {
        return unlimited();
    }
    match rights(ctx, token, action, call.index.as_deref()).await {
        Ok(Some(rights)) => Ok(Door::Open(Some(rights))),
        // If no node can be asked about the key, none can be searched either: the search itself will fail or be partial.
        Err(_) => Ok(Door::Open(None)),
        Ok(None) => refusal(ctx, call).await.map(judged),
    }
}

/// What a key or token allows, as a text: the same for all keys that see every index. `None` if it can't be good.
async fn rights(
    ctx: &Reading,
    shown: &str,
    action: &str,
    index: Option<&str>,
) -> Result<Option<String>, UpstreamError> {
    let find = |by, fresh: Duration| ctx.keys.find(ctx, by, fresh);
    let token = Token::read(shown).filter(|_| action == SEARCH);
    let key: Option<Arc<Key>> = match &token {
        Some(token) => {
            let now = now_utc().unix_timestamp();
            let key = find(By::Uid(token.key_uid()), JUDGED_AGAIN).await?;
            key.filter(|key| token.is_good(&key.key, now))
        }
        None => find(By::Value(shown), JUDGED_AGAIN).await?,
    };
    let key = key.filter(|key| may(key, action, index));
    let sees_all = |key: &Key| token.is_none() && Grant::of(key.indexes.clone()).sees_all();
    Ok(key.map(|key| match sees_all(&key) {
        true => String::new(),
        false => {
            let rules = token.as_ref().map(Token::rules);
            canonical(&json!([key.uid, key.indexes, rules]))
        }
    }))
}

/// A node's refusal of the client's key; `None` if the node accepts it, or no node answers.
async fn refusal(ctx: &Reading, call: &Call) -> Result<Option<Answer>, ApiError> {
    let shards = call
        .index
        .as_deref()
        .and_then(|uid| ctx.cluster.placement(uid));
    let shards = shards.map_or_else(
        || ctx.cluster.shards(),
        |placement| placement.shards().to_vec(),
    );
    for shard in shards {
        let request = NodeRequest::new(
            Target::Shard(shard),
            call.method.clone(),
            call.path_and_query.clone(),
            &call.forwarded,
            ctx.search_timeout,
        );
        // If a shard doesn't answer, the next one is asked.
        if let Ok(answer) = ctx.upstream.send(request).await {
            let refused = matches!(answer.status.as_u16(), 401 | 403);
            return Ok(refused.then(|| answer.pass_on()));
        }
    }
    Ok(None)
}

const SEARCH: &str = "search";

/// The action that a node will demand of the key, for operations in which the merger works on its own authority before it asks
/// the node.
fn judged_by_nodes(operation: Operation) -> Option<&'static str> {
    use Operation as Op;
    Some(match operation {
        Op::SearchGet
        | Op::SearchPost
        | Op::MultiSearch
        | Op::FacetSearch
        | Op::SimilarGet
        | Op::SimilarPost => SEARCH,
        Op::ListDocuments | Op::FetchDocuments | Op::GetDocument => "documents.get",
        _ => return None,
    })
}

/// Whether a granted action covers an action. `*`, `documents.*` and `*.get` cover several, as on a node.
fn covers(granted: &str, action: &str) -> bool {
    match granted {
        "*" => true,
        "*.get" => reads(action),
        // Editing by a function may do anything to a document, so a node demands `*` or the exact action.
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

/// The actions that `*.get` covers. Some of them have other names. `keys.get` is not among them: who reads the keys could act
/// with any of them.
fn reads(action: &str) -> bool {
    match action {
        "search" | "export" | "version" | "fields.post" => true,
        "keys.get" => false,
        _ => action.ends_with(".get"),
    }
}

/// Whether a key for some indexes allows an action whose path names no index. It does if the answer shows, or the change
/// concerns, only those indexes.
fn minds_indexes(action: &str) -> bool {
    matches!(
        action,
        "indexes.create"
            | "indexes.swap"
            | "tasks.get"
            | "tasks.cancel"
            | "tasks.delete"
            | "chatCompletions"
            | SEARCH
    )
}

/// Stands for operations that need the master key.
const MASTER_ONLY: &str = "";

/// The action that a key needs. `None` if a node is asked with the client's own key and checks it.
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
    use super::*;

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
