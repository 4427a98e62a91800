//! `weft moves`: slots on their way from shard to shard, and how fast they go.

mod wait;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::ask::{AskError, AskOptions, Outcome};
use super::output::{Look, Mood, Rows, plain};
use super::remote::Remote;
use super::words::{bytes, count, counted, list, number, parse_bytes, seconds, text};

pub(super) use wait::{ended_well, wait};

/// How many moves that have ended are shown without `--all`.
const LAST: usize = 10;

/// Options of `weft moves`.
#[derive(Debug, Clone, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  weft moves
  weft moves pause
  weft moves throttle --bytes-per-second 2MiB --max-concurrent 1
  weft moves throttle --bytes-per-second none
  weft moves cancel 7

What a cancelled move has moved stays moved, and nothing is left half done."
)]
pub(super) struct MovesArgs {
    #[command(subcommand)]
    pub action: Option<Action>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// Options of `weft moves list`.
#[derive(Debug, Clone, Args)]
pub(super) struct ListArgs {
    /// Also show all that have ended (the cluster remembers the last 100).
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub ask: AskOptions,
}

/// What is done about moves.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Action {
    /// Show them. This is what `weft moves` does.
    List(ListArgs),
    /// Begin no batch until `weft moves resume`.
    Pause(AskOptions),
    /// Go on after a pause.
    Resume(AskOptions),
    /// Cancel a move, or all.
    Cancel(CancelArgs),
    /// Change how many run at once and how fast they copy.
    Throttle(ThrottleArgs),
}

/// Options of `weft moves cancel`.
#[derive(Debug, Clone, Args)]
pub(super) struct CancelArgs {
    /// The move's number.
    #[arg(value_name = "MOVE", required_unless_present = "all")]
    pub id: Option<u64>,
    /// Cancel all.
    #[arg(long, conflicts_with = "id")]
    pub all: bool,
    #[command(flatten)]
    pub ask: AskOptions,
}

/// Options of `weft moves throttle`.
#[derive(Debug, Clone, Args)]
pub(super) struct ThrottleArgs {
    #[command(flatten)]
    pub pace: PaceArgs,
    #[command(flatten)]
    pub ask: AskOptions,
}

/// How fast moves go. What isn't given stays as it is.
#[derive(Debug, Clone, Args)]
pub(super) struct PaceArgs {
    /// How many moves run at once, each of another index.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    pub max_concurrent: Option<u64>,
    /// How much each copies, in bytes per second: 8388608, 8MiB, or `none` for no limit.
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub bytes_per_second: Option<Rate>,
    /// How many documents of an index two shards hold at the same time, at most: larger batches are faster, and totals may be too
    /// high by one batch.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub batch_documents: Option<u64>,
}

impl PaceArgs {
    /// The members of a request's body.
    pub(super) fn body(&self) -> Map<String, Value> {
        let mut body = Map::new();
        if let Some(number) = self.max_concurrent {
            body.insert("maxConcurrent".to_owned(), json!(number));
        }
        if let Some(number) = self.batch_documents {
            body.insert("batchDocuments".to_owned(), json!(number));
        }
        if let Some(Rate(limit)) = self.bytes_per_second {
            body.insert("bytesPerSecond".to_owned(), json!(limit));
        }
        body
    }
}

/// Bytes per second; `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate(Option<u64>);

fn parse_rate(text: &str) -> Result<Rate, String> {
    match text {
        "none" => Ok(Rate(None)),
        text => match parse_bytes(text)? {
            0 => Err("0 would never end: `none` is no limit, `weft moves pause` stops".to_owned()),
            size => Ok(Rate(Some(size))),
        },
    }
}

/// Does what the action says, and shows the list.
pub(super) async fn run(arguments: &MovesArgs, remote: Remote) -> Result<Outcome, AskError> {
    let change = |body: Value| (Method::PATCH, "/_cluster/moves".to_owned(), Some(body));
    let (method, path, body) = match &arguments.action {
        None | Some(Action::List(_)) => (Method::GET, "/_cluster/moves".to_owned(), None),
        Some(Action::Pause(_)) => change(json!({"paused": true})),
        Some(Action::Resume(_)) => change(json!({"paused": false})),
        Some(Action::Throttle(throttle)) => {
            let body = throttle.pace.body();
            if body.is_empty() {
                let what =
                    "nothing to change: --max-concurrent, --bytes-per-second, --batch-documents";
                return Err(AskError::Wrong(what.to_owned()));
            }
            change(Value::Object(body))
        }
        Some(Action::Cancel(cancel)) => {
            let id = cancel.id.map_or_else(String::new, |id| format!("/{id}"));
            (Method::DELETE, format!("/_cluster/moves{id}"), None)
        }
    };
    let answer = remote.call(method, &path, body.as_ref()).await?;
    let all = match &arguments.action {
        Some(Action::List(list)) => list.all,
        _ => arguments.list.all,
    };
    Ok(Outcome::of(arguments.ask(), &answer, true, |look| {
        show(&answer, all, look)
    }))
}

impl MovesArgs {
    /// Where the cluster is, and how the answer is shown.
    pub(super) fn ask(&self) -> &AskOptions {
        match &self.action {
            None => &self.list.ask,
            Some(Action::List(list)) => &list.ask,
            Some(Action::Pause(ask) | Action::Resume(ask)) => ask,
            Some(Action::Cancel(cancel)) => &cancel.ask,
            Some(Action::Throttle(throttle)) => &throttle.ask,
        }
    }
}

