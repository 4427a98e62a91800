//! What a webhook is, and how it changes. Pure.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;
use uuid::Uuid;

use super::{MAX_HEADERS, WebhookError};

/// Where ended tasks are sent, and with which headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    pub(super) url: String,
    pub(super) headers: BTreeMap<String, String>,
}

impl Webhook {
    /// The webhook after a change. Fields that the change doesn't name stay; `null` removes a header, or all of them.
    pub(super) fn patched(
        mut self,
        uuid: Uuid,
        asked: &Map<String, Value>,
    ) -> Result<Self, WebhookError> {
        let invalid = |field: &str, expected| WebhookError::InvalidBody {
            field: field.to_owned(),
            expected,
        };
        match asked.get("url") {
            None => {}
            Some(Value::String(url)) => self.url.clone_from(url),
            Some(Value::Null) => return Err(WebhookError::MissingUrl(uuid)),
            Some(_) => return Err(invalid("url", "a string")),
        }
        match asked.get("headers") {
            None => {}
            Some(Value::Null) => self.headers.clear(),
            Some(Value::Object(headers)) => {
                for (name, value) in headers {
                    match value {
                        Value::String(value) => {
                            self.headers.insert(name.clone(), value.clone());
                        }
                        Value::Null => {
                            self.headers.remove(name);
                        }
                        _ => return Err(invalid(&format!("headers.{name}"), "a string")),
                    }
                }
            }
            Some(_) => return Err(invalid("headers", "an object")),
        }
        self.check(uuid)?;
        Ok(self)
    }

    fn check(&self, uuid: Uuid) -> Result<(), WebhookError> {
        if self.url.is_empty() {
            return Err(WebhookError::MissingUrl(uuid));
        }
        if self.headers.len() > MAX_HEADERS {
            return Err(WebhookError::TooManyHeaders(uuid));
        }
        for (name, value) in &self.headers {
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|error| WebhookError::InvalidHeaderName(name.clone(), error))?;
            HeaderValue::from_str(value)
                .map_err(|error| WebhookError::InvalidHeaderValue(value.clone(), error))?;
        }
        Url::parse(&self.url)
            .map(drop)
            .map_err(|error| WebhookError::InvalidUrl(self.url.clone(), error))
    }

    /// The webhook as clients see it. An `Authorization` header is masked except for its first letters.
    pub(super) fn show(&self, uuid: Uuid) -> Value {
        let headers: Map<String, Value> = self
            .headers
            .iter()
            .map(|(name, value)| {
                let secret = name.eq_ignore_ascii_case("authorization");
                let shown = if secret { hidden(value) } else { value.clone() };
                (name.clone(), Value::from(shown))
            })
            .collect();
        json!({"uuid": uuid, "isEditable": !uuid.is_nil(), "url": self.url, "headers": headers})
    }
}

/// Masks a secret as a node does: its first letters stay, more of them the longer it is.
fn hidden(value: &str) -> String {
    let start = if value.starts_with("Bearer ") {
        "Bearer ".len()
    } else {
        0
    };
    let (letters, mask) = match value.len().saturating_sub(start) {
        0..10 => (0, "XXX..."),
        10..20 => (2, "XXXX..."),
        20..30 => (3, "XXXXX..."),
        _ => (5, "XXXXXX..."),
    };
    let end = (start + letters..=value.len())
        .find(|at| value.is_char_boundary(*at))
        .unwrap_or(value.len());
    format!("{}{mask}", value.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(hook: &Webhook, asked: Value) -> Result<Webhook, String> {
        let asked = asked.as_object().unwrap();
        let patched = hook.clone().patched(Uuid::nil(), asked);
        patched.map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_change_does_not_name_stays_and_null_takes_away() {
        let new = Webhook::default();
        let hook = patched(
            &new,
            json!({"url": "http://a/b", "headers": {"x": "1", "y": "2"}}),
        )
        .unwrap();
        let hook = patched(&hook, json!({"headers": {"x": null, "z": "3"}})).unwrap();
        assert_eq!(hook.url, "http://a/b");
        assert_eq!(hook.headers.keys().collect::<Vec<_>>(), ["y", "z"]);
        assert!(
            patched(&hook, json!({"headers": null}))
                .unwrap()
                .headers
                .is_empty()
        );
    }

    #[test]
    fn what_can_not_be_called_is_refused_in_a_nodes_words() {
        let new = Webhook::default();
        for (asked, words) in [
            (
                json!({}),
                "The URL for the webhook `00000000-0000-0000-0000-000000000000` is missing.",
            ),
            (
                json!({"url": "nope"}),
                "Invalid URL `nope`: relative URL without a base",
            ),
            (
                json!({"url": "http://a", "headers": {"a b": "c"}}),
                "Invalid header name `a b`: invalid HTTP header name",
            ),
            (
                json!({"url": "http://a", "headers": {"a": "b\nc"}}),
                "Invalid header value `b\nc`: failed to parse header value",
            ),
        ] {
            assert_eq!(patched(&new, asked).unwrap_err(), words);
        }
    }

    #[test]
    fn what_authorises_is_hidden_as_a_node_hides_it() {
        for (value, shown) in [
            ("Bearer a-secret", "Bearer XXX..."),
            ("Bearer a-secret-token", "Bearer a-XXXX..."),
            ("0123456789012345678901", "012XXXXX..."),
            ("0123456789012345678901234567890", "01234XXXXXX..."),
        ] {
            assert_eq!(hidden(value), shown);
        }
    }
}
