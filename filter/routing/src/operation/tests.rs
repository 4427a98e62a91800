use super::*;

fn operation(method: &str, path: &str) -> Result<Operation, ClassifyError> {
    classify(method, path).map(|classified| classified.operation)
}

#[test]
fn parameters_are_named_and_decoded() {
    let get = classify("GET", "/indexes/movies/documents/tt%2D1?fields=a%2Cb").unwrap();
    assert_eq!(get.operation, Operation::GetDocument);
    assert_eq!(get.index.as_deref(), Some("movies"));
    assert_eq!(get.document.as_deref(), Some("tt-1"));
    assert_eq!(get.query, "fields=a%2Cb");
    let task = classify("GET", "/tasks/17/documents").unwrap();
    assert_eq!(
        (task.operation, task.item.as_deref()),
        (Operation::GetTaskDocuments, Some("17"))
    );
}

#[test]
fn slashes_at_the_end_and_doubled_ones_dont_count() {
    for path in [
        "/indexes/m/search",
        "//indexes//m/search/",
        "/indexes/m/search///?q=//x/",
    ] {
        assert_eq!(operation("POST", path), Ok(Operation::SearchPost), "{path}");
    }
    assert_eq!(
        operation("GET", "/indexes//documents"),
        Ok(Operation::GetIndex)
    );
}

#[test]
fn an_escaped_slash_separates_nothing_but_belongs_to_the_parameter() {
    let get = classify("GET", "/indexes/a%2Fb/documents/c%2fd%2Be%25f").unwrap();
    assert_eq!(get.index.as_deref(), Some("a/b"));
    assert_eq!(get.document.as_deref(), Some("c/d+e%f"));
    assert_eq!(
        operation("GET", "/indexes%2Fmovies"),
        Err(ClassifyError::UnknownPath)
    );
}

#[test]
fn fixed_names_can_be_escaped_too() {
    assert_eq!(operation("GET", "/h%65alth"), Ok(Operation::Health));
    assert_eq!(operation("GET", "/%5fweft/table"), Ok(Operation::Internal));
    assert_eq!(
        operation("GET", "//_weft%2Ftable"),
        Err(ClassifyError::UnknownPath)
    );
}

#[test]
fn broken_escapes_stay_as_they_are_and_bad_utf8_is_replaced() {
    let get = classify("GET", "/indexes/100%/documents/%zz%4").unwrap();
    assert_eq!(get.index.as_deref(), Some("100%"));
    assert_eq!(get.document.as_deref(), Some("%zz%4"));
    let get = classify("GET", "/indexes/%ff").unwrap();
    assert_eq!(get.index.as_deref(), Some("\u{fffd}"));
}

#[test]
fn dots_are_names_like_others() {
    let get = classify("GET", "/indexes/%2e%2e/documents/..").unwrap();
    assert_eq!(get.index.as_deref(), Some(".."));
    assert_eq!(get.document.as_deref(), Some(".."));
}

#[test]
fn fixed_names_win_over_document_ids() {
    for name in ["delete", "delete-batch", "edit", "fetch"] {
        let path = format!("/indexes/m/documents/{name}");
        assert_eq!(
            operation("GET", &path),
            Err(ClassifyError::MethodNotAllowed),
            "{path}"
        );
        assert!(operation("POST", &path).is_ok(), "{path}");
    }
    assert_eq!(
        operation("GET", "/tasks/cancel"),
        Err(ClassifyError::MethodNotAllowed)
    );
}

#[test]
fn methods_are_exact() {
    for method in ["get", "HEAD", "OPTIONS", "", "GETT", "TRACE"] {
        assert_eq!(
            operation(method, "/health"),
            Err(ClassifyError::MethodNotAllowed),
            "{method}"
        );
    }
}

#[test]
fn unknown_paths_are_unknown() {
    for path in [
        "",
        "*",
        "health",
        "/",
        "//",
        "/indexe",
        "/indexes/m/nothing",
        "/logs",
        "/chats/c/chat",
        "/indexes/m/settings/nothing",
        "/indexes/m/documents/1/2",
        "/a/b/c/d/e/f/g/h/i/j",
        "/HEALTH",
        "/tasks/1/2",
        "/_shards",
    ] {
        assert_eq!(
            operation("GET", path),
            Err(ClassifyError::UnknownPath),
            "{path}"
        );
    }
}

#[test]
fn wefts_own_paths_keep_their_rest() {
    let drain = classify("POST", "/_cluster/nodes/shard-0-node-1/drain?x=1").unwrap();
    assert_eq!(drain.operation, Operation::Cluster);
    assert_eq!(drain.item.as_deref(), Some("nodes/shard-0-node-1/drain"));
    let shards = classify("GET", "/indexes/movies/_shards").unwrap();
    assert_eq!(shards.operation, Operation::IndexShards);
    assert_eq!(operation("GET", "/_weft"), Ok(Operation::Internal));
}