/// Whether a move has ended.
pub(super) fn is_over(one: &Value) -> bool {
    matches!(text(one, "state"), "done" | "cancelled")
}

fn show(answer: &Value, all: bool, look: Look) -> String {
    let rate = answer.get("bytesPerSecond").and_then(Value::as_u64);
    let rate = rate.map_or_else(
        || "no limit".to_owned(),
        |rate| format!("{}/s each", bytes(rate)),
    );
    let paused = match answer.get("paused") {
        Some(Value::Bool(true)) => look.paint("paused (weft moves resume); ", Mood::Warning),
        _ => String::new(),
    };
    let mut out = format!(
        "{paused}{} at once, {rate}, {} a batch\n",
        number(answer, "maxConcurrent"),
        counted(number(answer, "batchDocuments"), "document", "documents")
    );
    let over = list(answer, "moves")
        .iter()
        .filter(|one| is_over(one))
        .count();
    let mut hidden = match all {
        true => 0,
        false => over.saturating_sub(LAST),
    };
    let left_out = hidden;
    let mut rows = Rows::with(
        &[
            "MOVE",
            "INDEX",
            "FROM",
            "TO",
            "SLOTS",
            "STATE",
            "DOCUMENTS",
            "OF",
            "LEFT",
            "NOTE",
        ],
        look,
    );
    for one in list(answer, "moves") {
        if hidden > 0 && is_over(one) {
            hidden -= 1;
            continue;
        }
        rows.add(row(one));
    }
    match list(answer, "moves").is_empty() {
        true => out.push_str("no moves\n"),
        false => out.push_str(&format!("\n{}", rows.text())),
    }
    if left_out > 0 {
        out.push_str(&format!("\n{left_out} more that have ended: --all\n"));
    }
    out
}

fn row(one: &Value) -> [(String, Mood); 10] {
    let state = text(one, "state");
    let mood = match state {
        "done" => Mood::Good,
        "cancelled" => Mood::Warning,
        _ if !text(one, "error").is_empty() => Mood::Bad,
        _ => Mood::Plain,
    };
    let left = one.get("secondsLeft").and_then(Value::as_u64);
    [
        plain(number(one, "id").to_string()),
        plain(text(one, "index")),
        plain(number(one, "from").to_string()),
        plain(number(one, "to").to_string()),
        plain(count(number(one, "slots"))),
        (state.to_owned(), mood),
        plain(count(number(one, "documentsMoved"))),
        plain(count(number(one, "documents"))),
        plain(left.map_or_else(String::new, seconds)),
        plain(text(one, "error")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(id: u64, state: &str, error: Option<&str>) -> Value {
        json!({"id": id, "index": "films", "from": 0, "to": 3, "slots": 1_024, "state": state, "progress": 0.5,
            "documents": 8_000, "documentsMoved": 4_000, "bytesCopied": 4_096, "secondsLeft": 30, "error": error})
    }

    #[test]
    fn moves_are_a_table_below_their_pace() {
        let answer = json!({"moves": [one(7, "copying", Some("disk full"))], "paused": true, "maxConcurrent": 2,
            "bytesPerSecond": 8_388_608, "batchDocuments": 1_000});
        assert_eq!(
            show(&answer, false, Look::PLAIN),
            "paused (weft moves resume); 2 at once, 8.0 MiB/s each, 1,000 documents a batch\n\n\
             MOVE  INDEX  FROM  TO  SLOTS  STATE    DOCUMENTS     OF  LEFT  NOTE\n   \
             7  films     0   3  1,024  copying      4,000  8,000  30 s  disk full\n"
        );
    }

    #[test]
    fn old_moves_are_shown_only_on_demand() {
        let ended: Vec<Value> = (0..13).map(|id| one(id, "done", None)).collect();
        let answer = json!({"moves": ended, "paused": false, "maxConcurrent": 2, "bytesPerSecond": null, "batchDocuments": 9});
        let short = show(&answer, false, Look::PLAIN);
        assert!(
            short.starts_with("2 at once, no limit, 9 documents a batch\n"),
            "{short}"
        );
        assert!(
            short.ends_with("3 more that have ended: --all\n"),
            "{short}"
        );
        assert_eq!(short.matches("films").count(), 10);
        assert_eq!(
            show(&answer, true, Look::PLAIN).matches("films").count(),
            13
        );
        let none = json!({"moves": [], "paused": false, "maxConcurrent": 2, "bytesPerSecond": null, "batchDocuments": 9});
        assert_eq!(
            show(&none, false, Look::PLAIN),
            "2 at once, no limit, 9 documents a batch\nno moves\n"
        );
    }

    #[test]
    fn a_rate_is_a_size_or_none() {
        assert_eq!(parse_rate("none"), Ok(Rate(None)));
        assert_eq!(parse_rate("1k"), Ok(Rate(Some(1_024))));
        assert!(parse_rate("0").is_err());
        assert!(parse_rate("fast").is_err());
        let pace = PaceArgs {
            max_concurrent: None,
            bytes_per_second: Some(Rate(None)),
            batch_documents: Some(5),
        };
        assert_eq!(
            Value::Object(pace.body()),
            json!({"bytesPerSecond": null, "batchDocuments": 5})
        );
    }
}
