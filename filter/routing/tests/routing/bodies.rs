use weft_routing::body::owners;
use weft_routing::{BodyFormat, DocumentId, DocumentIds, Operation, ShardId, SlotMap, Unclear};

use super::test;

const JSON: BodyFormat = BodyFormat::Json;

fn map() -> SlotMap {
    SlotMap::deal(&[ShardId(0), ShardId(1), ShardId(2)]).unwrap()
}

fn owner(id: &str) -> ShardId {
    map().shard_of(&DocumentId::from_text(id).unwrap()).unwrap()
}

/// Two ids that the same shard owns, and one that another shard owns.
fn ids() -> (u64, u64, u64) {
    let here = owner("0");
    let same = (1..).find(|n: &u64| owner(&n.to_string()) == here).unwrap();
    let other = (1..).find(|n: &u64| owner(&n.to_string()) != here).unwrap();
    (0, same, other)
}

fn add(format: BodyFormat, body: &str) -> Result<DocumentIds, Unclear> {
    owners(
        Operation::ReplaceDocuments,
        format,
        "id",
        &map(),
        body.as_bytes(),
    )
}

#[test]
fn documents_of_one_shard_are_recognised() {
    let (a, b, other) = ids();
    let one = Ok(DocumentIds::One(owner("0")));
    assert_eq!(add(JSON, &format!("{{\"id\":{a}}}")), one);
    assert_eq!(
        add(
            JSON,
            &format!(" [{{\"t\":[1],\"id\":\"{a}\"}}, {{\"id\":{b},\"x\":null}}]\n")
        ),
        one
    );
    assert_eq!(
        add(JSON, &format!("[{{\"id\":{a}}},{{\"id\":{other}}}]")),
        Ok(DocumentIds::Several)
    );
    assert_eq!(add(JSON, &format!("{{\"\\u0069d\":{a}}}")), one);
    let lines = format!("{{\"id\":{a}}}\n\n{{\"id\":\"{b}\"}}\r\n");
    assert_eq!(add(BodyFormat::NdJson, &lines), one);
}

#[test]
fn ids_to_delete_are_recognised() {
    let (a, b, other) = ids();
    let delete = |body: String| {
        owners(
            Operation::DeleteDocumentsBatch,
            JSON,
            "a.b",
            &map(),
            body.as_bytes(),
        )
    };
    assert_eq!(
        delete(format!("[{a},\"{b}\"]")),
        Ok(DocumentIds::One(owner("0")))
    );
    assert_eq!(delete(format!("[{a},{other}]")), Ok(DocumentIds::Several));
    for body in ["[]", "{}", "1", "[null]", "[1.5]", "[[1]]", "[1]]", ""] {
        assert_eq!(delete(body.to_owned()), Err(Unclear), "{body}");
    }
}

#[test]
fn whatever_a_node_might_read_otherwise_is_unclear() {
    for body in [
        "",
        " ",
        "[]",
        "{}",
        "null",
        "1",
        "\"id\"",
        "[1]",
        "[{}]",
        "{\"ID\":1}",
        "{\"id\":null}",
        "{\"id\":1.0}",
        "{\"id\":\"a b\"}",
        "{\"id\":\"\"}",
        "{\"id\":[1]}",
        "{\"id\":1,\"id\":1}",
        "{\"id\":1,\"\\u0069d\":2}",
        "{\"id\":1",
        "{\"id\":1}}",
        "{\"id\":1} {\"id\":1}",
        "{\"id\":1,}",
        "[{\"id\":1},]",
        "[{\"id\":1},{}]",
        "\u{feff}{\"id\":1}",
        "{'id':1}",
    ] {
        assert_eq!(add(JSON, body), Err(Unclear), "{body}");
    }
    for body in [
        "",
        "\n",
        "[{\"id\":1}]",
        "{\"id\":1}\n{\"i",
        "{\"id\":1}\nnull",
    ] {
        assert_eq!(add(BodyFormat::NdJson, body), Err(Unclear), "{body}");
    }
    let invalid_utf8 = b"{\"id\":1,\"x\":\"\xff\"}";
    let read = owners(Operation::UpdateDocuments, JSON, "id", &map(), invalid_utf8);
    assert_eq!(read, Err(Unclear));
}

#[test]
fn nested_primary_keys_and_other_operations_are_unclear() {
    let nested = owners(
        Operation::ReplaceDocuments,
        JSON,
        "a.b",
        &map(),
        b"{\"a.b\":1}",
    );
    assert_eq!(nested, Err(Unclear));
    let edit = owners(Operation::EditDocuments, JSON, "id", &map(), b"{\"id\":1}");
    assert_eq!(edit, Err(Unclear));
}

#[test]
fn a_body_cut_at_any_byte_is_unclear() {
    let body = "[{\"id\":1,\"title\":\"a\\\"b\",\"x\":[true,null,-1.5e3]}]";
    for end in 0..body.len() {
        assert_eq!(add(JSON, &body[..end]), Err(Unclear), "{end}");
    }
}

#[test]
fn content_types_name_formats() {
    let of = BodyFormat::of_content_type;
    assert_eq!(of("application/json"), Some(JSON));
    assert_eq!(of("Application/JSON; charset=utf-8"), Some(JSON));
    assert_eq!(of("application/x-ndjson"), Some(BodyFormat::NdJson));
    assert_eq!(of("text/csv"), None);
    assert_eq!(of("application/jsonp"), None);
    assert_eq!(of(""), None);
}
