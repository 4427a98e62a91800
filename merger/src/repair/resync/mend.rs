//! Makes a node's indexes equal to another node's: the list of indexes, their primary keys, settings and documents.

use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use http::Method;
use serde_json::{Map, Value, json};

use super::compare::{Difference, compare, contents, is_among, passes};
use super::copy::Copy;
use super::deletions::Deletions;
use super::digest::Print;
use super::remote::{Index, Remote, is_missing};
use super::scan::Scan;
use super::source::SourceGuard;
use super::{Progress, ResyncError};
use crate::cluster::{Documents, Written};
use crate::upstream::is_hidden;

/// How many documents are deleted with one task.
const DELETES_A_TASK: usize = 5_000;

/// Makes one node, the target, equal to another, the source.
pub(crate) struct Mend<'a> {
    pub(crate) source: &'a Remote<'a>,
    pub(crate) target: &'a Remote<'a>,
    pub(crate) progress: &'a Progress,
    /// The limit of the copy in bytes per second; 0 means none.
    pub(crate) bytes_per_second: u64,
    /// Checks before each change that the source still is the same node.
    pub(crate) unbroken: &'a SourceGuard<'a>,
    /// Decides what may be deleted on the target.
    pub(crate) deletions: &'a Deletions<'a>,
}

/// Makes the features of the whole instance equal.
pub(crate) async fn instance(source: &Remote<'_>, target: &Remote<'_>) -> Result<(), ResyncError> {
    const PATH: &str = "/experimental-features";
    let wanted: Map<String, Value> = source.get(PATH).await?;
    let held: Map<String, Value> = target.get(PATH).await?;
    let differing: Map<String, Value> = wanted
        .into_iter()
        .filter(|(name, value)| held.get(name) != Some(value))
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    target
        .change(Method::PATCH, PATH, &Value::Object(differing))
        .await
}

