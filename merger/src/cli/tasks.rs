//! `weft tasks`: the cluster's tasks, newest first, once or until the operator has seen enough.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use time::OffsetDateTime;

use super::ask::{AskError, AskOptions, Outcome};
use super::output::{self, Look, Mood, Rows, plain};
use super::remote::{Remote, RemoteError};
use super::words::{ago, count, cut, duration, encoded, list, number, shown, text};
use crate::clock::now_utc;

/// How often tasks are asked for while they are watched.
const EVERY: Duration = Duration::from_secs(1);
/// For how long the cluster may be silent while tasks are watched.
const PATIENCE: u32 = 30;
/// The longest note that a table shows, in characters.
const NOTE: usize = 120;
/// The longest note in a line of a pipe.
const LINE_NOTE: usize = 1_000;

/// Options of `weft tasks`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  weft tasks
  weft tasks --status failed --limit 5
  weft tasks --index films --type documentAdditionOrUpdate,settingsUpdate
  weft tasks --watch                       on a terminal: the list, anew each second
  weft tasks --watch --json | jq .status   in a pipe: a line for each task that is new or has changed

Ctrl-C ends --watch.")]
pub(super) struct TasksArgs {
    /// Only tasks of these states: enqueued, processing, succeeded, failed, canceled.
    #[arg(long, value_delimiter = ',', value_name = "STATUS")]
    pub status: Vec<String>,
    /// Only tasks on these indexes.
    #[arg(long, value_delimiter = ',', value_name = "INDEX")]
    pub index: Vec<String>,
    /// Only tasks of these types, such as documentAdditionOrUpdate or settingsUpdate.
    #[arg(long = "type", value_delimiter = ',', value_name = "TYPE")]
    pub kind: Vec<String>,
    /// How many tasks are shown.
    #[arg(long, default_value_t = 20)]
    pub limit: u32,
    /// Show them again and again.
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub ask: AskOptions,
}

/// Asks, and shows the answer.
pub(super) async fn run(arguments: &TasksArgs, remote: Remote) -> Result<Outcome, AskError> {
    let path = path(arguments);
    if arguments.watch {
        watch(arguments, &remote, &path).await?;
        return Ok(Outcome {
            text: String::new(),
            sound: true,
        });
    }
    let answer = remote.get(&path).await?;
    Ok(Outcome::of(&arguments.ask, &answer, true, |look| {
        show(&answer, now_utc(), look)
    }))
}

fn path(arguments: &TasksArgs) -> String {
    let mut path = format!("/tasks?limit={}", arguments.limit);
    for (name, values) in [
        ("statuses", &arguments.status),
        ("indexUids", &arguments.index),
        ("types", &arguments.kind),
    ] {
        if !values.is_empty() {
            let values: Vec<String> = values.iter().map(|value| encoded(value)).collect();
            path.push_str(&format!("&{name}={}", values.join(",")));
        }
    }
    path
}

