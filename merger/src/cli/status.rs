//! `weft status`: the whole cluster at one glance.

use clap::Args;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::ask::{AskError, AskOptions, Outcome};
use super::mergers::leaders;
use super::moves::is_over;
use super::nodes;
use super::output::{Look, Rows, plain};
use super::remote::{Remote, RemoteError};
use super::shards::{in_sync, mood, note, state};
use super::words::{ago, count, counted, cut, list, number, seconds, shown, text};
use crate::clock::now_utc;

/// Options of `weft status`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  weft status
  WEFT_URL=https://search.example weft status --master-key-file /run/secrets/weft
  until weft status >/dev/null; do sleep 1; done     wait until the cluster is green

Green: every replica is in sync, answers and is read from. Yellow: at least one of each shard is. Red: some shard has none.
Exit code 1 unless the cluster is green. --json has the answers of /_cluster/{health,shards,nodes,mergers,moves,jobs} and /stats.")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub ask: AskOptions,
}

/// Asks for everything, and shows it.
pub(super) async fn run(arguments: &StatusArgs, remote: Remote) -> Result<Outcome, AskError> {
    let picture = picture(&remote).await?;
    let health = picture.get("health").unwrap_or(&Value::Null);
    let sound = text(health, "status") == "green";
    Ok(Outcome::of(&arguments.ask, &picture, sound, |look| {
        show(&picture, remote.url().as_str(), now_utc(), look)
    }))
}

async fn picture(remote: &Remote) -> Result<Value, AskError> {
    let (health, shards, nodes, mergers, moves) = tokio::try_join!(
        remote.get("/_cluster/health"),
        remote.get("/_cluster/shards"),
        remote.get("/_cluster/nodes"),
        remote.get("/_cluster/mergers"),
        remote.get("/_cluster/moves"),
    )?;
    // Where a shard is red, these may be refused, and the rest is all the more wanted.
    let open = "/tasks?statuses=enqueued,processing&limit=1";
    let (stats, tasks, jobs) = tokio::join!(
        remote.get("/stats"),
        remote.get(open),
        remote.get("/_cluster/jobs"),
    );
    let (stats, tasks, jobs) = (or_null(stats)?, or_null(tasks)?, or_null(jobs)?);
    Ok(json!({
        "health": health,
        "shards": shards.get("shards"),
        "nodes": nodes.get("nodes"),
        "mergers": mergers.get("mergers"),
        "moves": moves,
        "jobs": jobs,
        "stats": stats,
        "openTasks": tasks.get("total"),
    }))
}

fn or_null(answer: Result<Value, RemoteError>) -> Result<Value, RemoteError> {
    match answer {
        Err(RemoteError::Refused { .. }) => Ok(Value::Null),
        other => other,
    }
}

fn show(picture: &Value, url: &str, now: OffsetDateTime, look: Look) -> String {
    let mut out = heading(picture, url, look);
    out.push_str(&format!("  mergers  {}\n", merger_line(picture, now)));
    let open = picture.get("openTasks").and_then(Value::as_u64);
    let tasks = open.map_or_else(
        || "unknown".to_owned(),
        |open| format!("{} open", count(open)),
    );
    out.push_str(&format!("  tasks    {tasks}\n"));
    let moves = picture.get("moves").unwrap_or(&Value::Null);
    out.push_str(&format!("  moves    {}\n", move_line(moves)));
    for line in job_lines(picture.get("jobs").unwrap_or(&Value::Null), now) {
        out.push_str(&format!("  {line}\n"));
    }
    out.push('\n');
    out.push_str(&shard_table(picture, look));
    let trouble: Vec<&Value> = list(picture, "nodes")
        .iter()
        .filter(|node| !nodes::is_well(node))
        .collect();
    if !trouble.is_empty() {
        out.push('\n');
    }
    for node in trouble {
        out.push_str(&trouble_line(node, now));
    }
    out
}

