use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::write::split::explain::entries;

fn scan<'a>(text: &'a str, wanted: &str) -> Result<Object<'a>, Stop> {
    let wanted = Wanted {
        key: Some(wanted.as_bytes()),
        field: None,
    };
    Scanner::default().object(text.as_bytes(), wanted)
}

fn id(text: &str) -> Option<&str> {
    scan(text, "id")
        .unwrap()
        .id
        .map(|id| std::str::from_utf8(id).unwrap())
}

#[test]
fn the_id_is_the_text_of_the_top_level_key() {
    assert_eq!(id(r#"{"id":1}"#), Some("1"));
    assert_eq!(id(r#"{ "a" : {"id":2} , "id" : "x" }"#), Some("\"x\""));
    assert_eq!(id(r#"{"a":[{"id":2}],"b":"\"id\":3"}"#), None);
    assert_eq!(id(r#"{"id":1,"id":{"x":[]}}"#), Some(r#"{"x":[]}"#));
    assert_eq!(id("{}"), None);
}

#[test]
fn a_repeated_or_escaped_key_is_noticed() {
    assert!(scan(r#"{"id":1,"id":2}"#, "id").unwrap().repeated);
    assert!(!scan(r#"{"id":1,"x":{"id":2}}"#, "id").unwrap().repeated);
    assert!(scan(r#"{"\u0069d":1}"#, "id").unwrap().escaped_keys);
}

#[test]
fn what_follows_the_object_is_left() {
    let text = r#"{"a":[1,2,{}]} , {"#;
    assert_eq!(scan(text, "id").unwrap().raw, br#"{"a":[1,2,{}]}"#);
}

#[test]
fn each_truncation_is_incomplete_and_nothing_else() {
    let text = r#"{"id":-12.5e+3,"s":"a\u00e9\n\"x","n":null,"t":true,"f":false,"a":[[],{},[0,{"k":"v"}]],"ü":"long enough for words"}"#;
    for (end, _) in text.char_indices() {
        let outcome = scan(text.get(..end).unwrap(), "id");
        assert_eq!(outcome.err(), Some(Stop::Incomplete), "{end}");
    }
    assert!(scan(text, "id").is_ok());
}

#[test]
fn what_is_no_json_is_invalid() {
    for text in [
        "[]",
        "1",
        "{1:2}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":01}",
        "{\"a\":-}",
        "{\"a\":+1}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":1e}",
        "{\"a\":tru}",
        "{\"a\":nul1}",
        "{\"a\":'x'}",
        "{\"a\":\"\u{1}\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":[1,]}",
        "{\"a\":[,1]}",
        "{\"a\":[1 2]}",
        "{\"a\":{,}}",
        "{\"a\":[}}",
        "{\"a\":{]}",
        "{\"a\":1]",
        "{\u{feff}}",
        "{\"a\":NaN}",
        "{\"a\":\"tab\tinside\"}",
        "{\"a\":\"01234567\u{1f}89\"}",
    ] {
        assert_eq!(scan(text, "a").err(), Some(Stop::Invalid), "{text}");
        assert!(
            serde_json::from_str::<&RawValue>(text).map_or(true, |raw| entries(raw.get()).is_err()),
            "{text}"
        );
    }
}

#[test]
fn depth_has_no_bound() {
    let text = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(scan(&text, "a").is_ok());
}

/// Text that resembles JSON: tokens in any order, with whole values among them.
fn nearly_json() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        8 => Just("{"), 8 => Just("}"), 4 => Just("["), 4 => Just("]"), 8 => Just(":"), 8 => Just(","),
        8 => Just("\"id\""), 4 => Just("\"\""), 2 => Just("\"a\\u0062\""), 2 => Just("\"\\ud800\""), 2 => Just("\"é\\\"\\\\ 0123456789\""),
        4 => Just("0"), 2 => Just("-1.5E-7"), 1 => Just("-"), 1 => Just("1."), 1 => Just("2e"), 2 => Just("true"), 2 => Just("null"),
        1 => Just("fals"), 1 => Just(" "), 1 => Just("\n\t"), 1 => Just("\""), 1 => Just("\\"), 1 => Just("\u{7f}"), 1 => Just("\u{b}"),
    ];
    prop::collection::vec(token, 0..24).prop_map(|tokens| format!("{{{}", tokens.concat()))
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".*".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map("(id|[a-z\"\\\\é]{0,9})", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn the_scanner_and_serde_agree_on_what_json_is(text in nearly_json()) {
        let mut stream = serde_json::Deserializer::from_str(&text).into_iter::<&RawValue>();
        let theirs = stream.next().unwrap();
        match scan(&text, "id") {
            Ok(object) => prop_assert_eq!(object.raw, theirs.unwrap().get().as_bytes()),
            Err(Stop::Invalid) => prop_assert!(theirs.is_err()),
            Err(Stop::Incomplete) => prop_assert!(theirs.is_err()),
        }
    }

    #[test]
    fn every_value_that_serde_writes_is_scanned_whole(value in any_json(), pretty in any::<bool>()) {
        let document = serde_json::json!({ "before": value, "id": 7, "after": value });
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let object = scan(&text, "id").unwrap();
        prop_assert_eq!(object.raw.len(), text.len());
        prop_assert_eq!(object.id, Some(b"7".as_slice()));
    }
}
