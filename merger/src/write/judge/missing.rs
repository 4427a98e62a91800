//! The error text for a new document without vectors, when only clients provide an embedder's vectors.

use std::collections::BTreeMap;

use strsim::osa_distance;

use super::{Finding, Phase};

/// How many distinct names are counted; any further names get no hint.
const MOST_NAMES: usize = 100;
/// How many hints of each kind are given, and the largest edit distance of a misspelling.
const HINTS: usize = 2;
const FAR: usize = 2;

/// Names that may be misspellings.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Names in `_vectors` that aren't an embedder's, and how many times they occur.
    unused: BTreeMap<String, u64>,
    /// Fields whose names resemble `_vectors`, in documents without it, and how many times they occur.
    misspelt: BTreeMap<String, u64>,
}

impl Hints {
    pub(super) fn unused(&mut self, names: Vec<String>) {
        count(&mut self.unused, names.into_iter());
    }

    pub(super) fn misspelt(&mut self, names: Vec<String>) {
        let alike = |name: &String| !name.contains('.') && is_misspelling(name, "_vectors");
        count(&mut self.misspelt, names.into_iter().filter(alike));
    }
}

fn count(counts: &mut BTreeMap<String, u64>, names: impl Iterator<Item = String>) {
    for name in names {
        if counts.len() < MOST_NAMES || counts.contains_key(&name) {
            *counts.entry(name).or_default() += 1;
        }
    }
}

fn is_misspelling(name: &str, of: &str) -> bool {
    (1..=FAR).contains(&osa_distance(name, of))
}

/// The finding for `count` documents without vectors, of which `id` is the first.
pub(super) fn finding(embedder: &str, id: &str, count: usize, hints: &Hints) -> Finding {
    let others = match count.saturating_sub(1) {
        0 => String::new(),
        others => format!(" and at least {others} other document(s)"),
    };
    let mut message = format!(
        "While embedding documents for embedder `{embedder}`: no vectors provided for document `{id}`{others}\n\
         - Note: `{embedder}` has `source: userProvided`, so documents must provide embeddings as an array in \
         `_vectors.{embedder}`."
    );
    let mut hinted = false;
    for (name, count) in hints.misspelt.iter().take(HINTS) {
        hinted = true;
        message.push_str(&format!(
            "\n- Hint: try replacing `{name}` by `_vectors` in {count} document(s)."
        ));
    }
    let alike = hints.unused.iter();
    let alike = alike.filter(|(name, _)| is_misspelling(name, embedder));
    for (name, count) in alike.take(HINTS) {
        hinted = true;
        message.push_str(&format!(
            "\n- Hint: try replacing `_vectors.{name}` by `_vectors.{embedder}` in {count} document(s)."
        ));
    }
    if !hinted {
        message.push_str(&format!(
            "\n- Hint: opt-out for a document with `_vectors.{embedder}: null`"
        ));
    }
    Finding {
        phase: Phase::Missing,
        code: "vector_embedding_error",
        message,
    }
}
