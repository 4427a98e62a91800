//! Batches of one index on their way to the cluster: several at a time, confirmed in order.

use std::collections::VecDeque;

use super::batch::Batch;
use super::error::ImportError;
use super::journal::Journal;
use super::pace::Pace;
use super::progress::Progress;
use super::target::Target;
use crate::cli::job::Job;

/// What all indexes share while they are written.
#[derive(Debug)]
pub(super) struct Work<'a> {
    /// Where it goes.
    pub(super) target: Target,
    /// How far it is.
    pub(super) journal: Journal,
    /// What the person sees.
    pub(super) progress: Progress,
    /// What the cluster hears.
    pub(super) job: &'a Job,
    /// How fast.
    pub(super) pace: Pace,
    /// How many batches may be under way.
    pub(super) in_flight: usize,
    /// How large a batch is, in bytes.
    pub(super) batch_bytes: u64,
}

/// A batch that the cluster has taken and not yet confirmed.
#[derive(Debug)]
struct Sent {
    task: u64,
    documents: u64,
    bytes: u64,
    end: u64,
}

/// Batches of one index under way.
#[derive(Debug)]
pub(super) struct Pipeline {
    index: String,
    primary_key: Option<String>,
    /// Whether a confirmed batch is a step of the copy, which the journal notes.
    noted: bool,
    sent: VecDeque<Sent>,
}

impl Pipeline {
    /// For the copy of an index, whose progress is noted.
    pub(super) fn of_copy(index: &str, primary_key: Option<&str>) -> Self {
        Self {
            index: index.to_owned(),
            primary_key: primary_key.map(str::to_owned),
            noted: true,
            sent: VecDeque::new(),
        }
    }

    /// For documents that are brought over again.
    pub(super) fn of_changes(index: &str, primary_key: Option<&str>) -> Self {
        Self {
            noted: false,
            ..Self::of_copy(index, primary_key)
        }
    }

    /// The index.
    pub(super) fn index(&self) -> &str {
        &self.index
    }

    /// Sends batches, and waits where too many are under way.
    pub(super) async fn send(
        &mut self,
        work: &mut Work<'_>,
        batches: Vec<Batch>,
    ) -> Result<(), ImportError> {
        for batch in batches {
            work.pace.wait(batch.body.len()).await;
            let key = self.primary_key.as_deref();
            let bytes = batch.body.len() as u64;
            let task = work.target.documents(&self.index, key, batch.body).await?;
            self.sent.push_back(Sent {
                task,
                documents: batch.documents,
                bytes,
                end: batch.end,
            });
            while self.sent.len() >= work.in_flight {
                self.confirm(work).await?;
            }
        }
        Ok(())
    }

    /// Waits until all are confirmed.
    pub(super) async fn finish(&mut self, work: &mut Work<'_>) -> Result<(), ImportError> {
        while !self.sent.is_empty() {
            self.confirm(work).await?;
        }
        Ok(())
    }

    async fn confirm(&mut self, work: &mut Work<'_>) -> Result<(), ImportError> {
        let Some(oldest) = self.sent.pop_front() else {
            return Ok(());
        };
        let what = match self.noted {
            true => format!(
                "documents {} to {}",
                oldest.end - oldest.documents + 1,
                oldest.end
            ),
            false => format!("{} changed documents", oldest.documents),
        };
        work.target.done(&self.index, &what, oldest.task).await?;
        work.job.add(oldest.documents, oldest.bytes);
        if self.noted {
            work.journal.index(&self.index).documents = oldest.end;
            work.journal.save()?;
            work.progress.add(oldest.documents);
        }
        Ok(())
    }
}
