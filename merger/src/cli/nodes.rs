//! `weft nodes`: every node with its state, and why it isn't well.

use clap::Args;
use serde_json::Value;
use time::OffsetDateTime;

use super::ask::{AskError, AskOptions, Outcome};
use super::output::{Look, Mood, Rows, plain};
use super::remote::Remote;
use super::words::{ago, bytes, count, holds, list, number, text};
use crate::clock::now_utc;

/// Options of `weft nodes`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  weft nodes
  weft nodes --json | jq -r '.nodes[] | select(.inSync | not) | .id'

STATUS: up; silent (doesn't answer, or isn't known yet to be the one it was); down; drained (weft resume node);
  stopped (its resync would delete much: weft resume node --accept-deletions); lost (it came back with another disk).
LAG: tasks that it has yet to do. BEHIND: acknowledged writes that it has yet to take.
Exit code 1 if a node isn't up, in sync and read from.")]
pub(super) struct NodesArgs {
    #[command(flatten)]
    pub ask: AskOptions,
}

/// Asks, and shows the answer.
pub(super) async fn run(arguments: &NodesArgs, remote: Remote) -> Result<Outcome, AskError> {
    let answer = remote.get("/_cluster/nodes").await?;
    let sound = list(&answer, "nodes").iter().all(is_well);
    Ok(Outcome::of(&arguments.ask, &answer, sound, |look| {
        table(&answer, now_utc(), look)
    }))
}

/// Whether a node does all that a node does.
pub(super) fn is_well(node: &Value) -> bool {
    text(node, "status") == "up" && holds(node, "inSync") && holds(node, "ready")
}

fn table(answer: &Value, now: OffsetDateTime, look: Look) -> String {
    let headings = [
        "NODE", "SHARD", "ROLE", "STATUS", "IN SYNC", "READS", "INDEXES", "LAG", "BEHIND", "NOTE",
    ];
    let mut rows = Rows::with(&headings, look);
    for node in list(answer, "nodes") {
        rows.add(row(node, now));
    }
    rows.text()
}

fn row(node: &Value, now: OffsetDateTime) -> Vec<(String, Mood)> {
    let yes = |member, mood| match holds(node, member) {
        true => ("yes".to_owned(), Mood::Good),
        false => ("no".to_owned(), mood),
    };
    vec![
        plain(text(node, "id")),
        plain(number(node, "shard").to_string()),
        plain(text(node, "role")),
        (text(node, "status").to_owned(), mood(text(node, "status"))),
        yes("inSync", Mood::Warning),
        yes("ready", Mood::Warning),
        plain(count(number(node, "shardCount"))),
        plain(count(number(node, "lagTasks"))),
        plain(count(number(node, "behind"))),
        plain(note(node, now)),
    ]
}

fn mood(status: &str) -> Mood {
    match status {
        "up" => Mood::Good,
        "silent" | "drained" => Mood::Warning,
        _ => Mood::Bad,
    }
}

/// Why a node isn't well, and what is done about it.
pub(super) fn note(node: &Value, now: OffsetDateTime) -> String {
    let mut parts = Vec::new();
    if !text(node, "reason").is_empty() {
        parts.push(text(node, "reason").to_owned());
    }
    if !text(node, "since").is_empty() {
        parts.push(format!("since {}", ago(text(node, "since"), now)));
    }
    if let Some(resync) = node.get("resync").filter(|resync| resync.is_object()) {
        let index = match text(resync, "index") {
            "" => String::new(),
            index => format!(" of {index}"),
        };
        parts.push(format!(
            "resync: {}{index}, {} checked, {} copied ({})",
            text(resync, "phase"),
            count(number(resync, "documentsChecked")),
            count(number(resync, "documentsCopied")),
            bytes(number(resync, "bytesCopied")),
        ));
    }
    if holds(node, "needsConfirmation") {
        parts.push("its resync waits for you: weft resume node --accept-deletions".to_owned());
    }
    let error = text(node, "lastResyncError");
    if !error.is_empty() {
        parts.push(format!("last resync: {error}"));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(id: &str, status: &str, sync: bool) -> Value {
        json!({"id": id, "address": "127.0.0.1:7710", "status": status, "shardCount": 2, "role": "primary", "shard": 0,
            "inSync": sync, "ready": sync, "lagTasks": 0, "behind": 1_200, "reason": null, "since": null, "resync": null,
            "lastResyncError": null, "needsConfirmation": false})
    }

    #[test]
    fn a_node_that_is_out_is_shown_with_its_reason() {
        let mut out = node("shard-0-node-1", "down", false);
        out["reason"] = json!("it missed a write");
        out["since"] = json!("1970-01-01T00:00:00Z");
        let answer = json!({"nodes": [node("shard-0-node-0", "up", true), out]});
        let now = OffsetDateTime::from_unix_timestamp(180).unwrap();
        assert_eq!(
            table(&answer, now, Look::PLAIN),
            "NODE            SHARD  ROLE     STATUS  IN SYNC  READS  INDEXES  LAG  BEHIND  NOTE\n\
             shard-0-node-0      0  primary  up      yes      yes          2    0   1,200\n\
             shard-0-node-1      0  primary  down    no       no           2    0   1,200  it missed a write; since 3 min ago\n"
        );
    }

    #[test]
    fn a_resync_shows_how_far_it_is_and_what_it_waits_for() {
        let mut back = node("a", "stopped", false);
        back["resync"] = json!({"phase": "documents", "index": "films", "documentsChecked": 5_000, "documentsCopied": 12,
            "documentsRemoved": 0, "bytesCopied": 2_048});
        back["needsConfirmation"] = json!(true);
        back["lastResyncError"] = json!("no answer");
        assert_eq!(
            note(&back, OffsetDateTime::UNIX_EPOCH),
            "resync: documents of films, 5,000 checked, 12 copied (2.0 KiB); its resync waits for you: weft resume node \
             --accept-deletions; last resync: no answer"
        );
        assert!(!is_well(&back));
        assert!(is_well(&node("a", "up", true)));
    }
}
