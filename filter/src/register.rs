//! Registers direct writes: a node's answer carries the node's own task uid, but the client must see the cluster's.
//!
//! The filter reports the node's task to the merger (`POST /_weft/register`), receives the cluster's uid, and puts it into
//! the answer in place of the node's. If that fails, the client gets a 503: the write may have happened and can safely be
//! sent again, but nobody could follow its task.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use weft_routing::ShardId;

/// The path for registrations.
pub const PATH: &str = "/_weft/register";

/// The largest answer that is read: no summary of a task is longer.
pub const MAX_ANSWER_BYTES: u32 = 16 * 1024;

/// The answer of a node to a write that it accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct NodeAnswer {
    text: String,
    /// Where the task uid stands.
    task_uid: Range<usize>,
    /// What the merger wants to know beside the shard.
    members: String,
}

/// The members that matter, as they are written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(borrow)]
    task_uid: &'a RawValue,
    #[serde(borrow)]
    index_uid: Option<&'a RawValue>,
    #[serde(borrow)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow)]
    enqueued_at: Option<&'a RawValue>,
}

impl NodeAnswer {
    /// Reads the answer; `None` if it isn't the summary of a task.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let summary: Summary<'_> = serde_json::from_str(text).ok()?;
        let uid = summary.task_uid.get();
        uid.parse::<u64>().ok()?;
        let start = uid.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
        let raw = |member: Option<&RawValue>| member.map_or("null", RawValue::get).to_owned();
        let members = format!(
            r#""taskUid":{uid},"indexUid":{},"type":{},"enqueuedAt":{}"#,
            raw(summary.index_uid),
            raw(summary.r#type),
            raw(summary.enqueued_at),
        );
        Some(Self {
            task_uid: start..start + uid.len(),
            text: text.to_owned(),
            members,
        })
    }

    /// The body of the request to the merger.
    #[must_use]
    pub fn registration(&self, shard: ShardId) -> String {
        format!(r#"{{"shard":{shard},{}}}"#, self.members)
    }

    /// The answer for the client.
    #[must_use]
    pub fn with_task_uid(mut self, task_uid: u64) -> String {
        self.text
            .replace_range(self.task_uid, &task_uid.to_string());
        self.text
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
    let body = std::str::from_utf8(body).ok()?;
    let registered: Registered<'_> = serde_json::from_str(body).ok()?;
    registered
        .task_uid
        .get()
        .parse()
        .ok()
        .filter(|_| (200..300).contains(&status))
}

/// The client's answer if the registration failed, with status 503.
pub const FAILURE: &str = r#"{"message":"The write was handed to its shard, but its task could not be registered. Sending the same write again is safe.","code":"internal","type":"internal","link":"https://docs.meilisearch.com/errors#internal"}"#;

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
        let spaced = "{ \"a\" : \"17\", \"taskUid\" : 17 , \"b\":[17]}\n";
        let answer = NodeAnswer::parse(spaced.as_bytes()).unwrap();
        let registration = answer.registration(ShardId(0));
        assert_eq!(
            registration,
            r#"{"shard":0,"taskUid":17,"indexUid":null,"type":null,"enqueuedAt":null}"#
        );
        let expected = spaced.replace("\"taskUid\" : 17", "\"taskUid\" : 9");
        assert_eq!(answer.with_task_uid(9), expected);
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
            "{\"taskUid\":17.0}",
            "{\"taskUid\":17,\"taskUid\":18}",
            "{\"indexUid\":\"a\"}",
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
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Failure {
            message: String,
            code: String,
            r#type: String,
            link: String,
        }
        let failure: Failure = serde_json::from_str(FAILURE).unwrap();
        assert!(failure.message.contains("safe"));
        assert_eq!(
            (failure.code.as_str(), failure.r#type.as_str()),
            ("internal", "internal")
        );
        assert!(failure.link.ends_with("#internal"));
    }
}
