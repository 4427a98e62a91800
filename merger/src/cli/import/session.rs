//! An import from its beginning to its end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Map, Value};

use super::Done;
use super::args::{ImportArgs, SourceKind};
use super::error::ImportError;
use super::follow::{Follower, first_open};
use super::journal::{Journal, Stage};
use super::pace::Pace;
use super::pipeline::{Pipeline, Work};
use super::progress::Progress;
use super::report::Report;
use super::source::{Index, Server, Side};
use super::target::Target;
use super::{copy, dump, keys, settings};
use crate::cli::job::Job;
use crate::cli::remote::{Remote, RemoteError};

/// Does what the command line asks for.
pub(super) async fn run(arguments: &ImportArgs, job: &Job) -> Result<Done, ImportError> {
    match arguments.source_kind()? {
        SourceKind::Live(remote) => live(arguments, &Server::new(Side::Source, *remote), job).await,
        SourceKind::Dump(_) if arguments.follow => Err(ImportError::Usage(
            "--follow needs a running source: a dump doesn't change",
        )),
        SourceKind::Dump(path) => from_dump(arguments, path, job).await,
    }
}

/// The cluster, if it answers.
pub(super) async fn target(arguments: &ImportArgs) -> Result<Target, ImportError> {
    let remote = Remote::connect(&arguments.connect).map_err(ImportError::Target)?;
    let server = Server::new(Side::Target, remote);
    server.probe().await?;
    Ok(Target { server })
}

fn work<'a>(arguments: &ImportArgs, target: Target, journal: Journal, job: &'a Job) -> Work<'a> {
    Work {
        target,
        journal,
        progress: Progress::new(0, 0),
        job,
        pace: Pace::new(arguments.bytes_per_second),
        in_flight: usize::from(arguments.in_flight),
        batch_bytes: arguments.batch_bytes,
    }
}

async fn live(arguments: &ImportArgs, source: &Server, job: &Job) -> Result<Done, ImportError> {
    source.probe().await?;
    let target = target(arguments).await?;
    let journal = Journal::open(&arguments.journal, &source.name(), &target.server.name())?;
    let mut work = work(arguments, target, journal, job);
    let mut report = Report {
        target: work.target.server.name(),
        ..Report::default()
    };
    let all = source.indexes().await?;
    let all: Vec<Index> = chosen(arguments, all, &work.journal)?;
    let left = all
        .iter()
        .filter(|index| work.journal.stage(&index.uid) != Stage::Done);
    let left: Vec<Index> = left.cloned().collect();
    let was_finished = work.journal.state.finished && left.is_empty();
    if !was_finished || arguments.follow {
        job.begin();
    }
    if !was_finished {
        copy_all(arguments, source, &mut work, &left, &mut report.notes).await?;
    }
    let mut follower = Follower::new(source, arguments);
    if arguments.follow {
        follower.run(&mut work, &mut report.notes).await?;
    } else if !was_finished {
        let round = follower.round(&mut work, &mut report.notes).await?;
        if !round.is_caught_up() {
            report.next =
                Some("The source is being written to: --follow brings over what comes.".to_owned());
        }
    } else {
        report.was_finished = true;
        report.next = Some("--follow brings over what was written to the source since.".to_owned());
    }
    if !was_finished || arguments.follow {
        check(source, &work, &mut report).await?;
    }
    summarise(&work, &mut report).await?;
    Ok(report.done(arguments.output.json))
}

/// The indexes that are to be brought over; one that an import has brought may be gone since.
fn chosen(
    arguments: &ImportArgs,
    mut all: Vec<Index>,
    journal: &Journal,
) -> Result<Vec<Index>, ImportError> {
    for wanted in &arguments.indexes {
        let there = all.iter().any(|index| index.uid == *wanted);
        if !there && !journal.state.indexes.contains_key(wanted) {
            return Err(ImportError::NoSuchIndex(wanted.clone()));
        }
    }
    all.retain(|index| arguments.chooses(&index.uid));
    Ok(all)
}

