//! Judges a `_vectors` field: its shape, whatever the settings, and its vectors for the configured embedders.

mod embeddings;
mod shape;

use serde_json::value::RawValue;

use super::rules::{Embedder, Engine};
use super::{CRASH, Finding, Phase, Rules};
use crate::write::split::explain::entries;
use crate::write::split::keep_last;

use self::embeddings::Wrong;
use self::shape::Shape;

/// The result for a `_vectors` field.
#[derive(Debug, Default)]
pub(super) struct Vectors {
    pub(super) finding: Option<Finding>,
    /// The embedders whose vectors only clients provide and that the field has none for.
    pub(super) lacks: Vec<usize>,
    /// The names in the field that aren't an embedder's.
    pub(super) unused: Vec<String>,
}

pub(super) fn judge(raw: &str, id: &str, rules: &Rules) -> Vectors {
    let mut fields = match entries(raw) {
        Ok(fields) => fields,
        Err(error) => {
            return Vectors {
                finding: Some(Finding {
                    phase: Phase::Shape,
                    code: "internal",
                    message: error.to_string(),
                }),
                ..Vectors::default()
            };
        }
    };
    keep_last(&mut fields);
    let mut shapes = Vec::with_capacity(fields.len());
    for (name, value) in &fields {
        match shape::read(name, value) {
            Ok(shape) => shapes.push((name.as_ref(), shape)),
            Err(error) => {
                return Vectors {
                    finding: Some(bad_configuration(Phase::Shape, id, &error)),
                    ..Vectors::default()
                };
            }
        }
    }
    let mut judged = Vectors::default();
    for (place, embedder) in rules.embedders.iter().enumerate() {
        let shape = shapes.iter().find(|(name, _)| *name == embedder.name);
        match shape.map_or(Given::Nothing, |(_, shape)| given(shape, rules.engine())) {
            Given::Nothing if embedder.user_provided => judged.lacks.push(place),
            Given::Nothing | Given::None => {}
            Given::Value { raw, explicit } => {
                let found = embedding(embedder, id, raw, explicit);
                judged.finding = judged.finding.or(found);
            }
        }
    }
    let unused = shapes
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| rules.embedders.iter().all(|known| known.name != *name));
    judged.unused = unused.map(str::to_owned).collect();
    judged
}

/// What a document provides for one embedder.
enum Given<'a> {
    /// Nothing: the engine would have to make the vectors.
    Nothing,
    /// The document says that it has no vectors.
    None,
    Value {
        raw: &'a RawValue,
        /// Whether the vectors are under `embeddings`.
        explicit: bool,
    },
}

fn given<'a>(shape: &Shape<'a>, engine: Engine) -> Given<'a> {
    let (raw, explicit, regenerate) = match shape {
        Shape::Implicit(None) => return Given::None,
        Shape::Implicit(Some(raw)) => (Some(*raw), false, false),
        Shape::Explicit {
            regenerate,
            embeddings,
        } => (*embeddings, true, *regenerate),
    };
    match (raw, engine) {
        (Some(raw), Engine::UpTo1_15 | Engine::Unknown) if raw.get() == "null" => Given::None,
        (Some(raw), _) if raw.get() != "null" => Given::Value { raw, explicit },
        _ if regenerate => Given::Nothing,
        _ => Given::None,
    }
}

fn embedding(embedder: &Embedder, id: &str, raw: &RawValue, explicit: bool) -> Option<Finding> {
    let name = &embedder.name;
    let at = match explicit {
        true => format!("._vectors.{name}.embeddings"),
        false => format!("._vectors.{name}"),
    };
    let lengths = match embeddings::lengths(raw.get(), &at) {
        Ok(lengths) => lengths,
        Err(Wrong::Kind(error)) => return Some(bad_configuration(Phase::Embeddings, id, &error)),
        Err(Wrong::Crash) => {
            return Some(Finding {
                phase: Phase::Embeddings,
                code: "internal",
                message: CRASH.to_owned(),
            });
        }
    };
    let expected = embedder.dimensions?;
    let mut lengths = lengths.into_iter().enumerate();
    let (place, found) = lengths.find(|(_, length)| *length != expected)?;
    Some(Finding {
        phase: Phase::Embeddings,
        code: "invalid_vector_dimensions",
        message: format!(
            "Invalid vector dimensions in document with id `{id}` in `._vectors.{name}`.\n  - note: embedding #{place} has \
             dimensions {found}\n  - note: embedder `{name}` requires {expected}"
        ),
    })
}

fn bad_configuration(phase: Phase, id: &str, error: &str) -> Finding {
    Finding {
        phase,
        code: "invalid_vectors_type",
        message: format!("Bad embedder configuration in the document with id: `{id}`. {error}"),
    }
}
