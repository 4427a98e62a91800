//! What is written to the cluster, and its tasks.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::error::ImportError;
use super::source::{Server, Task};
use crate::cli::remote::RemoteError;

/// The pauses between checks whether a task is done: short at first, then longer.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The cluster, as it is written to. It is only asked for what a single Meilisearch can, too: that is the way back.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The cluster, as it is read.
    pub(super) server: Server,
}

impl Target {
    /// Makes an index, and waits until it is there. One that is there already is left as it is.
    pub(super) async fn create(
        &self,
        index: &str,
        primary_key: Option<&str>,
    ) -> Result<(), ImportError> {
        let body = json!({"uid": index, "primaryKey": primary_key});
        let uid = self.enqueue(Method::POST, "/indexes", Some(&body)).await?;
        let task = self.ended(uid).await?;
        match task.error.get("code").and_then(Value::as_str) {
            Some("index_already_exists") => Ok(()),
            _ => judged(index, "the creation", &task),
        }
    }

    /// Changes an index or its settings, and waits until it is done.
    pub(super) async fn change(
        &self,
        index: &str,
        what: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(), ImportError> {
        let uid = self.enqueue(method, path, body).await?;
        self.done(index, what, uid).await
    }

    /// Sends documents; returns the task.
    pub(super) async fn documents(
        &self,
        index: &str,
        primary_key: Option<&str>,
        body: Bytes,
    ) -> Result<u64, ImportError> {
        let mut path = format!("/indexes/{index}/documents");
        if let Some(key) = primary_key {
            path.push_str("?primaryKey=");
            path.extend(form_urlencoded::byte_serialize(key.as_bytes()));
        }
        let body = Some(("application/x-ndjson", body));
        let answer = self.server.send(Method::POST, &path, body).await;
        let answer = answer.map_err(ImportError::Target)?;
        self.task_uid(&path, &serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// Deletes documents, and waits until they are gone.
    pub(super) async fn delete(&self, index: &str, ids: &[String]) -> Result<(), ImportError> {
        let path = format!("/indexes/{index}/documents/delete-batch");
        let uid = self.enqueue(Method::POST, &path, Some(&json!(ids))).await?;
        self.done(index, "the deletion of documents", uid).await
    }

    /// Deletes an index, and waits until it is gone.
    pub(super) async fn drop_index(&self, index: &str) -> Result<(), ImportError> {
        let path = format!("/indexes/{index}");
        match self.enqueue(Method::DELETE, &path, None).await {
            Err(ImportError::Target(RemoteError::Refused { code, .. }))
                if code == "index_not_found" =>
            {
                Ok(())
            }
            uid => {
                let task = self.ended(uid?).await?;
                match task.error.get("code").and_then(Value::as_str) {
                    Some("index_not_found") => Ok(()),
                    _ => judged(index, "the deletion", &task),
                }
            }
        }
    }

    async fn enqueue(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<u64, ImportError> {
        let answer = self.server.ask(method, path, body).await?;
        self.task_uid(path, &answer)
    }

    fn task_uid(&self, path: &str, answer: &Value) -> Result<u64, ImportError> {
        let uid = answer.get("taskUid").and_then(Value::as_u64);
        uid.ok_or_else(|| self.server.shape(path, "taskUid"))
    }

    /// Waits until a task has ended well.
    pub(super) async fn done(&self, index: &str, what: &str, uid: u64) -> Result<(), ImportError> {
        judged(index, what, &self.ended(uid).await?)
    }

    async fn ended(&self, uid: u64) -> Result<Task, ImportError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let task = self.server.task(uid).await?;
            if task.has_ended() {
                return Ok(task);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }
}

fn judged(index: &str, what: &str, task: &Task) -> Result<(), ImportError> {
    if task.status == "succeeded" {
        return Ok(());
    }
    let text = |field: &str| task.error.get(field).and_then(Value::as_str);
    Err(ImportError::Refused {
        index: index.to_owned(),
        what: what.to_owned(),
        task: task.uid,
        error: match text("message") {
            Some(message) => format!("{message} ({})", text("code").unwrap_or("no code")),
            None => format!("the task is {}", task.status),
        },
    })
}
