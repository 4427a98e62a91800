//! The documents that are written: each states its version, and everything else in it follows from that.

use serde_json::{Value, json};

use super::history::Fields;

/// The index used for all writes and reads.
pub(super) const INDEX: &str = "faults";

const WORDS: [&str; 16] = [
    "amber", "birch", "cedar", "dune", "ember", "fjord", "gravel", "harbour", "islet", "juniper",
    "kelp", "lagoon", "meadow", "nettle", "orchard", "pebble",
];

/// The index's settings: an example of each kind that a replica must hold in addition to documents.
pub(super) fn settings() -> Value {
    json!({
        "filterableAttributes": ["id", "group", "version"],
        "sortableAttributes": ["version"],
        "synonyms": {"sand": ["dune"], "dune": ["sand"]},
        "embedders": {"given": {"source": "userProvided", "dimensions": 3}},
    })
}

/// A whole document for this version.
pub(super) fn whole(id: &str, version: u64) -> Fields {
    let word = |step: u64| {
        let place = usize::try_from((version * 7 + step * 5 + hash(id)) % 16).unwrap_or(0);
        WORDS.get(place).copied().unwrap_or("amber")
    };
    let fields = json!({
        "id": id,
        "version": version,
        "vectorOf": version,
        "group": version % 10,
        "name": format!("{} {} {}", word(0), word(1), word(2)),
    });
    fields.as_object().cloned().unwrap_or_default()
}

/// A partial document: another version, and the field `touched`, which whole documents don't have.
pub(super) fn part(id: &str, version: u64) -> Fields {
    let fields = json!({"id": id, "version": version, "touched": version, "group": version % 10});
    fields.as_object().cloned().unwrap_or_default()
}

/// The document as it is sent, with its vector.
pub(super) fn with_vector(fields: &Fields) -> Value {
    let mut fields = fields.clone();
    if let Some(version) = fields.get("vectorOf").and_then(Value::as_u64) {
        fields.insert("_vectors".to_owned(), json!({"given": vector(version)}));
    }
    Value::Object(fields)
}

/// The vector for a version.
pub(super) fn vector(version: u64) -> [f32; 3] {
    let part = |modulus: u64| (version % modulus) as f32 / modulus as f32;
    [part(7) + 0.125, part(11) + 0.125, part(13) + 0.125]
}

/// A random query.
pub(super) fn query(random: &mut fastrand::Rng) -> String {
    random
        .choice(WORDS)
        .map_or_else(String::new, ToOwned::to_owned)
}

fn hash(id: &str) -> u64 {
    id.bytes()
        .fold(17_u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(byte))
        % 1_000
}