fn heading(picture: &Value, url: &str, look: Look) -> String {
    let health = picture.get("health").unwrap_or(&Value::Null);
    let status = text(health, "status");
    let stats = picture.get("stats").unwrap_or(&Value::Null);
    let indexes = stats.get("indexes").and_then(Value::as_object);
    let holds = indexes.map(|indexes| {
        let documents = indexes
            .values()
            .map(|index| number(index, "numberOfDocuments"));
        format!(
            ", {}, {}",
            counted(indexes.len() as u64, "index", "indexes"),
            counted(documents.sum(), "document", "documents"),
        )
    });
    format!(
        "{} is {}: {}, {} of {} active{}\n",
        url.trim_end_matches('/'),
        look.paint(status, mood(status)),
        counted(list(picture, "shards").len() as u64, "shard", "shards"),
        count(number(health, "activeShards")),
        counted(number(health, "nodeCount"), "node", "nodes"),
        holds.unwrap_or_default(),
    )
}

fn merger_line(picture: &Value, now: OffsetDateTime) -> String {
    let all = list(picture, "mergers").len();
    let Some(leader) = leaders(picture).next() else {
        return format!("{all}, and none leads");
    };
    let address = shown(leader.get("address").unwrap_or(&Value::Null));
    if text(leader, "id") == "alone" {
        return format!("1, at {address}");
    }
    let since = ago(text(leader, "since"), now);
    format!(
        "{all}; {} at {address} leads, it began {since}",
        text(leader, "id")
    )
}

/// How far the moves are that have not ended.
pub(super) fn move_line(answer: &Value) -> String {
    let moves = list(answer, "moves").iter();
    let open: Vec<&Value> = moves.filter(|one| !is_over(one)).collect();
    if open.is_empty() {
        return "none".to_owned();
    }
    let sum = |member| open.iter().map(|one| number(one, member)).sum::<u64>();
    let (moved, all) = (sum("documentsMoved"), sum("documents"));
    let left = open
        .iter()
        .filter_map(|one| one.get("secondsLeft")?.as_u64())
        .max();
    let left = left.map_or_else(String::new, |left| {
        format!(", the slowest has {} left", seconds(left))
    });
    let failing = open
        .iter()
        .filter(|one| !text(one, "error").is_empty())
        .count();
    let failing = match failing {
        0 => String::new(),
        failing => format!("; {failing} failed and will be tried again: weft moves"),
    };
    let paused = match answer.get("paused") {
        Some(Value::Bool(true)) => ", paused",
        _ => "",
    };
    format!(
        "{}{paused}: {} of {} documents{left}{failing}",
        open.len(),
        count(moved),
        count(all)
    )
}

/// Backups, restores and imports that are running, how far they are, and when the last ones ended.
fn job_lines(answer: &Value, now: OffsetDateTime) -> Vec<String> {
    let mut lines = Vec::new();
    for kind in ["backup", "restore", "import"] {
        let mut said = Vec::new();
        for job in list(answer, "jobs") {
            if text(job, "kind") != kind || text(job, "state") != "running" {
                continue;
            }
            let of = match job.get("documentsExpected").and_then(Value::as_u64) {
                Some(all) => format!(" of {}", count(all)),
                None => String::new(),
            };
            let done = count(number(job, "documents"));
            let since = ago(text(job, "startedAt"), now);
            said.push(format!("running, {done}{of} documents, begun {since}"));
        }
        let last = answer.pointer(&format!("/last/{kind}"));
        let last = last.unwrap_or(&Value::Null);
        let (success, failure) = (text(last, "success"), text(last, "failure"));
        if !failure.is_empty() && failure > success {
            let error = cut(text(last, "error"), 100);
            said.push(format!("failed {}: {error}", ago(failure, now)));
        }
        if !success.is_empty() {
            said.push(format!("last done {}", ago(success, now)));
        }
        if !said.is_empty() {
            lines.push(format!("{kind:8} {}", said.join("; ")));
        }
    }
    lines
}

fn shard_table(picture: &Value, look: Look) -> String {
    let mut rows = Rows::with(
        &["SHARD", "STATE", "PRIMARY", "IN SYNC", "INDEXES", "NOTE"],
        look,
    );
    for shard in list(picture, "shards") {
        rows.add([
            plain(number(shard, "shardId").to_string()),
            state(shard),
            plain(shown(shard.get("primary").unwrap_or(&Value::Null))),
            plain(in_sync(shard)),
            plain(count(number(shard, "indexes"))),
            plain(note(shard)),
        ]);
    }
    rows.text()
}

