//! How far a follower is behind the leader: from the moment at which a client knows of a change until reads through a follower's
//! Envoy go by it. And whether a read that names the change's task is ever answered by what was before.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Reply};

use super::Row;
use super::fan_out::KEY;

/// How many changes of each kind.
const CHANGES: usize = 200;
/// How long a change may take until a follower shows it: much longer than it should.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
const INDEX: &str = "followed";
/// Documents with the one word, and with the other: fewer and more in turn, so that another word is the rarer one each time.
const FIXED: u32 = 10;
const FEW: u32 = 5;
const MANY: u32 = 15;

/// A change that searches show, and the search.
struct Kind {
    name: &'static str,
    change: fn(bool) -> (Method, &'static str, Value),
    search: Value,
    shown: fn(&Reply) -> Value,
    expected: fn(bool) -> Value,
}

/// The most hits of a search. Each shard has the new limit at once; the merger cuts all shards' hits by the one that it remembers.
fn settings() -> Kind {
    Kind {
        name: "a setting",
        change: |turn| {
            let most = if turn { 7 } else { 5 };
            let body = json!({"pagination": {"maxTotalHits": most}});
            (Method::PATCH, "/settings", body)
        },
        search: json!({"q": "alpha", "limit": 20}),
        shown: |reply| json!(reply.at("/hits").as_array().map_or(0, Vec::len)),
        expected: |turn| json!(if turn { 7 } else { 5 }),
    }
}

/// Which of two words is the rarer one: the hits are those of the rarer one.
fn words() -> Kind {
    Kind {
        name: "the counts of a new document's words",
        change: |turn| match turn {
            true => {
                let body = documents("beta", FEW..MANY);
                (Method::POST, "/documents", body)
            }
            false => {
                let ids: Vec<u32> = (FEW..MANY).map(|number| id("beta", number)).collect();
                (Method::POST, "/documents/delete-batch", json!(ids))
            }
        },
        search: json!({"q": "alpha beta", "matchingStrategy": "frequency", "limit": 1}),
        shown: |reply| reply.at("/hits/0/word").clone(),
        expected: |turn| json!(if turn { "alpha" } else { "beta" }),
    }
}

fn id(word: &str, number: u32) -> u32 {
    number + if word == "alpha" { 0 } else { 1_000 }
}

fn documents(word: &str, numbers: std::ops::Range<u32>) -> Value {
    let document = |number| json!({"id": id(word, number), "word": word});
    numbers.map(document).collect()
}

pub(super) async fn measure() -> Result<Vec<Row>> {
    let cluster = Cluster::builder()
        .shards(2)
        .mergers(3)
        .etcd(3)
        .etcd_syncs(true)
        .master_key(KEY)
        .access_log("off")
        .start()
        .await?;
    let leader = cluster.wait_leader(None).await?;
    let follower = (leader + 1) % 3;
    let edges = cluster.edges();
    let (Some(leader), Some(edge)) = (edges.get(leader), edges.get(follower)) else {
        bail!("there are fewer edges than mergers");
    };
    let made = json!({"uid": INDEX, "primaryKey": "id"});
    leader
        .succeed(&leader.post("/indexes", &made).await?)
        .await?;
    for body in [documents("alpha", 0..FIXED), documents("beta", 0..FEW)] {
        let path = format!("/indexes/{INDEX}/documents");
        leader.succeed(&leader.post(&path, &body).await?).await?;
    }
    let mut rows = Vec::new();
    for kind in [settings(), words()] {
        changes(&mut rows, &kind, leader, edge).await?;
    }
    let merger = Api::new(cluster.pair(follower).merger_url(), Some(KEY));
    placements(&mut rows, leader, &merger).await?;
    Ok(rows)
}

async fn changes(rows: &mut Vec<Row>, kind: &Kind, leader: &Api, edge: &Api) -> Result<()> {
    let path = format!("/indexes/{INDEX}/search");
    let (mut delays, mut older) = (Vec::new(), 0);
    for turn in (0..CHANGES).map(|number| number % 2 == 0) {
        let (method, below, body) = (kind.change)(turn);
        let changed = format!("/indexes/{INDEX}{below}");
        let json = [("content-type", "application/json")];
        let accepted = leader.send(method, &changed, &json, body.to_string());
        let accepted = accepted.await?;
        let task = accepted.at("/taskUid").to_string();
        // Through the follower: it must show the change, and by its end the client knows that the change is made.
        let with_task = [
            ("content-type", "application/json"),
            ("x-weft-after-task", task.as_str()),
        ];
        let sent = edge.send(Method::POST, &path, &with_task, kind.search.to_string());
        let reply = sent.await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text);
        let known = Instant::now();
        let expected = (kind.expected)(turn);
        older += usize::from((kind.shown)(&reply) != expected);
        while (kind.shown)(&edge.post(&path, &kind.search).await?) != expected {
            ensure!(known.elapsed() < SEEN_WITHIN, "{} isn't seen", kind.name);
        }
        delays.push(known.elapsed());
        leader.succeed(&accepted).await?;
    }
    let what = format!(
        "{}: a read that names the task shows what was before",
        kind.name
    );
    rows.push(Row::alone(what, older as f64, "of 200").goal("0"));
    report(rows, kind.name, delays)
}

/// Until a follower's routing table, which its filters poll, has an index that a client was told of.
async fn placements(rows: &mut Vec<Row>, leader: &Api, merger: &Api) -> Result<()> {
    let mut delays = Vec::new();
    for number in 0..CHANGES {
        let uid = format!("placed-{number}");
        let made = json!({"uid": uid, "sharding": {"shardCount": 1}});
        let accepted = leader.post("/indexes", &made).await?;
        ensure!(accepted.status == 202, "{}", accepted.text);
        let known = Instant::now();
        let named = format!("\"{uid}\"");
        while !merger.get("/_weft/table").await?.text.contains(&named) {
            ensure!(known.elapsed() < SEEN_WITHIN, "{uid} isn't in the table");
        }
        delays.push(known.elapsed());
        leader.succeed(&accepted).await?;
    }
    report(rows, "an index's place", delays)
}

fn report(rows: &mut Vec<Row>, what: &str, mut delays: Vec<Duration>) -> Result<()> {
    delays.sort_unstable();
    for (name, share) in [("median", 0.5), ("p99", 0.99)] {
        let place = (delays.len() as f64 * share) as usize;
        let delay = delays.get(place).context("nothing was measured")?;
        let ms = delay.as_secs_f64() * 1e3;
        let row = Row::alone(format!("{what}: {name}"), ms, "ms");
        rows.push(row.goal("≤ 100"));
    }
    Ok(())
}
