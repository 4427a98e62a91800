//! A cluster that grows from three shards to four and shrinks again while clients write and search: what is lost or doubled, how long
//! searches take, and how fast it goes.

mod alone;
mod course;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use weft_cluster::data::DataSet;
use weft_cluster::{Api, Cluster, Deadline, HarnessError, Reply, until};

use super::Row;
use course::{Moved, Phases, phases, until_moved};

const KEY: &str = "a-master-key-for-measuring";
const SHARDS: u16 = 3;
const CLIENTS: u64 = 4;
/// How many documents an import has at once.
const IMPORT: usize = 5_000;
/// How many documents two shards hold at once by default.
const BATCH: usize = 1_000;
/// More documents than one shard gives to another.
const LARGE_BATCH: usize = 20_000;
/// From where on writers number their own documents.
const OWN: u64 = 10_000_000;
/// How long clients pause. A writer also waits for the end of each task: otherwise nodes' queues would grow without end, and with them
/// the time that a move waits for nodes.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn measure(seconds: u64, most: Option<usize>) -> Result<Vec<Row>> {
    let mut set = DataSet::debian()?;
    set.documents.truncate(most.unwrap_or(usize::MAX));
    let mut cluster = Cluster::builder()
        .shards(SHARDS)
        .watched(1)
        .master_key(KEY)
        .access_log("off")
        // What the nodes' answers take is measured, not what it takes to remember them.
        .merger_env("WEFT_ANSWER_CACHE_BYTES", "0")
        .start()
        .await?;
    let api = Api::new(cluster.url(), Some(KEY));
    let mut rows = Vec::new();
    let rate = import(&api, &set, set.index).await?;
    let count = set.documents.len();
    rows.push(Row::alone(
        format!("{count} packages imported"),
        rate,
        "documents/s",
    ));
    let mut alive: BTreeSet<u64> = set
        .documents
        .iter()
        .filter_map(|document| document.get(set.primary_key)?.as_u64())
        .collect();
    let world = World {
        api: api.clone(),
        queries: queries(&set),
        index: set.index,
    };
    let world = Arc::new(world);

    let idle = Clients::begin(&world, 0);
    tokio::time::sleep(Duration::from_secs(seconds.max(1) * 4)).await;
    let idle = idle.end(&mut alive).await?;
    // What nodes import while the same clients go on, and nothing moves.
    let clients = Clients::begin(&world, 3);
    let busy = import(&api, &set, "imported-beside").await?;
    clients.end(&mut alive).await?;
    rows.push(Row::alone(
        format!("{count} packages imported while clients go on"),
        busy,
        "documents/s",
    ));
    let alone = alone::tasks(&set, BATCH).await?;
    let alone_large = alone::tasks(&set, LARGE_BATCH).await?;
    let gone = api.delete("/indexes/imported-beside").await?;
    api.succeed(&gone).await?;
    let shard = cluster.add_shard().await?;
    let newcomer = Api::new(cluster.node_url(shard, 0), Some(KEY));

    let clients = Clients::begin(&world, 1);
    let begun = accepted(api.post("/_cluster/rebalance", &json!({})).await?)?;
    let grown = until_moved(&world.api, (&newcomer, world.index), begun).await?;
    let searched = clients.end(&mut alive).await?;
    let all: Vec<u16> = (0..=SHARDS).collect();
    let way = "3 → 4 shards";
    report(way, &grown, &searched, &idle, &alive, &mut rows);
    let before = phases(&cluster).await?;
    rows.extend(before.rows(way, &Phases::default(), &grown));
    rows.extend(check(&cluster, &world, &all, &alive, way).await?);

    let clients = Clients::begin(&world, 2);
    let off = json!({"bytesPerSecond": null});
    let off = api.json(Method::PATCH, "/_cluster/moves", &off).await?;
    ensure!(off.status == 200, "{}", off.text);
    let path = format!("/_cluster/shards/shard-{shard}/drain");
    let begun = accepted(api.post(&path, &json!({})).await?)?;
    let shrunk = until_moved(&world.api, (&newcomer, world.index), begun).await?;
    let searched = clients.end(&mut alive).await?;
    let way = "4 → 3 shards, no throttle";
    report(way, &shrunk, &searched, &idle, &alive, &mut rows);
    let after = phases(&cluster).await?;
    rows.extend(after.rows(way, &before, &shrunk));
    rows.extend(compared(way, &shrunk, [rate, busy, alone]));
    rows.extend(check(&cluster, &world, &all, &alive, way).await?);

    let clients = Clients::begin(&world, 4);
    let again = api.delete(&path).await?;
    ensure!(again.status == 200, "{}", again.text);
    let large = json!({"batchDocuments": LARGE_BATCH});
    let begun = accepted(api.post("/_cluster/rebalance", &large).await?)?;
    let grown = until_moved(&world.api, (&newcomer, world.index), begun).await?;
    let searched = clients.end(&mut alive).await?;
    let way = "3 → 4 shards, no throttle, large batches";
    report(way, &grown, &searched, &idle, &alive, &mut rows);
    let before = phases(&cluster).await?;
    rows.extend(before.rows(way, &after, &grown));
    rows.extend(compared(way, &grown, [rate, busy, alone_large]));
    rows.extend(check(&cluster, &world, &all, &alive, way).await?);

    // What moves do when nobody else wants anything of the nodes, as while they import.
    let begun = accepted(api.post(&path, &json!({})).await?)?;
    let shrunk = until_moved(&world.api, (&newcomer, world.index), begun).await?;
    let way = "4 → 3 shards, no throttle, large batches, no clients";
    let after = phases(&cluster).await?;
    rows.extend(after.rows(way, &before, &shrunk));
    rows.push(alone_in(way, &shrunk, rate));
    let again = api.delete(&path).await?;
    ensure!(again.status == 200, "{}", again.text);
    let small = json!({"batchDocuments": BATCH});
    let begun = accepted(api.post("/_cluster/rebalance", &small).await?)?;
    let grown = until_moved(&world.api, (&newcomer, world.index), begun).await?;
    let way = "3 → 4 shards, no throttle, no clients";
    rows.extend(phases(&cluster).await?.rows(way, &after, &grown));
    rows.push(alone_in(way, &grown, rate));
    rows.extend(check(&cluster, &world, &all, &alive, way).await?);
    Ok(rows)
}

