//! Waits until moves have ended, with a progress bar on a terminal.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::is_over;
use crate::cli::ask::AskError;
use crate::cli::remote::{Remote, RemoteError};
use crate::cli::words::{list, number, seconds, text};

/// How often the moves are asked for.
const EVERY: Duration = Duration::from_millis(500);
/// How many times in a row the cluster may give no answer.
const PATIENCE: u32 = 60;

/// Waits until all of these moves have ended, and returns them as they were seen last. Moves go on whether somebody waits or not.
pub(in crate::cli) async fn wait(remote: &Remote, ids: &[u64]) -> Result<Vec<Value>, AskError> {
    let mut course = Course::new(ids);
    let bar = bar();
    let mut silent = 0;
    loop {
        match remote.get("/_cluster/moves").await {
            Ok(answer) => {
                silent = 0;
                course.see(&answer);
                bar.set_length(course.sum("documents"));
                bar.set_position(course.sum("documentsMoved"));
                bar.set_message(course.message(answer.get("paused") == Some(&Value::Bool(true))));
            }
            // A merger that restarts goes on with its moves.
            Err(error) if silent < PATIENCE && is_passing(&error) => silent += 1,
            Err(error) => {
                bar.abandon();
                return Err(error.into());
            }
        }
        if course.is_over() {
            bar.finish_and_clear();
            return Ok(course.moves.into_values().collect());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Whether all moves ended with all that they were for.
pub(in crate::cli) fn ended_well(moves: &[Value]) -> bool {
    moves.iter().all(|one| text(one, "state") != "cancelled")
}

fn is_passing(error: &RemoteError) -> bool {
    match error {
        RemoteError::Refused { status, .. } => status.is_server_error(),
        RemoteError::NotJson { .. } => true,
        RemoteError::Unreachable { .. } | RemoteError::TimedOut { .. } => true,
        _ => false,
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = "{wide_bar} {human_pos} of {human_len} documents, {msg}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

/// What was seen of the moves.
struct Course {
    moves: BTreeMap<u64, Value>,
}

impl Course {
    fn new(ids: &[u64]) -> Self {
        Self {
            moves: ids.iter().map(|id| (*id, Value::Null)).collect(),
        }
    }

    /// Takes over an answer. A move that isn't listed has ended long ago: the list has all that haven't.
    fn see(&mut self, answer: &Value) {
        let listed = list(answer, "moves")
            .iter()
            .map(|one| (number(one, "id"), one));
        let listed: BTreeMap<u64, &Value> = listed.collect();
        for (id, known) in &mut self.moves {
            match listed.get(id) {
                Some(one) => *known = (*one).clone(),
                None if known.is_null() => *known = serde_json::json!({"id": id, "state": "done"}),
                None => {
                    if let (false, Some(fields)) = (is_over(known), known.as_object_mut()) {
                        fields.insert("state".to_owned(), "done".into());
                    }
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.moves.values().all(is_over)
    }

    fn sum(&self, member: &str) -> u64 {
        self.moves.values().map(|one| number(one, member)).sum()
    }

    fn message(&self, paused: bool) -> String {
        let over = self.moves.values().filter(|one| is_over(one)).count();
        let mut message = format!("{over} of {} moves", self.moves.len());
        let left = self
            .moves
            .values()
            .filter_map(|one| one.get("secondsLeft")?.as_u64());
        if let Some(left) = left.max() {
            message.push_str(&format!(", {} left", seconds(left)));
        }
        if paused {
            message.push_str(", paused (weft moves resume)");
        }
        let failed = self
            .moves
            .values()
            .find(|one| !is_over(one) && !text(one, "error").is_empty());
        if let Some(failed) = failed {
            message.push_str(&format!("; tried again: {}", text(failed, "error")));
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_course_ends_when_each_move_has_ended_or_left_the_list() {
        let mut course = Course::new(&[1, 2]);
        assert!(!course.is_over());
        course.see(&json!({"moves": [
            {"id": 1, "state": "copying", "documents": 100, "documentsMoved": 30, "secondsLeft": 7, "error": "disk full"},
            {"id": 2, "state": "done", "documents": 50, "documentsMoved": 50},
            {"id": 3, "state": "copying", "documents": 9, "documentsMoved": 9},
        ]}));
        assert!(!course.is_over());
        assert_eq!(
            (course.sum("documents"), course.sum("documentsMoved")),
            (150, 80)
        );
        assert_eq!(
            course.message(true),
            "1 of 2 moves, 7 s left, paused (weft moves resume); tried again: disk full"
        );
        course.see(&json!({"moves": [{"id": 2, "state": "done"}]}));
        assert!(course.is_over());
    }

    #[test]
    fn a_cancelled_move_did_not_end_well() {
        assert!(ended_well(&[json!({"state": "done"})]));
        assert!(!ended_well(&[
            json!({"state": "done"}),
            json!({"state": "cancelled"})
        ]));
    }
}
