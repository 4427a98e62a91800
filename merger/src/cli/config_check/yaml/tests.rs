use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The value without its lines.
fn value(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Scalar(text) => json!(text),
        Kind::List(items) => items.iter().map(value).collect(),
        Kind::Map(entries) => {
            let members = entries.iter();
            Value::Object(
                members
                    .map(|entry| (entry.key.clone(), value(&entry.value)))
                    .collect(),
            )
        }
    }
}

fn check(text: &str, expected: Value) {
    let node = read(text).unwrap_or_else(|error| panic!("{error:?}: {text}"));
    assert_eq!(value(&node), expected, "{text}");
}

fn refused(text: &str, line: usize, says: &str) {
    let error = read(text).expect_err(text);
    assert_eq!(error.line, line, "{error}: {text}");
    assert!(error.problem.contains(says), "{error}: {text}");
}

#[test]
fn block_collections_are_told_by_indentation() {
    check(
        "a: 1\nb:\n  c: x y\n  d:\nlast: z\n",
        json!({"a": "1", "b": {"c": "x y", "d": null}, "last": "z"}),
    );
    check(
        "a:\n- 1\n- b: 2\n  c: 3\n-\n  - x\n- - y\n  - z\n",
        json!({"a": ["1", {"b": "2", "c": "3"}, ["x"], ["y", "z"]]}),
    );
    check(
        "---\n# a comment\n\"@type\": t # another\n'k''s': \"a: # b\"\n...\n",
        json!({"@type": "t", "k's": "a: # b"}),
    );
    check("", Value::Null);
    check("# nothing\n", Value::Null);
    check(
        "a: one\n  two\n  three # end\nb: http://x:1/#y\n",
        json!({"a": "one two three", "b": "http://x:1/#y"}),
    );
}

#[test]
fn flow_collections_may_span_lines_and_are_json() {
    check(
        "a: { b: [1, x y, \"q, r\"], c: {}, ::1: v }\n",
        json!({"a": {"b": ["1", "x y", "q, r"], "c": {}, "::1": "v"}}),
    );
    check(
        "a: [\n  1, # one\n  { b: 2 },\n]\nc: d",
        json!({"a": ["1", {"b": "2"}], "c": "d"}),
    );
    check(
        r#"{"a":{"b":[true,null,"A\n\""]},"c":-1.5}"#,
        json!({"a": {"b": ["true", null, "A\n\""]}, "c": "-1.5"}),
    );
    check("- [a: 1]\n- {x}\n", json!([[{"a": "1"}], {"x": null}]));
}

#[test]
fn block_scalars_keep_or_fold_their_lines() {
    check(
        "a: |\n  x\n    y: 1\n\n  z\nb: >-\n  p\n  q\n",
        json!({"a": "x\n  y: 1\n\nz\n", "b": "p q"}),
    );
    check("- |-\n  x\n- y", json!(["x", "y"]));
}

#[test]
fn an_alias_stands_for_its_anchor() {
    check(
        "a: &x { b: 1 }\nc: *x\nd: &y\n  - 2\ne: [*y, *x]\n",
        json!({"a": {"b": "1"}, "c": {"b": "1"}, "d": ["2"], "e": [["2"], {"b": "1"}]}),
    );
}

#[test]
fn every_value_knows_its_line() {
    let node = read("a: 1\n# x\nb:\n  - c: |\n      text\n    d: {\n      e: 5 }\n").unwrap();
    let line = |keys: &[&str]| node.at(keys).unwrap().line;
    assert_eq!((line(&["a"]), line(&["b"])), (1, 4));
    let item = &node.list(&["b"])[0];
    assert_eq!(item.entry("d").unwrap().line, 6);
    assert_eq!(item.at(&["d", "e"]).unwrap().line, 7);
}

#[test]
fn what_is_no_yaml_is_refused_with_its_line() {
    for (text, line) in [
        ("a: 1\n  b: 2\n", 2),
        ("a:\n    b: 1\n  c: 2\n", 3),
        ("a: b: c\n", 1),
        ("\na: \"never\nclosed\n", 2),
        ("a: \"\\q\"\n", 1),
        ("a: @b\n", 1),
        ("a: *nobody\n", 1),
    ] {
        refused(text, line, "");
    }
}

#[test]
fn what_has_no_place_in_envoys_file_is_refused_with_its_line() {
    refused("a: 1\na: 2\n", 2, "`a` is there twice");
    refused("? [a]\n: b\n", 1, "a key that is no plain text");
    refused("a: 1\n---\nb: 2\n", 2, "second document");
}

#[test]
fn neither_depth_nor_aliases_can_be_too_much() {
    for deep in ["[".repeat(100_000), "- ".repeat(100_000)] {
        let error = read(&deep).unwrap_err();
        assert_eq!(error.line, 1, "{error}");
    }
    refused(
        &format!("{}{}", "[".repeat(101), "]".repeat(101)),
        1,
        "in each other",
    );
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let error = read(&bomb).unwrap_err();
    assert!(error.problem.contains("more than"), "{error}");
}

#[test]
fn the_files_that_weft_prints_are_read() {
    for (name, text) in [
        (
            "envoy.yaml",
            include_str!("../../../../../envoy/envoy.yaml"),
        ),
        (
            "several",
            include_str!("../../../../../envoy/envoy-several-mergers.yaml"),
        ),
    ] {
        let node = read(text).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(
            node.list(&["static_resources", "clusters"]).len() >= 5,
            "{name}"
        );
        assert!(
            node.list(&["static_resources", "listeners"]).len() >= 2,
            "{name}"
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[a-b:{}\\[\\],\"'&*!|>#\\- \n\t?%@\\\\é]{0,60}") {
        let lines = text.matches('\n').count() + 1;
        if let Err(error) = read(&text) {
            prop_assert!(error.line >= 1 && error.line <= lines, "{error:?}");
        }
    }

    #[test]
    fn json_is_read_as_it_is(texts in prop::collection::vec("[ -~é\n]{0,12}", 0..6)) {
        let sample = json!({"list": texts, "map": {"a b": {"c": texts}}});
        let expected = sample.clone();
        prop_assert_eq!(value(&read(&sample.to_string()).unwrap()), expected.clone());
        prop_assert_eq!(value(&read(&serde_json::to_string_pretty(&sample).unwrap()).unwrap()), expected);
    }
}
