use weft_routing::{ClassifyError, Treatment, classify};

use super::test;

const OPERATIONS: &str = include_str!("../golden/operations.tsv");
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

fn operations() -> Vec<(&'static str, &'static str, &'static str)> {
    let row = |line: &'static str| {
        let mut fields = line.split('\t');
        (
            fields.next().unwrap(),
            fields.next().unwrap(),
            fields.next().unwrap(),
        )
    };
    OPERATIONS.lines().map(row).collect()
}

/// The template with its parameters filled in.
fn concrete(template: &str) -> String {
    template
        .replace("{index_uid}", "movies")
        .replace("{document_id}", "tt-17")
        .replace('{', "the-")
        .replace('}', "")
}

#[test]
fn each_of_the_140_operations_is_classified() {
    let operations = operations();
    assert_eq!(operations.len(), 140);
    for (method, template, expected) in operations {
        let path = concrete(template);
        let classified = classify(method, &path).unwrap();
        let variant = format!("{:?}", classified.operation);
        assert_eq!(variant, expected, "{method} {template}");
        let index = template.contains("{index_uid}").then_some("movies");
        assert_eq!(classified.index.as_deref(), index, "{method} {template}");
        let document = template.contains("{document_id}").then_some("tt-17");
        assert_eq!(
            classified.document.as_deref(),
            document,
            "{method} {template}"
        );
        let item = path.split('/').find(|segment| segment.starts_with("the-"));
        assert_eq!(classified.item.as_deref(), item, "{method} {template}");
    }
}

#[test]
fn what_an_operation_changes_can_be_told_from_its_template() {
    for (method, template, _) in operations() {
        let operation = classify(method, &concrete(template)).unwrap().operation;
        let changes = method != "GET" && !template.starts_with("/chats");
        let documents = template.contains("/documents") && template.starts_with("/indexes");
        assert_eq!(
            operation.writes_documents(),
            changes && documents && !template.ends_with("/fetch"),
            "{method} {template}"
        );
        assert_eq!(
            operation.changes_settings(),
            changes && template.contains("/settings"),
            "{method} {template}"
        );
        let indexes = ["/indexes", "/indexes/{index_uid}", "/swap-indexes"];
        assert_eq!(
            operation.changes_indexes(),
            changes && indexes.contains(&template),
            "{method} {template}"
        );
    }
}

#[test]
fn methods_that_a_path_doesnt_have_are_refused() {
    let operations = operations();
    for (_, template, _) in &operations {
        for method in METHODS {
            let known = operations
                .iter()
                .any(|(m, t, _)| m == &method && t == template);
            let answer = classify(method, &concrete(template)).map(|_| ());
            let expected = if known {
                Ok(())
            } else {
                Err(ClassifyError::MethodNotAllowed)
            };
            assert_eq!(answer, expected, "{method} {template}");
        }
    }
}

#[test]
fn paths_with_a_segment_too_many_are_unknown() {
    for (method, template, _) in operations() {
        let path = format!("{}/and/more", concrete(template));
        assert_eq!(
            classify(method, &path),
            Err(ClassifyError::UnknownPath),
            "{method} {path}"
        );
    }
}

#[test]
fn escaping_every_letter_changes_nothing() {
    for (method, template, _) in operations() {
        let plain = concrete(template);
        let escaped: String = plain
            .chars()
            .map(|c| {
                if c == '/' {
                    "/".to_owned()
                } else {
                    format!("%{:02x}", u32::from(c))
                }
            })
            .collect();
        assert_eq!(
            classify(method, &escaped),
            classify(method, &plain),
            "{method} {escaped}"
        );
    }
}

#[test]
fn few_operations_are_refused_and_each_with_a_reason() {
    let refused: Vec<_> = operations()
        .into_iter()
        .filter_map(|(method, template, _)| {
            match classify(method, &concrete(template))
                .unwrap()
                .operation
                .treatment()
            {
                Treatment::Refused(reason) => Some(reason),
                _ => None,
            }
        })
        .collect();
    assert!(
        refused.len() <= 12,
        "{} operations are refused",
        refused.len()
    );
    assert!(refused.iter().all(|reason| reason.len() > 20));
}

#[test]
fn arbitrary_paths_never_break_the_classification() {
    let mut random = super::Random(1);
    let alphabet: Vec<char> = "/%?#aefix2F{}é\u{0}indexes".chars().collect();
    for _ in 0..20_000 {
        let length = random.below(40);
        let path: String = std::iter::once('/')
            .chain((0..length).map(|_| alphabet[random.below(alphabet.len() as u64) as usize]))
            .collect();
        let _ = classify("GET", &path);
    }
}

/// The name of a treatment in the filter's README.
fn words(treatment: Treatment) -> String {
    match treatment {
        Treatment::Routed => "routed".to_owned(),
        Treatment::FannedOut => "fanned out".to_owned(),
        Treatment::Broadcast => "broadcast".to_owned(),
        Treatment::Aggregated => "aggregated".to_owned(),
        Treatment::Answered => "answered by Weft".to_owned(),
        Treatment::Refused(reason) => format!("refused (501): {reason}"),
    }
}

/// The API's table in the filter's README: each treatment with its operations; the settings' own paths count as one.
fn table() -> Vec<String> {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for (method, template, _) in operations() {
        let treatment = words(
            classify(method, &concrete(template))
                .unwrap()
                .operation
                .treatment(),
        );
        let name = match template.split_once("/settings/") {
            Some((index, _)) if index.starts_with("/indexes/") => {
                let method = if method == "PATCH" { "PUT" } else { method };
                format!("`{method} {index}/settings/…`")
            }
            _ => format!("`{method} {template}`"),
        };
        let row = match rows.iter_mut().find(|(known, _)| *known == treatment) {
            Some((_, names)) => names,
            None => {
                rows.push((treatment, Vec::new()));
                &mut rows.last_mut().unwrap().1
            }
        };
        if !row.contains(&name) {
            row.push(name);
        }
    }
    rows.sort();
    rows.iter()
        .map(|(treatment, names)| format!("| {treatment} | {} |", names.join(", ")))
        .collect()
}

#[test]
fn the_readme_says_of_each_operation_what_weft_does_with_it() {
    let readme = include_str!("../../../README.md");
    let start = readme
        .find("## The API")
        .expect("the README has no section on the API");
    let section = readme[start..].split("\n#").next().unwrap();
    let said: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('`'))
        .collect();
    let table = table();
    assert_eq!(said, table, "the table should be:\n{}", table.join("\n"));
}

#[test]
fn a_guard_takes_every_operation_for_a_change_but_get_and_these() {
    let reads: Vec<&str> = operations()
        .into_iter()
        .filter(|(method, template, _)| {
            *method != "GET" && !weft_routing::may_change(method, &concrete(template))
        })
        .map(|(_, _, operation)| operation)
        .collect();
    assert_eq!(
        reads,
        [
            "ListSearchRules",
            "FetchDocuments",
            "FacetSearch",
            "ListFields",
            "SearchPost",
            "SimilarPost",
            "MultiSearch",
            "RenderTemplate",
        ]
    );
}
