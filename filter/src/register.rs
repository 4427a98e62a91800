//! Registers direct writes: a node's answer carries the node's own task uid, but the client must see the cluster's.
//!
//! The filter reports the node's task to the merger (`POST /_weft/register`), receives the cluster's uid, and puts it into
//! the answer in place of the node's. If that fails, the client gets a 503: the write may have happened and can safely be
//! sent again, but nobody could follow its task.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use weft_routing::ShardId;

/// The path for registrations.
pub const PATH: &str = "/_weft/register";

/// The largest answer that is read: no summary of a task is longer.
pub const MAX_ANSWER_BYTES: u32 = 16 * 1024;

/// The answer of a node to a write that it accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct NodeAnswer(Map<String, Value>);

impl NodeAnswer {
    /// Reads the answer; `None` if it isn't the summary of a task.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let answer: Map<String, Value> = serde_json::from_slice(body).ok()?;
        answer.get("taskUid")?.as_u64()?;
        Some(Self(answer))
    }

    /// The body of the request to the merger.
    #[must_use]
    pub fn registration(&self, shard: ShardId) -> String {
        let field = |name: &str| self.0.get(name).cloned().unwrap_or(Value::Null);
        json!({
            "shard": shard,
            "taskUid": field("taskUid"),
            "indexUid": field("indexUid"),
            "type": field("type"),
            "enqueuedAt": field("enqueuedAt"),
        })
        .to_string()
    }

    /// The answer for the client.
    #[must_use]
    pub fn with_task_uid(mut self, task_uid: u64) -> String {
        if let Some(field) = self.0.get_mut("taskUid") {
            *field = Value::from(task_uid);
        }
        Value::Object(self.0).to_string()
    }
}

/// The cluster's task uid in the merger's answer.
#[must_use]
pub fn task_uid(status: u16, body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Registered<'a> {
        #[serde(borrow)]
        task_uid: &'a RawValue,
    }
    let registered: Registered<'_> = serde_json::from_slice(body).ok()?;
    registered
        .task_uid
        .get()
        .parse()
        .ok()
        .filter(|_| (200..300).contains(&status))
}

/// The client's answer if the registration failed, with status 503.
#[must_use]
pub fn failure() -> String {
    json!({
        "message": "The write was handed to its shard, but its task could not be registered. Sending the same write again is safe.",
        "code": "internal",
        "type": "internal",
        "link": "https://docs.meilisearch.com/errors#internal",
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"taskUid":17,"indexUid":"movies","status":"enqueued","type":"documentAdditionOrUpdate","enqueuedAt":"2025-01-01T00:00:00Z"}"#;

    #[test]
    fn the_merger_is_told_what_it_must_follow() {
        let registration = NodeAnswer::parse(ANSWER.as_bytes())
            .unwrap()
            .registration(ShardId(3));
        assert_eq!(
            registration,
            r#"{"shard":3,"taskUid":17,"indexUid":"movies","type":"documentAdditionOrUpdate","enqueuedAt":"2025-01-01T00:00:00Z"}"#
        );
    }

    #[test]
    fn only_the_task_uid_changes() {
        let answer = NodeAnswer::parse(ANSWER.as_bytes())
            .unwrap()
            .with_task_uid(123);
        assert_eq!(answer, ANSWER.replace("\"taskUid\":17", "\"taskUid\":123"));
    }

    #[test]
    fn what_is_no_summary_of_a_task_is_refused() {
        for body in [
            "",
            "{}",
            "[]",
            "{\"taskUid\":\"17\"}",
            "{\"taskUid\":-1}",
            "{\"taskUid\":17",
        ] {
            assert_eq!(NodeAnswer::parse(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn the_clusters_uid_counts_only_with_a_success() {
        assert_eq!(task_uid(200, b"{\"taskUid\":123}"), Some(123));
        assert_eq!(task_uid(201, b"{\"taskUid\":0,\"more\":[]}"), Some(0));
        assert_eq!(task_uid(500, b"{\"taskUid\":123}"), None);
        for body in [
            "",
            "{}",
            "{\"taskUid\":\"a\"}",
            "{\"taskUid\":1.5}",
            "{\"taskUid\":-1}",
        ] {
            assert_eq!(task_uid(200, body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn the_failure_has_meilisearchs_shape() {
        let failure: Map<String, Value> = serde_json::from_str(&failure()).unwrap();
        let keys: Vec<_> = failure.keys().map(String::as_str).collect();
        assert_eq!(keys, ["message", "code", "type", "link"]);
    }
}
