use serde_json::{Map, Value, json};

use super::trial::Trial;
use crate::write::format::Format;

fn trial(settings: Value) -> Trial {
    let settings: Map<String, Value> = settings.as_object().unwrap().clone();
    Trial {
        settings,
        version: "1.50.0".to_owned(),
        ..Trial::default()
    }
}

fn geo() -> Trial {
    trial(json!({"filterableAttributes": ["_geo"]}))
}

fn vectors() -> Trial {
    trial(json!({"embedders": {"m": {"source": "userProvided", "dimensions": 3}}}))
}

#[track_caller]
fn check(trial: &Trial, body: &str, expected: Option<&str>) {
    let found = trial.of("x", Format::Json, body.as_bytes()).unwrap();
    let message = found.map(|error| error["message"].as_str().unwrap().to_owned());
    match (message, expected) {
        (None, None) => {}
        (Some(message), Some(expected)) if message.contains(expected) => {}
        (message, _) => panic!("{body}: {message:?}"),
    }
}

#[test]
fn nothing_is_refused_that_no_settings_ask_for_but_what_vectors_may_never_be() {
    let plain = trial(json!({"filterableAttributes": ["genre"]}));
    check(
        &plain,
        r#"[{"id":1,"_geo":"x"},{"id":2,"_geojson":1}]"#,
        None,
    );
    check(&plain, r#"[{"id":1,"_vectors":{"m":[1,null]}}]"#, None);
    check(
        &plain,
        r#"[{"id":1,"_vectors":{"m":"x"}}]"#,
        Some("got the string `x`"),
    );
    check(
        &plain,
        r#"[{"id":1,"_vectors":[]}]"#,
        Some("expected a map"),
    );
}

#[test]
fn the_last_version_of_a_document_counts() {
    let bad = r#"{"id":1,"_geo":{"lat":1}}"#;
    let good = r#"{"id":1,"_geo":{"lat":1,"lng":2}}"#;
    let without = r#"{"id":1,"a":1}"#;
    for (body, updates, refused) in [
        (format!("[{bad},{good}]"), false, false),
        (format!("[{good},{bad}]"), false, true),
        (format!("[{bad},{without}]"), false, false),
        (format!("[{bad},{without}]"), true, true),
        (format!("[{bad},{good}]"), true, false),
    ] {
        let trial = Trial { updates, ..geo() };
        check(&trial, &body, refused.then_some("`_geo.lng` field"));
    }
}

#[test]
fn a_new_document_must_bring_its_vectors_and_one_that_is_there_need_not() {
    let body = r#"[{"id":1,"_vectors":{"m":[1,2,3]}},{"id":2},{"id":"3"}]"#;
    check(
        &vectors(),
        body,
        Some("for document `2` and at least 1 other"),
    );
    let there = |there: &[&str]| Trial {
        there: there.iter().map(|id| (*id).to_owned()).collect(),
        ..vectors()
    };
    check(&there(&["2"]), body, Some("for document `3`\n"));
    check(&there(&["2", "3"]), body, None);
    let skips = Trial {
        skips_creation: true,
        ..vectors()
    };
    check(&skips, body, None);
    let short = r#"[{"id":1,"_vectors":{"m":[1,2]}}]"#;
    check(&skips, short, None);
    let skips = Trial {
        there: vec!["1".to_owned()],
        ..skips
    };
    check(&skips, short, Some("embedding #0 has dimensions 2"));
}

#[test]
fn vectors_that_an_earlier_version_brought_stay_in_an_update() {
    let body = r#"[{"id":1,"_vectors":{"m":[1,2,3]}},{"id":1,"a":1}]"#;
    let updates = Trial {
        updates: true,
        ..vectors()
    };
    check(&updates, body, None);
    check(&vectors(), body, Some("no vectors provided"));
}

#[test]
fn the_shape_of_vectors_is_judged_before_places_and_these_before_lengths() {
    let both = trial(json!({
        "sortableAttributes": ["_geo"],
        "embedders": {"m": {"source": "userProvided", "dimensions": 3}}
    }));
    let short = r#"{"id":1,"_vectors":{"m":[1]}}"#;
    let nowhere = r#"{"id":2,"_geo":5,"_vectors":{"m":null}}"#;
    let shapeless = r#"{"id":3,"_vectors":{"m":5}}"#;
    check(
        &both,
        &format!("[{short},{nowhere},{shapeless}]"),
        Some("got the integer `5`"),
    );
    check(
        &both,
        &format!("[{short},{nowhere}]"),
        Some("is not an object"),
    );
    check(&both, &format!("[{short}]"), Some("has dimensions 1"));
}

#[test]
fn fields_are_judged_though_their_names_are_written_with_escapes_and_in_all_formats() {
    check(
        &geo(),
        r#"[{"id":1,"\u005fgeo":5}]"#,
        Some("instead got `5`"),
    );
    let error = |format, body: &[u8]| geo().of("x", format, body).unwrap();
    let lines = error(Format::Ndjson, b"{\"id\":1}\n{\"id\":2,\"_geo\":true}\n");
    assert!(
        lines.unwrap()["message"]
            .as_str()
            .unwrap()
            .contains("`true`")
    );
    let csv = Format::Csv { delimiter: b',' };
    assert_eq!(error(csv, b"id,_geo\n1,\n"), None);
    let text = error(csv, b"id,_geo\n1,\n2,48\n").unwrap();
    assert!(
        text["message"]
            .as_str()
            .unwrap()
            .ends_with("instead got `\"48\"`."),
        "{text}"
    );
    let number = error(csv, b"id,_geo:number\n2,48\n").unwrap();
    assert!(
        number["message"]
            .as_str()
            .unwrap()
            .ends_with("instead got `48`."),
        "{number}"
    );
}

#[test]
fn errors_have_the_shape_of_the_api() {
    let body = br#"[{"id":50,"_vectors":{"m":[1,2]}}]"#;
    let error = vectors().of("vec", Format::Json, body).unwrap();
    assert_eq!(
        error.unwrap(),
        json!({
            "message": "Index `vec`: Invalid vector dimensions in document with id `50` in `._vectors.m`.\n  - note: embedding #0 has dimensions 2\n  - note: embedder `m` requires 3",
            "code": "invalid_vector_dimensions",
            "type": "invalid_request",
            "link": "https://docs.meilisearch.com/errors#invalid_vector_dimensions"
        })
    );
}

#[test]
fn shapes_on_the_map_are_read_by_engines_that_know_them() {
    let shapes = trial(json!({"filterableAttributes": ["_geojson"]}));
    let bad = r#"[{"id":1,"_geojson":{"type":"Point"}}]"#;
    let good = r#"[{"id":1,"_geojson":{"type":"Point","coordinates":[1,2]}}]"#;
    check(&shapes, bad, Some(""));
    check(&shapes, good, None);
    let old = Trial {
        version: "1.15.1".to_owned(),
        ..shapes
    };
    check(&old, bad, None);
}
