//! `weft verify`: compares all replicas, and says which differ.

use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::ask::{AskError, AskOptions, Outcome};
use super::output::{Look, Mood, Rows, plain};
use super::remote::Remote;
use super::words::{ago, counted, cut, holds, list, number, shown, text};
use crate::clock::now_utc;

/// How long a comparison may take.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// How many ids of differing documents are shown.
const NAMED: usize = 5;

/// Options of `weft verify`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  weft verify
  weft verify --last     the last report, without comparing anything

A replica that differs is taken out and brought back from the others by itself. Clients read and write meanwhile.
Exit code 1 if replicas differed, or could not be compared.")]
pub(super) struct VerifyArgs {
    /// Show the last report.
    #[arg(long)]
    pub last: bool,
    #[command(flatten)]
    pub ask: AskOptions,
}

/// Compares, and shows the report.
pub(super) async fn run(arguments: &VerifyArgs, remote: Remote) -> Result<Outcome, AskError> {
    let report = match arguments.last {
        true => remote.get("/_cluster/verify").await?,
        false => {
            let spinner = ProgressBar::new_spinner().with_message("comparing all replicas");
            spinner.enable_steady_tick(Duration::from_millis(100));
            let remote = remote.with_patience(PATIENCE);
            let report = remote.post("/_cluster/verify", &json!({})).await;
            spinner.finish_and_clear();
            report?
        }
    };
    let sound = report.is_null() || is_sound(&report);
    Ok(Outcome::of(&arguments.ask, &report, sound, |look| {
        show(&report, now_utc(), look)
    }))
}

fn is_sound(report: &Value) -> bool {
    let shards = list(report, "shards").iter();
    number(report, "differences") == 0
        && shards
            .clone()
            .all(|shard| list(shard, "differences").is_empty())
}

fn show(report: &Value, now: OffsetDateTime, look: Look) -> String {
    if report.is_null() {
        return "nothing has been compared yet\n".to_owned();
    }
    let mut rows = Rows::with(&["SHARD", "RESULT", "COMPARED", "NOTE"], look);
    for shard in list(report, "shards") {
        let found = list(shard, "differences");
        let compared: Vec<String> = list(shard, "compared").iter().map(shown).collect();
        let result = match (found.is_empty(), compared.len()) {
            (false, _) => ("differs", Mood::Bad),
            (true, 0) => ("no replica", Mood::Bad),
            (true, 1) => ("one replica", Mood::Plain),
            (true, _) => ("same", Mood::Good),
        };
        let notes: Vec<String> = found.iter().map(note).collect();
        rows.add([
            plain(number(shard, "shardId").to_string()),
            (result.0.to_owned(), result.1),
            plain(compared.join(", ")),
            plain(notes.join("; ")),
        ]);
    }
    format!(
        "{}\n{}, compared {}\n",
        rows.text(),
        counted(number(report, "differences"), "difference", "differences"),
        ago(text(report, "finishedAt"), now)
    )
}

/// How one replica differs.
fn note(found: &Value) -> String {
    let node = text(found, "node");
    if !text(found, "error").is_empty() {
        return format!("{node} could not be compared: {}", text(found, "error"));
    }
    let indexes: Vec<String> = list(found, "indexes")
        .iter()
        .map(|index| {
            let ids: Vec<String> = list(index, "ids").iter().take(NAMED).map(shown).collect();
            let documents = match number(index, "documents") {
                0 => String::new(),
                number => format!(
                    " {} ({}{})",
                    counted(number, "document", "documents"),
                    cut(&ids.join(", "), 100),
                    if number > ids.len() as u64 {
                        ", …"
                    } else {
                        ""
                    }
                ),
            };
            let settings = match holds(index, "settings") {
                true => " settings",
                false => "",
            };
            format!("{}:{settings}{documents}", text(index, "indexUid"))
        })
        .collect();
    let next = match holds(found, "resync") {
        true => "it is brought back",
        false => "it could not be taken out",
    };
    format!("{node} differs in {} ({next})", indexes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_what_differs() {
        let report = json!({"startedAt": "", "finishedAt": "1970-01-01T00:00:00Z", "differences": 7, "shards": [
            {"shardId": 0, "compared": ["a", "b"], "differences": []},
            {"shardId": 1, "compared": ["c", "d"], "differences": [
                {"node": "d", "resync": true, "indexes": [
                    {"indexUid": "films", "settings": true, "documents": 6, "ids": ["1", "2", "3", "4", "5", "6"]}]}]},
            {"shardId": 2, "compared": ["e"], "differences": [{"node": "f", "error": "no answer"}]},
        ]});
        assert!(!is_sound(&report));
        assert_eq!(
            show(&report, OffsetDateTime::UNIX_EPOCH, Look::PLAIN),
            "SHARD  RESULT   COMPARED  NOTE\n    \
             0  same     a, b\n    \
             1  differs  c, d      d differs in films: settings 6 documents (1, 2, 3, 4, 5, …) (it is brought back)\n    \
             2  differs  e         f could not be compared: no answer\n\n\
             7 differences, compared 0 s ago\n"
        );
    }

    #[test]
    fn no_report_is_no_trouble() {
        let now = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(
            show(&Value::Null, now, Look::PLAIN),
            "nothing has been compared yet\n"
        );
        assert!(is_sound(&json!({"differences": 0, "shards": []})));
    }
}
