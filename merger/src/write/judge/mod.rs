//! Judge: finds the documents that the engine will refuse, before any shard sees them.
//!
//! On a node a batch succeeds or fails as a whole, and so it must here. Whatever can be known from documents and settings is
//! judged while the body is split, and a batch that the engine would refuse goes to no shard. Its task fails with the engine's
//! words.
//!
//! ```text
//! each document ─► [`Judge::see`] ─► suspects ─► [`Suspicions::verdict`] ─┬─ fine: delivered
//!                                                    │                    └─ refused: a failed task
//!                                                    └─ which of them are there already? (`ask`) ─► once more
//! ```
//!
//! The judge is a function of values: [`rules`] is what the settings say; [`geo`], [`vectors`] and [`geojson`] judge one field
//! each. Invariants: as in the engine, the last version of a document in a batch counts. While settings are being changed, only
//! what is invalid under any settings is judged. Memory is bounded: if there are more than [`MOST`] suspects, the rest is left
//! to the shards.

mod answer;
mod ask;
mod geo;
mod geojson;
mod missing;
mod rules;
pub(crate) mod trial;
mod vectors;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

pub(super) use self::rules::{Known, Rules};

use self::vectors::Vectors;

/// How many suspects are kept, and how many ids of documents that brought their vectors.
const MOST: usize = 1_000;
const MOST_GIVEN: usize = 100_000;
/// How many documents the engine processes as one unit of work.
const CHUNK: u64 = 100;

/// The fields that have special checks in the engine, with their raw values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Special<T> {
    pub(super) vectors: Option<T>,
    pub(super) geo: Option<T>,
    pub(super) geojson: Option<T>,
}

impl<T> Special<T> {
    pub(super) const NONE: Self = Self {
        vectors: None,
        geo: None,
        geojson: None,
    };

    /// Notes a top-level field, if it is one of them.
    pub(super) fn note(&mut self, name: &[u8], value: T) {
        match name {
            b"_vectors" => self.vectors = Some(value),
            b"_geo" => self.geo = Some(value),
            b"_geojson" => self.geojson = Some(value),
            _ => {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.vectors.is_none() && self.geo.is_none() && self.geojson.is_none()
    }

    pub(super) fn map<U>(self, change: impl Fn(T) -> U) -> Special<U> {
        Special {
            vectors: self.vectors.map(&change),
            geo: self.geo.map(&change),
            geojson: self.geojson.map(&change),
        }
    }
}

/// The engine's message where it crashes instead of refusing.
const CRASH: &str = "An unexpected crash occurred when processing the task: called `Result::unwrap()` on an `Err` value: Any { .. }";

/// The phase of the engine's work in which it refuses a document; the earliest phase wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Shape,
    Place,
    Embeddings,
    Missing,
    GeoJson,
}

/// What is wrong with a document, in the engine's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    phase: Phase,
    code: &'static str,
    message: String,
}

/// A document that may be wrong.
#[derive(Debug, Default)]
struct Suspect {
    /// The document's position in the batch, from 0.
    place: u64,
    /// The raw document, if it may have to be sent to a node.
    raw: Option<Bytes>,
    vectors: Option<Finding>,
    geo: Option<Finding>,
    geojson: Option<Finding>,
    /// The embedders whose vectors only clients provide and that this document brings none for: an error if the document is
    /// new.
    lacks: Vec<usize>,
}

impl Suspect {
    fn is_one(&self) -> bool {
        self.findings().next().is_some() || !self.lacks.is_empty()
    }

    fn findings(&self) -> impl Iterator<Item = &Finding> {
        [&self.vectors, &self.geo, &self.geojson]
            .into_iter()
            .flatten()
    }
}

/// How a write treats its documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// Whether documents are updated field by field (`PUT`).
    pub(super) updates: bool,
    /// Whether documents that don't exist yet are left out (`skipCreation`).
    pub(super) skips_creation: bool,
    /// Whether refused documents are kept, because the index may not exist: a node that refuses the document creates the index.
    pub(super) keeps: bool,
}

/// Judges the documents of a batch as they arrive.
#[derive(Debug)]
pub(super) struct Judge {
    rules: Arc<Rules>,
    manner: Manner,
    wants_vectors: bool,
    suspects: HashMap<String, Suspect>,
    /// For updates: the documents whose vectors an earlier version in the batch brought.
    given: HashSet<String>,
    hints: missing::Hints,
}

/// The suspects of a batch.
#[derive(Debug)]
pub(super) struct Suspicions {
    rules: Arc<Rules>,
    manner: Manner,
    suspects: BTreeMap<String, Suspect>,
    hints: missing::Hints,
}

/// The verdict on a batch.
#[derive(Debug)]
pub(super) enum Verdict<'a> {
    Fine,
    Refused {
        finding: Finding,
        raw: Option<&'a Bytes>,
    },
    /// It depends on which of these documents exist already.
    Ask(Vec<&'a str>),
}

impl Judge {
    pub(super) fn new(rules: Arc<Rules>, manner: Manner) -> Self {
        let wants_vectors = !manner.skips_creation && rules.wants_vectors();
        Self {
            rules,
            manner,
            wants_vectors,
            suspects: HashMap::new(),
            given: HashSet::new(),
            hints: missing::Hints::default(),
        }
    }

