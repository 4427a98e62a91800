//! The cluster's side of a backup, as the client asks for it: `/_cluster/backups…`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::BackupError;
use crate::cli::remote::{Remote, RemoteError, whole};

/// How long one request may take; the cluster answers sooner, if only that it is busy.
const ANSWER: Duration = Duration::from_secs(90);
/// How long another backup is waited for: it ends by itself within a minute if its client is gone.
const OTHER: Duration = Duration::from_secs(75);
/// How long nodes may be busy with what they have taken, and how long a cluster that refuses is asked again.
const BUSY: Duration = Duration::from_secs(1_800);
const UNWELL: Duration = Duration::from_secs(45);
const PAUSE: Duration = Duration::from_millis(500);
/// The largest answer, in bytes.
const MAX_ANSWER: usize = 1 << 30;
/// How many documents one request asks for.
pub(super) const IDS_A_REQUEST: usize = 500;

/// An index, as the cluster describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    pub uid: String,
    pub primary_key: Option<String>,
    pub shards: Vec<u16>,
    pub shard_count: Option<u16>,
    pub write_mode: Option<String>,
    #[serde(default)]
    pub strategy: Option<Map<String, Value>>,
    pub documents: u64,
    pub settings: Map<String, Value>,
}

/// A page of documents, or of ids with their digests.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub documents: Vec<Box<RawValue>>,
    pub prints: Vec<(String, u64)>,
    pub cursor: Option<Value>,
}

/// What was written to an index.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Touched {
    Ids(Vec<String>),
    All,
}

/// What was written since the last round.
#[derive(Debug, Deserialize)]
pub(super) struct Writes {
    pub indexes: BTreeMap<String, Touched>,
    pub list: bool,
    pub everything: bool,
}

/// What was read while writers waited.
#[derive(Debug, Deserialize)]
pub(super) struct Read {
    pub ids: Vec<String>,
    pub documents: Vec<Box<RawValue>>,
}

/// A round's answer. Documents can't be read as they are from an enum that its answer names.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RoundAnswer {
    last_task: Option<u32>,
    pause_ms: u64,
    /// Only if the round held writers.
    indexes: Option<BTreeMap<String, Read>>,
    #[serde(default)]
    state: Value,
    /// Only if there must be another round.
    writes: Option<Writes>,
}

impl From<RoundAnswer> for Round {
    fn from(answer: RoundAnswer) -> Self {
        let RoundAnswer {
            last_task,
            pause_ms,
            indexes,
            state,
            writes,
        } = answer;
        match (writes, indexes) {
            (Some(writes), _) => Self::Again { writes, pause_ms },
            (None, Some(indexes)) => Self::Held {
                last_task,
                pause_ms,
                indexes,
                state,
            },
            (None, None) => Self::Consistent {
                last_task,
                pause_ms,
            },
        }
    }
}

/// What a round came to.
#[derive(Debug)]
pub(super) enum Round {
    Consistent {
        last_task: Option<u32>,
        pause_ms: u64,
    },
    Held {
        last_task: Option<u32>,
        pause_ms: u64,
        indexes: BTreeMap<String, Read>,
        state: Value,
    },
    Again {
        writes: Writes,
        pause_ms: u64,
    },
}

#[derive(Deserialize)]
struct Begun {
    id: String,
}

#[derive(Deserialize)]
struct Results<T> {
    results: Vec<T>,
}

/// A backup that the cluster takes part in.
pub(super) struct Session<'a> {
    remote: &'a Remote,
    id: String,
}

impl<'a> Session<'a> {
    /// Begins a backup; waits for another one that may have lost its client.
    pub(super) async fn begin(remote: &'a Remote) -> Result<Self, BackupError> {
        let since = Instant::now();
        loop {
            let begun = ask::<Begun>(remote, Method::POST, "/_cluster/backups", None).await;
            match begun {
                Ok(Some(Begun { id })) => return Ok(Self { remote, id }),
                Ok(None) => {}
                Err(error) if has_code(&error, "backup_running") && since.elapsed() < OTHER => {}
                Err(error) => return Err(error.into()),
            }
            sleep(PAUSE).await;
        }
    }

    /// All indexes.
    pub(super) async fn indexes(&self) -> Result<Vec<Index>, BackupError> {
        let listed: Results<Index> = self.read(Method::GET, "indexes", None).await?;
        Ok(listed.results)
    }

    /// Keys, features and webhooks.
    pub(super) async fn state(&self) -> Result<Value, BackupError> {
        self.read(Method::GET, "state", None).await
    }

    /// A page of what a shard owns of an index.
    pub(super) async fn page(
        &self,
        index: &str,
        shard: u16,
        cursor: Option<&Value>,
        prints: bool,
    ) -> Result<Page, BackupError> {
        let body = json!({"index": index, "shard": shard, "cursor": cursor, "prints": prints});
        self.read(Method::POST, "pages", Some(&body)).await
    }

    /// The documents with these ids that exist: no more than [`IDS_A_REQUEST`].
    pub(super) async fn documents(
        &self,
        index: &str,
        ids: &[String],
    ) -> Result<Vec<Box<RawValue>>, BackupError> {
        let body = json!({"index": index, "ids": ids});
        let found: Results<_> = self.read(Method::POST, "documents", Some(&body)).await?;
        Ok(found.results)
    }

    /// A round. It isn't asked for again if it fails: its notes are taken then.
    pub(super) async fn round(&self, hold: Duration) -> Result<Round, BackupError> {
        let body = json!({"holdMs": u64::try_from(hold.as_millis()).unwrap_or(u64::MAX)});
        let path = self.path("rounds");
        let round: Option<RoundAnswer> = ask(self.remote, Method::POST, &path, Some(&body)).await?;
        round.map(Round::from).ok_or(BackupError::Busy)
    }

