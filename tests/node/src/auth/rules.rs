//! The indexes that a key or a tenant token allows, and the filters that a tenant token adds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An index uid, or a prefix of uids followed by `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct IndexPattern(pub(crate) String);

impl IndexPattern {
    /// Checks the form of a pattern.
    pub(crate) fn parse(text: String) -> Result<IndexPattern, String> {
        let name = text.strip_suffix('*').unwrap_or(&text);
        let fits = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if text.is_empty() || text.len() > 400 || !fits {
            return Err(format!(
                "`{text}` is not a valid index uid pattern. Index uid patterns can be an integer or a string \
                 containing only alphanumeric characters, hyphens (-), underscores (_), and optionally end with \
                 a star (*)."
            ));
        }
        Ok(IndexPattern(text))
    }

    /// True if the pattern matches an index.
    pub(crate) fn matches(&self, uid: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => uid.starts_with(beginning),
            None => self.0 == uid,
        }
    }
}

/// The rules of a tenant token: indexes, or indexes with one filter each.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum TenantRules {
    /// These indexes.
    Indexes(Vec<IndexPattern>),
    /// These indexes, each with a filter for its searches.
    Filtered(BTreeMap<IndexPattern, Option<TenantRule>>),
}

/// The rule for one index.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct TenantRule {
    /// The filter, in any of the forms that a search accepts.
    pub(crate) filter: Option<serde_json::Value>,
}

impl TenantRules {
    fn patterns(&self) -> Vec<&IndexPattern> {
        match self {
            TenantRules::Indexes(patterns) => patterns.iter().collect(),
            TenantRules::Filtered(rules) => rules.keys().collect(),
        }
    }

    fn filter_of(&self, uid: &str) -> Option<serde_json::Value> {
        let TenantRules::Filtered(rules) = self else {
            return None;
        };
        // The most restrictive pattern wins: an exact name before a prefix, a long prefix before a short one.
        rules
            .iter()
            .filter(|(pattern, _)| pattern.matches(uid))
            .max_by_key(|(pattern, _)| (!pattern.0.ends_with('*'), pattern.0.len()))
            .and_then(|(_, rule)| rule.clone().unwrap_or_default().filter)
    }
}

/// What the sender of a request may access.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    /// The key's indexes; `None` for the master key, or if there is no master key.
    pub(crate) key: Option<Vec<IndexPattern>>,
    /// The tenant token's rules, if the request had a tenant token.
    pub(crate) tenant: Option<TenantRules>,
    /// True if the key may create indexes.
    pub(crate) creates_indexes: bool,
}

impl Grant {
    /// Full access.
    pub(crate) fn everything() -> Grant {
        Grant {
            key: None,
            tenant: None,
            creates_indexes: true,
        }
    }

    /// True if the sender may access an index.
    pub(crate) fn reaches(&self, uid: &str) -> bool {
        self.key_reaches(uid) && self.tenant_reaches(uid)
    }

    /// True if the sender may access every index.
    pub(crate) fn reaches_all(&self) -> bool {
        self.key
            .as_ref()
            .is_none_or(|patterns| patterns.iter().any(|pattern| pattern.0 == "*"))
            && self
                .tenant
                .as_ref()
                .is_none_or(|rules| rules.patterns().iter().any(|pattern| pattern.0 == "*"))
    }

    /// The filter that the tenant token adds to searches of an index.
    pub(crate) fn filter_of(&self, uid: &str) -> Option<serde_json::Value> {
        self.tenant.as_ref().and_then(|rules| rules.filter_of(uid))
    }

    pub(super) fn key_reaches(&self, uid: &str) -> bool {
        self.key
            .as_ref()
            .is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(uid)))
    }

    pub(super) fn tenant_reaches(&self, uid: &str) -> bool {
        self.tenant
            .as_ref()
            .is_none_or(|rules| rules.patterns().iter().any(|pattern| pattern.matches(uid)))
    }

    pub(super) fn key_indexes(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .key
            .iter()
            .flatten()
            .map(|pattern| pattern.0.clone())
            .collect();
        names.sort_unstable();
        names
    }

    pub(super) fn tenant_indexes(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .tenant
            .iter()
            .flat_map(TenantRules::patterns)
            .map(|pattern| pattern.0.clone())
            .collect();
        names.sort_unstable();
        names
    }
}
