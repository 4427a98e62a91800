//! Adding documents: their body is checked and staged before the task is accepted.

use std::sync::Arc;

use axum::extract::Path;
use deserr::Deserr;
use milli_core::update::IndexDocumentsMethod;
use serde_json::json;

use super::super::call::wrong_content_type;
use super::super::formats::{PayloadFormat, normalize};
use super::super::uid::IndexUid;
use super::{Answer, Call, blocking};
use crate::auth::Action;
use crate::errors::{ApiError, ApiResult, Code, of};
use crate::queue::{Addition, Work};
use crate::validate::{FromText, InQuery, Param, Wrong};

#[derive(Debug, Deserr)]
#[deserr(error = InQuery, rename_all = camelCase, deny_unknown_fields)]
struct AddParameters {
    #[deserr(default, error = InQuery<of::InvalidIndexPrimaryKey>)]
    primary_key: Option<String>,
    #[deserr(default, error = InQuery<of::InvalidDocumentCsvDelimiter>)]
    csv_delimiter: Option<Param<Delimiter>>,
    #[deserr(default, error = InQuery<of::InvalidIndexCustomMetadata>)]
    custom_metadata: Option<String>,
    #[deserr(default, error = InQuery<of::InvalidSkipCreation>)]
    skip_creation: Option<Param<bool>>,
}

#[derive(Debug, Clone, Copy)]
struct Delimiter(u8);

impl FromText for Delimiter {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        let mut letters = text.chars();
        match (letters.next(), letters.next()) {
            (Some(letter), None) if letter.is_ascii() => Ok(Delimiter(letter as u8)),
            (Some(letter), None) => Err(Wrong(format!(
                "csv delimiter must be an ascii character. Found: `{letter}`"
            ))),
            _ => Err(Wrong(format!(
                "expected a string of one character, but found the following string of {} characters: `{text}`",
                text.chars().count()
            ))),
        }
    }
}

pub(super) async fn replace(path: Path<String>, call: Call) -> Answer {
    add(path, call, IndexDocumentsMethod::ReplaceDocuments).await
}

pub(super) async fn update(path: Path<String>, call: Call) -> Answer {
    add(path, call, IndexDocumentsMethod::UpdateDocuments).await
}

async fn add(Path(uid): Path<String>, mut call: Call, method: IndexDocumentsMethod) -> Answer {
    let grant = call.authorize(Action::DocumentsAdd, Some(&uid))?;
    let index = IndexUid::from_path(uid)?;
    let parameters: AddParameters = call.parameters()?;
    let format = format_of(
        &call,
        parameters.csv_delimiter.map(|delimiter| delimiter.0.0),
    )?;
    if parameters.skip_creation.is_some_and(|skip| skip.0) {
        return Err(ApiError::not_implemented("`skipCreation`"));
    }
    let body = call.bytes().await?;
    let node = Arc::clone(&call.node);
    let (payload, documents) = blocking(move || {
        let documents = normalize(&body, format)?;
        Ok((
            node.queue.payloads.stage(&documents.lines)?,
            documents.count,
        ))
    })
    .await?;
    let may_create = grant.creates_indexes && grant.reaches(&index);
    let addition = Addition {
        index,
        primary_key: parameters.primary_key,
        method,
        payload,
        documents,
        may_create,
    };
    let details = json!({ "receivedDocuments": documents, "indexedDocuments": null });
    call.accept(
        Work::AddDocuments(addition),
        details,
        parameters.custom_metadata,
    )
    .await
}

fn format_of(call: &Call, delimiter: Option<u8>) -> ApiResult<PayloadFormat> {
    const ACCEPTED: [&str; 3] = ["application/json", "application/x-ndjson", "text/csv"];
    let format = match call.content_type() {
        Some("application/json") => PayloadFormat::Json,
        Some("application/x-ndjson") => PayloadFormat::Ndjson,
        Some("text/csv") => PayloadFormat::Csv {
            delimiter: delimiter.unwrap_or(b','),
        },
        other => return Err(wrong_content_type(other, &ACCEPTED)),
    };
    match (format, delimiter) {
        (PayloadFormat::Csv { .. }, _) | (_, None) => Ok(format),
        _ => Err(ApiError::new(
            Code::InvalidContentType,
            format!(
                "The Content-Type `{}` does not support the use of a csv delimiter. The csv delimiter can only be \
                 used with the Content-Type `text/csv`.",
                call.content_type().unwrap_or_default()
            ),
        )),
    }
}
