//! The filter that a tenant token adds to its holder's searches.
//!
//! A node judges the token and adds its filter to each search of an index. The merger uses what it reads here only after a
//! node has accepted the token; it checks nothing itself.
//!
//! Pure: functions of values.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::unequal;

/// The filters of a tenant token, by patterns of indexes' uids.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantRules(Map<String, Value>);

/// A token whose rules can't be read here. A node may be able to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tenant token's rules can't be read")]
pub struct Unreadable;

impl TenantRules {
    /// The rules of the token in an `authorization` header; `None` for a key, and for a token without rules.
    #[must_use]
    pub fn of(authorization: &str) -> Option<Self> {
        Self::read(authorization).ok().flatten()
    }

    /// The same, where it matters whether there are no rules or none that can be read.
    ///
    /// # Errors
    /// It looks like a token, and its rules can't be read.
    pub fn read(authorization: &str) -> Result<Option<Self>, Unreadable> {
        let Some(token) = authorization.strip_prefix("Bearer ") else {
            return Ok(None);
        };
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(None);
        };
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload);
        let payload = payload.map_err(|_| Unreadable)?;
        let payload = std::str::from_utf8(&payload).map_err(|_| Unreadable)?;
        let mut payload: Value = serde_json::from_str(payload).map_err(|_| Unreadable)?;
        match payload.get_mut("searchRules").map(Value::take) {
            Some(Value::Object(rules)) => Ok(Some(Self(rules))),
            Some(Value::Array(_)) => Ok(None),
            _ => Err(Unreadable),
        }
    }

    /// True if any of the filters compares by `!=`.
    #[must_use]
    pub fn compare(&self) -> bool {
        let filters = self.0.values().filter_map(|rule| rule.get("filter"));
        filters
            .into_iter()
            .any(|filter| !unequal::fields(filter).is_empty())
    }

    /// The filter for an index: the rule for its exact name, otherwise for the longest pattern that matches.
    #[must_use]
    pub fn filter_of(&self, uid: &str) -> Option<&Value> {
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => uid.starts_with(prefix),
            None => pattern == uid,
        };
        let rules = self.0.iter().filter(|(pattern, _)| fits(pattern));
        let (_, rule) =
            rules.max_by_key(|(pattern, _)| (!pattern.ends_with('*'), pattern.len()))?;
        rule.get("filter").filter(|filter| !filter.is_null())
    }
}

/// Combines a client's filter and a rule as a node does: both must hold.
#[must_use]
pub fn joined(own: Option<&Value>, rule: &Value) -> Value {
    let all = |filter: &Value| match filter {
        Value::Array(elements) => elements.clone(),
        filter => vec![filter.clone()],
    };
    match own {
        Some(own) => all(own).into_iter().chain(all(rule)).collect(),
        None => rule.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(rules: &Value) -> Option<TenantRules> {
        let payload = json!({"searchRules": rules, "apiKeyUid": "u", "exp": null}).to_string();
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
        TenantRules::of(&format!("Bearer e30.{payload}.sig"))
    }

    #[test]
    fn the_most_exact_rule_counts() {
        let found = rules(&json!({
            "*": {"filter": "a != 1"}, "films*": {"filter": ["b = 1"]}, "films": {}, "films-*": null,
        }));
        let found = found.unwrap();
        assert!(found.compare());
        assert_eq!(found.filter_of("books"), Some(&json!("a != 1")));
        assert_eq!(found.filter_of("filmset"), Some(&json!(["b = 1"])));
        assert_eq!(found.filter_of("films"), None);
        assert_eq!(found.filter_of("films-2"), None);
    }

    #[test]
    fn a_key_or_a_token_of_names_alone_has_no_rules() {
        assert_eq!(rules(&json!(["*"])), None);
        assert_eq!(rules(&json!(null)), None);
        for key in ["", "a-key", "Bearer a-key", "Bearer a.b", "Basic a.b.c"] {
            assert_eq!(TenantRules::read(key), Ok(None), "{key}");
        }
    }

    #[test]
    fn a_token_whose_rules_are_not_understood_is_told_from_one_without_rules() {
        let read = |payload: &str| {
            let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
            TenantRules::read(&format!("Bearer e30.{payload}.sig"))
        };
        assert_eq!(read(r#"{"searchRules":["*"]}"#), Ok(None));
        assert!(matches!(read(r#"{"searchRules":{}}"#), Ok(Some(_))));
        for payload in ["x", "{}", r#"{"searchRules":7}"#, r#"{"searchRules":null}"#] {
            assert_eq!(read(payload), Err(Unreadable), "{payload}");
        }
        for token in ["a.b.c", "e30.e30=.x"] {
            let read = TenantRules::read(&format!("Bearer {token}"));
            assert_eq!(read, Err(Unreadable), "{token}");
        }
    }

    #[test]
    fn a_rule_comes_to_the_clients_filter() {
        let rule = json!("r = 1");
        assert_eq!(joined(None, &rule), rule);
        assert_eq!(
            joined(Some(&json!("a = 1")), &rule),
            json!(["a = 1", "r = 1"])
        );
        let lists = joined(
            Some(&json!([["a = 1", "b = 1"]])),
            &json!([["r = 1", "s = 1"]]),
        );
        assert_eq!(lists, json!([["a = 1", "b = 1"], ["r = 1", "s = 1"]]));
    }
}
