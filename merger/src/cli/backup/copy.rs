//! The copy of one index while it is being made.
//!
//! Where an earlier backup has the index, only digests are asked for at first, and documents only of the groups of slots whose
//! digest is another one by now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use futures_util::future::try_join_all;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use weft_routing::slot::SLOT_COUNT;

use super::documents::{self, Documents, Notebooks, digest_text, group_of, slots_per_file};
use super::folder::{self, Folder};
use super::manifest::{IndexEntry, SlotsEntry, folder_of};
use super::progress::Progress;
use super::session::{IDS_A_REQUEST, Index, Session};
use super::{BackupError, Counts};
use crate::repair::Print;

/// How much documents are.
fn bytes_of(documents: &[Box<RawValue>]) -> usize {
    documents.iter().map(|one| one.get().len()).sum()
}

/// A copy in the making.
pub(super) struct Copy {
    index: Index,
    slots_per_file: u16,
    /// The groups whose documents are those of the earlier backup, apart from what the notebooks say.
    kept: BTreeMap<u16, SlotsEntry>,
    notebooks: Notebooks,
}

impl Copy {
    /// Copies an index, from its beginning.
    pub(super) async fn of(
        session: &Session<'_>,
        folder: &Folder,
        index: Index,
        before: Option<&IndexEntry>,
        progress: &Progress<'_>,
    ) -> Result<Self, BackupError> {
        let name = folder_of(&index.uid).replace('/', ".");
        let place = |what: &str| -> PathBuf { folder.incomplete().join(format!("{name}.{what}")) };
        let before = before.filter(|before| before.primary_key == index.primary_key);
        let slots_per_file = match before {
            Some(before) if is_near(before.slots_per_file, index.documents) => {
                before.slots_per_file
            }
            _ => slots_per_file(index.documents),
        };
        let before = before.filter(|before| before.slots_per_file == slots_per_file);
        let mut copy = Self {
            slots_per_file,
            kept: BTreeMap::new(),
            notebooks: Notebooks::new(place("copy"), slots_per_file)?,
            index,
        };
        if copy.index.primary_key.is_none() {
            return Ok(copy);
        }
        progress.begin(&copy.index.uid, copy.index.documents);
        match before {
            None => copy.take_all(session, progress).await?,
            Some(before) => {
                let ids = Notebooks::new(place("ids"), slots_per_file)?;
                copy.take_changed(session, folder, before, ids, progress)
                    .await?;
            }
        }
        copy.notebooks.flush()?;
        Ok(copy)
    }

    /// All documents, from all shards at once.
    async fn take_all(
        &mut self,
        session: &Session<'_>,
        progress: &Progress<'_>,
    ) -> Result<(), BackupError> {
        let uid = &self.index.uid;
        let primary_key = self.index.primary_key.as_deref().unwrap_or_default();
        let notebooks = Mutex::new(&mut self.notebooks);
        let shards = self.index.shards.iter().map(async |shard| {
            let mut cursor = None;
            loop {
                let page = session.page(uid, *shard, cursor.as_ref(), false).await?;
                progress.advance(page.documents.len(), bytes_of(&page.documents));
                let mut notebooks = notebooks.lock().await;
                for document in &page.documents {
                    if let Some(print) = Print::of(document, primary_key) {
                        notebooks.note(&print.id, Some(document))?;
                    }
                }
                drop(notebooks);
                cursor = page.cursor;
                if cursor.is_none() {
                    return Ok::<_, BackupError>(());
                }
            }
        });
        try_join_all(shards).await.map(drop)
    }

    /// The documents of the groups that differ from the earlier backup.
    async fn take_changed(
        &mut self,
        session: &Session<'_>,
        folder: &Folder,
        before: &IndexEntry,
        ids: Notebooks,
        progress: &Progress<'_>,
    ) -> Result<(), BackupError> {
        let (ids, digests) = self.take_prints(session, ids, progress).await?;
        for slots in &before.files {
            let is_equal = digests
                .get(&slots.group)
                .is_some_and(|digest| digest_text(*digest) == slots.digest);
            // A file that has been damaged since is copied anew.
            if is_equal && folder::verify(folder.path(), &slots.file).is_ok() {
                self.kept.insert(slots.group, slots.clone());
            }
        }
        for group in digests.into_keys() {
            if self.kept.contains_key(&group) {
                continue;
            }
            let wanted = ids.read(group)?.unwrap_or_default();
            let wanted: Vec<String> = wanted.into_keys().collect();
            for wanted in wanted.chunks(IDS_A_REQUEST) {
                let found = session.documents(&self.index.uid, wanted).await?;
                progress.advance(0, bytes_of(&found));
                self.note_all(&[], &found)?;
            }
        }
        Ok(())
    }

