//! API keys, with their uids. A key's value follows from its uid and the master key, so clients' keys stay valid if both servers
//! have the same master key.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::ImportError;
use super::source::Server;
use crate::cli::remote::RemoteError;

type Key = Map<String, Value>;

/// What is to be done for a key.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Create(Value),
    /// Name and description: all that can be changed.
    Describe(String, Value),
    Delete(String),
    Note(String),
}

/// The source's keys; `None` if it has no master key.
pub(super) async fn of(source: &Server) -> Result<Option<Vec<Key>>, ImportError> {
    match source.keys().await {
        Err(ImportError::Source(RemoteError::Refused { code, .. }))
            if code == "missing_master_key" =>
        {
            Ok(None)
        }
        Err(ImportError::Source(RemoteError::Refused { code, .. }))
            if code == "invalid_api_key" =>
        {
            Err(ImportError::KeysRefused)
        }
        keys => keys.map(Some),
    }
}

/// Makes the cluster's keys the source's. Of keys that the source lacks, those go that an import has brought (`known`).
/// Returns the uids of the keys that both have, and whether anything was changed.
pub(super) async fn bring(
    target: &Server,
    keys: &[Key],
    known: &BTreeSet<String>,
    notes: &mut Vec<String>,
) -> Result<(BTreeSet<String>, bool), ImportError> {
    let there = match target.keys().await {
        Err(ImportError::Target(RemoteError::Refused { code, .. }))
            if code == "missing_master_key" =>
        {
            note(
                notes,
                "the cluster has no master key, so it has no keys".to_owned(),
            );
            return Ok((BTreeSet::new(), false));
        }
        there => there?,
    };
    let mut changed = false;
    let mut values: Vec<Key> = there.clone();
    for step in plan(keys, &there, known, OffsetDateTime::now_utc()) {
        changed |= !matches!(step, Step::Note(_));
        match step {
            Step::Note(text) => note(notes, text),
            Step::Create(body) => {
                let made = target.ask(Method::POST, "/keys", Some(&body)).await?;
                values.extend(made.as_object().cloned());
            }
            Step::Describe(uid, body) => {
                let path = format!("/keys/{uid}");
                target.ask(Method::PATCH, &path, Some(&body)).await?;
            }
            Step::Delete(uid) => {
                let path = format!("/keys/{uid}");
                target.ask(Method::DELETE, &path, None).await?;
            }
        }
    }
    if has_other_values(keys, &values) {
        note(
            notes,
            "keys have other values in the cluster, since its master key is another one: give your clients the new values, or \
             give the cluster the source's master key"
                .to_owned(),
        );
    }
    let here: BTreeSet<String> = keys.iter().filter_map(uid).collect();
    let both = values.iter().filter_map(uid);
    Ok((both.filter(|uid| here.contains(uid)).collect(), changed))
}

/// A note is said once, however often the keys are looked at.
fn note(notes: &mut Vec<String>, text: String) {
    if !notes.contains(&text) {
        notes.push(text);
    }
}

fn plan(keys: &[Key], there: &[Key], known: &BTreeSet<String>, now: OffsetDateTime) -> Vec<Step> {
    let mut steps = Vec::new();
    for key in keys {
        let Some(uid) = uid(key) else { continue };
        let other = there.iter().find(|other| is(other, &uid));
        let expires = member(key, "expiresAt", "expires_at");
        match other {
            Some(other) => steps.extend(changes(key, other, &uid)),
            None if has_passed(&expires, now) => {
                steps.push(Step::Note(format!(
                    "the key {uid} has expired and was left out"
                )));
            }
            None => steps.push(Step::Create(json!({
                "uid": uid,
                "name": member(key, "name", "name"),
                "description": member(key, "description", "description"),
                "actions": member(key, "actions", "actions"),
                "indexes": member(key, "indexes", "indexes"),
                "expiresAt": expires,
            }))),
        }
    }
    for uid in there.iter().filter_map(uid) {
        if known.contains(&uid) && !keys.iter().any(|key| is(key, &uid)) {
            steps.push(Step::Delete(uid));
        }
    }
    steps
}

fn changes(key: &Key, other: &Key, uid: &str) -> Option<Step> {
    let differs = |name: &str| member(key, name, name) != member(other, name, name);
    if differs("actions") || differs("indexes") {
        return Some(Step::Note(format!(
            "the key {uid} allows something else in the cluster, and that can't be changed: delete it there"
        )));
    }
    (differs("name") || differs("description")).then(|| {
        let body = json!({
            "name": member(key, "name", "name"),
            "description": member(key, "description", "description"),
        });
        Step::Describe(uid.to_owned(), body)
    })
}

