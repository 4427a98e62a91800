//! `weft restore`: verifies a backup, brings it into a cluster, and checks what has become of it.
//!
//! It can be repeated: an index that is empty, or holds nothing but documents of the backup as the backup has them, is completed.

mod index;
mod state;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::documents;
use super::folder;
use super::manifest::{Damage, FileEntry, IndexEntry, Manifest};
use super::progress::Progress;
use super::session::{exchange, insist, read};
use super::{BackupError, RestoreArgs};
use crate::cli::job::Job;
use crate::cli::remote::Remote;

const PAUSE: Duration = Duration::from_millis(100);

/// A cluster that is restored into.
struct Target<'a> {
    remote: &'a Remote,
    /// What a person must know, though all went well.
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Enqueued {
    task_uid: u64,
}

impl Target<'_> {
    async fn get(&self, path: &str) -> Result<Value, BackupError> {
        let (status, bytes) = insist(self.remote, Method::GET, path, None).await?;
        Ok(read(self.remote, path, status, &bytes)?)
    }

    /// Sends JSON. It isn't sent again if there is no answer.
    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, BackupError> {
        let body = Some(("application/json", Bytes::from(body.to_string())));
        let (status, bytes) = exchange(self.remote, method, path, body).await?;
        match status {
            StatusCode::NO_CONTENT => Ok(Value::Null),
            status => Ok(read(self.remote, path, status, &bytes)?),
        }
    }

    /// Sends something that makes a task, as often as needed, and returns the task.
    async fn enqueue(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<u64, BackupError> {
        let (status, bytes) = insist(self.remote, method, path, body).await?;
        let enqueued: Enqueued = read(self.remote, path, status, &bytes)?;
        Ok(enqueued.task_uid)
    }

    /// Waits until a task has succeeded.
    async fn done(&self, index: &str, uid: u64) -> Result<(), BackupError> {
        loop {
            let task = self.get(&format!("/tasks/{uid}")).await?;
            let text = |pointer: &str| {
                let found = task.pointer(pointer).and_then(Value::as_str);
                found.unwrap_or_default().to_owned()
            };
            match text("/status").as_str() {
                "succeeded" => return Ok(()),
                "enqueued" | "processing" => sleep(PAUSE).await,
                status => {
                    return Err(BackupError::Task {
                        index: index.to_owned(),
                        uid,
                        status: status.to_owned(),
                        message: text("/error/message"),
                    });
                }
            }
        }
    }

    /// Makes a change with a JSON body and waits for its task.
    async fn perform(
        &self,
        index: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(), BackupError> {
        let body = Some(("application/json", Bytes::from(body.to_string())));
        let uid = self.enqueue(method, path, body).await?;
        self.done(index, uid).await
    }

    async fn index_uids(&self) -> Result<BTreeSet<String>, BackupError> {
        let listed = self.get("/indexes?limit=1000000").await?;
        let all = listed.get("results").and_then(Value::as_array);
        let uids = all.into_iter().flatten();
        let uids = uids.filter_map(|index| index.get("uid").and_then(Value::as_str));
        Ok(uids.map(str::to_owned).collect())
    }
}

/// Restores. Returns what was done.
pub(super) async fn restore(
    remote: &Remote,
    args: &RestoreArgs,
    job: &Job,
) -> Result<Value, BackupError> {
    let manifest = Manifest::read(&args.dir)?;
    let chosen = chosen(&manifest, &args.indexes)?;
    let whole = args.indexes.is_empty();
    verify(&args.dir, &manifest, &chosen, args.verify_only)?;
    let documents: u64 = chosen.iter().map(|index| index.documents).sum();
    if args.verify_only {
        return Ok(json!({
            "verified": true,
            "id": manifest.id,
            "createdAt": manifest.created_at,
            "indexes": chosen.len(),
            "documents": documents,
        }));
    }
    let mut target = Target {
        remote,
        warnings: Vec::new(),
    };
    let standing = look(&target, args, &manifest, &chosen).await?;
    let state: Map<String, Value> = match whole {
        true => parse(args, &manifest.state)?,
        false => Map::new(),
    };
    if whole {
        state::restore_features(&mut target, &state).await?;
    }
    let shards = state::shard_count(&target).await?;
    let progress = Progress::new(job);
    let mut written = 0;
    for (entry, standing) in chosen.iter().zip(standing) {
        let settings = parse(args, &entry.settings)?;
        let work = index::Restoring {
            folder: &args.dir,
            entry,
            progress: &progress,
        };
        work.make(&mut target, standing, settings, shards).await?;
        written += work.write(&target).await?;
        work.check(&target).await?;
    }
    drop(progress);
    let (mut keys, mut webhooks) = (0, 0);
    if whole {
        keys = state::restore_keys(&mut target, &state).await?;
        webhooks = state::restore_webhooks(&mut target, &state).await?;
    }
    Ok(json!({
        "id": manifest.id,
        "createdAt": manifest.created_at,
        "indexes": chosen.len(),
        "documents": documents,
        "documentsWritten": written,
        "keys": keys,
        "webhooks": webhooks,
        "checked": true,
        "warnings": target.warnings,
    }))
}

fn chosen<'a>(manifest: &'a Manifest, uids: &[String]) -> Result<Vec<&'a IndexEntry>, BackupError> {
    if uids.is_empty() {
        return Ok(manifest.indexes.iter().collect());
    }
    let uids: BTreeSet<&String> = uids.iter().collect();
    let find = |uid: &&String| {
        let found = manifest.index(uid);
        found.ok_or_else(|| BackupError::NoSuchIndex((*uid).clone()))
    };
    uids.iter().map(find).collect()
}

