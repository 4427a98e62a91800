//! Writes of documents. Each write is one transaction of one index.

use bumpalo::Bump;
use memmap2::Mmap;
use milli_core::documents::PrimaryKey;
use milli_core::progress::Progress;
use milli_core::update::new::indexer::document_changes::DocumentChanges;
use milli_core::update::new::indexer::{self, DocumentOperation, PayloadStats, UpdateByFunction};
use milli_core::update::{ClearDocuments, IndexDocumentsMethod, IndexerConfig};
use milli_core::{FieldsIdsMap, Filter, Index, Object, ThreadPoolNoAbort};
use roaring::RoaringBitmap;
use serde_json::Value;

use super::embedders;
use crate::errors::{ApiError, ApiResult, Code};

/// The engine's resources for a write, and the check whether to stop.
pub(crate) struct Writer<'a> {
    /// The threads for indexing.
    pub(crate) pool: &'a ThreadPoolNoAbort,
    /// The configuration of memory and temporary files.
    pub(crate) config: &'a IndexerConfig,
    /// True if the write must be given up.
    pub(crate) interrupted: &'a (dyn Fn() -> bool + Sync),
}

/// A part of a write.
pub(crate) enum Part {
    /// Documents to add: JSON objects, one per line; `None` if there are none.
    Documents(Option<Mmap>, IndexDocumentsMethod),
    /// Ids of documents to remove.
    Deletion(Vec<String>),
}

