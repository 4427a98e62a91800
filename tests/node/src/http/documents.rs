//! `/indexes/{uid}/documents` and all below.

use std::sync::Arc;

use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use deserr::Deserr;
use milli_core::update::IndexDocumentsMethod;
use serde_json::{Value, json};

use super::call::wrong_content_type;
use super::formats::{PayloadFormat, normalize};
use super::indexes::PAGE;
use super::uid::IndexUid;
use super::{Answer, Call, blocking};
use crate::auth::Action;
use crate::engine::documents::{self, Wanted};
use crate::errors::{ApiError, ApiResult, Code, of};
use crate::node::Node;
use crate::queue::{Addition, Work};
use crate::validate::{Choice, FromText, InBody, InQuery, List, Param, Wrong, missing};

pub(super) fn routes() -> Router<Arc<Node>> {
    let all = get(list).post(replace).put(update).delete(clear);
    Router::new()
        .route("/indexes/{uid}/documents", all)
        .route(
            "/indexes/{uid}/documents/{id}",
            get(show).delete(delete_one),
        )
        .route("/indexes/{uid}/documents/fetch", post(fetch))
        .route("/indexes/{uid}/documents/delete-batch", post(delete_batch))
        .route("/indexes/{uid}/documents/delete", post(delete_by_filter))
        .route("/indexes/{uid}/documents/edit", post(edit))
}

#[derive(Debug, Deserr)]
#[deserr(error = InQuery, rename_all = camelCase, deny_unknown_fields)]
struct ShowParameters {
    #[deserr(default, error = InQuery<of::InvalidDocumentFields>)]
    fields: Option<Choice<String>>,
    #[deserr(default, error = InQuery<of::InvalidDocumentRetrieveVectors>)]
    retrieve_vectors: Option<Param<bool>>,
    #[deserr(default, error = InQuery<of::InvalidDocumentUseNetwork>)]
    use_network: Option<Param<bool>>,
}

async fn show(Path((uid, id)): Path<(String, String)>, call: Call) -> Answer {
    call.authorize(Action::DocumentsGet, Some(&uid))?;
    let parameters: ShowParameters = call.parameters()?;
    refuse_network(parameters.use_network.is_some())?;
    let uid = IndexUid::from_path(uid)?;
    let fields = parameters.fields.and_then(Choice::into_list);
    let vectors = parameters.retrieve_vectors.is_some_and(|vectors| vectors.0);
    let node = call.node;
    let document = blocking(move || {
        let index = node.indexes.get(&uid)?;
        documents::get(&index, &id, fields.as_deref(), vectors)
    })
    .await?;
    Ok(Json(document).into_response())
}

fn refuse_network(asked: bool) -> ApiResult<()> {
    if asked {
        Err(ApiError::not_implemented("network search (`useNetwork`)"))
    } else {
        Ok(())
    }
}

#[derive(Debug, Deserr)]
#[deserr(error = InQuery, rename_all = camelCase, deny_unknown_fields)]
struct ListParameters {
    #[deserr(default, error = InQuery<of::InvalidDocumentOffset>)]
    offset: Param<usize>,
    #[deserr(default = Param(PAGE), error = InQuery<of::InvalidDocumentLimit>)]
    limit: Param<usize>,
    #[deserr(default, error = InQuery<of::InvalidDocumentFields>)]
    fields: Option<Choice<String>>,
    #[deserr(default, error = InQuery<of::InvalidDocumentRetrieveVectors>)]
    retrieve_vectors: Option<Param<bool>>,
    #[deserr(default, error = InQuery<of::InvalidDocumentIds>)]
    ids: Option<List<String>>,
    #[deserr(default, error = InQuery<of::InvalidDocumentFilter>)]
    filter: Option<String>,
    #[deserr(default, error = InQuery<of::InvalidDocumentSort>)]
    sort: Option<String>,
    #[deserr(default, error = InQuery<of::InvalidDocumentUseNetwork>)]
    use_network: Option<Param<bool>>,
}

async fn list(Path(uid): Path<String>, call: Call) -> Answer {
    call.authorize(Action::DocumentsGet, Some(&uid))?;
    let parameters: ListParameters = call.parameters()?;
    refuse_network(parameters.use_network.is_some())?;
    let filter = parameters
        .filter
        .map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
    let wanted = Wanted {
        offset: parameters.offset.0,
        limit: parameters.limit.0,
        fields: parameters.fields.and_then(Choice::into_list),
        vectors: parameters.retrieve_vectors.is_some_and(|vectors| vectors.0),
        ids: parameters.ids.map(|ids| ids.0),
        filter,
        sort: parameters
            .sort
            .map(|text| super::search::split_sort(&text))
            .unwrap_or_default(),
    };
    page(uid, call, wanted).await
}

