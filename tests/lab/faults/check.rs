//! Judges what nodes and clients saw, by the acknowledged writes. Pure: values in, violations out.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use super::documents::vector;
use super::history::{At, Fields, History, Life, Outcome, State};

/// The ways to break a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Breach {
    /// An acknowledged write is missing: there is no document, an older one, or one without its fields.
    Missing,
    /// A document exists that an acknowledged write had deleted.
    CameBack,
    /// A document that nobody wrote, or one with a wrong vector.
    Invented,
    /// Replicas of a shard hold different documents or settings.
    Differs,
    /// A read showed less than what was acknowledged before it began.
    StaleRead,
    /// An answer shows a document twice.
    ShownTwice,
    /// An accepted task is unknown, or never settles.
    LostTask,
    /// Two writes were answered with the same task uid.
    TaskTwice,
}

/// One violation, with the details for finding its cause.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Violation {
    pub(super) breach: Breach,
    /// The document, or the setting.
    pub(super) what: String,
    /// Where it was seen.
    pub(super) place: String,
    /// What was seen, and what should have been.
    pub(super) detail: String,
}

/// Documents by id, as a node or a cluster returns them, with `_vectors`.
pub(super) type Documents = BTreeMap<String, Value>;

/// Judges all documents of one place after all writes have ended: those of a shard's node (`owns` says which ids belong to
/// it), or all.
pub(super) fn documents(
    history: &History,
    place: &str,
    found: &Documents,
    owns: impl Fn(&str) -> bool,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (id, life) in history.lives().filter(|(id, _)| owns(id)) {
        violations.extend(document(place, id, life, found.get(id)));
    }
    for (id, document) in found {
        if history.life(id).is_none() || !owns(id) {
            violations.push(Violation {
                breach: Breach::Invented,
                what: id.clone(),
                place: place.to_owned(),
                detail: format!("{document} was never written there"),
            });
        }
    }
    violations
}

fn document(place: &str, id: &str, life: &Life, found: Option<&Value>) -> Option<Violation> {
    let allowed = life.states();
    let seen = found.map(fields);
    let violation = |breach, detail| Violation {
        breach,
        what: id.to_owned(),
        place: place.to_owned(),
        detail,
    };
    if !allowed.contains(&seen) {
        let detail = format!(
            "holds {}, and can only hold {}",
            show(&seen),
            show_all(&allowed)
        );
        return Some(violation(breach(&seen, life, &allowed), detail));
    }
    let (Some(seen), Some(found)) = (seen, found) else {
        return None;
    };
    let version = seen.get("vectorOf").and_then(Value::as_u64)?;
    let held = found.pointer("/_vectors/given/embeddings/0");
    if same_vector(held, &vector(version)) {
        return None;
    }
    let detail = format!(
        "holds the vector {}, not that of version {version}",
        show_json(held)
    );
    Some(violation(Breach::Invented, detail))
}

fn breach(seen: &State, life: &Life, allowed: &[State]) -> Breach {
    match seen {
        None => Breach::Missing,
        Some(_) if allowed == [None] => Breach::CameBack,
        Some(fields) => {
            let written = |write: &super::history::Write| match &write.change {
                super::history::Change::Replace(change)
                | super::history::Change::Update(change) => {
                    change.get("version") == fields.get("version")
                }
                super::history::Change::Delete => false,
            };
            // This version of the document was written, but the document isn't complete.
            if life.writes.iter().any(written) {
                Breach::Missing
            } else {
                Breach::Invented
            }
        }
    }
}

/// Judges a read by id: what a client was shown, given when the read began and ended.
pub(super) fn read(
    history: &History,
    id: &str,
    shown: Option<&Value>,
    began: At,
    ended: At,
) -> Option<Violation> {
    let life = history.life(id)?;
    let allowed = life.states_since(began, ended);
    let seen = shown.map(fields);
    (!allowed.contains(&seen)).then(|| Violation {
        breach: Breach::StaleRead,
        what: id.to_owned(),
        place: "read".to_owned(),
        detail: format!(
            "a read from {:.3} s to {:.3} s showed {}, and could only show {}",
            began.as_secs_f64(),
            ended.as_secs_f64(),
            show(&seen),
            show_all(&allowed)
        ),
    })
}

/// Judges the ids of one answer.
pub(super) fn shown_twice<'a>(place: &str, ids: impl Iterator<Item = &'a str>) -> Vec<Violation> {
    let mut seen = BTreeSet::new();
    let twice = ids.filter(|id| !seen.insert(*id));
    let violation = |id: &str| Violation {
        breach: Breach::ShownTwice,
        what: id.to_owned(),
        place: place.to_owned(),
        detail: "is there twice".to_owned(),
    };
    twice.map(violation).collect()
}