fn trouble_line(node: &Value, now: OffsetDateTime) -> String {
    let standing = match (text(node, "status"), node.get("inSync")) {
        ("up", Some(Value::Bool(true))) => "up and in sync, but not read from yet",
        ("up", _) => "up, but out of sync",
        (status, _) => status,
    };
    let note = match nodes::note(node, now) {
        note if note.is_empty() => note,
        note => format!(": {note}"),
    };
    format!("{} is {standing}{note}\n", text(node, "id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        json!({
            "health": {"status": "yellow", "nodeCount": 2, "activeShards": 1},
            "shards": [{"shardId": 0, "primary": "a", "replicas": ["b"], "inSync": ["a"], "inDoubt": false, "draining": false,
                "indexes": 1, "removable": false, "state": "yellow"}],
            "nodes": [
                {"id": "a", "status": "up", "inSync": true, "ready": true},
                {"id": "b", "status": "down", "inSync": false, "ready": false, "reason": "it missed a write"},
            ],
            "mergers": [{"id": "alone", "address": "127.0.0.1:7703", "role": "leader"}],
            "moves": {"moves": [], "paused": false},
            "stats": {"indexes": {"films": {"numberOfDocuments": 1_500}}},
            "openTasks": 3,
        })
    }

    #[test]
    fn the_cluster_is_shown_at_one_glance() {
        assert_eq!(
            show(
                &sample(),
                "http://127.0.0.1:7700/",
                OffsetDateTime::UNIX_EPOCH,
                Look::PLAIN
            ),
            "http://127.0.0.1:7700 is yellow: 1 shard, 1 of 2 nodes active, 1 index, 1,500 documents\n  \
             mergers  1, at 127.0.0.1:7703\n  \
             tasks    3 open\n  \
             moves    none\n\n\
             SHARD  STATE   PRIMARY  IN SYNC  INDEXES  NOTE\n    \
             0  yellow  a        1 of 2         1\n\n\
             b is down: it missed a write\n"
        );
    }

    #[test]
    fn jobs_say_how_far_they_are_and_how_the_last_ones_ended() {
        let answer = json!({
            "jobs": [
                {"kind": "import", "state": "running", "documents": 1_200, "documentsExpected": 5_000, "startedAt": "1970-01-01T00:00:00Z"},
                {"kind": "backup", "state": "done", "documents": 7, "startedAt": "1970-01-01T00:00:00Z"},
            ],
            "last": {
                "backup": {"success": "1970-01-01T00:00:00Z", "failure": "1970-01-01T01:00:00Z", "error": "no room"},
                "import": {"success": null, "failure": null, "error": null},
            },
        });
        let now = OffsetDateTime::UNIX_EPOCH + std::time::Duration::from_secs(7_200);
        let lines = job_lines(&answer, now);
        assert_eq!(
            lines,
            [
                "backup   failed 60 min ago: no room; last done 2 h 0 min ago",
                "import   running, 1,200 of 5,000 documents, begun 2 h 0 min ago",
            ]
        );
        assert_eq!(job_lines(&Value::Null, now), Vec::<String>::new());
    }

    #[test]
    fn what_was_refused_is_unknown() {
        let mut picture = sample();
        picture["stats"] = Value::Null;
        picture["openTasks"] = Value::Null;
        let shown = show(
            &picture,
            "http://a",
            OffsetDateTime::UNIX_EPOCH,
            Look::PLAIN,
        );
        assert!(shown.contains("tasks    unknown"), "{shown}");
        assert!(shown.contains("1 of 2 nodes active\n"), "{shown}");
    }

    #[test]
    fn moves_that_run_are_summed_up() {
        let one = |state, moved, left: Option<u64>, error: Option<&str>| json!({"state": state, "documents": 1_000, "documentsMoved": moved, "secondsLeft": left, "error": error});
        let answer = json!({"paused": true, "moves": [
            one("done", 1_000, None, None),
            one("copying", 250, Some(300), None),
            one("waiting", 0, None, Some("disk full")),
        ]});
        assert_eq!(
            move_line(&answer),
            "2, paused: 250 of 2,000 documents, the slowest has 5 min left; 1 failed and will be tried again: weft moves"
        );
    }
}