/// Keys of dumps have other names of members than those of the API.
fn member(key: &Key, name: &str, in_dumps: &str) -> Value {
    let found = key.get(name).or_else(|| key.get(in_dumps));
    found.cloned().unwrap_or_default()
}

fn uid(key: &Key) -> Option<String> {
    key.get("uid").and_then(Value::as_str).map(str::to_owned)
}

fn is(key: &Key, uid: &str) -> bool {
    key.get("uid").and_then(Value::as_str) == Some(uid)
}

fn has_passed(expires: &Value, now: OffsetDateTime) -> bool {
    let time = expires
        .as_str()
        .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    time.is_some_and(|time| time <= now)
}

/// Whether a key has a value here and another one there. Keys of dumps have no values.
fn has_other_values(keys: &[Key], there: &[Key]) -> bool {
    keys.iter().any(|key| {
        let (Some(uid), Some(value)) = (uid(key), key.get("key")) else {
            return false;
        };
        let other = there.iter().find(|other| is(other, &uid));
        other
            .and_then(|other| other.get("key"))
            .is_some_and(|other| other != value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: Value) -> Key {
        value.as_object().unwrap().clone()
    }

    fn now() -> OffsetDateTime {
        OffsetDateTime::parse("2026-06-01T00:00:00Z", &Rfc3339).unwrap()
    }

    fn planned(keys: &[Value], there: &[Value], known: &[&str]) -> Vec<Step> {
        let all = |list: &[Value]| list.iter().cloned().map(key).collect::<Vec<_>>();
        let known = known.iter().map(|uid| (*uid).to_owned()).collect();
        plan(&all(keys), &all(there), &known, now())
    }

    #[test]
    fn a_key_is_made_with_its_uid_whether_it_is_of_a_server_or_of_a_dump() {
        let wanted = json!({
            "uid": "u", "name": "n", "description": null, "actions": ["search"], "indexes": ["*"],
            "expiresAt": "2030-01-01T00:00:00Z",
        });
        for end in ["expiresAt", "expires_at"] {
            let mut one = json!({"uid": "u", "name": "n", "actions": ["search"], "indexes": ["*"], "key": "k"});
            one[end] = json!("2030-01-01T00:00:00Z");
            assert_eq!(planned(&[one], &[], &[]), [Step::Create(wanted.clone())]);
        }
    }

    #[test]
    fn an_expired_key_is_left_out() {
        let one = json!({"uid": "u", "expiresAt": "2020-01-01T00:00:00Z"});
        let steps = planned(&[one], &[], &[]);
        assert!(
            matches!(&steps[..], [Step::Note(note)] if note.contains("expired")),
            "{steps:?}"
        );
    }

    #[test]
    fn a_key_that_is_there_is_only_described_anew() {
        let here = json!({"uid": "u", "name": "new", "actions": ["search"], "indexes": ["*"]});
        let there = json!({"uid": "u", "name": "old", "actions": ["search"], "indexes": ["*"]});
        assert_eq!(
            planned(
                std::slice::from_ref(&here),
                std::slice::from_ref(&here),
                &[]
            ),
            []
        );
        let steps = planned(std::slice::from_ref(&here), &[there], &[]);
        assert_eq!(
            steps,
            [Step::Describe(
                "u".to_owned(),
                json!({"name": "new", "description": null})
            )]
        );
        let other = json!({"uid": "u", "name": "new", "actions": ["*"], "indexes": ["*"]});
        let steps = planned(&[here], &[other], &[]);
        assert!(matches!(&steps[..], [Step::Note(_)]), "{steps:?}");
    }

    #[test]
    fn only_keys_that_an_import_brought_are_deleted() {
        let there = [json!({"uid": "a"}), json!({"uid": "b"})];
        assert_eq!(planned(&[], &there, &["a"]), [Step::Delete("a".to_owned())]);
    }

    #[test]
    fn other_values_are_noticed() {
        let here = [key(json!({"uid": "u", "key": "1"}))];
        assert!(!has_other_values(&here, &here));
        assert!(has_other_values(
            &here,
            &[key(json!({"uid": "u", "key": "2"}))]
        ));
        let of_dump = [key(json!({"uid": "u"}))];
        assert!(!has_other_values(&of_dump, &here));
    }
}