/// A violation: an accepted task is unknown, or never settles.
pub(super) fn lost_task(task: u64, id: Option<&str>, answer: &str) -> Violation {
    Violation {
        breach: Breach::LostTask,
        what: id.unwrap_or("?").to_owned(),
        place: format!("task {task}"),
        detail: answer.to_owned(),
    }
}

/// A violation: a task uid that two writes were answered with.
pub(super) fn task_given_twice(task: u64, one: &str, other: &str) -> Violation {
    Violation {
        breach: Breach::TaskTwice,
        what: other.to_owned(),
        place: format!("task {task}"),
        detail: format!("was given to a write of {one} before"),
    }
}

/// The differences between two replicas of a shard, in documents (with vectors) and settings, compared as sets.
pub(super) fn differences(
    shard: &str,
    one: (&str, &Documents, &Value),
    other: (&str, &Documents, &Value),
) -> Vec<Violation> {
    let (one_name, one_documents, one_settings) = one;
    let (other_name, other_documents, other_settings) = other;
    let violation = |what: &str, a: Option<&Value>, b: Option<&Value>| Violation {
        breach: Breach::Differs,
        what: what.to_owned(),
        place: shard.to_owned(),
        detail: format!(
            "{one_name}: {}; {other_name}: {}",
            show_json(a),
            show_json(b)
        ),
    };
    let ids: BTreeSet<&String> = one_documents.keys().chain(other_documents.keys()).collect();
    let mut violations: Vec<Violation> = ids
        .into_iter()
        .filter_map(|id| {
            let (a, b) = (one_documents.get(id), other_documents.get(id));
            (a.map(canonical) != b.map(canonical)).then(|| violation(id, a, b))
        })
        .collect();
    if canonical(one_settings) != canonical(other_settings) {
        violations.push(violation(
            "settings",
            Some(one_settings),
            Some(other_settings),
        ));
    }
    violations
}

/// A value with all of its keys sorted, so that equal values are equal texts.
pub(super) fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, Value> = map
                .iter()
                .map(|(key, value)| (key, canonical(value)))
                .collect();
            let sorted: Map<String, Value> = sorted
                .into_iter()
                .map(|(key, value)| (key.clone(), value))
                .collect();
            Value::Object(sorted)
        }
        Value::Array(values) => values.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

/// A document's history as text, for the person who looks for a cause.
pub(super) fn describe(id: &str, life: Option<&Life>) -> Vec<String> {
    let Some(life) = life else {
        return vec![format!("{id}: never written")];
    };
    life.writes
        .iter()
        .map(|write| {
            let outcome = match &write.outcome {
                Outcome::Acknowledged(at) => format!("acknowledged at {:.3} s", at.as_secs_f64()),
                other => format!("{other:?}"),
            };
            let task = write
                .task
                .map_or_else(|| "no task".to_owned(), |task| format!("task {task}"));
            format!(
                "{id}: {:.3} s {} → {task}, {outcome}",
                write.sent.as_secs_f64(),
                match &write.change {
                    super::history::Change::Replace(fields) =>
                        format!("POST {}", Value::Object(fields.clone())),
                    super::history::Change::Update(fields) =>
                        format!("PUT {}", Value::Object(fields.clone())),
                    super::history::Change::Delete => "DELETE".to_owned(),
                }
            )
        })
        .collect()
}

/// A violation as one line.
pub(super) fn line(violation: &Violation) -> String {
    let text = format!(
        "  {:?} {} at {}: {}",
        violation.breach, violation.what, violation.place, violation.detail
    );
    text.chars().take(400).collect()
}

/// A document's own fields.
fn fields(document: &Value) -> Fields {
    let mut fields = document.as_object().cloned().unwrap_or_default();
    fields.retain(|name, _| !name.starts_with('_'));
    fields
}

/// Vectors are stored as 32-bit floats.
fn same_vector(held: Option<&Value>, wanted: &[f32]) -> bool {
    held.and_then(Value::as_array).is_some_and(|held| {
        held.len() == wanted.len()
            && held.iter().zip(wanted).all(|(held, wanted)| {
                held.as_f64()
                    .is_some_and(|held| (held - f64::from(*wanted)).abs() < 1e-5)
            })
    })
}

fn show(state: &State) -> String {
    match state {
        Some(fields) => Value::Object(fields.clone()).to_string(),
        None => "nothing".to_owned(),
    }
}

fn show_all(states: &[State]) -> String {
    states.iter().map(show).collect::<Vec<_>>().join(" or ")
}

fn show_json(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

#[cfg(test)]
mod tests;
