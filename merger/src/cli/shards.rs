//! `weft shards`: every shard with its replicas.

use clap::Args;
use serde_json::Value;

use super::ask::{AskError, AskOptions, Outcome};
use super::output::{Look, Mood, Rows, plain};
use super::remote::Remote;
use super::words::{count, holds, list, number, shown, text};

/// Options of `weft shards`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  weft shards
  weft shards --json | jq '.shards[] | select(.removable) | .shardId'

A draining shard that is `removable` holds nothing any more and may be taken out of Envoy's configuration.
Exit code 1 if a shard isn't green.")]
pub(super) struct ShardsArgs {
    #[command(flatten)]
    pub ask: AskOptions,
}

/// Asks, and shows the answer.
pub(super) async fn run(arguments: &ShardsArgs, remote: Remote) -> Result<Outcome, AskError> {
    let answer = remote.get("/_cluster/shards").await?;
    let shards = list(&answer, "shards");
    let sound = shards.iter().all(|shard| text(shard, "state") == "green");
    Ok(Outcome::of(&arguments.ask, &answer, sound, |look| {
        table(&answer, look)
    }))
}

fn table(answer: &Value, look: Look) -> String {
    let headings = [
        "SHARD", "STATE", "PRIMARY", "REPLICAS", "IN SYNC", "INDEXES", "NOTE",
    ];
    let mut rows = Rows::with(&headings, look);
    for shard in list(answer, "shards") {
        rows.add([
            plain(number(shard, "shardId").to_string()),
            state(shard),
            plain(shown(shard.get("primary").unwrap_or(&Value::Null))),
            plain(names(shard, "replicas")),
            plain(in_sync(shard)),
            plain(count(number(shard, "indexes"))),
            plain(note(shard)),
        ]);
    }
    rows.text()
}

/// A shard's or the cluster's state, in its colour.
pub(super) fn state(value: &Value) -> (String, Mood) {
    let state = text(value, "state");
    (state.to_owned(), mood(state))
}

/// The colour of a state.
pub(super) fn mood(state: &str) -> Mood {
    match state {
        "green" => Mood::Good,
        "yellow" => Mood::Warning,
        _ => Mood::Bad,
    }
}

fn names(shard: &Value, member: &str) -> String {
    let names: Vec<String> = list(shard, member).iter().map(shown).collect();
    names.join(", ")
}

/// How many of a shard's replicas are in sync.
pub(super) fn in_sync(shard: &Value) -> String {
    let primary = usize::from(
        shard
            .get("primary")
            .is_some_and(|primary| !primary.is_null()),
    );
    let all = list(shard, "replicas").len() + primary;
    format!("{} of {all}", list(shard, "inSync").len())
}

/// What is special about a shard.
pub(super) fn note(shard: &Value) -> String {
    let mut parts = Vec::new();
    match (holds(shard, "draining"), holds(shard, "removable")) {
        (_, true) => parts.push("drained, removable"),
        (true, false) => parts.push("draining"),
        (false, false) => {}
    }
    if holds(shard, "inDoubt") {
        parts.push("an interrupted write is yet to be settled");
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shards_are_shown_with_their_replicas_and_what_is_special() {
        let answer = json!({"shards": [
            {"shardId": 0, "primary": "a", "replicas": ["b"], "inSync": ["a", "b"], "inDoubt": false, "draining": false,
                "indexes": 3, "removable": false, "state": "green"},
            {"shardId": 1, "primary": null, "replicas": ["c", "d"], "inSync": [], "inDoubt": true, "draining": true,
                "indexes": 0, "removable": true, "state": "red"},
        ]});
        assert_eq!(
            table(&answer, Look::PLAIN),
            "SHARD  STATE  PRIMARY  REPLICAS  IN SYNC  INDEXES  NOTE\n    \
             0  green  a        b         2 of 2         3\n    \
             1  red             c, d      0 of 2         0  drained, removable; an interrupted write is yet to be settled\n"
        );
    }
}
