//! The part of a node's API that reads and changes the documents of an index.

use serde_json::{Map, Value, json};

use super::{Request, Said, enqueue, found};
use crate::sim::disk::{Disk, Work, error, missing};

/// Answers a request below `/indexes/{name}/documents`.
pub(super) fn answer(
    disk: &mut Disk,
    request: &Request<'_>,
    method: &str,
    name: &str,
    parts: &[&str],
) -> Said {
    let ids = |body: Value| -> Vec<String> {
        let text = |id: &Value| id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        body.as_array().into_iter().flatten().map(text).collect()
    };
    let deletion = "documentDeletion";
    match (method, parts) {
        ("POST" | "PUT", []) => {
            let Some(documents) = read_documents(request.body) else {
                return (
                    400,
                    error("malformed_payload", "The payload provided is malformed."),
                );
            };
            let details = json!({"receivedDocuments": documents.len(), "indexedDocuments": null});
            let work = Work::Add {
                documents,
                key: request.param("primaryKey").map(str::to_owned),
                merge: method == "PUT",
            };
            enqueue(
                disk,
                request,
                Some(name),
                "documentAdditionOrUpdate",
                details,
                work,
            )
        }
        ("DELETE", []) => enqueue(
            disk,
            request,
            Some(name),
            deletion,
            json!({"deletedDocuments": null}),
            Work::Clear,
        ),
        ("POST", ["delete-batch"]) => {
            let ids = ids(request.json());
            let details = json!({"providedIds": ids.len(), "deletedDocuments": null});
            enqueue(
                disk,
                request,
                Some(name),
                deletion,
                details,
                Work::DeleteIds(ids),
            )
        }
        ("POST", ["delete"]) => {
            let filter = request.json()["filter"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let (field, value) = filter.split_once(" = ").unwrap_or_default();
            let value = serde_json::from_str(value).unwrap_or_default();
            let details = json!({"providedIds": 0, "originalFilter": format!("\"{filter}\"")});
            let work = Work::DeleteEqual(field.to_owned(), value);
            enqueue(disk, request, Some(name), deletion, details, work)
        }
        ("DELETE", [id]) => {
            let details = json!({"providedIds": 1, "deletedDocuments": null});
            let work = Work::DeleteIds(vec![(*id).to_owned()]);
            enqueue(disk, request, Some(name), deletion, details, work)
        }
        ("GET", [id]) if *id != "fetch" => match disk.indexes.get(name) {
            None => (404, missing(name)),
            Some(index) => match index.document(id) {
                Some(document) => (200, Value::Object(document.clone())),
                None => (
                    404,
                    error("document_not_found", &format!("Document `{id}` not found.")),
                ),
            },
        },
        ("POST", ["fetch"]) | ("GET", []) => {
            let body = request.object();
            let number = |name: &str, otherwise: usize| {
                let said = body.get(name).and_then(Value::as_u64);
                let said = said.and_then(|number| usize::try_from(number).ok());
                said.or_else(|| request.number(name)).unwrap_or(otherwise)
            };
            let (offset, limit) = (number("offset", 0), number("limit", 20));
            let ids = body
                .get("ids")
                .filter(|ids| ids.is_array())
                .map(|list| ids(list.clone()));
            let wanted = |id: &String| ids.as_ref().is_none_or(|ids| ids.contains(id));
            found(disk, name, |index| {
                let all: Vec<&Map<String, Value>> = index
                    .documents
                    .values()
                    .filter(|(id, _)| wanted(id))
                    .map(|(_, document)| document)
                    .collect();
                let results: Vec<&Map<String, Value>> =
                    all.iter().copied().skip(offset).take(limit).collect();
                json!({"results": results, "offset": offset, "limit": limit, "total": all.len()})
            })
        }
        _ => (404, error("not_found", "documents")),
    }
}

/// Reads a list of documents, one document, or one document per line.
fn read_documents(body: &[u8]) -> Option<Vec<Map<String, Value>>> {
    match serde_json::from_slice(body) {
        Ok(Value::Array(list)) => list
            .into_iter()
            .map(|one| one.as_object().cloned())
            .collect(),
        Ok(Value::Object(one)) => Some(vec![one]),
        _ => serde_json::Deserializer::from_slice(body)
            .into_iter()
            .collect::<Result<_, _>>()
            .ok(),
    }
}
