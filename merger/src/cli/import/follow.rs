//! Brings over what was written to the source since the copy began: its tasks say which indexes to look at, and these are
//! compared document by document.
//!
//! The journal holds the first task whose effect may be missing. It goes on only when everything before has been brought over, and
//! no further than the oldest task that has not ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::args::ImportArgs;
use super::changes::{Changes, changes};
use super::equalise::equalise;
use super::error::ImportError;
use super::journal::{IndexState, Stage};
use super::pipeline::Work;
use super::source::{Index, Server, Tasks};
use super::{keys, settings};
use crate::cli::remote::RemoteError;

/// How often the source is asked for new tasks.
const EVERY: Duration = Duration::from_secs(1);
/// How often a line says that nothing is missing.
const SPEAK_EVERY: Duration = Duration::from_secs(30);
/// How often an index may differ, though no new task touched it, before that is an error.
const MOST_ROUNDS: u32 = 5;

/// What follows the source.
#[derive(Debug)]
pub(super) struct Follower<'a> {
    source: &'a Server,
    arguments: &'a ImportArgs,
    /// Tasks at or after the journal's that are done with.
    handled: BTreeSet<u64>,
    /// Indexes that differed when they were last looked at, and how often in a row.
    differing: BTreeMap<String, u32>,
}

/// What one look at the source found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Tasks of the source that have not ended.
    pub(super) open: bool,
    /// Whether anything had to be brought over, or may have to be.
    pub(super) differed: bool,
    /// When the oldest task was given that was brought over.
    oldest: Option<String>,
    /// How many new tasks there were.
    tasks: usize,
}

impl Round {
    /// Whether nothing is missing.
    pub(super) fn is_caught_up(&self) -> bool {
        !self.open && !self.differed && self.tasks == 0
    }
}

/// The first task of a server that may still have an effect to come: nothing that ended before it is missed by whoever reads now.
pub(super) async fn first_open(source: &Server) -> Result<(u64, u64), ImportError> {
    // In this order: what is given in between is newer than the newest.
    let newest = source.tasks(Tasks::Newest).await?;
    let open = source.tasks(Tasks::OldestOpen).await?;
    let next = newest.first().map_or(0, |task| task.uid + 1);
    Ok((open.first().map_or(next, |task| task.uid.min(next)), next))
}

impl<'a> Follower<'a> {
    pub(super) fn new(source: &'a Server, arguments: &'a ImportArgs) -> Self {
        Self {
            source,
            arguments,
            handled: BTreeSet::new(),
            differing: BTreeMap::new(),
        }
    }

    /// Follows until nothing is missing, or for ever.
    pub(super) async fn run(
        &mut self,
        work: &mut Work<'_>,
        notes: &mut Vec<String>,
    ) -> Result<(), ImportError> {
        let mut spoken = None::<tokio::time::Instant>;
        loop {
            let round = self.round(work, notes).await?;
            if round.is_caught_up() {
                if self.arguments.until_caught_up {
                    return Ok(());
                }
                if spoken.is_none_or(|when| when.elapsed() >= SPEAK_EVERY) {
                    spoken = Some(tokio::time::Instant::now());
                    work.progress.say("nothing is missing (Ctrl-C ends)");
                }
            } else {
                spoken = None;
                let lag = round.oldest.as_deref().and_then(age);
                let lag =
                    lag.map_or_else(String::new, |lag| format!(", {lag:.1} s after the oldest"));
                let open = if round.open {
                    "; more are under way"
                } else {
                    ""
                };
                work.progress
                    .say(&format!("{} tasks brought over{lag}{open}", round.tasks));
            }
            // What was just brought over is compared again at once.
            if self.differing.is_empty() {
                tokio::time::sleep(EVERY).await;
            }
        }
    }