    /// The ids of all documents, and a digest for each group.
    async fn take_prints(
        &self,
        session: &Session<'_>,
        ids: Notebooks,
        progress: &Progress<'_>,
    ) -> Result<(Notebooks, BTreeMap<u16, u64>), BackupError> {
        let state = Mutex::new((ids, BTreeMap::<u16, u64>::new()));
        let shards = self.index.shards.iter().map(async |shard| {
            let mut cursor = None;
            loop {
                let uid = &self.index.uid;
                let page = session.page(uid, *shard, cursor.as_ref(), true).await?;
                progress.advance(page.prints.len(), 0);
                let mut state = state.lock().await;
                for (id, whole) in &page.prints {
                    let Some(group) = group_of(id, self.slots_per_file) else {
                        continue;
                    };
                    state.0.note(id, None)?;
                    let digest = state.1.entry(group).or_default();
                    *digest = digest.wrapping_add(*whole);
                }
                drop(state);
                cursor = page.cursor;
                if cursor.is_none() {
                    return Ok::<_, BackupError>(());
                }
            }
        });
        try_join_all(shards).await?;
        let (mut ids, digests) = state.into_inner();
        ids.flush()?;
        Ok((ids, digests))
    }

    /// Notes documents; those of `ids` that aren't among them don't exist any more.
    pub(super) fn note_all(
        &mut self,
        ids: &[String],
        found: &[Box<RawValue>],
    ) -> Result<(), BackupError> {
        let primary_key = self.index.primary_key.as_deref().unwrap_or_default();
        let mut missing: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        for document in found {
            if let Some(print) = Print::of(document, primary_key) {
                missing.remove(print.id.as_str());
                self.notebooks.note(&print.id, Some(document))?;
            }
        }
        for id in missing {
            self.notebooks.note(id, None)?;
        }
        Ok(())
    }

    /// Copies what was written again.
    pub(super) async fn take_written(
        &mut self,
        session: &Session<'_>,
        ids: &[String],
    ) -> Result<(), BackupError> {
        for ids in ids.chunks(IDS_A_REQUEST) {
            let found = session.documents(&self.index.uid, ids).await?;
            self.note_all(ids, &found)?;
        }
        Ok(())
    }

    /// Stores the copy among the backup's files.
    pub(super) fn store(
        mut self,
        folder: &Folder,
        counts: &mut Counts,
    ) -> Result<IndexEntry, BackupError> {
        self.notebooks.flush()?;
        let primary_key = self.index.primary_key.clone().unwrap_or_default();
        let mut files = Vec::new();
        for group in 0..SLOT_COUNT / self.slots_per_file {
            let kept = self.kept.remove(&group);
            let Some(noted) = self.notebooks.read(group)? else {
                counts.kept += usize::from(kept.is_some());
                files.extend(kept);
                continue;
            };
            let mut all = match &kept {
                Some(kept) => documents::load(folder.path(), kept, &primary_key)?,
                None => Documents::new(),
            };
            for (id, document) in noted {
                match document {
                    Some(document) => drop(all.insert(id, document)),
                    None => drop(all.remove(&id)),
                }
            }
            if all.is_empty() {
                continue;
            }
            let digest = documents::digest(&all, &primary_key);
            match kept.filter(|kept| kept.digest == digest_text(digest)) {
                Some(kept) => {
                    counts.kept += 1;
                    files.push(kept);
                }
                None => {
                    let stored = documents::store(folder, &self.index.uid, group, (&all, digest))?;
                    counts.copied += 1;
                    counts.bytes += stored.file.bytes;
                    files.push(stored);
                }
            }
        }
        let settings = serde_json::to_vec_pretty(&self.index.settings).unwrap_or_default();
        let place = folder_of(&self.index.uid);
        Ok(IndexEntry {
            settings: folder.store(&place, ".settings.json", &settings)?,
            uid: self.index.uid,
            primary_key: self.index.primary_key,
            shard_count: self.index.shard_count,
            write_mode: self.index.write_mode,
            strategy: self.index.strategy,
            documents: files.iter().map(|slots| slots.documents).sum(),
            slots_per_file: self.slots_per_file,
            files,
        })
    }
}

/// Whether an earlier choice still fits: files that are some times larger or smaller than they would be now are all right.
fn is_near(before: u16, documents: u64) -> bool {
    let now = slots_per_file(documents);
    before <= now.saturating_mul(8) && now <= before.saturating_mul(8)
}
