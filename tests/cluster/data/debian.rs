//! `apt-cache dumpavail`: paragraphs of `Field: value` lines, continued by lines that begin with a space.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::DataSet;

pub(super) fn parse(text: &str) -> Option<DataSet> {
    let documents: Vec<Value> = text
        .split("\n\n")
        .filter_map(fields)
        .zip(1..)
        .filter_map(|(fields, id)| document(id, &fields))
        .collect();
    (!documents.is_empty()).then(|| DataSet {
        index: "packages",
        primary_key: "id",
        title: "name",
        settings: json!({
            "searchableAttributes": ["name", "description", "maintainer", "tags"],
            "filterableAttributes": ["section", "priority", "tags", "installed_size", "maintainer"],
            "sortableAttributes": ["installed_size", "name", "download_size"],
        }),
        documents,
    })
}

fn fields(paragraph: &str) -> Option<HashMap<&str, String>> {
    let mut fields: HashMap<&str, String> = HashMap::new();
    let mut current = "";
    for line in paragraph.lines() {
        if line.starts_with([' ', '\t']) {
            fields.entry(current).or_default().push_str(line);
        } else if let Some((name, value)) = line.split_once(':') {
            current = name;
            fields.insert(name, value.trim().to_owned());
        }
    }
    fields.contains_key("Package").then_some(fields)
}

fn document(id: u32, fields: &HashMap<&str, String>) -> Option<Value> {
    let text = |name: &str| {
        fields
            .get(name)
            .map_or(Value::Null, |value| Value::from(value.as_str()))
    };
    let number = |name: &str| {
        fields
            .get(name)
            .and_then(|value| value.parse::<u64>().ok())
            .map_or(Value::Null, Value::from)
    };
    // Names contain dots and pluses, which aren't allowed in a document's id.
    let mut document = Map::from_iter([("id".to_owned(), Value::from(id))]);
    document.insert(
        "name".to_owned(),
        Value::from(fields.get("Package")?.as_str()),
    );
    for (ours, theirs) in [
        ("version", "Version"),
        ("section", "Section"),
        ("priority", "Priority"),
        ("maintainer", "Maintainer"),
        ("description", "Description"),
        ("homepage", "Homepage"),
        ("depends", "Depends"),
    ] {
        document.insert(ours.to_owned(), text(theirs));
    }
    document.insert("installed_size".to_owned(), number("Installed-Size"));
    document.insert("download_size".to_owned(), number("Size"));
    let tags: Vec<&str> = fields
        .get("Tag")
        .map(|tags| tags.split(',').map(str::trim).collect())
        .unwrap_or_default();
    document.insert("tags".to_owned(), Value::from(tags));
    Some(Value::Object(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_becomes_a_package() {
        let text = "Package: 0ad\nInstalled-Size: 28591\nTag: game::strategy, role::program,\n uitoolkit::sdl\n\nPackage: g++\n";
        let packages = parse(text).unwrap().documents;
        assert_eq!(packages.len(), 2);
        assert_eq!(packages[0]["installed_size"], 28591);
        assert_eq!(
            packages[0]["tags"],
            json!(["game::strategy", "role::program", "uitoolkit::sdl"])
        );
        assert_eq!(packages[1]["name"], "g++");
        assert_eq!(packages[1]["section"], Value::Null);
    }
}