#[derive(Debug, Deserr)]
#[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields)]
struct FetchDocuments {
    #[deserr(default, error = InBody<of::InvalidDocumentOffset>)]
    offset: usize,
    #[deserr(default = PAGE, error = InBody<of::InvalidDocumentLimit>)]
    limit: usize,
    #[deserr(default, error = InBody<of::InvalidDocumentFields>)]
    fields: Option<Vec<String>>,
    #[deserr(default, error = InBody<of::InvalidDocumentRetrieveVectors>)]
    retrieve_vectors: bool,
    #[deserr(default, error = InBody<of::InvalidDocumentIds>)]
    ids: Option<Vec<Value>>,
    #[deserr(default, error = InBody<of::InvalidDocumentFilter>)]
    filter: Option<Value>,
    #[deserr(default, error = InBody<of::InvalidDocumentSort>)]
    sort: Option<Vec<String>>,
    #[deserr(default, error = InBody<of::InvalidDocumentUseNetwork>)]
    use_network: Option<bool>,
}

async fn fetch(Path(uid): Path<String>, mut call: Call) -> Answer {
    call.authorize(Action::DocumentsGet, Some(&uid))?;
    let body: FetchDocuments = call.body().await?;
    refuse_network(body.use_network.is_some())?;
    let ids = body.ids.map(|ids| {
        ids.iter()
            .enumerate()
            .map(|(index, id)| id_text(id, index))
            .collect::<ApiResult<Vec<String>>>()
    });
    let wanted = Wanted {
        offset: body.offset,
        limit: body.limit,
        fields: body
            .fields
            .filter(|fields| !fields.iter().any(|field| field == "*")),
        vectors: body.retrieve_vectors,
        ids: ids.transpose()?,
        filter: body.filter,
        sort: body.sort.unwrap_or_default(),
    };
    page(uid, call, wanted).await
}

fn id_text(id: &Value, index: usize) -> ApiResult<String> {
    match id {
        Value::String(id) => Ok(id.clone()),
        Value::Number(id) if !id.is_f64() => Ok(id.to_string()),
        _ => Err(ApiError::new(
            Code::InvalidDocumentIds,
            format!(
                "In `.ids[{index}]`: Document identifier `{id}` is invalid. A document identifier can \
                 be of type integer or string, only composed of alphanumeric characters (a-z A-Z 0-9), hyphens (-) \
                 and underscores (_), and can not be more than 511 bytes."
            ),
        )),
    }
}

async fn page(uid: String, call: Call, wanted: Wanted) -> Answer {
    let uid = IndexUid::from_path(uid)?;
    let node = call.node;
    let (offset, limit) = (wanted.offset, wanted.limit);
    let (results, total) = blocking(move || {
        let index = node.indexes.get(&uid)?;
        documents::page(&uid, &index, &wanted)
    })
    .await?;
    Ok(
        Json(json!({ "results": results, "offset": offset, "limit": limit, "total": total }))
            .into_response(),
    )
}

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

async fn replace(path: Path<String>, call: Call) -> Answer {
    add(path, call, IndexDocumentsMethod::ReplaceDocuments).await
}

