//! Where a search over three shards spends its time: on the wall's clock in Envoy, in the merger's parts and in the nodes; and of
//! the processors' time in each of the three.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use serde_json::{Value, json};
use weft_cluster::data::DataSet;
use weft_cluster::{Api, Cluster, Process, Sockets};

use super::Row;
use super::fan_out::{KEY, fill};
use super::load::{Load, Shot, fire, fire_at_once, fire_in_turn};
use super::usage::Usage;

const SHARDS: u16 = 3;
/// How many turns each measurement gets.
const TURNS: u64 = 4;
/// How many large documents there are, and how much of each is text that nobody searches.
const LARGE: usize = 300;
const LARGE_BYTES: usize = 50 << 10;
/// The parts of a read as the merger counts them.
const PHASES: [(&str, &str); 4] = [
    ("plan", "  merger: plan"),
    ("scatter", "  merger: until all shards have answered"),
    ("gather", "  merger: gather"),
    ("merge", "  merger: merge"),
];

pub(super) async fn measure(seconds: u64) -> Result<Vec<Row>> {
    let cluster = start(None).await?;
    let api = Api::new(cluster.url(), Some(KEY));
    let set = DataSet::movies()?;
    fill(&api, &set).await?;
    fill(&api, &large()).await?;
    let mut rows = Vec::new();
    passes(&cluster, seconds, &mut rows).await?;
    let idle = idle(&cluster).await?;
    for kind in searches(set.index) {
        one_kind(&cluster, &kind, seconds, &idle, &mut rows).await?;
    }
    Ok(rows)
}

/// A cluster to measure, whose Envoy and merger may reach each other over sockets.
pub(super) async fn start(sockets: Option<Sockets>) -> Result<Cluster> {
    let builder = Cluster::builder()
        .shards(SHARDS)
        .master_key(KEY)
        .sockets(sockets)
        .access_log("off")
        // What the nodes' answers cost is measured, not what it costs to remember them.
        .merger_env("WEFT_ANSWER_CACHE_BYTES", "0");
    Ok(builder.start().await?)
}

/// Documents of 50 KB, of which only the title is searched.
pub(super) fn large() -> DataSet {
    let document = |number: usize| {
        let text: String = (0..LARGE_BYTES / 8)
            .map(|word| format!("{:07x} ", (number * 7_919 + word * 104_729) % 0x0fff_ffff))
            .collect();
        json!({"id": number, "title": format!("a large document {number}"), "text": text})
    };
    DataSet {
        index: "large",
        primary_key: "id",
        title: "title",
        settings: json!({"searchableAttributes": ["title"]}),
        documents: (0..LARGE).map(document).collect(),
    }
}

/// What is asked, of the index of films and of the large documents.
pub(super) fn searches(films: &'static str) -> [Kind; 4] {
    let kinds = [
        ("20 hits", films, json!({"q": "star war", "limit": 20})),
        ("100 hits", films, json!({"q": "the", "limit": 100})),
        (
            "facets",
            films,
            json!({"q": "the", "limit": 20, "facets": ["*"]}),
        ),
        (
            "20 hits of 50 KB",
            "large",
            json!({"q": "large document", "limit": 20}),
        ),
    ];
    kinds.map(|(what, index, body)| Kind { what, index, body })
}

