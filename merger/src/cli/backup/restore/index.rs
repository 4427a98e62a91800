//! One index: made, set up, filled, and compared with the backup.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::{PAUSE, Target};
use crate::cli::backup::BackupError;
use crate::cli::backup::documents::{self, Documents, push_line};
use crate::cli::backup::manifest::{IndexEntry, SlotsEntry};
use crate::cli::backup::progress::Progress;
use crate::cli::backup::session::{IDS_A_REQUEST, insist, read};
use crate::repair::Print;
use crate::upstream::is_hidden;

/// A batch of documents is sent once it has so many bytes.
const BATCH_BYTES: usize = 16 << 20;
/// How many batches may be waiting in the cluster.
const AHEAD: usize = 4;
/// How long replicas may need to show what was written.
const SHOWN: Duration = Duration::from_secs(30);

/// How a cluster stands to an index of the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It doesn't exist.
    Absent,
    /// It is empty, or holds only documents of the backup, as the backup has them.
    Part,
    /// It holds something else.
    Other,
}

/// An index that is being restored.
pub(super) struct Restoring<'a> {
    pub(super) folder: &'a Path,
    pub(super) entry: &'a IndexEntry,
    pub(super) progress: &'a Progress<'a>,
}

/// Looks at an index that exists.
pub(super) async fn judge(
    target: &Target<'_>,
    folder: &Path,
    entry: &IndexEntry,
) -> Result<Standing, BackupError> {
    let uid = &entry.uid;
    // An interrupted restore may have left something to do.
    let open = format!("/tasks?indexUids={uid}&statuses=enqueued,processing&limit=1");
    loop {
        let tasks = target.get(&open).await?;
        let none = tasks.pointer("/results/0").is_none();
        if none {
            break;
        }
        sleep(PAUSE).await;
    }
    let there = count(target, uid).await?;
    if there == 0 {
        return Ok(Standing::Part);
    }
    let Some(primary_key) = entry.primary_key.as_deref() else {
        return Ok(Standing::Other);
    };
    let mut same = 0;
    for slots in &entry.files {
        let wanted = documents::load(folder, slots, primary_key)?;
        let found = prints(target, uid, primary_key, &wanted).await?;
        let wanted = wanted.values();
        let wanted = wanted.filter_map(|document| Print::of(document, primary_key));
        for print in wanted {
            match found.get(&print.id) {
                Some(content) if *content == print.content => same += 1,
                Some(_) => return Ok(Standing::Other),
                None => {}
            }
        }
    }
    Ok(match same == there {
        true => Standing::Part,
        false => Standing::Other,
    })
}

async fn count(target: &Target<'_>, uid: &str) -> Result<u64, BackupError> {
    let stats = target.get(&format!("/indexes/{uid}/stats")).await?;
    let count = stats.get("numberOfDocuments").and_then(Value::as_u64);
    Ok(count.unwrap_or_default())
}

/// The contents of those of these documents that the cluster has.
async fn prints(
    target: &Target<'_>,
    uid: &str,
    primary_key: &str,
    wanted: &Documents,
) -> Result<HashMap<String, u64>, BackupError> {
    #[derive(Deserialize)]
    struct Found {
        results: Vec<Box<RawValue>>,
    }
    let ids: Vec<&String> = wanted.keys().collect();
    let path = format!("/indexes/{uid}/documents/fetch");
    let mut prints = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(IDS_A_REQUEST) {
        let body = json!({"ids": ids, "limit": ids.len(), "retrieveVectors": true});
        let body = Some(("application/json", Bytes::from(body.to_string())));
        let (status, bytes) = insist(target.remote, Method::POST, &path, body).await?;
        let found: Found = read(target.remote, &path, status, &bytes)?;
        let found = found.results.iter();
        let found = found.filter_map(|document| Print::of(document, primary_key));
        prints.extend(found.map(|print| (print.id, print.content)));
    }
    Ok(prints)
}