/// Goes on until nobody reads any more, or the cluster has been silent for long.
async fn watch(arguments: &TasksArgs, remote: &Remote, path: &str) -> Result<(), AskError> {
    let look = Look::of_stdout();
    let (mut seen, mut silent) = (BTreeMap::new(), 0);
    loop {
        match remote.get(path).await {
            Ok(answer) => {
                silent = 0;
                let text = match look.terminal && !arguments.ask.output.json {
                    // From the upper left corner, over what was there.
                    true => format!("\u{1b}[H\u{1b}[2J{}", show(&answer, now_utc(), look)),
                    false => changed(&answer, &mut seen, arguments.ask.output.json),
                };
                if !output::write(&text) {
                    return Ok(());
                }
            }
            Err(error @ (RemoteError::Unreachable { .. } | RemoteError::TimedOut { .. }))
                if silent < PATIENCE =>
            {
                silent += 1;
                super::ask::say(&format!("weft: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// A line for each task that is new or has another status than when it was last seen, oldest first.
fn changed(answer: &Value, seen: &mut BTreeMap<u64, String>, as_json: bool) -> String {
    let mut lines = String::new();
    for task in list(answer, "results").iter().rev() {
        let (uid, status) = (number(task, "uid"), text(task, "status"));
        if seen.get(&uid).is_some_and(|known| known == status) {
            continue;
        }
        seen.insert(uid, status.to_owned());
        match as_json {
            true => lines.push_str(&task.to_string()),
            false => {
                let index = shown(task.get("indexUid").unwrap_or(&Value::Null));
                let line = format!(
                    "{uid}\t{status}\t{}\t{index}\t{}",
                    text(task, "type"),
                    cut(&note(task), LINE_NOTE)
                );
                lines.push_str(line.trim_end());
            }
        }
        lines.push('\n');
    }
    // What has left the list doesn't come back into it.
    let listed: Vec<u64> = list(answer, "results")
        .iter()
        .map(|task| number(task, "uid"))
        .collect();
    seen.retain(|uid, _| listed.contains(uid));
    lines
}

fn show(answer: &Value, now: OffsetDateTime, look: Look) -> String {
    let headings = ["UID", "STATUS", "TYPE", "INDEX", "ENQUEUED", "TOOK", "NOTE"];
    let mut rows = Rows::with(&headings, look);
    for task in list(answer, "results") {
        let status = text(task, "status");
        rows.add([
            plain(number(task, "uid").to_string()),
            (status.to_owned(), mood(status)),
            plain(text(task, "type")),
            plain(shown(task.get("indexUid").unwrap_or(&Value::Null))),
            plain(ago(text(task, "enqueuedAt"), now)),
            plain(duration(text(task, "duration"))),
            plain(cut(&note(task), NOTE)),
        ]);
    }
    let mut text = rows.text();
    let listed = list(answer, "results").len() as u64;
    let more = number(answer, "total").saturating_sub(listed);
    if more > 0 {
        text.push_str(&format!("\n{} more\n", count(more)));
    }
    text
}

fn mood(status: &str) -> Mood {
    match status {
        "succeeded" => Mood::Good,
        "failed" => Mood::Bad,
        "canceled" => Mood::Warning,
        _ => Mood::Plain,
    }
}

/// Why a task failed, or how many documents it was about.
fn note(task: &Value) -> String {
    let error = task.get("error").unwrap_or(&Value::Null);
    if !text(error, "message").is_empty() {
        return text(error, "message").to_owned();
    }
    let details = task.get("details").unwrap_or(&Value::Null);
    let mut parts = Vec::new();
    for (member, word) in [
        ("receivedDocuments", "received"),
        ("indexedDocuments", "indexed"),
        ("providedIds", "given"),
        ("matchedTasks", "matched"),
        ("canceledTasks", "canceled"),
        ("deletedDocuments", "deleted"),
        ("editedDocuments", "edited"),
        ("deletedTasks", "deleted"),
    ] {
        if let Some(number) = details.get(member).and_then(Value::as_u64) {
            parts.push(format!("{} {word}", count(number)));
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        tasks: TasksArgs,
    }

    fn sample() -> Value {
        json!({"total": 40, "limit": 2, "results": [
            {"uid": 8, "status": "failed", "type": "documentAdditionOrUpdate", "indexUid": "films", "enqueuedAt": "1970-01-01T00:00:00Z",
                "duration": "PT0.05S", "error": {"message": "no id\nhere"}, "details": {"receivedDocuments": 4}},
            {"uid": 7, "status": "processing", "type": "documentDeletion", "indexUid": null, "enqueuedAt": "1970-01-01T00:00:00Z",
                "duration": null, "error": null, "details": {"receivedDocuments": 1_000, "indexedDocuments": null, "providedIds": 3}},
        ]})
    }

    #[test]
    fn tasks_are_a_table_with_errors_and_counts() {
        let now = OffsetDateTime::from_unix_timestamp(5).unwrap();
        assert_eq!(
            show(&sample(), now, Look::PLAIN),
            "UID  STATUS      TYPE                      INDEX  ENQUEUED  TOOK   NOTE\n  \
             8  failed      documentAdditionOrUpdate  films  5 s ago   50 ms  no id here\n  \
             7  processing  documentDeletion                 5 s ago          1,000 received, 3 given\n\n38 more\n"
        );
    }

    #[test]
    fn a_watch_in_a_pipe_names_each_change_once() {
        let (mut answer, mut seen) = (sample(), BTreeMap::new());
        let first = changed(&answer, &mut seen, false);
        assert_eq!(
            first,
            "7\tprocessing\tdocumentDeletion\t\t1,000 received, 3 given\n\
             8\tfailed\tdocumentAdditionOrUpdate\tfilms\tno id here\n"
        );
        assert_eq!(changed(&answer, &mut seen, false), "");
        answer["results"][1]["status"] = json!("succeeded");
        let line = changed(&answer, &mut seen, true);
        let task: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(task["uid"], 7);
    }

    #[test]
    fn filters_become_parameters() {
        let line = "weft --status failed,canceled --index a --index b --type x --limit 3";
        let command = Command::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(
            path(&command.tasks),
            "/tasks?limit=3&statuses=failed,canceled&indexUids=a,b&types=x"
        );
        let command = Command::try_parse_from(["weft"]).unwrap();
        assert_eq!(path(&command.tasks), "/tasks?limit=20");
    }
}