/// What a request costs that nobody works for: the ways alone.
async fn passes(cluster: &Cluster, seconds: u64, rows: &mut Vec<Row>) -> Result<()> {
    let layout = cluster.layout();
    let health = |port: u16| Shot {
        port,
        method: "GET",
        path: "/health".to_owned(),
        key: None,
        body: Bytes::new(),
    };
    const TO_SHARD: &[(&str, &str)] = &[("x-weft-cluster", "shard-0")];
    let ways: [(u16, &'static [(&'static str, &'static str)]); 4] = [
        (layout.egress(), TO_SHARD),
        (layout.node(0, 0), &[]),
        (layout.edge(), &[]),
        (layout.merger(), &[]),
    ];
    let mut loads: [Load; 4] = Default::default();
    for _ in 0..TURNS {
        for (load, (port, headers)) in loads.iter_mut().zip(ways) {
            let turn = seconds as f64 / TURNS as f64;
            let more = fire_in_turn(&[vec![health(port)]], headers, turn).await?;
            *load = std::mem::take(load).and(more);
        }
    }
    let [egress, node, edge, merger] = loads.map(|load| load.quantile_ms(0.5));
    let compared = |what: &str, one, other| Row::compared(what, one, other, "ms");
    rows.push(compared(
        "GET /health of a node through egress vs. directly",
        egress,
        node,
    ));
    rows.push(compared(
        "GET /health of the merger through the edge vs. directly",
        edge,
        merger,
    ));
    Ok(())
}

/// A kind of search.
pub(super) struct Kind {
    pub(super) what: &'static str,
    index: &'static str,
    body: Value,
}

impl Kind {
    pub(super) fn shot(&self, port: u16) -> Shot {
        Shot {
            port,
            method: "POST",
            path: format!("/indexes/{}/search", self.index),
            key: Some(KEY.to_owned()),
            body: Bytes::from(self.body.to_string()),
        }
    }
}

/// What each kind of process has used.
type Uses = [Usage; 3];

const PARTS: [&str; 3] = ["Envoy", "merger", "nodes"];

fn uses(cluster: &Cluster) -> Result<Uses> {
    let nodes: Vec<&Process> = (0..SHARDS).map(|shard| cluster.node(shard, 0)).collect();
    Ok([
        Usage::of([cluster.envoy()])?,
        Usage::of([cluster.merger()])?,
        Usage::of(nodes)?,
    ])
}

/// What each uses in a second in which nobody asks anything.
async fn idle(cluster: &Cluster) -> Result<Uses> {
    const WHILE: Duration = Duration::from_secs(2);
    let before = uses(cluster)?;
    tokio::time::sleep(WHILE).await;
    let after = uses(cluster)?;
    let mut used = Uses::default();
    for ((used, before), after) in used.iter_mut().zip(before).zip(after) {
        *used = (after - before).for_each(WHILE.as_secs_f64());
    }
    Ok(used)
}

/// What a kind of search has cost so far.
#[derive(Default)]
struct Cost {
    load: Load,
    used: Uses,
    /// Seconds of the merger's parts, and of its whole work.
    phases: BTreeMap<String, f64>,
}

async fn one_kind(
    cluster: &Cluster,
    kind: &Kind,
    seconds: u64,
    idle: &Uses,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let layout = cluster.layout();
    let through = kind.shot(layout.edge());
    let shards: Vec<Shot> = (0..SHARDS)
        .map(|shard| kind.shot(layout.node(shard, 0)))
        .collect();
    let (mut cost, mut directly) = (Cost::default(), Load::default());
    let turn = seconds as f64 / TURNS as f64;
    for _ in 0..TURNS {
        directly = directly.and(fire_at_once(&shards, turn).await?);
        let (phases, used) = (merger_seconds(cluster).await?, uses(cluster)?);
        cost.load = std::mem::take(&mut cost.load).and(fire(&through, 1, turn).await?);
        for ((sum, before), after) in cost.used.iter_mut().zip(used).zip(uses(cluster)?) {
            *sum = *sum + (after - before);
        }
        for (name, after) in merger_seconds(cluster).await? {
            let before = phases.get(&name).copied().unwrap_or_default();
            *cost.phases.entry(name).or_default() += after - before;
        }
    }
    wall(kind.what, &cost, &directly, rows);
    processors(kind.what, &cost, idle, seconds as f64, rows);
    Ok(())
}

/// Where the time goes, each part with its share of the whole.
fn wall(what: &str, cost: &Cost, directly: &Load, rows: &mut Vec<Row>) {
    let count = cost.load.answers().max(1) as f64;
    let (whole, nodes) = (cost.load.mean_ms(), directly.mean_ms());
    let phase = |name: &str| cost.phases.get(name).map_or(0.0, |sum| sum * 1e3 / count);
    let mut row = |part: &str, value: f64| {
        rows.push(Row::compared(format!("{what}: {part}"), value, whole, "ms"));
    };
    row("mean", whole);
    row("  the same sent to the three nodes at once", nodes);
    row(
        "  edge: from client to merger and back",
        whole - phase("whole"),
    );
    let parts: f64 = PHASES.iter().map(|(name, _)| phase(name)).sum();
    for (name, part) in PHASES {
        row(part, phase(name));
    }
    row(
        "  merger: head, key and body, the answer's head",
        phase("whole") - parts,
    );
    row(
        "  egress: what shards' answers take beyond the nodes",
        phase("scatter") - nodes,
    );
    rows.push(Row::compared(
        format!("{what}: median vs. the three nodes at once"),
        cost.load.quantile_ms(0.5),
        directly.quantile_ms(0.5),
        "ms",
    ));
}

/// What the processors do, each part with its share of the sum.
fn processors(what: &str, cost: &Cost, idle: &Uses, seconds: f64, rows: &mut Vec<Row>) {
    let count = cost.load.answers().max(1) as f64;
    let mut each = Uses::default();
    for ((each, used), idle) in each.iter_mut().zip(cost.used).zip(idle) {
        *each = (used - idle.for_each(1.0 / seconds)).for_each(count);
    }
    let all = each
        .iter()
        .fold(Usage::default(), |sum, usage| sum + *usage);
    for (part, usage) in PARTS.iter().zip(each) {
        let row = |kind: &str, value, of, unit| {
            Row::compared(format!("{what}: {kind} of {part}"), value, of, unit)
        };
        rows.push(row("processor time", usage.cpu_us, all.cpu_us, "µs"));
        rows.push(row(
            "waiting for a processor",
            usage.queued_us,
            all.queued_us,
            "µs",
        ));
        rows.push(row("wakeups", usage.wakeups, all.wakeups, ""));
    }
}

/// How long the merger has worked at searches, by its own metrics, in seconds: in each part, and as a `whole`.
async fn merger_seconds(cluster: &Cluster) -> Result<BTreeMap<String, f64>> {
    let metrics = Api::new(cluster.merger_url(), None)
        .get("/_weft/metrics")
        .await?;
    let mut found = BTreeMap::new();
    for line in metrics.text.lines() {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let part = name
            .strip_prefix("weft_merger_read_phase_seconds_sum{phase=\"")
            .and_then(|rest| rest.strip_suffix("\"}"));
        let is_whole = name == "weft_merger_request_seconds_sum{operation=\"search-post\"}";
        if let Some(part) = part.or(is_whole.then_some("whole")) {
            found.insert(part.to_owned(), value.parse()?);
        }
    }
    Ok(found)
}