impl Mend<'_> {
    /// Mends what may have been written, and returns what differed. First waits until the source has applied what it has taken.
    pub(crate) async fn mend(&self, written: &Written) -> Result<Vec<Difference>, ResyncError> {
        self.source.applied().await?;
        let mut found = Vec::new();
        let wanted = self.source.indexes().await?;
        let held = self.target.indexes().await?;
        let everything = matches!(written, Written::Everything);
        let concerns = |uid: &str| match written {
            Written::Everything => Some(&Documents::All),
            Written::Indexes(indexes) => indexes.get(uid),
        };
        for surplus in held.iter().filter(|held| {
            (everything || concerns(&held.uid).is_some())
                && !wanted.iter().any(|index| index.uid == held.uid)
        }) {
            self.delete_index(&surplus.uid).await?;
            found.push(whole(&surplus.uid));
        }
        for index in &wanted {
            let Some(documents) = concerns(&index.uid) else {
                continue;
            };
            let there = held.iter().find(|held| held.uid == index.uid);
            match self.mend_index(index, there, documents, &mut found).await {
                // The index was deleted meanwhile. That is noted as a write.
                Err(error) if is_missing(&error) => {}
                outcome => outcome?,
            }
        }
        Ok(found)
    }

    async fn mend_index(
        &self,
        index: &Index,
        there: Option<&Index>,
        documents: &Documents,
        found: &mut Vec<Difference>,
    ) -> Result<(), ResyncError> {
        self.progress.enter(self.progress.phase(), Some(&index.uid));
        let body = json!({"uid": index.uid, "primaryKey": index.primary_key});
        match there {
            None => {
                self.unbroken.check().await?;
                self.target.perform(Method::POST, "/indexes", &body).await?;
                found.push(whole(&index.uid));
            }
            // An index keeps its primary key once it has one, so a different key belongs to another index of the same name.
            Some(held) if held.primary_key.is_some() && held.primary_key != index.primary_key => {
                self.delete_index(&index.uid).await?;
                self.target.perform(Method::POST, "/indexes", &body).await?;
                found.push(whole(&index.uid));
            }
            Some(held) if held.primary_key != index.primary_key => {
                let path = format!("/indexes/{}", index.uid);
                let body = json!({"primaryKey": index.primary_key});
                self.unbroken.check().await?;
                self.target.perform(Method::PATCH, &path, &body).await?;
                found.push(whole(&index.uid));
            }
            Some(_) => {}
        }
        if *documents == Documents::All && self.mend_settings(&index.uid).await? {
            found.push(whole(&index.uid));
        }
        // An index without a primary key has no documents.
        let Some(primary_key) = &index.primary_key else {
            return Ok(());
        };
        let ids = match documents {
            Documents::All => self.mend_all(&index.uid, primary_key).await?,
            Documents::Ids(ids) => {
                let ids: Vec<String> = ids.iter().cloned().collect();
                // Clients wrote these documents, so their deletions need no explanation.
                self.mend_some(&index.uid, primary_key, &ids, None).await?
            }
        };
        found.extend(ids.into_iter().map(|id| Difference {
            index: index.uid.clone(),
            id: Some(id),
        }));
        Ok(())
    }

    async fn delete_index(&self, uid: &str) -> Result<(), ResyncError> {
        self.deletions.allow_index(uid)?;
        self.unbroken.check().await?;
        let path = format!("/indexes/{uid}");
        let task = self.target.enqueue(Method::DELETE, &path, None).await?;
        self.target.done(task).await
    }

    /// Changes the settings that differ; true if there were any.
    async fn mend_settings(&self, index: &str) -> Result<bool, ResyncError> {
        let path = format!("/indexes/{index}/settings");
        let wanted: Map<String, Value> = self.source.get(&path).await?;
        let held: Map<String, Value> = self.target.get(&path).await?;
        let change = settings_change(index, &wanted, &held)?;
        if change.is_empty() {
            return Ok(false);
        }
        self.unbroken.check().await?;
        self.target
            .perform(Method::PATCH, &path, &Value::Object(change))
            .await?;
        Ok(true)
    }

    /// Compares all documents of an index and mends those that differ. Returns their ids.
    async fn mend_all(&self, index: &str, primary_key: &str) -> Result<Vec<String>, ResyncError> {
        let held_before = self.target.count(index).await?;
        let slots = if held_before == 0 {
            Some(vec![true; usize::from(weft_routing::slot::SLOT_COUNT)])
        } else {
            compare(self.source, self.target, index, primary_key).await?
        };
        let count = self.source.count(index).await?;
        self.progress.checked.fetch_add(count, Ordering::Relaxed);
        let mut mended = Vec::new();
        for pass in slots.iter().flat_map(|slots| passes(slots, count)) {
            let mut held = contents(self.target, index, primary_key, &pass).await?;
            let mut copy = self.copy(index, primary_key);
            let mut scan = Scan::new(self.source, index, primary_key);
            while let Some(page) = scan.next().await? {
                for (print, document) in page {
                    if is_among(&pass, &print) && held.remove(&print.id) != Some(print.content) {
                        copy.push(&document).await?;
                        mended.push(print.id);
                    }
                }
            }
            copy.finish().await?;
            // Documents that the scan didn't see are either gone from the source, or came back during the scan.
            let left: Vec<String> = held.into_keys().collect();
            let bound = Some(held_before);
            mended.extend(self.mend_some(index, primary_key, &left, bound).await?);
        }
        Ok(mended)
    }

    /// Mends these documents and returns the ids of those that differed. If `held_before` gives the number of documents that the
    /// target had, more than a few are only deleted if there is an explanation.
    async fn mend_some(
        &self,
        index: &str,
        primary_key: &str,
        ids: &[String],
        held_before: Option<u64>,
    ) -> Result<Vec<String>, ResyncError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = self.source.documents_of(index, ids).await?;
        let mut held: HashMap<String, u64> = self
            .target
            .documents_of(index, ids)
            .await?
            .iter()
            .filter_map(|document| Print::of(document, primary_key))
            .map(|print| (print.id, print.content))
            .collect();
        let mut mended = Vec::new();
        let mut copy = self.copy(index, primary_key);
        for document in &wanted {
            let Some(print) = Print::of(document, primary_key) else {
                continue;
            };
            if held.remove(&print.id) != Some(print.content) {
                copy.push(document).await?;
                mended.push(print.id);
            }
        }
        copy.finish().await?;
        let surplus: Vec<String> = held.into_keys().collect();
        if let Some(held_before) = held_before {
            let count = surplus.len() as u64;
            self.deletions.allow(index, count, held_before)?;
        }
        self.delete(index, &surplus).await?;
        mended.extend(surplus);
        Ok(mended)
    }

    async fn delete(&self, index: &str, ids: &[String]) -> Result<(), ResyncError> {
        let path = format!("/indexes/{index}/documents/delete-batch");
        for ids in ids.chunks(DELETES_A_TASK) {
            self.unbroken.check().await?;
            self.target
                .perform(Method::POST, &path, &json!(ids))
                .await?;
            let count = ids.len() as u64;
            self.progress.removed.fetch_add(count, Ordering::Relaxed);
        }
        Ok(())
    }

    fn copy(&self, index: &str, primary_key: &str) -> Copy<'_> {
        let rate = self.bytes_per_second;
        let (target, progress) = (self.target, self.progress);
        Copy::new(target, index, primary_key, rate, progress, self.unbroken)
    }
}

/// The change that makes an index's settings equal to `wanted`; empty if they are.
///
/// # Errors
/// An embedder's key can't be read back.
pub(crate) fn settings_change(
    index: &str,
    wanted: &Map<String, Value>,
    held: &Map<String, Value>,
) -> Result<Map<String, Value>, ResyncError> {
    let mut change = Map::new();
    for (name, value) in wanted {
        let before = held.get(name).unwrap_or(&Value::Null);
        if before == value {
            continue;
        }
        let value = match name.as_str() {
            "embedders" => embedders(index, value.clone(), before)?,
            _ => value.clone(),
        };
        change.insert(name.clone(), value);
    }
    Ok(change)
}

fn whole(index: &str) -> Difference {
    Difference {
        index: index.to_owned(),
        id: None,
    }
}

/// The change that makes a node's embedders equal to `wanted`; `null` removes one. Nodes hide an embedder's API key, so an
/// embedder with a key can't be copied.
fn embedders(index: &str, wanted: Value, held: &Value) -> Result<Value, ResyncError> {
    let mut change = wanted.as_object().cloned().unwrap_or_default();
    for (embedder, settings) in &change {
        let key = settings.get("apiKey").and_then(Value::as_str);
        if key.is_some_and(is_hidden) {
            return Err(ResyncError::SecretEmbedder {
                index: index.to_owned(),
                embedder: embedder.clone(),
            });
        }
    }
    for name in held.as_object().into_iter().flat_map(Map::keys) {
        change.entry(name.clone()).or_insert(Value::Null);
    }
    Ok(Value::Object(change))
}
