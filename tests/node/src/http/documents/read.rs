//! Reading documents.

use axum::Json;
use axum::extract::Path;
use axum::response::IntoResponse;
use deserr::Deserr;
use serde_json::{Value, json};

use super::super::indexes::PAGE;
use super::super::search::split_sort;
use super::super::uid::IndexUid;
use super::{Answer, Call, blocking};
use crate::auth::Action;
use crate::engine::documents::{self, Wanted};
use crate::errors::{ApiError, ApiResult, Code, of};
use crate::validate::{Choice, InBody, InQuery, List, Param};

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

pub(super) async fn show(Path((uid, id)): Path<(String, String)>, call: Call) -> Answer {
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

pub(super) async fn list(Path(uid): Path<String>, call: Call) -> Answer {
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
            .map(|text| split_sort(&text))
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

pub(super) async fn fetch(Path(uid): Path<String>, mut call: Call) -> Answer {
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
        documents::page(&index, &wanted)
    })
    .await?;
    Ok(
        Json(json!({ "results": results, "offset": offset, "limit": limit, "total": total }))
            .into_response(),
    )
}
