//! Tells the cluster how far a backup, a restore or an import is: for its metrics, and for `weft status`.
//!
//! Nothing depends on it. A server that doesn't know such jobs (a single Meilisearch, an older merger), or doesn't let this key tell
//! of them, isn't told any more.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::remote::{Remote, RemoteError};

/// How often the cluster is told.
const EVERY: Duration = Duration::from_secs(5);
/// How long one answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the end is told if there is no answer, and with which pause.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(super) enum JobKind {
    Backup,
    Restore,
    Import,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum End {
    Done,
    Failed(String),
    /// By somebody who wanted that.
    Stopped,
}

#[derive(Debug)]
struct Figures {
    remote: Remote,
    path: String,
    kind: JobKind,
    documents: AtomicU64,
    expected: AtomicU64,
    bytes: AtomicU64,
    /// Nobody wants to hear of it.
    unwanted: AtomicBool,
}

/// A job that the cluster hears of once it has begun.
#[derive(Debug)]
pub(super) struct Job {
    figures: Arc<Figures>,
    telling: Mutex<Option<JoinHandle<()>>>,
}

impl Job {
    /// A job of which nobody hears yet.
    pub(super) fn new(remote: &Remote, kind: JobKind) -> Self {
        Self {
            figures: Arc::new(Figures {
                remote: remote.clone().with_patience(PATIENCE),
                path: format!("/_cluster/jobs/{}", Uuid::new_v4()),
                kind,
                documents: AtomicU64::new(0),
                expected: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                unwanted: AtomicBool::new(false),
            }),
            telling: Mutex::new(None),
        }
    }

    /// From here on the cluster is told.
    pub(super) fn begin(&self) {
        let figures = Arc::clone(&self.figures);
        let telling = tokio::spawn(async move {
            while !figures.unwanted.load(Ordering::Relaxed) {
                let _ = figures.tell("running", None).await;
                tokio::time::sleep(EVERY).await;
            }
        });
        if let Some(before) = self.telling().replace(telling) {
            before.abort();
        }
    }

    /// So many documents more are to be done.
    pub(super) fn expect(&self, documents: u64) {
        let expected = &self.figures.expected;
        expected.fetch_add(documents, Ordering::Relaxed);
    }

    /// So many more are done.
    pub(super) fn add(&self, documents: u64, bytes: u64) {
        let figures = &self.figures;
        figures.documents.fetch_add(documents, Ordering::Relaxed);
        figures.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Tells how it ended, if it had begun.
    pub(super) async fn end(&self, end: End) {
        let telling = self.telling().take();
        let Some(telling) = telling else { return };
        telling.abort();
        // It must not say afterwards that it goes on.
        let _ = telling.await;
        let (state, error) = match &end {
            End::Done => ("done", None),
            End::Failed(error) => ("failed", Some(error.as_str())),
            End::Stopped => ("stopped", None),
        };
        for _ in 0..TRIES {
            if self.figures.unwanted.load(Ordering::Relaxed)
                || self.figures.tell(state, error).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn telling(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(telling) = self.telling().take() {
            telling.abort();
        }
    }
}

impl Figures {
    async fn tell(&self, state: &str, error: Option<&str>) -> Result<(), RemoteError> {
        let body = self.body(state, error);
        let told = self.remote.call(Method::PUT, &self.path, Some(&body)).await;
        if let Err(RemoteError::Refused { status, .. } | RemoteError::NotJson { status, .. }) =
            &told
            && status.is_client_error()
        {
            self.unwanted.store(true, Ordering::Relaxed);
        }
        told.map(drop)
    }

    fn body(&self, state: &str, error: Option<&str>) -> Value {
        let documents = self.documents.load(Ordering::Relaxed);
        let expected = self.expected.load(Ordering::Relaxed);
        json!({
            "kind": match self.kind {
                JobKind::Backup => "backup",
                JobKind::Restore => "restore",
                JobKind::Import => "import",
            },
            "state": state,
            "documents": documents,
            "documentsExpected": (expected > 0).then(|| expected.max(documents)),
            "bytes": self.bytes.load(Ordering::Relaxed),
            "error": error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_the_merger_reads() {
        let url = "http://127.0.0.1:1".parse().unwrap();
        let job = Job::new(&Remote::new(url, None, None).unwrap(), JobKind::Import);
        job.expect(10);
        job.add(3, 30);
        for (state, error) in [("running", None), ("failed", Some("no room"))] {
            let body = job.figures.body(state, error);
            let told: crate::cluster::JobReport = serde_json::from_value(body).unwrap();
            assert_eq!(told.kind.as_str(), "import");
            assert_eq!(told.state.as_str(), state);
            assert_eq!((told.documents, told.bytes), (3, 30));
            assert_eq!(told.documents_expected, Some(10));
            assert_eq!(told.error.as_deref(), error);
        }
    }

    #[tokio::test]
    async fn a_job_that_has_not_begun_says_nothing_and_waits_for_nobody() {
        let url = "http://127.0.0.1:1".parse().unwrap();
        let job = Job::new(&Remote::new(url, None, None).unwrap(), JobKind::Backup);
        let end = tokio::time::timeout(PAUSE, job.end(End::Done));
        end.await.unwrap();
    }
}
