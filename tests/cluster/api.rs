//! Meilisearch's API without a client library: requests are sent exactly as tests write them.
#![allow(
    clippy::indexing_slicing,
    reason = "indexing JSON by a name that it lacks gives null"
)]

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::{Deadline, HarnessError};

/// How long a task may take.
const TASK_DEADLINE: Duration = Duration::from_secs(300);
/// How often a task is polled: as often as the official clients do it.
const POLL: Duration = Duration::from_millis(20);

/// One node or one cluster, by its URL.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    key: Option<String>,
    http: reqwest::Client,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as JSON; `null` if it isn't JSON.
    pub body: Value,
    /// The body as text.
    pub text: String,
}

impl Reply {
    /// The value at a JSON pointer; `null` if there is none.
    pub fn at(&self, pointer: &str) -> &Value {
        self.body.pointer(pointer).unwrap_or(&Value::Null)
    }
}

impl Api {
    /// Makes a client for `base` (`http://host:port`) with a key.
    pub fn new(base: impl Into<String>, key: Option<&str>) -> Self {
        Self {
            base: base.into(),
            key: key.map(str::to_owned),
            http: reqwest::Client::new(),
        }
    }

    /// The same client with another key.
    #[must_use]
    pub fn with_key(&self, key: Option<&str>) -> Self {
        Self {
            key: key.map(str::to_owned),
            ..self.clone()
        }
    }

    /// The base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET`.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn get(&self, path: &str) -> Result<Reply, HarnessError> {
        self.send(Method::GET, path, &[], Vec::new()).await
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn delete(&self, path: &str) -> Result<Reply, HarnessError> {
        self.send(Method::DELETE, path, &[], Vec::new()).await
    }

    /// Any method with a JSON body.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Reply, HarnessError> {
        self.send(
            method,
            path,
            &[("content-type", "application/json")],
            body.to_string().into_bytes(),
        )
        .await
    }

    /// `POST` with a JSON body.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply, HarnessError> {
        self.json(Method::POST, path, body).await
    }

    /// Any request.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Reply, HarnessError> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .body(body);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(*name), HeaderValue::from_str(value))
            {
                request = request.header(name, value);
            }
        }
        let failed = |error: reqwest::Error| HarnessError::NoAnswer {
            url: format!("{}{path}", self.base),
            source: error,
        };
        let response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.map_err(failed)?;
        Ok(Reply {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        })
    }

    /// Waits for the task of a 202 answer and returns it when it has settled, whether it succeeded or failed.
    ///
    /// # Errors
    /// The answer names no task, or the task doesn't settle in time.
    pub async fn settle(&self, accepted: &Reply) -> Result<Value, HarnessError> {
        let Some(uid) = accepted.at("/taskUid").as_u64() else {
            return Err(HarnessError::NoTask {
                status: accepted.status,
                text: accepted.text.clone(),
            });
        };
        let deadline = Deadline::after(TASK_DEADLINE);
        loop {
            let task = self.get(&format!("/tasks/{uid}")).await?;
            match task.at("/status").as_str() {
                Some("succeeded" | "failed" | "canceled") => return Ok(task.body),
                _ if deadline.passed() => {
                    return Err(HarnessError::NoTask {
                        status: task.status,
                        text: task.text,
                    });
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Waits for the task of a 202 answer to succeed.
    ///
    /// # Errors
    /// The task didn't succeed.
    pub async fn succeed(&self, accepted: &Reply) -> Result<Value, HarnessError> {
        let task = self.settle(accepted).await?;
        if task
            .get("status")
            .is_some_and(|status| status == "succeeded")
        {
            return Ok(task);
        }
        Err(HarnessError::NoTask {
            status: accepted.status,
            text: task.to_string(),
        })
    }
}
