//! The requests by which a resync reads and changes one node.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::ResyncError;
use crate::call::full;
use crate::cluster::{NewestTask, NodeRef, until};
use crate::repair::Context;
use crate::upstream::{NodeAnswer, NodeRequest, Target};

/// The pauses between checks whether a task is done: short at first, then an eighth of the time that was waited, so that what is
/// done is seen soon.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long one task of a node may take before the resync fails, to be tried again.
const LONGEST_TASK: Duration = Duration::from_secs(1_800);
/// How many documents one request asks for by id.
const IDS_A_REQUEST: usize = 500;

/// A node that a resync or a comparison talks to.
pub(crate) struct Remote<'a> {
    ctx: &'a Context,
    node: &'a NodeRef,
}

/// An index, as `GET /indexes` lists it.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) uid: String,
    pub(crate) primary_key: Option<String>,
}

#[derive(Deserialize)]
struct List<T> {
    results: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Enqueued {
    task_uid: u32,
}

#[derive(Deserialize)]
struct Task {
    uid: u32,
    status: String,
    error: Option<Value>,
}

impl<'a> Remote<'a> {
    pub(crate) fn new(ctx: &'a Context, node: &'a NodeRef) -> Self {
        Self { ctx, node }
    }

    /// All indexes.
    pub(crate) async fn indexes(&self) -> Result<Vec<Index>, ResyncError> {
        let list: List<Index> = self.get("/indexes?limit=1000000").await?;
        Ok(list.results)
    }

    /// One page of an index's documents, in the node's order, with their vectors.
    pub(crate) async fn documents(
        &self,
        index: &str,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<Box<RawValue>>, ResyncError> {
        let body = json!({"offset": offset, "limit": limit, "retrieveVectors": true});
        self.fetch(index, &body).await
    }

    /// One page of an index's documents, in the node's order, with these fields only.
    pub(crate) async fn fields(
        &self,
        index: &str,
        fields: &[&str],
        offset: usize,
        limit: usize,
    ) -> Result<Vec<Box<RawValue>>, ResyncError> {
        let body = json!({"offset": offset, "limit": limit, "fields": fields});
        self.fetch(index, &body).await
    }

    /// The documents with these ids that exist, with their vectors.
    pub(crate) async fn documents_of(
        &self,
        index: &str,
        ids: &[String],
    ) -> Result<Vec<Box<RawValue>>, ResyncError> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS_A_REQUEST) {
            let body = json!({"ids": ids, "limit": ids.len(), "retrieveVectors": true});
            found.extend(self.fetch(index, &body).await?);
        }
        Ok(found)
    }