/// How fast moves were, beside what was imported a second, with clients and without, and beside what a node alone does.
fn compared(way: &str, moved: &Moved, [import, beside, alone]: [f64; 3]) -> Vec<Row> {
    let row = |what: &str, reference| {
        let what = format!("{way}: moved vs. {what}");
        Row::compared(what, moved.rate(), reference, "documents/s")
    };
    vec![
        row("imported", import).goal("≥ 0.5"),
        row("imported while clients go on", beside).goal("≥ 0.5"),
        row("added and deleted again by a node alone", alone),
    ]
}

/// How fast moves were without clients, beside what was imported without clients.
fn alone_in(way: &str, moved: &Moved, import: f64) -> Row {
    let what = format!("{way}: moved vs. imported");
    Row::compared(what, moved.rate(), import, "documents/s").goal("≥ 0.5")
}

/// The index, and what clients ask of it.
struct World {
    api: Api,
    queries: Vec<String>,
    index: &'static str,
}

/// Makes an index with the set's settings.
async fn prepare(api: &Api, set: &DataSet, index: &str) -> Result<()> {
    let create = json!({"uid": index, "primaryKey": set.primary_key});
    api.succeed(&api.post("/indexes", &create).await?).await?;
    let path = format!("/indexes/{index}/settings");
    let settings = api.json(Method::PATCH, &path, &set.settings).await?;
    api.succeed(&settings).await?;
    Ok(())
}

