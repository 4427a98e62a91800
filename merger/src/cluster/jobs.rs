//! Backups, restores and imports, as the programs that make them tell: how far each is, and how the last ones ended. In the merger
//! that leads.
//!
//! Such a program runs elsewhere, so the merger knows only what it hears. One that is silent for [`SILENCE`] counts as vanished.
//! What runs is in memory, and told again after a change of leaders; when the last ones of a kind ended well and badly is stored,
//! because an alert asks for it. No input or output here but the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{ClusterError, Context};
use crate::clock::now_utc;
use crate::store::{Change, Store, StoreError};

const PREFIX: &str = "job/";
/// After how long without a word a job's program is gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// How many jobs are remembered. Beyond that, the one that was silent for longest is forgotten.
const MOST: usize = 64;
/// How long a text of an error may be, in bytes.
const MOST_TEXT: usize = 500;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobKind {
    /// `weft backup`.
    Backup,
    /// `weft restore`.
    Restore,
    /// `weft import`.
    Import,
}

impl JobKind {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Backup, Self::Restore, Self::Import];

    /// The name, in the API and in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Import => "import",
        }
    }

    fn key(self) -> String {
        format!("{PREFIX}{}", self.as_str())
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobState {
    /// It goes on.
    Running,
    /// It has ended well.
    Done,
    /// It has failed.
    Failed,
    /// Somebody stopped it.
    Stopped,
    /// Nothing was heard of it any more.
    Vanished,
}

impl JobState {
    /// All that end a job.
    pub(crate) const ENDS: [Self; 4] = [Self::Done, Self::Failed, Self::Stopped, Self::Vanished];

    /// The name, in the API and in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Vanished => "vanished",
        }
    }
}

/// What a job's program says. Figures are those since its beginning.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct JobReport {
    pub(crate) kind: JobKind,
    pub(crate) state: JobState,
    #[serde(default)]
    pub(crate) documents: u64,
    #[serde(default)]
    pub(crate) documents_expected: Option<u64>,
    #[serde(default)]
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) error: Option<String>,
}

/// A job, as the API shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Job {
    pub(crate) id: Uuid,
    pub(crate) kind: JobKind,
    pub(crate) state: JobState,
    documents: u64,
    documents_expected: Option<u64>,
    bytes: u64,
    error: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
    #[serde(skip)]
    heard: Instant,
}

/// How the last jobs of a kind ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Last {
    /// When the last one ended well.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) success: Option<OffsetDateTime>,
    /// When the last one failed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) failure: Option<OffsetDateTime>,
    /// Why that failed.
    pub(crate) error: Option<String>,
}

/// What is new in what a job's program says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Documents since it last said something.
    pub(crate) documents: u64,
    /// Bytes since then.
    pub(crate) bytes: u64,
    /// Whether it has just ended.
    pub(crate) ended: bool,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    last: BTreeMap<JobKind, Last>,
}

/// All jobs that this merger has heard of.
pub(crate) struct Jobs {
    store: Arc<dyn Store>,
    state: Mutex<State>,
}

impl Jobs {
    pub(super) async fn open(store: Arc<dyn Store>) -> Result<Self, ClusterError> {
        let mut last = BTreeMap::new();
        for kind in JobKind::ALL {
            let key = kind.key();
            if let Some(stored) = store.get(&key).await? {
                let one = serde_json::from_slice(&stored.value)
                    .map_err(|_| ClusterError::Corrupt(key))?;
                last.insert(kind, one);
            }
        }
        let state = State {
            jobs: Vec::new(),
            last,
        };
        Ok(Self {
            store,
            state: Mutex::new(state),
        })
    }

    /// Takes what a job's program says. The same may be said again.
    ///
    /// # Errors
    /// The store failed; nothing is noted then.
    pub(crate) async fn hear(&self, id: Uuid, told: JobReport) -> Result<Progress, StoreError> {
        let known = self.lock().jobs.iter().find(|job| job.id == id).cloned();
        // What a vanished one says later counts: it was cut off for a while.
        let had_ended = known
            .as_ref()
            .is_some_and(|job| !matches!(job.state, JobState::Running | JobState::Vanished));
        if had_ended {
            return Ok(Progress::default());
        }
        let now = now_utc();
        let ended = told.state != JobState::Running;
        let error = told.error.map(shortened);
        let mut last = self.last(told.kind);
        match told.state {
            JobState::Done => last.success = Some(now),
            JobState::Failed => (last.failure, last.error) = (Some(now), error.clone()),
            _ => {}
        }
        if last != self.last(told.kind) {
            let value = serde_json::to_vec(&last).unwrap_or_default();
            let change = Change::put(told.kind.key(), value);
            self.store.commit(vec![change]).await?;
        }
        // One that another leader heard of before begins here with what it has done.
        let before = known.as_ref().map(|job| (job.documents, job.bytes));
        let (documents, bytes) = before.unwrap_or((told.documents, told.bytes));
        let progress = Progress {
            documents: told.documents.saturating_sub(documents),
            bytes: told.bytes.saturating_sub(bytes),
            ended,
        };
        let job = Job {
            id,
            kind: told.kind,
            state: told.state,
            documents: told.documents,
            documents_expected: told.documents_expected,
            bytes: told.bytes,
            error,
            started_at: known.map_or(now, |job| job.started_at),
            finished_at: ended.then_some(now),
            heard: Instant::now(),
        };
        let mut state = self.lock();
        state.last.insert(job.kind, last);
        state.jobs.retain(|other| other.id != id);
        if state.jobs.len() >= MOST {
            state.jobs.remove(0);
        }
        state.jobs.push(job);
        Ok(progress)
    }

