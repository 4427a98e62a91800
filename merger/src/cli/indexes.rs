//! `weft indexes`: where indexes lie, and how much of each is on which shard.

use clap::Args;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::ask::{AskError, AskOptions, Outcome, say};
use super::output::{Look, Mood, Rows, plain};
use super::remote::{Remote, RemoteError};
use super::shards::{in_sync, mood, note, state};
use super::words::{count, encoded, list, number, share, shown, text};

/// How many indexes are asked about at once.
const AT_ONCE: usize = 8;
/// How many slots an index has.
const SLOTS: u64 = 4_096;
/// With more shards than this, a table of all indexes shows only the smallest and the largest share.
const NAMED_SHARDS: usize = 8;

/// Options of `weft indexes`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  weft indexes
  weft indexes films             the shards of one index, one a line
  weft indexes --json | jq -r '.indexes[] | [.indexUid, .documents] | @tsv'

SLOTS: the share of the index's 4,096 slots on each shard. Shares that differ much are evened out by `weft rebalance`.")]
pub(super) struct IndexesArgs {
    /// Only these indexes.
    #[arg(value_name = "INDEX")]
    pub names: Vec<String>,
    /// How many indexes are shown at most.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    #[command(flatten)]
    pub ask: AskOptions,
}

/// Asks, and shows the answers.
pub(super) async fn run(arguments: &IndexesArgs, remote: Remote) -> Result<Outcome, AskError> {
    let names = match arguments.names.is_empty() {
        false => arguments.names.clone(),
        true => all(&remote, arguments.limit).await?,
    };
    let stats = remote.get("/stats").await?;
    let asked = names.iter().map(|name| describe(&remote, name, &stats));
    let asked = futures_util::stream::iter(asked).buffered(AT_ONCE);
    let indexes: Vec<Option<Value>> = match arguments.names.is_empty() {
        // One that was deleted after it was listed is no error.
        true => asked.map(known).try_collect().await?,
        false => asked.map_ok(Some).try_collect().await?,
    };
    let answer = json!({"indexes": indexes.into_iter().flatten().collect::<Vec<_>>()});
    Ok(Outcome::of(
        &arguments.ask,
        &answer,
        true,
        |look| match list(&answer, "indexes") {
            [one] if !arguments.names.is_empty() => details(one, look),
            _ => table(&answer, look),
        },
    ))
}

fn known(answer: Result<Value, RemoteError>) -> Result<Option<Value>, RemoteError> {
    match answer {
        Err(RemoteError::Refused { status, .. }) if status.as_u16() == 404 => Ok(None),
        other => other.map(Some),
    }
}

async fn all(remote: &Remote, limit: u32) -> Result<Vec<String>, AskError> {
    let listed = remote.get(&format!("/indexes?limit={limit}")).await?;
    let names: Vec<String> = list(&listed, "results")
        .iter()
        .map(|index| text(index, "uid").to_owned())
        .collect();
    let left = number(&listed, "total").saturating_sub(names.len() as u64);
    if left > 0 {
        say(&format!("weft: {} more: --limit", count(left)));
    }
    Ok(names)
}

/// What the cluster says of an index, with its number of documents.
async fn describe(remote: &Remote, name: &str, stats: &Value) -> Result<Value, RemoteError> {
    let mut answer = remote
        .get(&format!("/indexes/{}/_shards", encoded(name)))
        .await?;
    let documents = stats.get("indexes").and_then(|indexes| indexes.get(name));
    let documents = documents.and_then(|index| index.get("numberOfDocuments"));
    if let Some(fields) = answer.as_object_mut() {
        let documents = documents.cloned().unwrap_or_default();
        fields.insert("documents".to_owned(), documents);
    }
    Ok(answer)
}

fn documents(index: &Value) -> String {
    let documents = index.get("documents").and_then(Value::as_u64);
    documents.map_or_else(String::new, count)
}

/// The worst state of an index's shards.
fn worst(index: &Value) -> (String, Mood) {
    let states = list(index, "shards").iter();
    let worst = states
        .map(|shard| text(shard, "state"))
        .max_by_key(|state| {
            let order = ["green", "yellow", "red"];
            order
                .iter()
                .position(|known| known == state)
                .unwrap_or(order.len())
        });
    let worst = worst.unwrap_or("red");
    (worst.to_owned(), mood(worst))
}

fn table(answer: &Value, look: Look) -> String {
    let headings = [
        "INDEX",
        "DOCUMENTS",
        "STATE",
        "SHARDS",
        "REPLICAS",
        "WRITES",
        "STRATEGY",
        "SLOTS",
    ];
    let mut rows = Rows::with(&headings, look);
    for index in list(answer, "indexes") {
        rows.add([
            plain(text(index, "indexUid")),
            plain(documents(index)),
            worst(index),
            plain(count(number(index, "shardCount"))),
            plain(count(number(index, "replicationFactor"))),
            plain(text(index, "writeMode")),
            strategy(index),
            plain(slots(index)),
        ]);
    }
    rows.text()
}

/// How an index's documents are placed, and where that leads.
fn strategy(index: &Value) -> (String, Mood) {
    let own = json!({"strategy": index.get("strategy"), "field": index.get("field")});
    let failed = !index.get("changeError").unwrap_or(&Value::Null).is_null();
    let mood = if failed { Mood::Warning } else { Mood::Plain };
    let Some(change @ Value::Object(_)) = index.get("change") else {
        return (named(&own), mood);
    };
    let of = |member: &str| change.get(member).filter(|one| !one.is_null()).map(named);
    let ways = [of("from"), of("to"), of("then")];
    let ways: Vec<String> = ways.into_iter().flatten().collect();
    let progress = change.get("progress").and_then(Value::as_f64);
    let said = match text(change, "stage") {
        "moving" => format!("{:.0} %", progress.unwrap_or(0.0) * 100.0),
        stage => stage.replace('-', " "),
    };
    (format!("{} ({said})", ways.join(" → ")), mood)
}

