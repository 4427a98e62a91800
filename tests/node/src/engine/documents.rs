//! Reading documents: one by its id, or a page of them.

use milli_core::heed::RoTxn;
use milli_core::{AscDesc, FieldsIdsMap, Filter, Index, Member, Object, all_obkv_to_json};
use roaring::RoaringBitmap;
use serde_json::{Map, Value, json};

use super::select::select;
use super::write::{matching, of_documents};
use crate::errors::{ApiError, ApiResult, Code};

/// Which documents are read, and which parts of them.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// The number of documents to skip.
    pub(crate) offset: usize,
    /// The most documents to return.
    pub(crate) limit: usize,
    /// The attributes to return; `None` means all.
    pub(crate) fields: Option<Vec<String>>,
    /// True if vectors are returned too.
    pub(crate) vectors: bool,
    /// Only documents with these ids.
    pub(crate) ids: Option<Vec<String>>,
    /// Only documents that match this filter.
    pub(crate) filter: Option<Value>,
    /// Sort criteria; if empty, documents are in the order of their insertion.
    pub(crate) sort: Vec<String>,
}

/// One document by its id.
pub(crate) fn get(
    index: &Index,
    id: &str,
    fields: Option<&[String]>,
    vectors: bool,
) -> ApiResult<Object> {
    let rtxn = index.read_txn()?;
    let internal = index.external_documents_ids().get(&rtxn, id)?;
    let internal = internal.ok_or_else(|| {
        ApiError::new(
            Code::DocumentNotFound,
            format!("Document `{id}` not found."),
        )
    })?;
    let document = Reader::new(index, &rtxn)?.read(internal, vectors)?;
    Ok(with_fields(document, fields))
}

/// A page of documents, and the number of documents on all pages.
pub(crate) fn page(index: &Index, wanted: &Wanted) -> ApiResult<(Vec<Object>, u64)> {
    let rtxn = index.read_txn()?;
    let mut candidates = match &wanted.filter {
        Some(filter) => matching(index, filter).map_err(|error| of_documents(error.into()))?,
        None => index.documents_ids(&rtxn)?,
    };
    if let Some(ids) = &wanted.ids {
        let external = index.external_documents_ids();
        let mut among = RoaringBitmap::new();
        for id in ids {
            among.extend(external.get(&rtxn, id.trim())?);
        }
        candidates &= among;
    }
    let total = candidates.len();
    let internal: Vec<u32> = if wanted.sort.is_empty() {
        candidates
            .iter()
            .skip(wanted.offset)
            .take(wanted.limit)
            .collect()
    } else {
        sorted(index, &rtxn, &candidates, wanted)?
    };
    let reader = Reader::new(index, &rtxn)?;
    let mut documents = Vec::with_capacity(internal.len());
    for id in internal {
        let document = reader.read(id, wanted.vectors)?;
        documents.push(with_fields(document, wanted.fields.as_deref()));
    }
    Ok((documents, total))
}

fn sorted(
    index: &Index,
    rtxn: &RoTxn,
    candidates: &RoaringBitmap,
    wanted: &Wanted,
) -> ApiResult<Vec<u32>> {
    let recode = |error: ApiError| error.with_code(Code::InvalidDocumentSort);
    let mut criteria = Vec::new();
    for text in &wanted.sort {
        let criterion: AscDesc = text.parse().map_err(|error: milli_core::AscDescError| {
            recode(ApiError::from(milli_core::Error::from(
                milli_core::SortError::from(error),
            )))
        })?;
        criteria.push(criterion);
    }
    let sortable = index.sortable_fields(rtxn)?;
    let fields = index.fields_ids_map(rtxn)?;
    // As on a real node, an index without any geographic point can't be sorted by points, even if `_geo` is sortable.
    let has_places = sortable.contains("_geo") && fields.id("_geo").is_some();
    for criterion in &criteria {
        let (AscDesc::Asc(member) | AscDesc::Desc(member)) = criterion;
        let (field, is_sortable) = match member {
            Member::Field(field) => (field.as_str(), milli_core::is_faceted(field, &sortable)),
            Member::Geo(_) => ("_geo", has_places),
        };
        if !is_sortable {
            let error = milli_core::UserError::InvalidSortableAttribute {
                field: field.to_owned(),
                valid_fields: sortable.iter().cloned().collect(),
                hidden_fields: false,
            };
            return Err(recode(ApiError::from(milli_core::Error::from(error))));
        }
    }
    let filter = wanted
        .filter
        .as_ref()
        .map(Filter::from_json)
        .transpose()?
        .flatten();
    let mut search = index.search(rtxn);
    // Ids can't be part of the engine's search, so the search covers all pages up to the wanted one.
    search.sort_criteria(criteria).offset(0).limit(usize::MAX);
    if let Some(filter) = filter {
        search.filter(filter);
    }
    let found = search.execute()?;
    let found = found
        .documents_ids
        .into_iter()
        .filter(|id| candidates.contains(*id));
    Ok(found.skip(wanted.offset).take(wanted.limit).collect())
}

fn with_fields(document: Object, fields: Option<&[String]>) -> Object {
    match fields {
        Some(fields) => {
            let names: Vec<&str> = fields.iter().map(String::as_str).collect();
            select(&document, &names)
        }
        None => document,
    }
}

/// Reads documents by the engine's internal numbers.
pub(crate) struct Reader<'a> {
    index: &'a Index,
    rtxn: &'a RoTxn<'a>,
    fields: FieldsIdsMap,
}

impl<'a> Reader<'a> {
    /// Creates a reader for the data that a transaction sees.
    pub(crate) fn new(index: &'a Index, rtxn: &'a RoTxn<'a>) -> ApiResult<Reader<'a>> {
        Ok(Reader {
            index,
            rtxn,
            fields: index.fields_ids_map(rtxn)?,
        })
    }

    /// The names of all attributes that any document has.
    pub(crate) fn attributes(&self) -> Vec<String> {
        self.fields
            .iter()
            .map(|(_, name)| name.to_owned())
            .collect()
    }

    /// One document, with or without its vectors.
    pub(crate) fn read(&self, internal: u32, vectors: bool) -> ApiResult<Object> {
        let mut document =
            all_obkv_to_json(self.index.document(self.rtxn, internal)?, &self.fields)?;
        let stored = document.remove("_vectors");
        if vectors {
            document.insert(
                "_vectors".to_owned(),
                Value::Object(self.vectors_of(internal, stored)?),
            );
        }
        Ok(document)
    }

    fn vectors_of(&self, internal: u32, stored: Option<Value>) -> ApiResult<Map<String, Value>> {
        let mut vectors = match stored {
            Some(Value::Object(stored)) => stored,
            _ => Map::new(),
        };
        let configs = self.index.embedding_configs(self.rtxn)?;
        for (name, embeddings) in self.index.embeddings(self.rtxn, internal)? {
            let supplied = configs
                .iter()
                .any(|config| config.name == name && config.user_provided.contains(internal));
            vectors.insert(
                name,
                json!({ "embeddings": embeddings, "regenerate": !supplied }),
            );
        }
        Ok(vectors)
    }
}
