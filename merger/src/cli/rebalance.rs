//! `weft rebalance`: shows what would be moved, asks, and begins.

use clap::Args;
use serde_json::{Value, json};

use super::ask::{AskError, AskOptions, Outcome, confirm};
use super::moves::{PaceArgs, ended_well, wait};
use super::output::{self, Look, Rows, plain};
use super::remote::Remote;
use super::words::{bytes, count, counted, list, number, seconds, shown, text};

const PATH: &str = "/_cluster/rebalance";

/// Options of `weft rebalance`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  weft rebalance --dry-run
  weft rebalance --index films --exclude shard-2
  weft rebalance --yes --wait --bytes-per-second 2MiB

Clients read and write meanwhile. `weft moves` shows, pauses, throttles and cancels what was begun; Ctrl-C during --wait ends the
waiting only. Exit code 1 if the answer to the question is no, or if a move that was waited for was cancelled.")]
pub(super) struct RebalanceArgs {
    /// Show the plan only.
    #[arg(long, conflicts_with_all = ["yes", "wait"])]
    pub dry_run: bool,
    /// Only these indexes; all by default.
    #[arg(long, value_delimiter = ',', value_name = "INDEX")]
    pub index: Vec<String>,
    /// Shards that are to hold nothing of them.
    #[arg(long, value_delimiter = ',', value_name = "SHARD")]
    pub exclude: Vec<String>,
    #[command(flatten)]
    pub pace: PaceArgs,
    /// Don't ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Return when all moves have ended.
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub ask: AskOptions,
}

/// Plans, asks, begins, and waits.
pub(super) async fn run(arguments: &RebalanceArgs, remote: Remote) -> Result<Outcome, AskError> {
    let planned = remote.post(PATH, &body(arguments, true)).await?;
    let steps = list(&planned, "plan");
    if arguments.dry_run {
        return Ok(Outcome::of(&arguments.ask, &planned, true, |look| {
            plan(&planned, look)
        }));
    }
    let asks = !steps.is_empty() && !arguments.yes;
    // A change of the pace is wanted even where nothing is to be moved.
    if asks {
        if !arguments.ask.output.json {
            output::write(&plan(&planned, Look::of_stdout()));
        }
        confirm(
            &question(&planned),
            arguments.yes,
            "--dry-run to see the plan",
        )?;
    }
    let begun = remote.post(PATH, &body(arguments, false)).await?;
    let waits = match (arguments.wait, asks) {
        (true, _) => Then::Wait,
        (false, true) => Then::Say,
        (false, false) => Then::Show,
    };
    follow(&remote, &arguments.ask, begun, waits).await
}

/// What happens when moves have begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The plan is shown.
    Show,
    /// The plan was shown before.
    Say,
    /// Their end is waited for.
    Wait,
}

/// Shows what has begun, and waits for its end if that is wanted.
pub(super) async fn follow(
    remote: &Remote,
    ask: &AskOptions,
    begun: Value,
    then: Then,
) -> Result<Outcome, AskError> {
    let ids: Vec<u64> = list(&begun, "moves")
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    if then != Then::Wait || ids.is_empty() {
        return Ok(Outcome::of(ask, &begun, true, |look| {
            match (ids.is_empty(), then) {
                (true, _) => plan(&begun, look),
                (false, Then::Say) => format!("{}\n", began(&ids)),
                (false, _) => format!("{}\n{}\n", plan(&begun, look), began(&ids)),
            }
        }));
    }
    let ended = wait(remote, &ids).await?;
    let sound = ended_well(&ended);
    let cancelled = ended
        .iter()
        .filter(|one| text(one, "state") == "cancelled")
        .count();
    let done = ended.len() - cancelled;
    Ok(Outcome::of(ask, &json!({"moves": ended}), sound, |_| {
        format!(
            "{done} of {} done\n",
            counted(ids.len() as u64, "move", "moves")
        )
    }))
}