    /// The documents with these ids that exist, with these fields only.
    pub(crate) async fn fields_of(
        &self,
        index: &str,
        fields: &[&str],
        ids: &[String],
    ) -> Result<Vec<Box<RawValue>>, ResyncError> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS_A_REQUEST) {
            let body = json!({"ids": ids, "limit": ids.len(), "fields": fields});
            found.extend(self.fetch(index, &body).await?);
        }
        Ok(found)
    }

    async fn fetch(&self, index: &str, body: &Value) -> Result<Vec<Box<RawValue>>, ResyncError> {
        let path = format!("/indexes/{index}/documents/fetch");
        let body = Some((body.to_string().into(), "application/json"));
        let answer = self.exchange(Method::POST, &path, body).await?;
        let list: List<Box<RawValue>> = self.read(&path, &answer)?;
        Ok(list.results)
    }

    /// How many documents an index has.
    pub(crate) async fn count(&self, index: &str) -> Result<u64, ResyncError> {
        let stats: Map<String, Value> = self.get(&format!("/indexes/{index}/stats")).await?;
        let count = stats.get("numberOfDocuments").and_then(Value::as_u64);
        count.ok_or_else(|| self.unreadable("numberOfDocuments"))
    }

    /// Reads a path as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ResyncError> {
        let answer = self.exchange(Method::GET, path, None).await?;
        self.read(path, &answer)
    }

    /// Makes a change that creates no task.
    pub(crate) async fn change(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(), ResyncError> {
        let body = Some((body.to_string().into(), "application/json"));
        self.exchange(method, path, body).await.map(drop)
    }

    /// Makes a change that creates a task, and returns the task's local uid.
    pub(crate) async fn enqueue(
        &self,
        method: Method,
        path: &str,
        body: Option<(Bytes, &'static str)>,
    ) -> Result<u32, ResyncError> {
        let answer = self.exchange(method, path, body).await?;
        let enqueued: Enqueued = self.read(path, &answer)?;
        Ok(enqueued.task_uid)
    }

    /// Makes a change that creates a task, and waits until the task is done.
    pub(crate) async fn perform(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(), ResyncError> {
        let body = Some((body.to_string().into(), "application/json"));
        let uid = self.enqueue(method, path, body).await?;
        self.done(uid).await
    }

    /// Waits until a task is done.
    pub(crate) async fn done(&self, uid: u32) -> Result<(), ResyncError> {
        let begun = Instant::now();
        loop {
            let task: Task = self.get(&format!("/tasks/{uid}")).await?;
            match task.status.as_str() {
                "succeeded" => return Ok(()),
                "enqueued" | "processing" => {}
                _ => {
                    return Err(ResyncError::Task {
                        node: self.node.id.clone(),
                        uid,
                        detail: task.error.unwrap_or_default().to_string(),
                    });
                }
            }
            tokio::time::sleep(pause_after(begun)).await;
        }
    }

    /// Waits until the node has finished every task that it has taken so far.
    pub(crate) async fn applied(&self) -> Result<(), ResyncError> {
        self.wait_for_lag().await?;
        let Some(newest) = self.newest_task().await? else {
            return Ok(());
        };
        let begun = Instant::now();
        let mut waits_for = None::<(u32, Instant)>;
        loop {
            let path = "/tasks?statuses=enqueued,processing&limit=1&reverse=true";
            let open: List<Task> = self.get(path).await?;
            let oldest = match open.results.first() {
                Some(oldest) if oldest.uid <= newest => oldest.uid,
                _ => return Ok(()),
            };
            let now = Instant::now();
            match waits_for {
                Some((uid, since)) if uid == oldest && now - since > LONGEST_TASK => {
                    return Err(ResyncError::Task {
                        node: self.node.id.clone(),
                        uid,
                        detail: format!("it has not ended for {} s", LONGEST_TASK.as_secs()),
                    });
                }
                Some((uid, _)) if uid == oldest => {}
                _ => waits_for = Some((oldest, now)),
            }
            tokio::time::sleep(pause_after(begun)).await;
        }
    }

    /// Waits until the node has no lag.
    async fn wait_for_lag(&self) -> Result<(), ResyncError> {
        let queues = &self.ctx.cluster.queues;
        let caught_up = || queues.caught_up(&self.node.id).then_some(());
        let late = |_| ResyncError::Lag(self.node.id.clone());
        tokio::time::timeout(TIMEOUT, until([&queues.changes], caught_up))
            .await
            .map_err(late)
    }

    /// The newest task's local uid.
    pub(crate) async fn newest_task(&self) -> Result<Option<u32>, ResyncError> {
        let newest = self.newest().await?;
        Ok(newest.map(|newest| newest.uid))
    }

    /// The newest task, by which the disk can be identified.
    pub(crate) async fn newest(&self) -> Result<Option<NewestTask>, ResyncError> {
        let list: List<NewestTask> = self.get("/tasks?limit=1").await?;
        Ok(list.results.into_iter().next())
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(Bytes, &'static str)>,
    ) -> Result<NodeAnswer, ResyncError> {
        let target = Target::Node(self.node.address);
        let forwarded = self.ctx.own_authority();
        let mut request = NodeRequest::new(target, method, path, &forwarded, TIMEOUT);
        if let Some((bytes, content_type)) = body {
            request = request
                .header(CONTENT_TYPE, HeaderValue::from_static(content_type))
                .body(full(bytes));
        }
        let answer = self.ctx.upstream.send(request).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let said = String::from_utf8_lossy(&answer.body);
        Err(ResyncError::Refused {
            node: self.node.id.clone(),
            path: path.to_owned(),
            status: answer.status,
            said: said.chars().take(300).collect(),
        })
    }

    fn read<T: DeserializeOwned>(&self, path: &str, answer: &NodeAnswer) -> Result<T, ResyncError> {
        serde_json::from_slice(&answer.body).map_err(|_| self.unreadable(path))
    }

    fn unreadable(&self, what: &str) -> ResyncError {
        ResyncError::Unreadable {
            node: self.node.id.clone(),
            what: what.to_owned(),
        }
    }
}

fn pause_after(begun: Instant) -> Duration {
    (begun.elapsed() / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Whether an error says that an index isn't there.
pub(crate) fn is_missing(error: &ResyncError) -> bool {
    matches!(error, ResyncError::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
}
