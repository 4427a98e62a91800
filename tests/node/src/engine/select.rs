//! Selects parts of a document by the names of attributes, where `a.b` is the `b` inside `a`.

use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// The named attributes of a document, in the document's own order.
pub(crate) fn select(document: &Object, names: &[&str]) -> Object {
    select_at("", document, names)
}

fn select_at(path: &str, object: &Object, names: &[&str]) -> Object {
    let mut selected = Object::new();
    for (key, value) in object {
        let path = join(path, key);
        if names.iter().any(|name| is_within(&path, name)) {
            selected.insert(key.clone(), value.clone());
        } else if names.iter().any(|name| is_within(name, &path))
            && let Some(value) = select_inside(&path, value, names)
        {
            selected.insert(key.clone(), value);
        }
    }
    selected
}

fn select_inside(path: &str, value: &Value, names: &[&str]) -> Option<Value> {
    match value {
        Value::Object(object) => {
            let selected = select_at(path, object, names);
            (!selected.is_empty()).then_some(Value::Object(selected))
        }
        Value::Array(items) => {
            let selected: Vec<Value> = items
                .iter()
                .filter_map(|item| select_inside(path, item, names))
                .collect();
            (!selected.is_empty()).then_some(Value::Array(selected))
        }
        _ => None,
    }
}

/// Changes every leaf of a document. The function gets the leaf's path, its positions in arrays, and its value.
pub(crate) fn for_each_leaf(
    document: &mut Object,
    change: &mut dyn FnMut(&str, &[usize], &mut Value),
) {
    for_each_leaf_at("", &mut Vec::new(), document, change);
}

fn for_each_leaf_at(
    path: &str,
    indices: &mut Vec<usize>,
    object: &mut Object,
    change: &mut dyn FnMut(&str, &[usize], &mut Value),
) {
    for (key, value) in object.iter_mut() {
        visit(&join(path, key), indices, value, change);
    }
}

fn visit(
    path: &str,
    indices: &mut Vec<usize>,
    value: &mut Value,
    change: &mut dyn FnMut(&str, &[usize], &mut Value),
) {
    match value {
        Value::Object(object) => for_each_leaf_at(path, indices, object, change),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                indices.push(index);
                visit(path, indices, item, change);
                indices.pop();
            }
        }
        leaf => change(path, indices, leaf),
    }
}

/// True if a path is the attribute or lies inside it.
pub(crate) fn is_within(path: &str, attribute: &str) -> bool {
    path.strip_prefix(attribute)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(names: &[&str], expected: Value) {
        let document = json!({
            "id": 1,
            "name": { "first": "Ada", "last": "Lovelace" },
            "books": [{ "title": "Notes", "pages": 66 }, { "pages": 1 }],
            "flat.key": true,
        });
        let Value::Object(document) = document else {
            unreachable!()
        };
        assert_eq!(Value::Object(select(&document, names)), expected);
    }

    #[test]
    fn a_name_means_the_attribute_and_all_inside() {
        check(
            &["name"],
            json!({ "name": { "first": "Ada", "last": "Lovelace" } }),
        );
        check(&["nam"], json!({}));
    }

    #[test]
    fn a_dotted_name_reaches_into_objects_and_arrays() {
        check(
            &["name.first", "id"],
            json!({ "id": 1, "name": { "first": "Ada" } }),
        );
        check(&["books.title"], json!({ "books": [{ "title": "Notes" }] }));
        check(&["flat.key"], json!({ "flat.key": true }));
    }
}
