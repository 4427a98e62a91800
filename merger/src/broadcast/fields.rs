//! `POST /indexes/{uid}/fields`: the fields of all shards' documents, and how the settings treat each field.
//!
//! A field may be known to a single shard, if only that shard's documents have it. The settings are the same everywhere, so the
//! first shard's answer about a field is as good as any other's.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::BroadcastError;
use super::gather::{Gathered, from_all, shards_of};
use super::spread::NodeChange;
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::call::Call;

/// More fields than an index can have: the merger asks for all and pages the merged list itself.
const ALL_FIELDS: usize = 1 << 20;
const DEFAULT_LIMIT: usize = 20;

pub(super) async fn list(ctx: &Arc<Context>, call: Call) -> Result<Answer, BroadcastError> {
    let shards = shards_of(ctx, &call)?;
    let placed = call
        .index
        .as_deref()
        .and_then(|uid| ctx.cluster.placement(uid));
    let request = NodeChange::of(ctx, call).await?;
    let page = serde_json::from_slice::<Map<String, Value>>(&request.body)
        .ok()
        .and_then(|mut asked| {
            let offset = number(asked.remove("offset"), 0)?;
            let limit = number(asked.remove("limit"), DEFAULT_LIMIT)?;
            Some((asked, offset, limit))
        });
    let (Some((mut asked, offset, limit)), Some(_)) = (page, placed) else {
        // A node words the refusal, whether of the body or of the index.
        let first = shards.get(..1).unwrap_or_default();
        return Ok(match from_all(ctx, &request, first).await? {
            Gathered::Refused(answer) => answer,
            Gathered::All(all) => {
                let value = all.into_iter().next().map(|(_, value)| value);
                Answer::json(StatusCode::OK, &value)
            }
        });
    };
    asked.insert("limit".to_owned(), Value::from(ALL_FIELDS));
    let request = request.with_body(&Value::Object(asked));
    let lists = match from_all(ctx, &request, &shards).await? {
        Gathered::Refused(answer) => return Ok(answer),
        Gathered::All(lists) => lists,
    };
    let mut fields: BTreeMap<String, Value> = BTreeMap::new();
    for (_, mut list) in lists {
        let results = list.get_mut("results").map(Value::take);
        let Some(Value::Array(results)) = results else {
            continue;
        };
        for field in results {
            let name = field.get("name").and_then(Value::as_str);
            let name = name.unwrap_or_default().to_owned();
            fields.entry(name).or_insert(field);
        }
    }
    let total = fields.len();
    let results: Vec<Value> = fields.into_values().skip(offset).take(limit).collect();
    let body = json!({"results": results, "offset": offset, "limit": limit, "total": total});
    Ok(Answer::json(StatusCode::OK, &body))
}

/// Reads a number of the body; `None` for a value that a node refuses.
fn number(value: Option<Value>, default: usize) -> Option<usize> {
    match value {
        None => Some(default),
        Some(value) => usize::try_from(value.as_u64()?).ok(),
    }
}