    /// Looks for jobs whose programs are gone, and returns what they were.
    fn look_for_vanished(&self) -> Vec<JobKind> {
        let now = now_utc();
        let mut state = self.lock();
        let gone = state
            .jobs
            .iter_mut()
            .filter(|job| job.state == JobState::Running && job.heard.elapsed() >= SILENCE);
        gone.map(|job| {
            job.state = JobState::Vanished;
            job.finished_at = Some(now);
            job.kind
        })
        .collect()
    }

    /// All of them, the one that was heard of last at the end.
    pub(crate) fn all(&self) -> Vec<Job> {
        self.lock().jobs.clone()
    }

    /// How many of a kind are running.
    pub(crate) fn running(&self, kind: JobKind) -> usize {
        let state = self.lock();
        let running = |job: &&Job| job.kind == kind && job.state == JobState::Running;
        state.jobs.iter().filter(running).count()
    }

    /// How the last ones of a kind ended.
    pub(crate) fn last(&self, kind: JobKind) -> Last {
        self.lock().last.get(&kind).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for jobs whose programs are gone, and counts them.
pub(crate) fn note_vanished_jobs(ctx: &Context) {
    for kind in ctx.cluster.jobs.look_for_vanished() {
        let labels = [kind.as_str(), JobState::Vanished.as_str()];
        ctx.metrics.jobs_ended.with_label_values(&labels).inc();
        tracing::warn!(kind = kind.as_str(), "nothing was heard of a job for long");
    }
}

fn shortened(mut text: String) -> String {
    let mut ends = (0..=MOST_TEXT.min(text.len())).rev();
    let end = ends.find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn told(state: JobState, documents: u64) -> JobReport {
        JobReport {
            kind: JobKind::Backup,
            state,
            documents,
            documents_expected: None,
            bytes: documents * 10,
            error: (state == JobState::Failed).then(|| "no room".to_owned()),
        }
    }

    async fn opened() -> (Arc<MemoryStore>, Jobs) {
        let store = Arc::new(MemoryStore::default());
        let jobs = Jobs::open(Arc::clone(&store) as Arc<dyn Store>).await;
        (store, jobs.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_new_counts_and_an_end_counts_once() {
        let (_, jobs) = opened().await;
        let id = Uuid::new_v4();
        let first = jobs.hear(id, told(JobState::Running, 5)).await.unwrap();
        assert_eq!(first, Progress::default(), "another leader counted these");
        let more = jobs.hear(id, told(JobState::Running, 8)).await.unwrap();
        assert_eq!((more.documents, more.bytes, more.ended), (3, 30, false));
        assert_eq!(jobs.running(JobKind::Backup), 1);
        let end = jobs.hear(id, told(JobState::Done, 9)).await.unwrap();
        assert_eq!((end.documents, end.ended), (1, true));
        let again = jobs.hear(id, told(JobState::Done, 9)).await.unwrap();
        assert_eq!(again, Progress::default());
        assert_eq!((jobs.running(JobKind::Backup), jobs.all().len()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_success_and_the_last_failure_outlive_the_merger() {
        let (store, jobs) = opened().await;
        for state in [JobState::Done, JobState::Failed, JobState::Stopped] {
            jobs.hear(Uuid::new_v4(), told(state, 1)).await.unwrap();
        }
        let next = Jobs::open(store).await.unwrap();
        let last = next.last(JobKind::Backup);
        assert!(last.success.is_some() && last.failure >= last.success);
        assert_eq!(last.error.as_deref(), Some("no room"));
        assert_eq!(next.last(JobKind::Import), Last::default());
        assert!(next.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_nothing_is_heard_of_has_vanished_until_it_speaks_again() {
        let (_, jobs) = opened().await;
        let id = Uuid::new_v4();
        jobs.hear(id, told(JobState::Running, 1)).await.unwrap();
        tokio::time::advance(SILENCE / 2).await;
        assert!(jobs.look_for_vanished().is_empty());
        tokio::time::advance(SILENCE / 2).await;
        assert_eq!(jobs.look_for_vanished(), [JobKind::Backup]);
        assert!(jobs.look_for_vanished().is_empty());
        let back = jobs.hear(id, told(JobState::Running, 4)).await.unwrap();
        assert_eq!((back.documents, jobs.running(JobKind::Backup)), (3, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_are_remembered() {
        let (_, jobs) = opened().await;
        for _ in 0..MOST + 3 {
            jobs.hear(Uuid::new_v4(), told(JobState::Running, 0))
                .await
                .unwrap();
        }
        assert_eq!(jobs.all().len(), MOST);
    }

    #[test]
    fn a_long_error_is_cut_between_letters() {
        let text = shortened("ä".repeat(MOST_TEXT));
        assert_eq!(text.len(), MOST_TEXT);
        assert_eq!(shortened("short".to_owned()), "short");
        assert_eq!(shortened(format!("a{}", "ä".repeat(MOST_TEXT))).len(), 499);
    }
}