/// Imports all documents into a new index; returns documents a second until the last task has succeeded.
async fn import(api: &Api, set: &DataSet, index: &str) -> Result<f64> {
    prepare(api, set, index).await?;
    let path = format!("/indexes/{index}/documents");
    let begun = Instant::now();
    let mut sent = Vec::new();
    for from in (0..set.documents.len()).step_by(IMPORT) {
        let ndjson = [("content-type", "application/x-ndjson")];
        let body = set.ndjson(from, IMPORT);
        sent.push(api.send(Method::POST, &path, &ndjson, body).await?);
    }
    for reply in &sent {
        api.succeed(reply).await?;
    }
    Ok(set.documents.len() as f64 / begun.elapsed().as_secs_f64())
}

/// Words from names all over the list.
fn queries(set: &DataSet) -> Vec<String> {
    let step = (set.documents.len() / 60).max(1);
    let names = set.documents.iter().step_by(step);
    let names = names.filter_map(|document| document.get(set.title)?.as_str());
    names
        .filter_map(|name| name.split('-').next().map(str::to_owned))
        .collect()
}

/// What searchers saw.
#[derive(Default)]
struct Searched {
    times: Vec<Duration>,
    failed: usize,
    refused_writes: usize,
}

impl Searched {
    fn p99_ms(&self) -> f64 {
        let place = self.times.len() * 99 / 100;
        let time = self
            .times
            .get(place.min(self.times.len().saturating_sub(1)));
        time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// What a writer did.
#[derive(Default)]
struct Written {
    added: BTreeSet<u64>,
    removed: BTreeSet<u64>,
    /// Documents of which it isn't known whether they are there, because a write got no good answer.
    unsure: BTreeSet<u64>,
    refused: usize,
}

/// Clients that go on until they are told to stop.
struct Clients {
    stop: Arc<AtomicBool>,
    world: Arc<World>,
    searchers: Vec<JoinHandle<Searched>>,
    writers: Vec<JoinHandle<Written>>,
}

impl Clients {
    /// Begins; each round writes documents of its own.
    fn begin(world: &Arc<World>, round: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let searcher = |number| tokio::spawn(search(Arc::clone(world), Arc::clone(&stop), number));
        let writer = |number| {
            let first = OWN + (round * CLIENTS + number) * 1_000_000;
            tokio::spawn(write(Arc::clone(world), Arc::clone(&stop), first))
        };
        Self {
            searchers: (0..CLIENTS).map(searcher).collect(),
            writers: (0..CLIENTS).map(writer).collect(),
            world: Arc::clone(world),
            stop,
        }
    }

    /// Ends them, waits until all is applied, and notes which documents there must be.
    async fn end(self, alive: &mut BTreeSet<u64>) -> Result<Searched> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Searched::default();
        for searcher in self.searchers {
            let one = searcher.await?;
            all.times.extend(one.times);
            all.failed += one.failed;
        }
        for writer in self.writers {
            let one = writer.await?;
            alive.extend(one.added);
            alive.retain(|id| !one.removed.contains(id) && !one.unsure.contains(id));
            all.refused_writes += one.refused;
        }
        all.times.sort_unstable();
        let api = &self.world.api;
        let open = "/tasks?statuses=enqueued,processing&limit=1";
        until(
            "all tasks have ended",
            Deadline::after(Duration::from_secs(600)),
            || async {
                let reply = api.get(open).await.map_err(|error| error.line())?;
                match reply.at("/total").as_u64() {
                    Some(0) => Ok(()),
                    _ => Err(reply.text),
                }
            },
        )
        .await?;
        Ok(all)
    }
}

async fn search(world: Arc<World>, stop: Arc<AtomicBool>, number: u64) -> Searched {
    let path = format!("/indexes/{}/search", world.index);
    let mut seen = Searched::default();
    let first = usize::try_from(number * 7).unwrap_or(0);
    let mut queries = world.queries.iter().cycle().skip(first);
    while !stop.load(Ordering::Relaxed) {
        let query = queries.next().map_or("", String::as_str);
        let body = json!({"q": query, "limit": 20, "cropLength": 10 + number});
        let began = Instant::now();
        match world.api.post(&path, &body).await {
            Ok(reply) if reply.status == 200 => seen.times.push(began.elapsed()),
            _ => seen.failed += 1,
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

async fn write(world: Arc<World>, stop: Arc<AtomicBool>, first: u64) -> Written {
    let path = format!("/indexes/{}/documents", world.index);
    let mut done = Written::default();
    let is_done = async |reply: Result<Reply, HarnessError>| match reply {
        Ok(reply) if reply.status == 202 => world.api.succeed(&reply).await.is_ok(),
        _ => false,
    };
    for id in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let new = json!([{"id": id, "name": format!("written-{id}"), "section": "amber"}]);
        match is_done(world.api.post(&path, &new).await).await {
            true => drop(done.added.insert(id)),
            false => {
                done.refused += 1;
                done.unsure.insert(id);
            }
        }
        if id % 3 == 2 {
            let gone = id - 1;
            let reply = world.api.delete(&format!("{path}/{gone}")).await;
            match is_done(reply).await {
                true => drop(done.removed.insert(gone)),
                false => {
                    done.refused += 1;
                    done.unsure.insert(gone);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    done
}

fn accepted(reply: Reply) -> Result<Vec<u64>> {
    ensure!(reply.status == 202, "{}", reply.text);
    let ids = reply.at("/moves").as_array().context("no moves")?;
    Ok(ids.iter().filter_map(Value::as_u64).collect())
}

fn report(
    way: &str,
    moved: &Moved,
    searched: &Searched,
    idle: &Searched,
    alive: &BTreeSet<u64>,
    rows: &mut Vec<Row>,
) {
    let share = alive.len() as f64 / f64::from(SHARDS + 1);
    let all = (searched.times.len() + searched.failed).max(1);
    let row = |what: &str, value, reference, unit, goal| {
        Row::compared(format!("{way}: {what}"), value, reference, unit).goal(goal)
    };
    rows.push(row(
        "documents moved vs. a shard's share",
        moved.documents as f64,
        share,
        "documents",
        "≤ 1.02",
    ));
    rows.push(row(
        "p99 of searches vs. while nothing moves",
        searched.p99_ms(),
        idle.p99_ms(),
        "ms",
        "≤ 2",
    ));
    let failed = searched.failed as f64 * 100.0 / all as f64;
    rows.push(Row::alone(format!("{way}: failed of {all} searches"), failed, "%").goal("≤ 0.1"));
    rows.push(Row::alone(
        format!("{way}: writes without a good answer"),
        searched.refused_writes as f64,
        "writes",
    ));
    rows.push(Row::alone(
        format!("{way}: it took"),
        moved.took.as_secs_f64(),
        "s",
    ));
    for (what, error) in [
        (
            "progress vs. the documents at the newcomer",
            moved.by_documents,
        ),
        ("progress vs. the time that it took", moved.by_time),
        (
            "told end vs. the real one, in shares of the time that it took",
            moved.end,
        ),
    ] {
        let what = format!("{way}: {what}: wrong by at most");
        rows.push(Row::alone(what, error * 100.0, "%").goal("≤ 10"));
    }
}

/// Which documents are missing, and which are on two shards.
async fn check(
    cluster: &Cluster,
    world: &World,
    shards: &[u16],
    alive: &BTreeSet<u64>,
    way: &str,
) -> Result<Vec<Row>> {
    let (mut there, mut twice) = (BTreeSet::new(), 0_usize);
    for shard in shards {
        let node = Api::new(cluster.node_url(*shard, 0), Some(KEY));
        let path = format!(
            "/indexes/{}/documents?fields=id&limit=10000000",
            world.index
        );
        let list = node.get(&path).await?;
        if list.status == 404 {
            continue;
        }
        let found = list.at("/results").as_array().context("no documents")?;
        let ids = found.iter().filter_map(|one| one.get("id")?.as_u64());
        twice += ids.filter(|id| !there.insert(*id)).count();
    }
    let lost = alive.iter().filter(|id| !there.contains(id)).count();
    let row = |what: &str, count: usize| {
        Row::alone(
            format!("{way}: documents {what}"),
            count as f64,
            "documents",
        )
        .goal("0")
    };
    Ok(vec![row("lost", lost), row("on two shards", twice)])
}