fn body(arguments: &RebalanceArgs, dry_run: bool) -> Value {
    let mut body = arguments.pace.body();
    body.insert("dryRun".to_owned(), json!(dry_run));
    if !arguments.index.is_empty() {
        body.insert("indexes".to_owned(), json!(arguments.index));
    }
    body.insert("exclude".to_owned(), json!(arguments.exclude));
    Value::Object(body)
}

fn plan(answer: &Value, look: Look) -> String {
    let left_out: Vec<String> = list(answer, "changing").iter().map(shown).collect();
    let left_out = match left_out.is_empty() {
        true => String::new(),
        false => format!(
            "planned later, when their strategy has changed: {}\n",
            left_out.join(", ")
        ),
    };
    if list(answer, "plan").is_empty() {
        return "nothing to move\n".to_owned() + &left_out;
    }
    let mut rows = Rows::with(&["INDEX", "FROM", "TO", "SLOTS", "DOCUMENTS", "SIZE"], look);
    for step in list(answer, "plan") {
        rows.add([
            plain(text(step, "index")),
            plain(number(step, "from").to_string()),
            plain(number(step, "to").to_string()),
            plain(count(number(step, "slots"))),
            plain(count(number(step, "documents"))),
            plain(bytes(number(step, "bytes"))),
        ]);
    }
    let expected = answer.get("expectedSeconds").and_then(Value::as_u64);
    let expected = expected.map_or_else(String::new, |expected| {
        format!(
            "\nabout {} at the rate of copying\n",
            seconds(expected.max(1))
        )
    });
    rows.text() + &expected + &left_out
}

fn question(planned: &Value) -> String {
    let sum = |member| {
        list(planned, "plan")
            .iter()
            .map(|step| number(step, member))
            .sum::<u64>()
    };
    format!(
        "Move {} of documents ({}, {})?",
        counted(sum("slots"), "slot", "slots"),
        counted(sum("documents"), "document", "documents"),
        bytes(sum("bytes")),
    )
}

fn began(ids: &[u64]) -> String {
    let names: Vec<String> = ids.iter().map(u64::to_string).collect();
    match names.as_slice() {
        [one] => format!("move {one} has begun: weft moves"),
        [first, .., last] => format!("moves {first} to {last} have begun: weft moves"),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        rebalance: RebalanceArgs,
    }

    fn parse(line: &str) -> Result<RebalanceArgs, clap::Error> {
        Command::try_parse_from(line.split(' ')).map(|command| command.rebalance)
    }

    #[test]
    fn a_plan_is_a_table_and_a_question() {
        let answer = json!({"plan": [
            {"index": "films", "from": 0, "to": 2, "slots": 683, "documents": 5_000, "bytes": 3 << 20},
            {"index": "films", "from": 1, "to": 2, "slots": 682, "documents": 5_001, "bytes": 3 << 20},
        ], "expectedSeconds": 0});
        assert_eq!(
            plan(&answer, Look::PLAIN),
            "INDEX  FROM  TO  SLOTS  DOCUMENTS  SIZE\n\
             films     0   2    683      5,000  3.0 MiB\n\
             films     1   2    682      5,001  3.0 MiB\n\n\
             about 1 s at the rate of copying\n"
        );
        assert_eq!(
            question(&answer),
            "Move 1,365 slots of documents (10,001 documents, 6.0 MiB)?"
        );
        assert_eq!(plan(&json!({"plan": []}), Look::PLAIN), "nothing to move\n");
        let changing = json!({"plan": [], "changing": ["a", "b"]});
        assert_eq!(
            plan(&changing, Look::PLAIN),
            "nothing to move\nplanned later, when their strategy has changed: a, b\n"
        );
        assert_eq!(began(&[4, 5, 6]), "moves 4 to 6 have begun: weft moves");
    }

    #[test]
    fn options_become_the_body() {
        let arguments = parse("weft --index a,b --exclude 2 --bytes-per-second none").unwrap();
        assert_eq!(
            body(&arguments, true),
            json!({"bytesPerSecond": null, "dryRun": true, "indexes": ["a", "b"], "exclude": ["2"]})
        );
        assert!(parse("weft --dry-run --wait").is_err());
        assert!(parse("weft --max-concurrent 65").is_err());
    }
}