/// Verifies everything that is about to be used, and unpacks it, too, if nobody else will.
pub(super) fn verify(
    dir: &Path,
    manifest: &Manifest,
    chosen: &[&IndexEntry],
    unpack: bool,
) -> Result<(), Damage> {
    folder::verify(dir, &manifest.state)?;
    for index in chosen {
        folder::verify(dir, &index.settings)?;
        for slots in &index.files {
            let key = index.primary_key.as_deref().unwrap_or_default();
            match unpack {
                true => drop(documents::load(dir, slots, key)?),
                false => folder::verify(dir, &slots.file)?,
            }
        }
    }
    Ok(())
}

fn parse(args: &RestoreArgs, entry: &FileEntry) -> Result<Map<String, Value>, BackupError> {
    let bytes = folder::read(&args.dir, entry)?;
    let parsed = serde_json::from_slice(&bytes);
    Ok(parsed.map_err(|error| Damage::Unreadable {
        path: entry.path.clone(),
        why: error.to_string(),
    })?)
}

/// How the cluster stands to each index. Nothing is changed before this is known of all of them.
async fn look(
    target: &Target<'_>,
    args: &RestoreArgs,
    manifest: &Manifest,
    chosen: &[&IndexEntry],
) -> Result<Vec<index::Standing>, BackupError> {
    let there = target.index_uids().await?;
    let strangers: Vec<&str> = there
        .iter()
        .filter(|uid| manifest.index(uid).is_none())
        .map(String::as_str)
        .collect();
    if !strangers.is_empty() && args.indexes.is_empty() && !args.replace {
        let names = strangers.join("`, `");
        return Err(BackupError::NotEmpty(format!(
            "the cluster holds indexes that the backup doesn't: `{names}`. Choose indexes with --index, or give --replace: it replaces only indexes of the same names"
        )));
    }
    let mut standing = Vec::with_capacity(chosen.len());
    for index in chosen {
        standing.push(match there.contains(&index.uid) {
            false => index::Standing::Absent,
            true => match index::judge(target, &args.dir, index).await? {
                index::Standing::Other if !args.replace => {
                    return Err(BackupError::NotEmpty(format!(
                        "`{}` exists and holds documents that the backup doesn't have, or has otherwise; --replace deletes it first",
                        index.uid
                    )));
                }
                judged => judged,
            },
        });
    }
    Ok(standing)
}