/// A strategy in a word or two.
fn named(strategy: &Value) -> String {
    match strategy.get("field").and_then(Value::as_str) {
        Some(field) => format!("{} {field}", text(strategy, "strategy")),
        None => text(strategy, "strategy").to_owned(),
    }
}

/// How an index's slots are spread, in one cell.
fn slots(index: &Value) -> String {
    let shards = list(index, "shards");
    let owned = || shards.iter().map(|shard| number(shard, "slots"));
    let spread = match shards.len() > NAMED_SHARDS {
        true => {
            let (least, most) = (owned().min().unwrap_or(0), owned().max().unwrap_or(0));
            format!("{} to {}", share(least, SLOTS), share(most, SLOTS))
        }
        false => {
            let one = |shard: &Value| {
                let part = share(number(shard, "slots"), SLOTS);
                format!("{}: {part}", number(shard, "shardId"))
            };
            shards.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    };
    match list(index, "unsettled").is_empty() {
        true => spread,
        false => format!("{spread} (being moved)"),
    }
}

/// The shards of one index, one a line.
fn details(index: &Value, look: Look) -> String {
    let wanted = match index.get("wantedShardCount") {
        None | Some(Value::Null) => "all shards".to_owned(),
        Some(number) => format!("{} shards by its sharding.shardCount", shown(number)),
    };
    let mut text = format!(
        "{}: {} documents on {wanted}, writes {}, placed by {}\n",
        text(index, "indexUid"),
        documents(index),
        text(index, "writeMode"),
        strategy(index).0,
    );
    if let Some(error) = index.get("changeError").and_then(Value::as_str) {
        text.push_str(&format!("The strategy could not be changed: {error}\n"));
    }
    text.push('\n');
    let headings = [
        "SHARD", "STATE", "SLOTS", "SHARE", "PRIMARY", "IN SYNC", "NOTE",
    ];
    let mut rows = Rows::with(&headings, look);
    for shard in list(index, "shards") {
        let owned = number(shard, "slots");
        rows.add([
            plain(number(shard, "shardId").to_string()),
            state(shard),
            plain(count(owned)),
            plain(share(owned, SLOTS)),
            plain(shown(shard.get("primary").unwrap_or(&Value::Null))),
            plain(in_sync(shard)),
            plain(note(shard)),
        ]);
    }
    text.push_str(&rows.text());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(shards: u64) -> Value {
        let shard = |number: u64| {
            json!({"shardId": number, "primary": format!("n{number}"), "replicas": [], "inSync": [format!("n{number}")],
                "draining": false, "inDoubt": false, "removable": false, "slots": 4_096 / shards,
                "state": if number == 1 { "yellow" } else { "green" }})
        };
        json!({"indexUid": "films", "documents": 31_944, "shardCount": shards, "replicationFactor": 1, "writeMode": "sync",
            "strategy": "field", "field": "tenant", "ranges": null, "change": null, "changeError": null,
            "wantedShardCount": null, "unsettled": [], "shards": (0..shards).map(shard).collect::<Vec<_>>()})
    }

    #[test]
    fn an_index_is_one_line_with_its_shares() {
        let answer = json!({"indexes": [index(2)]});
        assert_eq!(
            table(&answer, Look::PLAIN),
            "INDEX  DOCUMENTS  STATE   SHARDS  REPLICAS  WRITES  STRATEGY      SLOTS\n\
             films     31,944  yellow       2         1  sync    field tenant  0: 50.0 %, 1: 50.0 %\n"
        );
    }

    #[test]
    fn many_shards_are_a_range_and_moves_are_mentioned() {
        let mut many = index(32);
        many["unsettled"] = json!([3]);
        assert_eq!(slots(&many), "3.1 % to 3.1 % (being moved)");
    }

    #[test]
    fn a_change_of_strategy_says_where_it_leads_and_how_far_it_is() {
        let mut index = index(2);
        let to = json!({"strategy": "range", "ranges": [5]});
        let from = json!({"strategy": "field", "field": "tenant"});
        index["change"] =
            json!({"from": from, "to": to, "then": null, "stage": "moving", "progress": 0.256});
        assert_eq!(strategy(&index).0, "field tenant → range (26 %)");
        index["change"]["stage"] = json!("going-back");
        assert_eq!(strategy(&index).0, "field tenant → range (going back)");
        index["change"] = Value::Null;
        index["changeError"] = json!("`7` lacks `tenant`");
        let shown = details(&index, Look::PLAIN);
        assert!(shown.contains("could not be changed: `7` lacks `tenant`\n\nSHARD"));
    }

    #[test]
    fn one_index_has_a_line_for_each_shard() {
        assert_eq!(
            details(&index(2), Look::PLAIN),
            "films: 31,944 documents on all shards, writes sync, placed by field tenant\n\n\
             SHARD  STATE   SLOTS   SHARE  PRIMARY  IN SYNC  NOTE\n    \
             0  green   2,048  50.0 %  n0       1 of 1\n    \
             1  yellow  2,048  50.0 %  n1       1 of 1\n"
        );
    }
}