impl Restoring<'_> {
    /// Makes the index with its settings.
    pub(super) async fn make(
        &self,
        target: &mut Target<'_>,
        standing: Standing,
        settings: Map<String, Value>,
        shards: usize,
    ) -> Result<(), BackupError> {
        let uid = &self.entry.uid;
        let path = format!("/indexes/{uid}");
        if standing == Standing::Other {
            let gone = target.enqueue(Method::DELETE, &path, None).await?;
            target.done(uid, gone).await?;
        }
        if standing != Standing::Part {
            let body = self.creation(target, shards);
            target.perform(uid, Method::POST, "/indexes", &body).await?;
        }
        let path = format!("{path}/settings");
        let (settings, secrets) = without_secrets(settings);
        for secret in secrets {
            target.warnings.push(format!(
                "`{uid}`: {secret} is a secret that no node shows; set it again"
            ));
        }
        let now = target.get(&path).await?;
        if now.as_object() == Some(&settings) {
            return Ok(());
        }
        let settings = Value::Object(settings);
        target.perform(uid, Method::PATCH, &path, &settings).await
    }

    fn creation(&self, target: &mut Target<'_>, shards: usize) -> Value {
        let entry = self.entry;
        let mut sharding = Map::new();
        match entry.shard_count {
            Some(count) if usize::from(count) <= shards => {
                sharding.insert("shardCount".to_owned(), count.into());
            }
            Some(count) => target.warnings.push(format!(
                "`{}` lay on {count} shards, and there are {shards}: it lies on all of them",
                entry.uid
            )),
            None => {}
        }
        if let Some(mode) = &entry.write_mode {
            sharding.insert("write".to_owned(), mode.as_str().into());
        }
        sharding.extend(entry.strategy.clone().unwrap_or_default());
        let mut body = json!({"uid": entry.uid, "primaryKey": entry.primary_key});
        if let (false, Some(fields)) = (sharding.is_empty(), body.as_object_mut()) {
            fields.insert("sharding".to_owned(), sharding.into());
        }
        body
    }

    /// Writes the documents that aren't there yet. Returns how many.
    pub(super) async fn write(&self, target: &Target<'_>) -> Result<u64, BackupError> {
        let entry = self.entry;
        let Some(primary_key) = entry.primary_key.as_deref() else {
            return Ok(0);
        };
        self.progress.begin(&entry.uid, entry.documents);
        let key: String = form_urlencoded::byte_serialize(primary_key.as_bytes()).collect();
        let path = format!("/indexes/{}/documents?primaryKey={key}", entry.uid);
        let is_empty = count(target, &entry.uid).await? == 0;
        let (mut written, mut batch) = (0, Vec::new());
        let mut sent = std::collections::VecDeque::new();
        for (place, slots) in entry.files.iter().enumerate() {
            let all = documents::load(self.folder, slots, primary_key)?;
            let there = match is_empty {
                true => HashMap::new(),
                false => prints(target, &entry.uid, primary_key, &all).await?,
            };
            let bytes = all.values().map(|one| one.get().len()).sum();
            self.progress.advance(all.len(), bytes);
            for (id, document) in all {
                if !there.contains_key(&id) {
                    push_line(&mut batch, &document);
                    written += 1;
                }
            }
            let is_last = place + 1 == entry.files.len();
            if batch.is_empty() || (batch.len() < BATCH_BYTES && !is_last) {
                continue;
            }
            let body = Some((NDJSON, Bytes::from(std::mem::take(&mut batch))));
            sent.push_back(target.enqueue(Method::POST, &path, body).await?);
            if sent.len() > AHEAD
                && let Some(oldest) = sent.pop_front()
            {
                target.done(&entry.uid, oldest).await?;
            }
        }
        for task in sent {
            target.done(&entry.uid, task).await?;
        }
        Ok(written)
    }

    /// Compares the cluster with the backup: the count, and the digest of every group of slots.
    pub(super) async fn check(&self, target: &Target<'_>) -> Result<(), BackupError> {
        let since = Instant::now();
        loop {
            match self.difference(target).await? {
                None => return Ok(()),
                Some(_) if since.elapsed() < SHOWN => sleep(PAUSE).await,
                Some(detail) => {
                    return Err(BackupError::Differs {
                        index: self.entry.uid.clone(),
                        detail,
                    });
                }
            }
        }
    }

    async fn difference(&self, target: &Target<'_>) -> Result<Option<String>, BackupError> {
        let entry = self.entry;
        let there = count(target, &entry.uid).await?;
        if there != entry.documents {
            let wanted = entry.documents;
            return Ok(Some(format!(
                "{there} documents are there, and {wanted} were to be"
            )));
        }
        for slots in &entry.files {
            if !self.is_there(target, slots).await? {
                let group = slots.group;
                return Ok(Some(format!(
                    "the documents of group {group} have another digest"
                )));
            }
        }
        Ok(None)
    }

    async fn is_there(&self, target: &Target<'_>, slots: &SlotsEntry) -> Result<bool, BackupError> {
        let primary_key = self.entry.primary_key.as_deref().unwrap_or_default();
        let wanted = documents::load(self.folder, slots, primary_key)?;
        let found = prints(target, &self.entry.uid, primary_key, &wanted).await?;
        let digest = found.into_iter().fold(0_u64, |sum, (id, content)| {
            sum.wrapping_add(Print::whole_of(&id, content))
        });
        Ok(documents::digest_text(digest) == slots.digest)
    }
}

/// The type of a batch.
const NDJSON: &str = "application/x-ndjson";

/// Settings without what nodes hide, and the names of that.
fn without_secrets(mut settings: Map<String, Value>) -> (Map<String, Value>, Vec<String>) {
    let mut names = Vec::new();
    let embedders = settings.get_mut("embedders").and_then(Value::as_object_mut);
    for (name, embedder) in embedders.into_iter().flatten() {
        remove_secrets(embedder, &format!("embedders.{name}"), &mut names);
    }
    (settings, names)
}

fn remove_secrets(value: &mut Value, name: &str, names: &mut Vec<String>) {
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    fields.retain(|field, value| {
        let hidden = value.as_str().is_some_and(is_hidden);
        if hidden {
            names.push(format!("{name}.{field}"));
        }
        !hidden
    });
    for (field, value) in fields {
        remove_secrets(value, &format!("{name}.{field}"), names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_secrets_are_not_sent_and_are_named() {
        let settings = json!({
            "synonyms": {"a": ["XXX..."]},
            "embedders": {"m": {"source": "rest", "apiKey": "sk-XXXX...", "headers": {"auth": "Bearer XXX..."}}},
        });
        let (left, names) = without_secrets(settings.as_object().unwrap().clone());
        let wanted = json!({
            "synonyms": {"a": ["XXX..."]},
            "embedders": {"m": {"source": "rest", "headers": {}}},
        });
        assert_eq!(Value::Object(left), wanted);
        assert_eq!(names, ["embedders.m.apiKey", "embedders.m.headers.auth"]);
    }
}
