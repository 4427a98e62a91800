//! Removing documents, and changing them with a function.

use axum::extract::Path;
use deserr::Deserr;
use serde_json::{Value, json};

use super::super::uid::IndexUid;
use super::{Answer, Call};
use crate::auth::Action;
use crate::errors::{ApiError, ApiResult, Code, of};
use crate::queue::Work;
use crate::validate::{InBody, InQuery, missing};

#[derive(Debug, Default, Deserr)]
#[deserr(error = InQuery, rename_all = camelCase, deny_unknown_fields)]
struct Metadata {
    #[deserr(default, error = InQuery<of::InvalidIndexCustomMetadata>)]
    custom_metadata: Option<String>,
}

pub(super) async fn clear(Path(uid): Path<String>, call: Call) -> Answer {
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

pub(super) async fn delete_one(Path((uid, id)): Path<(String, String)>, call: Call) -> Answer {
    call.authorize(Action::DocumentsDelete, Some(&uid))?;
    let Metadata { custom_metadata } = call.parameters()?;
    let index = IndexUid::from_path(uid)?;
    delete_ids(call, index, vec![id], custom_metadata).await
}

pub(super) async fn delete_batch(Path(uid): Path<String>, mut call: Call) -> Answer {
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

/// The filter of a write must be present and well-formed before the task is accepted.
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

pub(super) async fn delete_by_filter(Path(uid): Path<String>, mut call: Call) -> Answer {
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

pub(super) async fn edit(Path(uid): Path<String>, mut call: Call) -> Answer {
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
