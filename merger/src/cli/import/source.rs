//! A running server, as it is read: the source of an import, and the cluster when the two are compared.
//!
//! A server that is away for a moment, or has too much to do, is asked again for a while.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::digest::id_in;
use super::error::ImportError;
use crate::cli::remote::{Remote, RemoteError, whole};

/// How long a server may give no usable answer before the import ends.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The largest page that is read, in bytes. Pages are planned to be as large as a batch.
const MAX_PAGE_BYTES: usize = 256 << 20;
/// The code of an answer that is larger.
const TOO_LARGE: &str = "answer_too_large";
/// How many indexes, keys or tasks are asked for at once.
const LIST: u64 = 1000;
/// How many documents are asked for by id at once.
pub(super) const IDS: usize = 500;

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that is read.
    Source,
    /// The one that is written to.
    Target,
}

impl Side {
    pub(super) fn error(self, error: RemoteError) -> ImportError {
        match self {
            Self::Source => ImportError::Source(error),
            Self::Target => ImportError::Target(error),
        }
    }
}

/// A server.
#[derive(Debug, Clone)]
pub(super) struct Server {
    side: Side,
    remote: Remote,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    /// Its name.
    pub(super) uid: String,
    /// Its primary key, if it has one yet.
    pub(super) primary_key: Option<String>,
}

/// A page of documents.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    /// The documents.
    pub(super) results: Vec<Box<RawValue>>,
    /// How many there are on all pages.
    pub(super) total: u64,
}

/// A task of a server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Task {
    /// Its number.
    pub(super) uid: u64,
    /// Its index, if it has one.
    #[serde(default)]
    pub(super) index_uid: Option<String>,
    /// `enqueued`, `processing`, `succeeded`, `failed`, `canceled`.
    pub(super) status: String,
    /// What it does.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// More about it.
    #[serde(default)]
    pub(super) details: Value,
    /// Why it failed.
    #[serde(default)]
    pub(super) error: Value,
    /// When it was given.
    #[serde(default)]
    pub(super) enqueued_at: String,
}

impl Task {
    /// Whether nothing will come of it any more.
    pub(super) fn has_ended(&self) -> bool {
        !matches!(self.status.as_str(), "enqueued" | "processing")
    }
}

/// Which part of a list of tasks is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tasks {
    /// The newest one.
    Newest,
    /// The oldest one that has not ended.
    OldestOpen,
    /// From this one backwards.
    From(u64),
}

#[derive(Deserialize)]
struct List<T> {
    results: Vec<T>,
    #[serde(default)]
    total: u64,
}

impl Server {
    pub(super) fn new(side: Side, remote: Remote) -> Self {
        Self { side, remote }
    }

    /// The server's URL, without a password.
    pub(super) fn name(&self) -> String {
        let mut url = self.remote.url().clone();
        // Fails only for URLs that have no host, which are none of a server.
        let _ = url.set_password(None);
        url.to_string()
    }

    /// Asks once whether somebody is there, so that a wrong address is told at once.
    pub(super) async fn probe(&self) -> Result<(), ImportError> {
        let health = self.once(Method::GET, "/health", None).await;
        health.map(drop).map_err(|error| self.side.error(error))
    }

    /// All indexes.
    pub(super) async fn indexes(&self) -> Result<Vec<Index>, ImportError> {
        self.list("/indexes").await
    }

    /// All keys.
    pub(super) async fn keys(&self) -> Result<Vec<Map<String, Value>>, ImportError> {
        self.list("/keys").await
    }

    async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ImportError> {
        let mut all = Vec::new();
        loop {
            let path = format!("{path}?offset={}&limit={LIST}", all.len());
            let mut page: List<T> = self.typed(&path, "results").await?;
            let count = page.results.len();
            all.append(&mut page.results);
            if count == 0 || all.len() as u64 >= page.total {
                return Ok(all);
            }
        }
    }

