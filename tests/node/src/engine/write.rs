//! Writes of documents, each one transaction of one index.

use bumpalo::Bump;
use memmap2::Mmap;
use milli_core::documents::PrimaryKey;
use milli_core::progress::Progress;
use milli_core::update::new::indexer::{
    self, DocumentDeletion, DocumentOperation, UpdateByFunction,
};
use milli_core::update::{ClearDocuments, IndexDocumentsMethod, IndexerConfig};
use milli_core::{Filter, Index, Object, ThreadPoolNoAbort};
use roaring::RoaringBitmap;
use serde_json::Value;

use super::embedders;
use crate::errors::{ApiError, ApiResult, Code};

/// What the engine may use for a write, and how it learns that it should stop.
pub(crate) struct Writer<'a> {
    /// The threads that index.
    pub(crate) pool: &'a ThreadPoolNoAbort,
    /// Memory and temporary files.
    pub(crate) config: &'a IndexerConfig,
    /// Whether to give up.
    pub(crate) interrupted: &'a (dyn Fn() -> bool + Sync),
}

/// Documents to add, in the engine's form.
pub(crate) struct Staged {
    /// JSON objects, one a line; nothing if there are none.
    pub(crate) payload: Option<Mmap>,
    /// Whether they take the place of older ones.
    pub(crate) method: IndexDocumentsMethod,
}

impl Writer<'_> {
    /// Adds documents; says for each part how many it had, or why it was refused. A part that is refused
    /// leaves the others alone; an error as a whole leaves everything as it was.
    pub(crate) fn add(
        &self,
        uid: &str,
        index: &Index,
        parts: &[Staged],
        primary_key: Option<&str>,
    ) -> ApiResult<Vec<ApiResult<u64>>> {
        let interrupted = || (self.interrupted)();
        let progress = Progress::default();
        let mut wtxn = index.write_txn()?;
        let rtxn = index.read_txn()?;
        let old_fields = index.fields_ids_map(&rtxn)?;
        let mut new_fields = old_fields.clone();
        let embedders = embedders::of_index(index, &rtxn)?;

        let mut operation = DocumentOperation::new();
        for part in parts {
            match (&part.payload, part.method) {
                (None, _) => {}
                (Some(payload), IndexDocumentsMethod::UpdateDocuments) => {
                    operation.update_documents(payload)?
                }
                (Some(payload), _) => operation.replace_documents(payload)?,
            }
        }
        let arena = Bump::new();
        let (changes, stats, primary_key) = operation.into_changes(
            &arena,
            index,
            &rtxn,
            primary_key,
            &mut new_fields,
            &interrupted,
            progress.clone(),
        )?;
        let mut stats = stats.into_iter();
        let mut outcomes = Vec::new();
        let mut any = false;
        for part in parts {
            outcomes.push(match part.payload.as_ref().and_then(|_| stats.next()) {
                None => Ok(0),
                Some(stats) => match stats.error {
                    Some(error) => Err(ApiError::of_index(uid, error.into())),
                    None => {
                        any = true;
                        Ok(stats.document_count)
                    }
                },
            });
        }
        if any {
            indexer::index(
                &mut wtxn,
                index,
                self.pool,
                self.config.grenad_parameters(),
                &old_fields,
                new_fields,
                primary_key,
                &changes,
                embedders,
                &interrupted,
                &progress,
            )
            .map_err(|error| ApiError::of_index(uid, error))?;
            wtxn.commit()?;
        }
        Ok(outcomes)
    }

    /// Removes documents by their ids; says how many were there.
    pub(crate) fn delete_ids(&self, uid: &str, index: &Index, ids: &[String]) -> ApiResult<u64> {
        let rtxn = index.read_txn()?;
        let external = index.external_documents_ids();
        let mut found = RoaringBitmap::new();
        for id in ids {
            found.extend(external.get(&rtxn, id)?);
        }
        drop(rtxn);
        self.delete(uid, index, found)
    }

    /// Removes the documents that match a filter; says how many there were.
    pub(crate) fn delete_matching(
        &self,
        uid: &str,
        index: &Index,
        filter: &Value,
    ) -> ApiResult<u64> {
        let found = matching(uid, index, filter, Code::InvalidDocumentFilter)?;
        self.delete(uid, index, found)
    }

    fn delete(&self, uid: &str, index: &Index, documents: RoaringBitmap) -> ApiResult<u64> {
        if documents.is_empty() {
            return Ok(0);
        }
        let count = documents.len();
        let rtxn = index.read_txn()?;
        let Some(primary_key) = index.primary_key(&rtxn)? else {
            return Ok(0);
        };
        let arena = Bump::new();
        let mut new_fields = index.fields_ids_map(&rtxn)?;
        let primary_key = PrimaryKey::new_or_insert(primary_key, &mut new_fields)
            .map_err(milli_core::Error::from)?;
        let mut deletion = DocumentDeletion::new();
        deletion.delete_documents_by_docids(documents);
        let changes = deletion.into_changes(&arena, primary_key);
        self.apply(uid, index, new_fields, &changes)?;
        Ok(count)
    }

    /// Runs a function on the documents that match a filter, or on all; says how many those were.
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
            Some(filter) => matching(uid, index, filter, Code::InvalidDocumentFilter)?,
            None => index.documents_ids(&rtxn)?,
        };
        let count = documents.len();
        let Some(primary_key) = index.primary_key(&rtxn)? else {
            return Ok(0);
        };
        if documents.is_empty() {
            return Ok(0);
        }
        let mut new_fields = index.fields_ids_map(&rtxn)?;
        let primary_key = PrimaryKey::new_or_insert(primary_key, &mut new_fields)
            .map_err(milli_core::Error::from)?;
        let changes = UpdateByFunction::new(documents, context, function)
            .into_changes(&primary_key)
            .map_err(|error| ApiError::of_index(uid, error))?;
        self.apply(uid, index, new_fields, &changes)?;
        Ok(count)
    }

    fn apply<'pl, C>(
        &self,
        uid: &str,
        index: &Index,
        new_fields: milli_core::FieldsIdsMap,
        changes: &C,
    ) -> ApiResult<()>
    where
        C: indexer::document_changes::DocumentChanges<'pl>,
    {
        let interrupted = || (self.interrupted)();
        let progress = Progress::default();
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
            None,
            changes,
            embedders,
            &interrupted,
            &progress,
        )
        .map_err(|error| ApiError::of_index(uid, error))?;
        wtxn.commit()?;
        Ok(())
    }
}

/// Removes all documents of an index; says how many there were.
pub(crate) fn clear(index: &Index) -> ApiResult<u64> {
    let mut wtxn = index.write_txn()?;
    let count = ClearDocuments::new(&mut wtxn, index).execute()?;
    wtxn.commit()?;
    Ok(count)
}

/// The documents that match a filter.
pub(crate) fn matching(
    uid: &str,
    index: &Index,
    filter: &Value,
    code: Code,
) -> ApiResult<RoaringBitmap> {
    let rtxn = index.read_txn()?;
    let refused = |error| ApiError::of_index(uid, error);
    match Filter::from_json(filter).map_err(|error| ApiError::from(error).with_code(code))? {
        Some(filter) => filter
            .evaluate(&rtxn, index)
            .map_err(|error| recode(refused(error), code)),
        None => Ok(index.documents_ids(&rtxn)?),
    }
}

fn recode(error: ApiError, code: Code) -> ApiError {
    if error.code == Code::InvalidSearchFilter.name() {
        error.with_code(code)
    } else {
        error
    }
}
