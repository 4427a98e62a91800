//! Invented histories with each kind of violation, to show that the checker finds them.

use std::time::Duration;

use serde_json::json;

use super::super::documents::{part, whole, with_vector};
use super::super::history::{Change, Outcome, Ticket};
use super::*;

const ID: &str = "w0-1";

fn at(seconds: u64) -> At {
    Duration::from_secs(seconds)
}

/// Sends a write at `sent`, acknowledged at `acknowledged` if that is given.
fn write(history: &mut History, change: Change, sent: u64, acknowledged: Option<u64>) -> Ticket {
    let ticket = history.send(ID, change, at(sent));
    history.accept(&ticket, sent);
    if let Some(acknowledged) = acknowledged {
        history.end(&ticket, Outcome::Acknowledged(at(acknowledged)));
    }
    ticket
}

fn replaced(version: u64) -> Change {
    Change::Replace(whole(ID, version))
}

fn stored(version: u64) -> Value {
    let mut document = whole(ID, version);
    let vectors = json!({"given": {"embeddings": [vector(version)], "regenerate": false}});
    document.insert("_vectors".to_owned(), vectors);
    Value::Object(document)
}

/// The violations found if the node holds this document, or no document.
fn breaches(history: &History, held: Option<Value>) -> Vec<Breach> {
    let found = held.map(|held| (ID.to_owned(), held)).into_iter().collect();
    documents(history, "node", &found, |_| true)
        .iter()
        .map(|violation| violation.breach)
        .collect()
}

fn shown(history: &History, document: Option<Value>, began: u64, ended: u64) -> Option<Breach> {
    read(history, ID, document.as_ref(), at(began), at(ended)).map(|violation| violation.breach)
}

#[test]
fn acknowledged_writes_that_are_stored_are_no_breach() {
    let mut history = History::default();
    write(&mut history, replaced(1), 1, Some(2));
    assert_eq!(breaches(&history, Some(stored(1))), []);
    write(&mut history, Change::Update(part(ID, 2)), 3, Some(4));
    let mut both = stored(1);
    for (name, value) in part(ID, 2) {
        both[name] = value;
    }
    assert_eq!(breaches(&history, Some(both)), []);
    write(&mut history, Change::Delete, 5, Some(6));
    assert_eq!(breaches(&history, None), []);
}

#[test]
fn an_acknowledged_document_that_is_gone_is_missing() {
    let mut history = History::default();
    write(&mut history, replaced(1), 1, Some(2));
    assert_eq!(breaches(&history, None), [Breach::Missing]);
}

#[test]
fn a_stored_version_older_than_the_acknowledged_one_is_missing() {
    let mut history = History::default();
    write(&mut history, replaced(1), 1, Some(2));
    write(&mut history, replaced(2), 3, Some(4));
    assert_eq!(breaches(&history, Some(stored(1))), [Breach::Missing]);
}

#[test]
fn a_partial_update_that_lost_other_fields_is_missing() {
    let mut history = History::default();
    write(&mut history, replaced(1), 1, Some(2));
    write(&mut history, Change::Update(part(ID, 2)), 3, Some(4));
    let bare = Value::Object(part(ID, 2));
    assert_eq!(breaches(&history, Some(bare)), [Breach::Missing]);
}

#[test]
fn a_deleted_document_that_is_stored_came_back() {
    let mut history = History::default();
    write(&mut history, replaced(1), 1, Some(2));
    write(&mut history, Change::Delete, 3, Some(4));
    assert_eq!(breaches(&history, Some(stored(1))), [Breach::CameBack]);
}

#[test]
fn a_write_in_doubt_may_be_stored_or_not_and_nothing_else_may_be() {
    for doubt in [
        Outcome::Sent,
        Outcome::InDoubt("no answer".to_owned()),
        Outcome::Accepted,
    ] {
        let mut history = History::default();
        write(&mut history, replaced(1), 1, Some(2));
        let ticket = history.send(ID, replaced(2), at(3));
        history.end(&ticket, doubt);
        assert_eq!(breaches(&history, Some(stored(1))), []);
        assert_eq!(breaches(&history, Some(stored(2))), []);
        assert_eq!(breaches(&history, None), [Breach::Missing]);
    }
}

#[test]
fn a_refused_write_must_not_be_stored() {
    let mut history = History::default();
    write(&mut history, replaced(1), 1, Some(2));
    let ticket = history.send(ID, replaced(2), at(3));
    history.end(&ticket, Outcome::Refused);
    assert_eq!(breaches(&history, Some(stored(1))), []);
    assert_eq!(breaches(&history, Some(stored(2))), [Breach::Missing]);
}

#[test]
fn a_document_that_nobody_wrote_is_invented() {
    let mut history = History::default();
    let stranger = Documents::from([("x".to_owned(), json!({"id": "x"}))]);
    let violations = documents(&history, "node", &stranger, |_| true);
    assert_eq!(violations[0].breach, Breach::Invented);
    write(&mut history, replaced(1), 1, Some(2));
    assert_eq!(breaches(&history, Some(stored(9))), [Breach::Invented]);
}

