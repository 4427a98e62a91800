//! What an import says at its end.

use serde_json::{Value, json};

use super::Done;
use crate::cli::output;

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Where it went.
    pub(super) target: String,
    /// The indexes and how many documents each has.
    pub(super) indexes: Vec<(String, u64)>,
    /// How many keys.
    pub(super) keys: usize,
    /// True if there was nothing left to do.
    pub(super) was_finished: bool,
    /// How to go on.
    pub(super) next: Option<String>,
    /// What the person should know.
    pub(super) notes: Vec<String>,
    /// What isn't well.
    pub(super) problems: Vec<String>,
}

impl Report {
    /// For people, or for scripts.
    pub(super) fn done(self, as_json: bool) -> Done {
        Done {
            text: match as_json {
                true => output::json(&self.value()),
                false => self.text(),
            },
            well: self.problems.is_empty(),
        }
    }

    fn text(&self) -> String {
        let documents: u64 = self.indexes.iter().map(|(_, count)| count).sum();
        let mut text = match self.was_finished {
            true => "This import was finished already; nothing was done. ".to_owned(),
            false => String::new(),
        };
        text.push_str(&format!(
            "{documents} documents in {} indexes, and {} keys, are in {}.\n",
            self.indexes.len(),
            self.keys,
            self.target
        ));
        for problem in &self.problems {
            text.push_str(&format!("not well: {problem}\n"));
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        if let Some(next) = &self.next {
            text.push_str(&format!("{next}\n"));
        }
        text
    }

    fn value(&self) -> Value {
        let index = |(uid, count): &(String, u64)| json!({"uid": uid, "documents": count});
        json!({
            "target": self.target,
            "indexes": self.indexes.iter().map(index).collect::<Vec<_>>(),
            "keys": self.keys,
            "wasFinished": self.was_finished,
            "notes": self.notes,
            "problems": self.problems,
        })
    }
}