    /// Looks once, and brings over what it finds.
    pub(super) async fn round(
        &mut self,
        work: &mut Work<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Round, ImportError> {
        let from = work.journal.state.tasks_from.unwrap_or(0);
        let (first_open, next) = first_open(self.source).await?;
        if next < from {
            return Err(ImportError::SourceChanged(format!(
                "the source's newest task has the number {}, and {} was seen before: it is another server, or has another disk",
                next.saturating_sub(1),
                from - 1
            )));
        }
        let found = self.changes(from, next).await?;
        let new = found.ended.difference(&self.handled).count();
        let mut round = Round {
            open: first_open < next,
            oldest: found.oldest.clone(),
            tasks: new,
            differed: false,
        };
        let complete = match self.bring(work, &found, notes).await {
            Ok(differed) => {
                round.differed = differed;
                true
            }
            // An index went away in the middle. Its task is seen the next time.
            Err(ImportError::Source(RemoteError::Refused { code, .. }))
                if code == "index_not_found" =>
            {
                round.differed = true;
                false
            }
            Err(error) => return Err(error),
        };
        if complete {
            self.handled.extend(found.ended);
            self.handled.retain(|uid| *uid >= first_open);
            if work.journal.state.tasks_from != Some(first_open) {
                work.journal.state.tasks_from = Some(first_open);
                work.journal.save()?;
            }
        }
        Ok(round)
    }

    async fn changes(&self, from: u64, next: u64) -> Result<Changes, ImportError> {
        let mut tasks = Vec::new();
        let mut at = next;
        while at > from {
            let page = self.source.tasks(Tasks::From(at - 1)).await?;
            let Some(last) = page.last().map(|task| task.uid) else {
                break;
            };
            at = last.min(at - 1);
            tasks.extend(page);
        }
        Ok(changes(&tasks, &self.handled, from, next))
    }

    /// Brings over what the tasks name; true if anything differed.
    async fn bring(
        &mut self,
        work: &mut Work<'_>,
        found: &Changes,
        notes: &mut Vec<String>,
    ) -> Result<bool, ImportError> {
        let mut here = self.source.indexes().await?;
        here.retain(|index| self.arguments.chooses(&index.uid));
        let there = work.target.server.indexes().await?;
        let mut differed = self.remove_gone(work, found, &here, &there).await?;
        for index in &here {
            let is_new = work.journal.stage(&index.uid) != Stage::Done;
            let touched = found.any
                || found.touched.contains(&index.uid)
                || self.differing.contains_key(&index.uid);
            if !is_new && !touched {
                continue;
            }
            let was_touched = is_new || found.any || found.touched.contains(&index.uid);
            let other = there.iter().find(|other| other.uid == index.uid);
            let changed = self.index(work, index, other, was_touched, notes).await?;
            differed |= changed;
        }
        if !self.arguments.no_keys
            && let Some(keys) = keys::of(self.source).await?
        {
            let known = work.journal.state.keys.clone().unwrap_or_default();
            let (brought, changed) = keys::bring(&work.target.server, &keys, &known, notes).await?;
            if brought != known {
                work.journal.state.keys = Some(brought);
                work.journal.save()?;
            }
            differed |= changed;
        }
        Ok(differed)
    }

    /// Deletes indexes that the source has no more, if a task says so.
    async fn remove_gone(
        &mut self,
        work: &mut Work<'_>,
        found: &Changes,
        here: &[Index],
        there: &[Index],
    ) -> Result<bool, ImportError> {
        let ours: Vec<String> = work.journal.state.indexes.keys().cloned().collect();
        let is_there = |list: &[Index], uid: &str| list.iter().any(|index| index.uid == uid);
        let mut differed = false;
        for uid in ours {
            if is_there(here, &uid) || !self.arguments.chooses(&uid) {
                continue;
            }
            if !found.may_be_gone.contains(&uid) {
                return Err(ImportError::SourceChanged(format!(
                    "the source has no index `{uid}` any more, and none of its tasks says why"
                )));
            }
            if is_there(there, &uid) {
                work.target.drop_index(&uid).await?;
                work.progress.say(&format!("{uid}: deleted"));
                differed = true;
            }
            work.journal.state.indexes.remove(&uid);
            work.journal.save()?;
            self.differing.remove(&uid);
        }
        Ok(differed)
    }

    /// Makes one index equal.
    async fn index(
        &mut self,
        work: &mut Work<'_>,
        index: &Index,
        there: Option<&Index>,
        touched: bool,
        notes: &mut Vec<String>,
    ) -> Result<bool, ImportError> {
        let uid = &index.uid;
        let settings = self.source.settings(uid).await?;
        let there = replaceable(work, index, there).await?;
        let mut changed = false;
        match there {
            Some(there) if work.journal.stage(uid) == Stage::Done => {
                settings::adopt_primary_key(work, index, there).await?;
                changed |= settings::apply(work, uid, settings, true, notes).await?;
            }
            there => {
                refuse_foreign(work, self.arguments, index, there).await?;
                settings::prepare(work, index, there, settings, notes).await?;
                work.progress.say(&format!("{uid}: new"));
                changed = true;
            }
        }
        let Some(key) = &index.primary_key else {
            work.journal.index(uid).stage = Stage::Done;
            work.journal.save()?;
            self.differing.remove(uid);
            return Ok(changed);
        };
        let done = equalise(work, self.source, uid, key).await?;
        if work.journal.stage(uid) != Stage::Done {
            work.journal.index(uid).stage = Stage::Done;
            work.journal.save()?;
        }
        if done.differing() == 0 {
            self.differing.remove(uid);
            return Ok(changed);
        }
        work.progress.say(&format!(
            "{uid}: {} documents written, {} deleted",
            done.written, done.deleted
        ));
        let rounds = self.differing.entry(uid.clone()).or_insert(0);
        *rounds = if touched { 1 } else { *rounds + 1 };
        match *rounds > MOST_ROUNDS {
            true => Err(ImportError::StaysDifferent {
                index: uid.clone(),
                count: done.differing(),
                examples: done.examples.join(", "),
            }),
            false => Ok(true),
        }
    }
}

/// An index that was deleted and made anew with another primary key is made anew in the cluster, too, if an import has made it.
async fn replaceable<'i>(
    work: &mut Work<'_>,
    index: &Index,
    there: Option<&'i Index>,
) -> Result<Option<&'i Index>, ImportError> {
    let Some(other) = there else {
        // Gone in the cluster, whatever the journal says: it is made again.
        work.journal.state.indexes.remove(&index.uid);
        return Ok(None);
    };
    let known = work.journal.state.indexes.contains_key(&index.uid);
    if !known || other.primary_key.is_none() || other.primary_key == index.primary_key {
        return Ok(there);
    }
    work.target.drop_index(&index.uid).await?;
    work.journal
        .state
        .indexes
        .insert(index.uid.clone(), IndexState::default());
    work.journal.save()?;
    Ok(None)
}

/// A new index of the source may have the name of one that is in the cluster and isn't ours.
pub(super) async fn refuse_foreign(
    work: &Work<'_>,
    arguments: &ImportArgs,
    index: &Index,
    there: Option<&Index>,
) -> Result<(), ImportError> {
    let foreign = there.is_some() && !work.journal.state.indexes.contains_key(&index.uid);
    if foreign && !arguments.into_existing && work.target.server.count(&index.uid).await? > 0 {
        return Err(ImportError::NotEmpty {
            indexes: vec![index.uid.clone()],
        });
    }
    Ok(())
}

fn age(enqueued: &str) -> Option<f64> {
    let then = OffsetDateTime::parse(enqueued, &Rfc3339).ok()?;
    Some((OffsetDateTime::now_utc() - then).as_seconds_f64().max(0.0))
}