    /// Some tasks, newest first, or the oldest open one.
    pub(super) async fn tasks(&self, which: Tasks) -> Result<Vec<Task>, ImportError> {
        let path = match which {
            Tasks::Newest => "/tasks?limit=1".to_owned(),
            Tasks::OldestOpen => {
                "/tasks?statuses=enqueued,processing&reverse=true&limit=1".to_owned()
            }
            Tasks::From(uid) => format!("/tasks?from={uid}&limit={LIST}"),
        };
        let list: List<Task> = self.typed(&path, "results").await?;
        Ok(list.results)
    }

    /// One task.
    pub(super) async fn task(&self, uid: u64) -> Result<Task, ImportError> {
        self.typed(&format!("/tasks/{uid}"), "uid").await
    }

    /// An index's settings.
    pub(super) async fn settings(&self, index: &str) -> Result<Value, ImportError> {
        self.ask(Method::GET, &format!("/indexes/{index}/settings"), None)
            .await
    }

    /// How many documents an index has.
    pub(super) async fn count(&self, index: &str) -> Result<u64, ImportError> {
        let path = format!("/indexes/{index}/stats");
        let stats = self.ask(Method::GET, &path, None).await?;
        let count = stats.get("numberOfDocuments").and_then(Value::as_u64);
        count.ok_or_else(|| self.shape(&path, "numberOfDocuments"))
    }

    /// One page of an index's documents, in the server's order, with their vectors. It has fewer documents than asked for if
    /// these are too large.
    pub(super) async fn page(
        &self,
        index: &str,
        offset: u64,
        mut limit: u64,
    ) -> Result<Page, ImportError> {
        loop {
            match self.page_of(index, offset, limit).await {
                Err(
                    ImportError::Source(RemoteError::Refused { code, .. })
                    | ImportError::Target(RemoteError::Refused { code, .. }),
                ) if code == TOO_LARGE && limit > 1 => limit = (limit / 8).max(1),
                page => return page,
            }
        }
    }

    async fn page_of(&self, index: &str, offset: u64, limit: u64) -> Result<Page, ImportError> {
        let body = json!({"offset": offset, "limit": limit, "retrieveVectors": true});
        match self.fetch(index, &body).await {
            // Before vectors were stable, a server may not know them, and then has none.
            Err(ImportError::Source(RemoteError::Refused { code, .. }))
                if code == "feature_not_enabled" || code == "bad_request" =>
            {
                let body = json!({"offset": offset, "limit": limit});
                self.fetch(index, &body).await
            }
            page => page,
        }
    }