/// Copies what the journal doesn't know to be there.
async fn copy_all(
    arguments: &ImportArgs,
    source: &Server,
    work: &mut Work<'_>,
    left: &[Index],
    notes: &mut Vec<String>,
) -> Result<(), ImportError> {
    let there = work.target.server.indexes().await?;
    let existing = existing(arguments, work, left, &there).await?;
    if work.journal.state.tasks_from.is_none() {
        work.journal.state.tasks_from = Some(first_open(source).await?.0);
    }
    work.journal.state.finished = false;
    work.journal.save()?;
    bring_features(source, &work.target.server, notes).await?;
    if !arguments.no_keys {
        match keys::of(source).await? {
            Some(keys) => bring_keys(work, &keys, notes).await?,
            None => notes.push("the source has no master key, so it has no keys".to_owned()),
        }
    }
    let (mut total, mut before) = (0, 0);
    for index in left {
        total += source.count(&index.uid).await?;
        before += work
            .journal
            .state
            .indexes
            .get(&index.uid)
            .map_or(0, |known| known.documents);
    }
    work.progress = Progress::new(total, before);
    work.job.expect(total.saturating_sub(before));
    for index in left {
        let uid = &index.uid;
        if work.journal.stage(uid) == Stage::Settings {
            let other = there.iter().find(|other| other.uid == *uid);
            let wanted = source.settings(uid).await?;
            work.journal.index(uid).existed |= existing.contains(uid);
            settings::prepare(work, index, other, wanted, notes).await?;
        }
        match work.journal.index(uid).existed {
            // Documents are there already: only what differs is written, and what is too much is deleted.
            true => {
                if let Some(key) = &index.primary_key {
                    super::equalise::equalise(work, source, uid, key).await?;
                }
            }
            false => copy::documents(work, source, index).await?,
        }
        work.journal.index(uid).stage = Stage::Done;
        work.journal.save()?;
    }
    end_copy(work)
}

fn end_copy(work: &mut Work<'_>) -> Result<(), ImportError> {
    work.progress.end();
    work.progress = Progress::new(0, 0);
    work.journal.state.finished = true;
    work.journal.save()
}

/// Which indexes hold documents that this import has not brought.
///
/// # Errors
/// [`ImportError::NotEmpty`], unless they may be written to; [`ImportError::PrimaryKey`].
async fn existing(
    arguments: &ImportArgs,
    work: &Work<'_>,
    left: &[Index],
    there: &[Index],
) -> Result<BTreeSet<String>, ImportError> {
    let mut found = BTreeSet::new();
    for index in left {
        let uid = &index.uid;
        let Some(other) = there.iter().find(|other| other.uid == *uid) else {
            continue;
        };
        if work.journal.state.indexes.contains_key(uid) || work.target.server.count(uid).await? == 0
        {
            continue;
        }
        if let (Some(here), Some(there)) = (&index.primary_key, &other.primary_key)
            && here != there
        {
            return Err(ImportError::PrimaryKey {
                index: uid.clone(),
                here: here.clone(),
                there: there.clone(),
            });
        }
        found.insert(uid.clone());
    }
    match found.is_empty() || arguments.into_existing {
        true => Ok(found),
        false => Err(ImportError::NotEmpty {
            indexes: found.into_iter().collect(),
        }),
    }
}

