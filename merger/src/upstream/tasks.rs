//! Reads a node's list of tasks.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{NodeRequest, Target, Upstream, UpstreamError};
use crate::call::ForwardedHeaders;

/// Why a node's list of tasks could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TaskListError {
    /// The node gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The node answered something else than 200.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// The answer is no list of tasks.
    #[error(transparent)]
    Unreadable(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct TaskList<T> {
    results: Vec<T>,
}

impl Upstream {
    /// `GET /tasks?{query}` of one node; `T` is what the caller wants to know of each task.
    ///
    /// # Errors
    /// The node doesn't answer within `timeout`, or not with a list of tasks.
    pub async fn tasks<T: DeserializeOwned>(
        &self,
        node: SocketAddr,
        query: &str,
        authority: &ForwardedHeaders,
        timeout: Duration,
    ) -> Result<Vec<T>, TaskListError> {
        let path = format!("/tasks?{query}");
        let request = NodeRequest::new(Target::Node(node), Method::GET, path, authority, timeout);
        let answer = self.send(request).await?;
        if answer.status != StatusCode::OK {
            return Err(TaskListError::Status(answer.status));
        }
        let list: TaskList<T> = serde_json::from_slice(&answer.body)?;
        Ok(list.results)
    }
}
