//! Turns a finding into an error in the API's shape.

use serde_json::{Value, json};

use super::{CRASH, Finding};

impl Finding {
    /// The error of the task, for the index with this name.
    pub(in crate::write) fn error(&self, index_uid: &str) -> Value {
        let code = self.code;
        let kind = match code {
            "internal" => "internal",
            _ => "invalid_request",
        };
        let message = match self.message.as_str() {
            // A crash concerns the whole task, not one index.
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