async fn update(path: Path<String>, call: Call) -> Answer {
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

#[derive(Debug, Default, Deserr)]
#[deserr(error = InQuery, rename_all = camelCase, deny_unknown_fields)]
struct Metadata {
    #[deserr(default, error = InQuery<of::InvalidIndexCustomMetadata>)]
    custom_metadata: Option<String>,
}

async fn clear(Path(uid): Path<String>, call: Call) -> Answer {
    call.authorize(Action::DocumentsDelete, Some(&uid))?;
    let index = IndexUid::from_path(uid)?;
    let Metadata { custom_metadata } = call.parameters()?;
    call.accept(
        Work::ClearDocuments { index },
        json!({ "deletedDocuments": null }),
        custom_metadata,
    )
    .await
}

async fn delete_ids(
    call: Call,
    index: String,
    ids: Vec<String>,
    metadata: Option<String>,
) -> Answer {
    let details =
        json!({ "providedIds": ids.len(), "deletedDocuments": null, "originalFilter": null });
    call.accept(Work::DeleteDocuments { index, ids }, details, metadata)
        .await
}

async fn delete_one(Path((uid, id)): Path<(String, String)>, call: Call) -> Answer {
    call.authorize(Action::DocumentsDelete, Some(&uid))?;
    let Metadata { custom_metadata } = call.parameters()?;
    let index = IndexUid::from_path(uid)?;
    delete_ids(call, index, vec![id], custom_metadata).await
}

async fn delete_batch(Path(uid): Path<String>, mut call: Call) -> Answer {
    call.authorize(Action::DocumentsDelete, Some(&uid))?;
    let body = call.json().await?;
    let Metadata { custom_metadata } = call.parameters()?;
    let index = IndexUid::from_path(uid)?;
    let ids: Vec<Value> = serde_json::from_value(body).map_err(|error| {
        ApiError::new(Code::BadRequest, format!("Json deserialize error: {error}"))
    })?;
    let text = |id: &Value| match id {
        Value::String(id) => id.clone(),
        id => id.to_string(),
    };
    let ids = ids.iter().map(text).collect();
    delete_ids(call, index, ids, custom_metadata).await
}

#[derive(Debug, Deserr)]
#[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields)]
struct DeleteByFilter {
    #[deserr(error = InBody<of::InvalidDocumentFilter>, missing_field_error = missing::<of::MissingDocumentFilter>)]
    filter: Value,
}

/// The filter of a write must be there and be well formed before the task is accepted.
fn check_filter(filter: &Value) -> ApiResult<()> {
    match milli_core::Filter::from_json(filter) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(ApiError::new(
            Code::InvalidDocumentFilter,
            "Sending an empty filter is forbidden.",
        )),
        Err(error) => Err(ApiError::from(error).with_code(Code::InvalidDocumentFilter)),
    }
}

async fn delete_by_filter(Path(uid): Path<String>, mut call: Call) -> Answer {
    call.authorize(Action::DocumentsDelete, Some(&uid))?;
    let Metadata { custom_metadata } = call.parameters()?;
    let DeleteByFilter { filter } = call.body().await?;
    let index = IndexUid::from_path(uid)?;
    check_filter(&filter)?;
    let details =
        json!({ "providedIds": 0, "deletedDocuments": null, "originalFilter": filter.to_string() });
    call.accept(
        Work::DeleteByFilter { index, filter },
        details,
        custom_metadata,
    )
    .await
}

#[derive(Debug, Deserr)]
#[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields)]
struct EditDocuments {
    #[deserr(default, error = InBody<of::InvalidDocumentFilter>)]
    filter: Option<Value>,
    #[deserr(default, error = InBody<of::InvalidDocumentEditionContext>)]
    context: Option<Value>,
    #[deserr(error = InBody<of::InvalidDocumentEditionFunctionFilter>,
        missing_field_error = missing::<of::MissingDocumentEditionFunction>)]
    function: String,
}

async fn edit(Path(uid): Path<String>, mut call: Call) -> Answer {
    call.authorize(Action::DocumentsAll, Some(&uid))?;
    let Metadata { custom_metadata } = call.parameters()?;
    let EditDocuments {
        filter,
        context,
        function,
    } = call.body().await?;
    if !call.node.has_feature("editDocumentsByFunction") {
        return Err(ApiError::new(
            Code::FeatureNotEnabled,
            "Using the documents edit route requires enabling the `edit documents by function` experimental feature. \
             See https://github.com/orgs/meilisearch/discussions/762",
        ));
    }
    let index = IndexUid::from_path(uid)?;
    if let Err(error) = milli_core::rhai::Engine::new().compile(&function) {
        return Err(ApiError::new(Code::BadRequest, error.to_string()));
    }
    if let Some(filter) = &filter {
        check_filter(filter)?;
    }
    let context = match context {
        None => None,
        Some(Value::Object(context)) => Some(context),
        Some(_) => {
            return Err(ApiError::new(
                Code::InvalidDocumentEditionContext,
                "The context must be an object",
            ));
        }
    };
    let details = json!({
        "editedDocuments": null,
        "deletedDocuments": null,
        "originalFilter": filter.as_ref().map(Value::to_string),
        "context": context,
        "function": function,
    });
    call.accept(
        Work::EditDocuments {
            index,
            filter,
            context,
            function,
        },
        details,
        custom_metadata,
    )
    .await
}
