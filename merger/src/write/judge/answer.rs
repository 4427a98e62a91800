//! A refusal, in the shape of the API's errors.

use serde_json::{Value, json};

use super::{CRASH, Finding};

impl Finding {
    /// The error of the task, for an index of this name.
    pub(in crate::write) fn error(&self, index_uid: &str) -> Value {
        let code = self.code;
        let kind = match code {
            "internal" => "internal",
            _ => "invalid_request",
        };
        let message = match self.message.as_str() {
            // It is the work that broke off, whatever it was about.
            CRASH => CRASH.to_owned(),
            message => format!("Index `{index_uid}`: {message}"),
        };
        json!({
            "message": message,
            "code": code,
            "type": kind,
            "link": format!("https://docs.meilisearch.com/errors#{code}"),
        })
    }
}