    /// Ends the backup. If that fails, it ends by itself.
    pub(super) async fn end(self) {
        let path = format!("/_cluster/backups/{}", self.id);
        let _ = ask::<Value>(self.remote, Method::DELETE, &path, None).await;
    }

    fn path(&self, what: &str) -> String {
        format!("/_cluster/backups/{}/{what}", self.id)
    }

    /// Reads something. While the cluster is busy or unwell, it is asked again.
    async fn read<T: DeserializeOwned>(
        &self,
        method: Method,
        what: &str,
        body: Option<&Value>,
    ) -> Result<T, BackupError> {
        let path = self.path(what);
        let since = Instant::now();
        loop {
            match ask(self.remote, method.clone(), &path, body).await {
                Ok(Some(value)) => return Ok(value),
                Ok(None) if since.elapsed() < BUSY => {}
                Ok(None) => return Err(BackupError::Busy),
                Err(error) if is_passing(&error) && since.elapsed() < UNWELL => {
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn has_code(error: &RemoteError, wanted: &str) -> bool {
    matches!(error, RemoteError::Refused { code, .. } if code == wanted)
}

/// Whether the cluster says that this backup is of no use any more.
pub(super) fn is_broken(error: &RemoteError) -> bool {
    has_code(error, "backup_broken") || has_code(error, "backup_not_found")
}

fn is_passing(error: &RemoteError) -> bool {
    match error {
        RemoteError::Unreachable { .. } | RemoteError::TimedOut { .. } => true,
        RemoteError::Refused { status, .. } => status.is_server_error(),
        _ => false,
    }
}

/// Asks, and reads the answer as it is: numbers in documents must not pass through a float. `None` if the cluster is busy.
async fn ask<T: DeserializeOwned>(
    remote: &Remote,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Option<T>, RemoteError> {
    let body = body.map(|value| ("application/json", value.to_string().into()));
    let (status, bytes) = exchange(remote, method, path, body).await?;
    match status {
        StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(None),
        status => read(remote, path, status, &bytes).map(Some),
    }
}

/// An answer's bytes as JSON.
pub(super) fn read<T: DeserializeOwned>(
    remote: &Remote,
    path: &str,
    status: StatusCode,
    bytes: &[u8],
) -> Result<T, RemoteError> {
    serde_json::from_slice(bytes).map_err(|_| RemoteError::NotJson {
        url: remote.url().clone(),
        path: path.to_owned(),
        status,
    })
}

/// One request; an error unless it succeeds.
pub(super) async fn exchange(
    remote: &Remote,
    method: Method,
    path: &str,
    body: Option<(&str, Bytes)>,
) -> Result<(StatusCode, Bytes), RemoteError> {
    let url = remote.url();
    let (kind, sent) = match body {
        None => (None, whole("")),
        Some((kind, bytes)) => (Some(kind), whole(bytes)),
    };
    let answered = async {
        let answer = remote.send(method, path, kind, sent).await?;
        let status = answer.status();
        let read = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let read = read.map_err(|error| RemoteError::Unreachable {
            url: url.clone(),
            cause: error.to_string(),
        })?;
        Ok::<_, RemoteError>((status, read.to_bytes()))
    };
    let late = |_| RemoteError::TimedOut {
        url: url.clone(),
        after: ANSWER,
    };
    let (status, bytes) = timeout(ANSWER, answered).await.map_err(late)??;
    if status.is_success() {
        return Ok((status, bytes));
    }
    let said: Value = read(remote, path, status, &bytes)?;
    let text = |name: &str| {
        let text = said.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    Err(RemoteError::Refused {
        status,
        code: text("code"),
        message: text("message"),
    })
}

/// The same, asked again while the server is unwell. Only for what may be done twice.
pub(super) async fn insist(
    remote: &Remote,
    method: Method,
    path: &str,
    body: Option<(&str, Bytes)>,
) -> Result<(StatusCode, Bytes), RemoteError> {
    let since = Instant::now();
    loop {
        match exchange(remote, method.clone(), path, body.clone()).await {
            Err(error) if is_passing(&error) && since.elapsed() < UNWELL => sleep(PAUSE).await,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(answer: &str) -> Round {
        serde_json::from_str::<RoundAnswer>(answer).unwrap().into()
    }

    #[test]
    fn rounds_are_read_as_the_merger_writes_them_and_numbers_keep_their_digits() {
        let held = r#"{"outcome":"held","lastTask":3,"pauseMs":4,"indexes":
            {"x":{"ids":["1","2"],"documents":[{"id":1,"n":12345678901234567890123}]}},"state":{"keys":[]}}"#;
        let Round::Held { indexes, .. } = round(held) else {
            panic!("{held}");
        };
        assert_eq!(
            indexes["x"].documents[0].get(),
            r#"{"id":1,"n":12345678901234567890123}"#
        );
        let mut writes = crate::cluster::Writes::default();
        let (some, all) = (["1".to_owned()].into(), crate::cluster::Touched::All);
        writes
            .indexes
            .insert("x".to_owned(), crate::cluster::Touched::Ids(some));
        writes.indexes.insert("y".to_owned(), all);
        let again = json!({"outcome": "again", "writes": writes, "pauseMs": 0}).to_string();
        let Round::Again { writes, .. } = round(&again) else {
            panic!("{again}");
        };
        assert!(matches!(writes.indexes.get("x"), Some(Touched::Ids(ids)) if *ids == ["1"]));
        assert!(matches!(writes.indexes.get("y"), Some(Touched::All)));
        let consistent = round(r#"{"outcome":"consistent","lastTask":null,"pauseMs":0}"#);
        assert!(matches!(
            consistent,
            Round::Consistent {
                last_task: None,
                ..
            }
        ));
    }
}