async fn bring_features(
    source: &Server,
    target: &Server,
    notes: &mut Vec<String>,
) -> Result<(), ImportError> {
    let path = "/experimental-features";
    match source.ask(Method::GET, path, None).await {
        Ok(features) => {
            let none = Map::new();
            settings::features(target, features.as_object().unwrap_or(&none), notes).await
        }
        // A key that may read all documents need not be one that may read this.
        Err(ImportError::Source(RemoteError::Refused { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn bring_keys(
    work: &mut Work<'_>,
    keys: &[Map<String, Value>],
    notes: &mut Vec<String>,
) -> Result<(), ImportError> {
    let known = work.journal.state.keys.clone().unwrap_or_default();
    let (brought, _) = keys::bring(&work.target.server, keys, &known, notes).await?;
    work.journal.state.keys = Some(brought);
    work.journal.save()
}

/// Compares how many documents both have, where nothing was written in between.
async fn check(source: &Server, work: &Work<'_>, report: &mut Report) -> Result<(), ImportError> {
    let (before, _) = first_open(source).await?;
    let mut differing = Vec::new();
    for uid in work.journal.state.indexes.keys() {
        let here = source.count(uid).await?;
        let there = work.target.server.count(uid).await?;
        if here != there {
            differing.push(format!(
                "`{uid}` has {there} documents in the cluster and {here} in the source"
            ));
        }
    }
    let (after, _) = first_open(source).await?;
    if before == after && work.journal.state.tasks_from == Some(after) {
        report.problems.extend(differing);
    }
    Ok(())
}

async fn summarise(work: &Work<'_>, report: &mut Report) -> Result<(), ImportError> {
    for uid in work.journal.state.indexes.keys() {
        let count = work.target.server.count(uid).await?;
        report.indexes.push((uid.clone(), count));
    }
    report.keys = work.journal.state.keys.as_ref().map_or(0, BTreeSet::len);
    Ok(())
}

async fn from_dump(arguments: &ImportArgs, path: PathBuf, job: &Job) -> Result<Done, ImportError> {
    let target = target(arguments).await?;
    let survey = survey(&path).await?;
    let journal = Journal::open(&arguments.journal, &survey.name, &target.server.name())?;
    let mut work = work(arguments, target, journal, job);
    let mut report = Report {
        target: work.target.server.name(),
        ..Report::default()
    };
    let all: Vec<Index> = survey.indexes.iter().map(|one| one.index.clone()).collect();
    let left: Vec<Index> = chosen(arguments, all, &work.journal)?
        .into_iter()
        .filter(|index| work.journal.stage(&index.uid) != Stage::Done)
        .collect();
    if survey.queued > 0 {
        report.notes.push(format!(
            "{} writes were waiting when the dump was made and are not in its documents",
            survey.queued
        ));
    }
    report.was_finished = work.journal.state.finished && left.is_empty();
    if !report.was_finished {
        job.begin();
        copy_dump(arguments, &path, &survey, &mut work, &left, &mut report).await?;
    }
    summarise(&work, &mut report).await?;
    Ok(report.done(arguments.output.json))
}

async fn survey(path: &Path) -> Result<dump::Survey, ImportError> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || dump::survey(&path)).await;
    read.map_err(|error| ImportError::Runtime(std::io::Error::other(error)))?
}

async fn copy_dump(
    arguments: &ImportArgs,
    path: &Path,
    survey: &dump::Survey,
    work: &mut Work<'_>,
    left: &[Index],
    report: &mut Report,
) -> Result<(), ImportError> {
    let there = work.target.server.indexes().await?;
    existing(arguments, work, left, &there).await?;
    work.journal.state.finished = false;
    work.journal.save()?;
    settings::features(&work.target.server, &survey.features, &mut report.notes).await?;
    if !arguments.no_keys {
        bring_keys(work, &survey.keys, &mut report.notes).await?;
    }
    let left: Vec<&dump::DumpIndex> = survey
        .indexes
        .iter()
        .filter(|one| left.iter().any(|index| index.uid == one.index.uid))
        .collect();
    for one in &left {
        let uid = &one.index.uid;
        if work.journal.stage(uid) == Stage::Settings {
            let other = there.iter().find(|other| other.uid == *uid);
            let wanted = one.settings.clone();
            settings::prepare(work, &one.index, other, wanted, &mut report.notes).await?;
        }
    }
    let confirmed = |work: &Work<'_>, uid: &str| {
        let known = work.journal.state.indexes.get(uid);
        known.map_or(0, |known| known.documents)
    };
    let total = left.iter().map(|one| one.documents).sum();
    let before = left.iter().map(|one| confirmed(work, &one.index.uid)).sum();
    work.progress = Progress::new(total, before);
    work.job.expect(total.saturating_sub(before));
    let wanted: Vec<dump::Wanted> = left
        .iter()
        .map(|one| dump::Wanted {
            folder: one.folder.clone(),
            index: one.index.clone(),
            skip: confirmed(work, &one.index.uid),
        })
        .collect();
    send_documents(path, wanted, work).await?;
    for one in &left {
        let uid = &one.index.uid;
        let count = work.target.server.count(uid).await?;
        if count < one.documents {
            report.problems.push(format!(
                "`{uid}` has {count} documents in the cluster and {} in the dump",
                one.documents
            ));
        }
        work.journal.index(uid).stage = Stage::Done;
    }
    end_copy(work)
}

/// Sends the documents in the order in which the dump has them, an index after the other.
async fn send_documents(
    path: &Path,
    wanted: Vec<dump::Wanted>,
    work: &mut Work<'_>,
) -> Result<(), ImportError> {
    let mut batches = dump::batches(path, wanted, work.batch_bytes);
    let mut current = None::<Pipeline>;
    while let Some(next) = batches.recv().await {
        let (index, batch) = next?;
        let mut pipeline = match current.take() {
            Some(pipeline) if pipeline.index() == index.uid => pipeline,
            before => {
                if let Some(mut before) = before {
                    before.finish(work).await?;
                }
                work.progress.index(&index.uid);
                Pipeline::of_copy(&index.uid, index.primary_key.as_deref())
            }
        };
        pipeline.send(work, vec![batch]).await?;
        current = Some(pipeline);
    }
    match current {
        Some(mut last) => last.finish(work).await,
        None => Ok(()),
    }
}