    /// One page of ids.
    pub(super) async fn ids(
        &self,
        index: &str,
        primary_key: &str,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<String>, ImportError> {
        let body = json!({"offset": offset, "limit": limit, "fields": [primary_key]});
        let page = self.fetch(index, &body).await?;
        let id = |document: &RawValue| {
            let fields: Map<String, Value> = serde_json::from_str(document.get()).ok()?;
            id_in(&fields, primary_key)
        };
        let ids = page.results.iter().filter_map(|document| id(document));
        Ok(ids.collect())
    }

    /// Those of these documents that exist, with their vectors; [`IDS`] at most.
    pub(super) async fn documents_of(
        &self,
        index: &str,
        ids: &[String],
    ) -> Result<Vec<Box<RawValue>>, ImportError> {
        let body = json!({"ids": ids, "limit": ids.len(), "retrieveVectors": true});
        match self.fetch(index, &body).await {
            // Older servers know no `ids`.
            Err(ImportError::Source(RemoteError::Refused { code, .. }))
                if code == "bad_request" =>
            {
                self.one_by_one(index, ids).await
            }
            page => Ok(page?.results),
        }
    }

    async fn one_by_one(
        &self,
        index: &str,
        ids: &[String],
    ) -> Result<Vec<Box<RawValue>>, ImportError> {
        let mut found = Vec::new();
        for id in ids {
            let path = format!("/indexes/{index}/documents/{id}");
            match self.raw(Method::GET, &path, None).await {
                Ok(bytes) => found.push(self.parse(&path, &bytes, "id")?),
                Err(RemoteError::Refused { code, .. }) if code == "document_not_found" => {}
                Err(error) => return Err(self.side.error(error)),
            }
        }
        Ok(found)
    }

    async fn fetch(&self, index: &str, body: &Value) -> Result<Page, ImportError> {
        let path = format!("/indexes/{index}/documents/fetch");
        let answer = self.raw(Method::POST, &path, Some(body)).await;
        let bytes = answer.map_err(|error| self.side.error(error))?;
        self.parse(&path, &bytes, "results")
    }

    async fn typed<T: DeserializeOwned>(
        &self,
        path: &str,
        field: &'static str,
    ) -> Result<T, ImportError> {
        let answer = self.raw(Method::GET, path, None).await;
        let bytes = answer.map_err(|error| self.side.error(error))?;
        self.parse(path, &bytes, field)
    }

    fn parse<T: DeserializeOwned>(
        &self,
        path: &str,
        bytes: &[u8],
        field: &'static str,
    ) -> Result<T, ImportError> {
        serde_json::from_slice(bytes).map_err(|_| self.shape(path, field))
    }

    pub(super) fn shape(&self, path: &str, field: &'static str) -> ImportError {
        ImportError::Shape {
            server: self.name(),
            path: path.to_owned(),
            field,
        }
    }

    /// Any request with a JSON answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ImportError> {
        let answer = self.raw(method, path, body).await;
        let bytes = answer.map_err(|error| self.side.error(error))?;
        match bytes.is_empty() {
            true => Ok(Value::Null),
            false => self.parse(path, &bytes, "a body"),
        }
    }

    async fn raw(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, RemoteError> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.send(method, path, body.map(|body| ("application/json", body)))
            .await
    }

    /// Any request, asked again for a while where that helps.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<Bytes, RemoteError> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.once(method.clone(), path, body.clone()).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => error,
            };
            if !passes(&error) || begun.elapsed() >= PATIENCE {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Any request, once.
    pub(super) async fn once(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<Bytes, RemoteError> {
        let (kind, body) = match body {
            Some((kind, bytes)) => (Some(kind), bytes),
            None => (None, Bytes::new()),
        };
        let url = self.remote.url().clone();
        let broken = |cause: String| RemoteError::Unreachable {
            url: url.clone(),
            cause,
        };
        let exchange = async {
            let answer = self.remote.send(method, path, kind, whole(body)).await?;
            let (head, body) = answer.into_parts();
            let read = Limited::new(body, MAX_PAGE_BYTES).collect().await;
            let bytes = read.map_err(|error| match error.is::<LengthLimitError>() {
                true => too_large(),
                false => broken(error.to_string()),
            })?;
            let bytes = bytes.to_bytes();
            Ok::<_, RemoteError>((head.status, bytes))
        };
        let (status, bytes) = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| broken(format!("no answer within {} s", TIMEOUT.as_secs())))??;
        match status.is_success() {
            true => Ok(bytes),
            false => Err(refusal(status, &bytes)),
        }
    }
}

/// Whether an error may pass by itself.
fn passes(error: &RemoteError) -> bool {
    match error {
        RemoteError::Unreachable { .. } | RemoteError::TimedOut { .. } => true,
        RemoteError::Refused { status, .. } => matches!(
            *status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
        _ => false,
    }
}

fn too_large() -> RemoteError {
    RemoteError::Refused {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        code: TOO_LARGE.to_owned(),
        message: format!("the answer has more than {MAX_PAGE_BYTES} bytes"),
    }
}

fn refusal(status: StatusCode, bytes: &[u8]) -> RemoteError {
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |field: &str| body.get(field).and_then(Value::as_str);
    RemoteError::Refused {
        status,
        code: text("code").unwrap_or("no code").to_owned(),
        message: text("message").map_or_else(
            || format!("the answer is {status}: is it a Meilisearch?"),
            str::to_owned,
        ),
    }
}