    /// Whether documents without special fields can be skipped.
    pub(super) fn passes_plain(&self) -> bool {
        !self.wants_vectors && self.suspects.is_empty()
    }

    /// Judges the next document; `place` is its position in the batch, from 0.
    pub(super) fn see(
        &mut self,
        id: &str,
        place: u64,
        raw: &[u8],
        special: Special<&str>,
        names: impl FnOnce() -> Vec<String>,
    ) {
        if special.is_empty() && self.passes_plain() {
            return;
        }
        let before = self.suspects.remove(id).filter(|_| self.manner.updates);
        let is_first = before.is_none();
        let mut suspect = before.unwrap_or_else(|| Suspect {
            place,
            ..Suspect::default()
        });
        if let Some(geo) = special.geo.filter(|_| self.rules.geo) {
            suspect.geo = geo::judge(geo, id);
        }
        if let Some(geojson) = special.geojson.filter(|_| self.rules.judges_geojson()) {
            suspect.geojson = geojson::judge(geojson);
        }
        match special.vectors {
            Some(vectors) => {
                let Vectors {
                    finding,
                    lacks,
                    unused,
                } = vectors::judge(vectors, id, &self.rules);
                suspect.vectors = finding;
                suspect.lacks = lacks;
                self.hints.unused(unused);
                if self.manner.updates && self.wants_vectors && self.given.len() < MOST_GIVEN {
                    self.given.insert(id.to_owned());
                }
            }
            None if self.wants_vectors && is_first && self.may_lack(id) => {
                suspect.lacks = self.rules.user_provided().collect();
                if self.suspects.len() < MOST {
                    self.hints.misspelt(names());
                }
            }
            None => {}
        }
        if self.manner.skips_creation {
            suspect.lacks.clear();
        }
        if suspect.is_one() && self.suspects.len() < MOST {
            suspect.raw = self.manner.keeps.then(|| Bytes::copy_from_slice(raw));
            self.suspects.insert(id.to_owned(), suspect);
        }
    }

    fn may_lack(&self, id: &str) -> bool {
        !self.manner.updates || (self.given.len() < MOST_GIVEN && !self.given.contains(id))
    }

    /// The suspicions after the last document; `None` if there are none.
    pub(super) fn finish(self) -> Option<Suspicions> {
        (!self.suspects.is_empty()).then(|| Suspicions {
            rules: self.rules,
            manner: self.manner,
            suspects: self.suspects.into_iter().collect(),
            hints: self.hints,
        })
    }
}

/// One thing that may be wrong with a document.
struct Charge<'a> {
    id: &'a str,
    suspect: &'a Suspect,
    what: What<'a>,
}

enum What<'a> {
    Found(&'a Finding),
    /// The document has no vectors for this embedder.
    Lacks(usize),
}

impl Charge<'_> {
    /// The sort key that gives the order in which the engine finds the errors.
    fn order(&self) -> (u8, u64, Phase, u64) {
        let phase = match &self.what {
            What::Found(finding) => finding.phase,
            What::Lacks(_) => Phase::Missing,
        };
        let place = self.suspect.place;
        match phase {
            Phase::Shape => (0, 0, phase, place),
            Phase::Place => (1, 0, phase, place),
            Phase::Embeddings | Phase::Missing => (2, place / CHUNK, phase, place),
            Phase::GeoJson => (3, 0, phase, place),
        }
    }
}

impl Suspicions {
    /// The engine's first refusal, if there is one. `is_there` names the documents that exist; `None` if that isn't known.
    pub(super) fn verdict(&self, is_there: Option<&HashSet<String>>) -> Verdict<'_> {
        let mut charges: Vec<Charge<'_>> = Vec::new();
        for (id, suspect) in &self.suspects {
            let found = suspect.findings().map(What::Found);
            let lacking = suspect.lacks.iter().map(|embedder| What::Lacks(*embedder));
            charges.extend(
                found
                    .chain(lacking)
                    .map(|what| Charge { id, suspect, what }),
            );
        }
        charges.sort_by_key(Charge::order);
        for charge in &charges {
            let holds = match (&charge.what, is_there) {
                (What::Found(_), _) if !self.manner.skips_creation => true,
                (_, None) => return Verdict::Ask(charges.iter().map(|charge| charge.id).collect()),
                (What::Found(_), Some(there)) => there.contains(charge.id),
                (What::Lacks(_), Some(there)) => !there.contains(charge.id),
            };
            if holds {
                let finding = match charge.what {
                    What::Found(finding) => finding.clone(),
                    What::Lacks(embedder) => self.missing(charge, embedder, is_there),
                };
                let raw = charge.suspect.raw.as_ref();
                return Verdict::Refused { finding, raw };
            }
        }
        Verdict::Fine
    }

    fn missing(
        &self,
        charge: &Charge<'_>,
        embedder: usize,
        is_there: Option<&HashSet<String>>,
    ) -> Finding {
        let chunk = charge.suspect.place / CHUNK;
        let same = self.suspects.iter().filter(|(id, suspect)| {
            let is_new = is_there.is_none_or(|there| !there.contains(id.as_str()));
            is_new && suspect.place / CHUNK == chunk && suspect.lacks.contains(&embedder)
        });
        let name = self.rules.name(embedder);
        missing::finding(name, charge.id, same.count(), &self.hints)
    }

    /// The rules by which the batch was judged.
    pub(super) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }
}

#[cfg(test)]
mod tests;