impl Writer<'_> {
    /// Adds and removes documents. Returns for each part how many documents it had, or why it was refused. A refused part
    /// doesn't affect the others; an error of the whole write leaves everything unchanged.
    pub(crate) fn write(
        &self,
        uid: &str,
        index: &Index,
        parts: &[Part],
        primary_key: Option<&str>,
    ) -> ApiResult<Vec<ApiResult<u64>>> {
        let rtxn = index.read_txn()?;
        let mut new_fields = index.fields_ids_map(&rtxn)?;
        let ids: Vec<Vec<&str>> = parts.iter().map(Part::deleted_ids).collect();
        let mut operation = DocumentOperation::new();
        for (part, ids) in parts.iter().zip(&ids) {
            match part {
                Part::Documents(None, _) => {}
                Part::Documents(Some(payload), IndexDocumentsMethod::UpdateDocuments) => {
                    operation.update_documents(payload)?;
                }
                Part::Documents(Some(payload), _) => operation.replace_documents(payload)?,
                Part::Deletion(_) => operation.delete_documents(ids),
            }
        }
        let arena = Bump::new();
        let (changes, stats, primary_key) = operation.into_changes(
            &arena,
            index,
            &rtxn,
            primary_key,
            &mut new_fields,
            &self.interrupted,
            Progress::default(),
        )?;
        let mut stats = stats.into_iter();
        let mut outcomes = Vec::new();
        for part in parts {
            let stats = if part.is_empty() { None } else { stats.next() };
            outcomes.push(match stats {
                Some(PayloadStats {
                    error: Some(error), ..
                }) => Err(ApiError::of_index(uid, error.into())),
                Some(stats) => Ok(stats.document_count),
                None => Ok(0),
            });
        }
        let any = parts
            .iter()
            .zip(&outcomes)
            .any(|(part, outcome)| !part.is_empty() && outcome.is_ok());
        if any {
            self.apply(uid, index, new_fields, primary_key, &changes)?;
        }
        Ok(outcomes)
    }

    /// Removes documents by their ids; returns how many existed.
    pub(crate) fn delete_ids(&self, uid: &str, index: &Index, ids: &[String]) -> ApiResult<u64> {
        let rtxn = index.read_txn()?;
        let external = index.external_documents_ids();
        let mut found = Vec::new();
        for id in ids {
            if external.get(&rtxn, id)?.is_some() {
                found.push(id.clone());
            }
        }
        drop(rtxn);
        found.sort_unstable();
        found.dedup();
        self.delete(uid, index, found)
    }

    /// Removes the documents that match a filter; returns how many there were.
    pub(crate) fn delete_matching(
        &self,
        uid: &str,
        index: &Index,
        filter: &Value,
    ) -> ApiResult<u64> {
        let found = matching(index, filter)
            .map_err(|error| of_documents(ApiError::of_index(uid, error)))?;
        // An index without documents may have no primary key, so it can't be asked for ids.
        if found.is_empty() {
            return Ok(0);
        }
        let rtxn = index.read_txn()?;
        let ids = index
            .external_id_of(&rtxn, found)?
            .into_iter()
            .collect::<Result<Vec<String>, _>>()?;
        drop(rtxn);
        self.delete(uid, index, ids)
    }

    fn delete(&self, uid: &str, index: &Index, ids: Vec<String>) -> ApiResult<u64> {
        let count = ids.len() as u64;
        if count > 0 {
            self.write(uid, index, &[Part::Deletion(ids)], None)?;
        }
        Ok(count)
    }

    /// Runs a function on the documents that match a filter, or on all; returns how many there were.
    pub(crate) fn edit(
        &self,
        uid: &str,
        index: &Index,
        filter: Option<&Value>,
        context: Option<Object>,
        function: String,
    ) -> ApiResult<u64> {
        let rtxn = index.read_txn()?;
        let documents = match filter {
            Some(filter) => matching(index, filter)
                .map_err(|error| of_documents(ApiError::of_index(uid, error)))?,
            None => index.documents_ids(&rtxn)?,
        };
        let count = documents.len();
        let Some(primary_key) = index.primary_key(&rtxn)?.filter(|_| count > 0) else {
            return Ok(0);
        };
        let mut new_fields = index.fields_ids_map(&rtxn)?;
        let primary_key = PrimaryKey::new_or_insert(primary_key, &mut new_fields)
            .map_err(milli_core::Error::from)?;
        let changes = UpdateByFunction::new(documents, context, function)
            .into_changes(&primary_key)
            .map_err(|error| ApiError::of_index(uid, error))?;
        self.apply(uid, index, new_fields, None, &changes)?;
        Ok(count)
    }

    fn apply<'pl, C: DocumentChanges<'pl>>(
        &self,
        uid: &str,
        index: &Index,
        new_fields: FieldsIdsMap,
        new_primary_key: Option<PrimaryKey<'pl>>,
        changes: &C,
    ) -> ApiResult<()> {
        let mut wtxn = index.write_txn()?;
        let rtxn = index.read_txn()?;
        let old_fields = index.fields_ids_map(&rtxn)?;
        let embedders = embedders::of_index(index, &rtxn)?;
        indexer::index(
            &mut wtxn,
            index,
            self.pool,
            self.config.grenad_parameters(),
            &old_fields,
            new_fields,
            new_primary_key,
            changes,
            embedders,
            &self.interrupted,
            &Progress::default(),
        )
        .map_err(|error| ApiError::of_index(uid, error))?;
        wtxn.commit()?;
        Ok(())
    }
}

impl Part {
    fn deleted_ids(&self) -> Vec<&str> {
        match self {
            Part::Deletion(ids) => ids.iter().map(String::as_str).collect(),
            Part::Documents(..) => Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Part::Documents(None, _))
    }
}

/// Removes all documents of an index; returns how many there were.
pub(crate) fn clear(index: &Index) -> ApiResult<u64> {
    let mut wtxn = index.write_txn()?;
    let count = ClearDocuments::new(&mut wtxn, index).execute()?;
    wtxn.commit()?;
    Ok(count)
}

/// The documents that match a filter.
pub(crate) fn matching(index: &Index, filter: &Value) -> milli_core::Result<RoaringBitmap> {
    let rtxn = index.read_txn()?;
    match Filter::from_json(filter)? {
        Some(filter) => filter.evaluate(&rtxn, index),
        None => index.documents_ids(&rtxn).map_err(milli_core::Error::from),
    }
}

/// Changes the error of a filter into that of a filter for documents.
pub(crate) fn of_documents(error: ApiError) -> ApiError {
    if error.code == Code::InvalidSearchFilter.name() {
        error.with_code(Code::InvalidDocumentFilter)
    } else {
        error
    }
}
