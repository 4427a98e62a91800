use std::sync::Arc;

use weft_routing::value::{MAX_FIELD_BYTES, MAX_VALUE_BYTES};
use weft_routing::{
    DocumentId, IndexRoute, InvalidValue, RoutingField, RoutingTable, RoutingValue, ShardId,
    SlotMap, Strategy, slot_of_value,
};

use super::test;

fn text(text: &str) -> String {
    RoutingValue::from_text(text).unwrap().as_str().to_owned()
}

fn json(json: &str) -> Result<String, InvalidValue> {
    RoutingValue::from_json(json).map(|value| value.as_str().to_owned())
}

fn by_tenant(shards: u16) -> SlotMap {
    let strategy = "field:tenant".parse().unwrap();
    let shards: Vec<ShardId> = (0..shards).map(ShardId).collect();
    SlotMap::deal_by(&strategy, &shards).unwrap()
}

#[test]
fn values_that_a_filter_cannot_tell_apart_are_one() {
    for (one, other) in [
        ("acme", " ACME\t"),
        ("42", "４２"),
        ("cité", "CITE\u{301}"),
        // A kelvin sign, a ligature, and marks in another order.
        ("k", "\u{212a}"),
        ("fin", "\u{fb01}n"),
        ("a\u{323}\u{301}", "A\u{301}\u{323}"),
        ("ὈΔΥΣΣΕΎΣ", "ὀδυσσεύς"),
    ] {
        assert_eq!(text(one), text(other), "{one} {other}");
        assert_eq!(text(&text(one)), text(one), "normal forms stay");
    }
    assert_ne!(text("acme"), text("acme-2"));
    assert_eq!(json("42"), json("\"42\""));
    assert_eq!(json("-7"), Ok("-7".to_owned()));
    assert_eq!(json(r#" "\u0041cme" "#), Ok("acme".to_owned()));
    assert_eq!(
        json("18446744073709551615").unwrap(),
        "18446744073709551615"
    );
}

#[test]
fn what_is_no_value_is_said() {
    for (value, error) in [
        ("1.5", InvalidValue::Number),
        ("1e3", InvalidValue::Number),
        ("-0", InvalidValue::Number),
        ("18446744073709551616", InvalidValue::Number),
        ("null", InvalidValue::Type),
        ("true", InvalidValue::Type),
        ("[1]", InvalidValue::Type),
        (r#"{"a":1}"#, InvalidValue::Type),
        ("", InvalidValue::Type),
        (r#""""#, InvalidValue::Empty),
        (r#"" \n""#, InvalidValue::Empty),
        ("\"\u{e000}\"", InvalidValue::Character),
        ("\"\u{378}\"", InvalidValue::Character),
    ] {
        assert_eq!(json(value), Err(error), "{value}");
    }
    let longest = "a".repeat(MAX_VALUE_BYTES);
    assert_eq!(text(&longest), longest);
    let longer = RoutingValue::from_text(&format!("{longest}a"));
    assert_eq!(longer, Err(InvalidValue::TooLong));
    // One letter that decomposes into many.
    let longer = RoutingValue::from_text(&"\u{fdfa}".repeat(20));
    assert_eq!(longer, Err(InvalidValue::TooLong));
}

#[test]
fn a_routing_field_is_a_plain_name() {
    let long = "x".repeat(MAX_FIELD_BYTES + 1);
    for bad in ["", "a.b", "_geo", "a\"b", "a\\b", "*", "a\n", " a", &long] {
        assert!(RoutingField::new(bad).is_err(), "{bad}");
        assert!(format!("field:{bad}").parse::<Strategy>().is_err(), "{bad}");
    }
    for good in ["tenant", "Tenant id", "mandant-ä", &long[1..]] {
        assert_eq!(RoutingField::new(good).unwrap().as_str(), good);
    }
}

#[test]
fn by_field_an_id_tells_nothing_unless_there_is_one_shard() {
    let (map, id) = (by_tenant(3), DocumentId::from_text("42").unwrap());
    assert_eq!((map.slot_of(&id), map.shard_of(&id)), (None, None));
    assert_eq!(by_tenant(1).shard_of(&id), Some(ShardId(0)));
    let value = RoutingValue::from_text("acme").unwrap();
    assert_eq!(
        map.shard_of_value(&value),
        map.shard_of_slot(slot_of_value(&value))
    );
    assert_eq!(map.strategy().name(), "field");
    assert_eq!(map.field().map(RoutingField::as_str), Some("tenant"));
    assert_eq!(SlotMap::deal(map.shards()).unwrap().field(), None);
}

/// Where documents lie follows from these, so they can never change.
#[test]
fn the_slots_of_values_stay_what_they_are() {
    for (value, slot) in [("acme", 1098), ("42", 289), ("cite\u{301}", 2936)] {
        let value = RoutingValue::from_text(value).unwrap();
        assert_eq!(slot_of_value(&value).0, slot, "{value}");
    }
}

#[test]
fn a_table_carries_the_field_and_refuses_a_bad_one() {
    let mut table = RoutingTable::default();
    let route = IndexRoute::new(Arc::new(by_tenant(3)));
    table.indexes.insert("x".to_owned(), route);
    let json = table.to_json().unwrap();
    assert_eq!(RoutingTable::from_json(json.as_bytes()).unwrap(), table);
    assert!(json.contains(r#""field":"tenant""#), "{json}");
    for bad in [r#""field":"a.b""#, r#""field":"tenant","ranges":["5"]"#] {
        let bad = json.replace(r#""field":"tenant""#, bad);
        assert!(RoutingTable::from_json(bad.as_bytes()).is_err());
    }
}

#[test]
fn by_field_what_names_a_document_by_its_id_goes_to_the_merger() {
    use weft_routing::{
        BodyFormat, Decision, Facts, Held, Policy, classify, decide, decide_by_body,
    };
    let mut table = RoutingTable::default();
    let mut route = IndexRoute::new(Arc::new(by_tenant(3)));
    route.primary_key = Some("id".to_owned());
    route.direct_writes = true;
    table.indexes.insert("x".to_owned(), route.clone());
    let policy = Policy {
        body_routing: true,
        max_body_bytes: 65_536,
    };
    for (method, path) in [
        ("GET", "/indexes/x/documents/42"),
        ("DELETE", "/indexes/x/documents/42"),
    ] {
        let classified = classify(method, path).unwrap();
        let decision = decide(&classified, Some(&table), Facts::default(), policy);
        assert_eq!(decision, Decision::Merge, "{method} {path}");
    }
    for (method, path, body) in [
        (
            "POST",
            "/indexes/x/documents",
            r#"[{"id":1,"tenant":"acme"}]"#,
        ),
        ("PUT", "/indexes/x/documents", r#"{"id":1}"#),
        ("POST", "/indexes/x/documents/delete-batch", "[1]"),
    ] {
        let operation = classify(method, path).unwrap().operation;
        let held = Held {
            operation,
            index: "x",
            format: BodyFormat::Json,
            authorization: None,
        };
        let decision = decide_by_body(&held, &route, body.as_bytes());
        assert_eq!(decision, Decision::Merge, "{method} {path}");
    }
}
