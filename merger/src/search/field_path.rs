//! Finds the values at a path in a document, as the engine does: in members whose name is the whole path, in nested members, and
//! in the elements of arrays.

use serde_json::Value;

/// Calls `visit` with each scalar (number, text, boolean) at `path`.
pub(super) fn scalars_at(value: &Value, path: &str, visit: &mut impl FnMut(&Value)) {
    match value {
        Value::Array(elements) => elements
            .iter()
            .for_each(|element| scalars_at(element, path, visit)),
        Value::Object(members) if !path.is_empty() => {
            if let Some(value) = members.get(path) {
                scalars_at(value, "", visit);
            }
            if let Some((first, rest)) = path.split_once('.')
                && let Some(value) = members.get(first)
            {
                scalars_at(value, rest, visit);
            }
        }
        _ if !path.is_empty() => {}
        Value::Null | Value::Object(_) => {}
        scalar => visit(scalar),
    }
}
