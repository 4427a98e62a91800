//! Finds a document's id by a node's rules, and infers the primary key if none was given.
//!
//! The scanner finds a plain top-level key itself. This module handles the rest: keys with a dot, which may name a field of a
//! nested object, and keys written with escapes.

use serde_json::value::RawValue;
use weft_routing::document_id::DocumentId;

use super::explain::{Entries, entries};

/// A primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrimaryKey {
    name: String,
}

/// How a node treats a key that occurs twice in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeats {
    /// A node rewrites JSON bodies before it queues them: the last value stays.
    LastWins,
    /// A node queues NDJSON bodies as they are, and refuses a document with two ids.
    Refused,
}

/// The node's task would refuse the document. The node words the error itself, since it gets the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

impl PrimaryKey {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The key in the form that the scanner can look for; `None` if it may be nested.
    pub(crate) fn plain(&self) -> Option<&[u8]> {
        // The scanner compares raw text, so a key that JSON must write with escapes can't be compared.
        let written_as_it_is = self
            .name
            .bytes()
            .all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
        (!self.name.contains('.') && written_as_it_is).then_some(self.name.as_bytes())
    }

    /// The id of a document, found by parsing the document (slow).
    pub(crate) fn identify<'a>(
        &self,
        document: &'a str,
        repeats: Repeats,
    ) -> Result<DocumentId<'a>, Refused> {
        let mut fields = entries(document).map_err(|_| Refused)?;
        if repeats == Repeats::LastWins {
            keep_last(&mut fields);
        }
        let mut id = None;
        find(&fields, &self.name, &mut id)?;
        id.ok_or(Refused)
    }
}

/// Infers the primary key from an index's first document, as a node does: the only field whose name ends with `id`.
pub(crate) fn infer(document: &str) -> Result<PrimaryKey, Refused> {
    let mut fields = entries(document).map_err(|_| Refused)?;
    keep_last(&mut fields);
    infer_from_names(fields.iter().map(|(name, _)| name.as_ref()))
}

/// The same, from the names of the fields. Each name may occur only once.
pub(crate) fn infer_from_names<'a>(
    names: impl Iterator<Item = &'a str>,
) -> Result<PrimaryKey, Refused> {
    let mut candidates = names.filter(|name| name.to_lowercase().ends_with("id"));
    match (candidates.next(), candidates.next()) {
        (Some(name), None) => Ok(PrimaryKey::new(name)),
        _ => Err(Refused),
    }
}

/// For repeated names, keeps the first position and the last value.
pub(crate) fn keep_last(fields: &mut Entries<'_>) {
    let mut places = hashbrown::HashMap::with_capacity(fields.len());
    let mut kept: Entries<'_> = Vec::with_capacity(fields.len());
    for (name, value) in fields.drain(..) {
        let place = *places.entry(name.clone()).or_insert(kept.len());
        match kept.get_mut(place) {
            Some((_, old)) => *old = value,
            None => kept.push((name, value)),
        }
    }
    *fields = kept;
}

/// Looks for `path` among `fields`: as a name, and as a path into objects, split at each of its dots.
fn find<'a>(
    fields: &Entries<'a>,
    path: &str,
    id: &mut Option<DocumentId<'a>>,
) -> Result<(), Refused> {
    // To a node, an empty name isn't a step of a path.
    for (name, value) in fields.iter().filter(|(name, _)| !name.is_empty()) {
        let found = if name.as_ref() == path {
            Some(identify_value(value)?)
        } else {
            match path
                .strip_prefix(name.as_ref())
                .and_then(|rest| rest.strip_prefix('.'))
            {
                Some(rest) => identify_within(value, rest)?,
                None => None,
            }
        };
        if found.is_some() && std::mem::replace(id, found).is_some() {
            return Err(Refused);
        }
    }
    Ok(())
}

fn identify_value(value: &RawValue) -> Result<DocumentId<'_>, Refused> {
    DocumentId::from_json(value.get()).map_err(|_| Refused)
}

fn identify_within<'a>(value: &'a RawValue, path: &str) -> Result<Option<DocumentId<'a>>, Refused> {
    if !value.get().starts_with('{') {
        return Ok(None);
    }
    let fields = entries(value.get()).map_err(|_| Refused)?;
    let mut id = None;
    find(&fields, path, &mut id)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(key: &str, document: &str, repeats: Repeats) -> Option<String> {
        PrimaryKey::new(key)
            .identify(document, repeats)
            .ok()
            .map(|id| id.as_str().to_owned())
    }

    fn last(key: &str, document: &str) -> Option<String> {
        id(key, document, Repeats::LastWins)
    }

    #[test]
    fn a_key_with_a_dot_is_a_name_or_a_path() {
        assert_eq!(last("a.b", r#"{"a.b":1}"#).as_deref(), Some("1"));
        assert_eq!(last("a.b", r#"{"a":{"b":"x"}}"#).as_deref(), Some("x"));
        assert_eq!(last("a.b.c", r#"{"a.b":{"c":3}}"#).as_deref(), Some("3"));
        assert_eq!(last("a.b.c", r#"{"a":{"b.c":4}}"#).as_deref(), Some("4"));
        assert_eq!(last("a.b", r#"{"a":1,"b":2}"#), None);
        assert_eq!(last("a.b", r#"{"a":{"c":1}}"#), None);
    }

    #[test]
    fn two_ids_under_a_key_with_a_dot_are_one_too_many() {
        assert_eq!(last("a.b", r#"{"a":{"b":1},"a.b":2}"#), None);
        assert_eq!(last("a.b", r#"{"a":{"b":1,"b":2}}"#), None);
    }

    #[test]
    fn a_repeated_key_is_the_last_in_json_and_refused_in_ndjson() {
        assert_eq!(last("id", r#"{"id":1,"id":2}"#).as_deref(), Some("2"));
        assert_eq!(id("id", r#"{"id":1,"id":2}"#, Repeats::Refused), None);
    }

    #[test]
    fn keys_and_ids_may_be_written_with_escapes() {
        assert_eq!(
            last("id", r#"{"\u0069d":"\u0034\u0032"}"#).as_deref(),
            Some("42")
        );
    }

    #[test]
    fn the_one_field_that_ends_with_id_is_the_primary_key() {
        let key = |document| infer(document).ok().map(|key| key.name);
        assert_eq!(
            key(r#"{"title":1,"MovieID":2}"#).as_deref(),
            Some("MovieID")
        );
        assert_eq!(key(r#"{"id":1,"id":2}"#).as_deref(), Some("id"));
        assert_eq!(key(r#"{"title":1}"#), None);
        assert_eq!(key(r#"{"a_id":1,"b_id":2}"#), None);
        assert_eq!(key(r#"{}"#), None);
    }
}