#[test]
fn a_document_on_a_shard_that_does_not_own_it_is_invented() {
    let mut history = History::default();
    write(&mut history, replaced(1), 1, Some(2));
    let found = Documents::from([(ID.to_owned(), stored(1))]);
    let violations = documents(&history, "node", &found, |_| false);
    assert_eq!(violations.len(), 1);
    assert_eq!(violations[0].breach, Breach::Invented);
}

#[test]
fn a_vector_of_another_version_or_none_is_invented() {
    let mut history = History::default();
    write(&mut history, replaced(1), 1, Some(2));
    let mut other = stored(1);
    other["_vectors"] = stored(2)["_vectors"].clone();
    assert_eq!(breaches(&history, Some(other)), [Breach::Invented]);
    let bare = Value::Object(whole(ID, 1));
    assert_eq!(breaches(&history, Some(bare)), [Breach::Invented]);
}

#[test]
fn a_read_may_show_what_was_acknowledged_before_it_or_sent_meanwhile_and_nothing_older() {
    let mut history = History::default();
    write(&mut history, replaced(1), 1, Some(2));
    write(&mut history, replaced(2), 5, Some(8));
    let stale = Some(Breach::StaleRead);
    // Until the second write was acknowledged, either is right.
    assert_eq!(shown(&history, Some(stored(1)), 6, 7), None);
    assert_eq!(shown(&history, Some(stored(2)), 6, 7), None);
    assert_eq!(shown(&history, Some(stored(1)), 7, 20), None);
    // After that, only the second is right; before it was sent, only the first.
    assert_eq!(shown(&history, Some(stored(1)), 9, 10), stale);
    assert_eq!(shown(&history, Some(stored(2)), 9, 10), None);
    assert_eq!(shown(&history, Some(stored(2)), 3, 4), stale);
    assert_eq!(shown(&history, None, 3, 4), stale);
    // Before the first write was acknowledged, there may be no document.
    assert_eq!(shown(&history, None, 1, 2), None);
    assert_eq!(shown(&history, None, 0, 1), None);
}

#[test]
fn a_read_that_shows_what_was_deleted_is_stale() {
    let mut history = History::default();
    write(&mut history, replaced(1), 1, Some(2));
    write(&mut history, Change::Delete, 3, Some(4));
    assert_eq!(
        shown(&history, Some(stored(1)), 5, 6),
        Some(Breach::StaleRead)
    );
    assert_eq!(shown(&history, Some(stored(1)), 3, 6), None);
    assert_eq!(shown(&history, None, 5, 6), None);
}

#[test]
fn a_doubt_lasts_until_the_document_is_replaced() {
    let mut history = History::default();
    write(&mut history, replaced(1), 1, Some(2));
    let failed = write(&mut history, replaced(2), 3, None);
    history.end(&failed, Outcome::InDoubt("the task failed".to_owned()));
    assert!(history.life(ID).unwrap().writable());
    write(&mut history, replaced(3), 5, Some(6));
    assert_eq!(history.life(ID).unwrap().states().len(), 1);
    assert_eq!(breaches(&history, Some(stored(2))), [Breach::Missing]);
    // A write without an answer may still arrive, so nobody may write the document after it.
    history.send(ID, replaced(4), at(7));
    assert!(!history.life(ID).unwrap().writable());
}

#[test]
fn replicas_differ_by_documents_vectors_and_settings_and_not_by_the_order_of_keys() {
    let with = |document: Value| Documents::from([(ID.to_owned(), document)]);
    let settings = json!({"a": 1, "b": {"c": [1, 2], "d": 3}});
    let compare = |one: &Documents, other: &Documents, other_settings: &Value| {
        differences(
            "shard-0",
            ("a", one, &settings),
            ("b", other, other_settings),
        )
        .len()
    };
    let (one, none) = (with(stored(1)), Documents::new());
    let turned = with(
        stored(1)
            .as_object()
            .unwrap()
            .iter()
            .rev()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect::<Map<String, Value>>()
            .into(),
    );
    let turned_settings = json!({"b": {"d": 3, "c": [1, 2]}, "a": 1});
    assert_eq!(compare(&one, &turned, &turned_settings), 0);
    assert_eq!(compare(&one, &none, &settings), 1);
    assert_eq!(compare(&none, &one, &settings), 1);
    assert_eq!(compare(&one, &with(stored(2)), &settings), 1);
    let mut other_vector = stored(1);
    other_vector["_vectors"] = stored(2)["_vectors"].clone();
    assert_eq!(compare(&one, &with(other_vector), &settings), 1);
    assert_eq!(compare(&one, &one, &json!({"a": 1})), 1);
}

#[test]
fn a_sent_document_holds_the_vector_that_is_checked() {
    let sent = with_vector(&whole(ID, 12));
    assert!(same_vector(sent.pointer("/_vectors/given"), &vector(12)));
    assert_ne!(vector(1), vector(2));
}

#[test]
fn a_document_that_an_answer_shows_twice_is_noticed() {
    assert_eq!(shown_twice("read", ["a", "b", "c"].into_iter()), []);
    let twice = shown_twice("read", ["a", "b", "a"].into_iter());
    let [found] = &twice[..] else {
        panic!("{twice:?}");
    };
    assert_eq!((found.breach, &*found.what), (Breach::ShownTwice, "a"));
}
