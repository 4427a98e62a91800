//! What a routing table of many indexes costs a filter: memory of each of Envoy's workers, the time to take the table or a change
//! of it over, and the time of a decision.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use weft_routing::placement::{ShardId, SlotMap};
use weft_routing::table::{Epoch, IndexRoute, RoutingTable, TableChange, TableNews};
use weft_routing::{
    BodyFormat, Decision, Facts, Held, Operation, Policy, classify, decide, decide_by_body,
};

use super::Row;
use super::filter_cost::{Filter, front_of};
use super::merge::MEMORY;
use super::stub;

/// On how many shards the indexes lie.
const SHARDS: u16 = 8;
/// How often each decision is made.
const DECISIONS: usize = 200_000;
/// The table with which the large one is compared.
const FEW: usize = 10;
const MIB: f64 = 1_048_576.0;

/// A table of so many indexes, most of them on one shard each, one in nine on all, by hash or by a field.
pub(super) fn table_of(indexes: usize) -> Result<RoutingTable> {
    let shards: Vec<ShardId> = (0..SHARDS).map(ShardId).collect();
    let by_field = SlotMap::deal_by(&"field:tenant".parse()?, &shards)?;
    let single = shards.iter().map(|shard| SlotMap::single(*shard));
    let layouts: Vec<Arc<SlotMap>> = single
        .chain([SlotMap::deal(&shards)?, by_field])
        .map(Arc::new)
        .collect();
    let mut table = RoutingTable {
        epoch: Epoch(1),
        lease_ms: 60_000,
        ..RoutingTable::default()
    };
    for (number, slots) in (0..indexes).zip(layouts.iter().cycle()) {
        let mut route = IndexRoute::new(Arc::clone(slots));
        route.primary_key = Some("id".to_owned());
        table.indexes.insert(name(number), route);
    }
    Ok(table)
}

fn name(number: usize) -> String {
    format!("tenant-{number:06}")
}

pub(super) async fn measure(indexes: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let (large, small) = (table_of(indexes)?, table_of(FEW)?);
    let json = large.to_json()?;
    rows.push(Row::alone(
        format!("{indexes} indexes: the table as JSON"),
        json.len() as f64 / 1024.0,
        "KiB",
    ));
    taken_over(&json, &large, &mut rows)?;
    decisions(&large, &small, &mut rows)?;
    workers(&large, &small, &mut rows).await?;
    Ok(rows)
}

/// The memory of a decoded table, and the time to decode it or to apply a change of one index.
fn taken_over(json: &str, table: &RoutingTable, rows: &mut Vec<Row>) -> Result<()> {
    let before = MEMORY.current_usage();
    let begun = Instant::now();
    let mut read = RoutingTable::from_json(json.as_bytes())?;
    let whole = begun.elapsed();
    let held = MEMORY.current_usage().saturating_sub(before);
    rows.push(Row::alone(
        "memory of the decoded table (64 bit; wasm has 32)",
        held as f64 / MIB,
        "MiB",
    ));
    let new = IndexRoute::new(Arc::new(SlotMap::single(ShardId(3))));
    let change = TableChange {
        since: table.epoch,
        epoch: Epoch(table.epoch.0 + 1),
        lease_ms: table.lease_ms,
        changed: BTreeMap::from([("one-more".to_owned(), new)]),
        ..TableChange::default()
    };
    let told = change.to_json()?;
    let begun = Instant::now();
    let TableNews::Change(change) = TableNews::from_json(told.as_bytes())? else {
        anyhow::bail!("a change is read as a whole table");
    };
    read.apply(change)?;
    let part = begun.elapsed();
    ensure!(read.get("one-more").is_some(), "the change has no effect");
    rows.push(Row::compared(
        "one index more: bytes told vs. the whole table",
        told.len() as f64 / 1024.0,
        json.len() as f64 / 1024.0,
        "KiB",
    ));
    rows.push(Row::compared(
        "one index more: taken over vs. the whole table",
        part.as_secs_f64() * 1e3,
        whole.as_secs_f64() * 1e3,
        "ms",
    ));
    Ok(())
}

fn decisions(large: &RoutingTable, small: &RoutingTable, rows: &mut Vec<Row>) -> Result<()> {
    let kinds: [(&str, &str, &str, usize); 4] = [
        ("search of an index on one shard", "POST", "/search", 0),
        ("GET of a document by its id", "GET", "/documents/42", 8),
        (
            "a tenant's search by its query",
            "GET",
            "/search?q=a&filter=tenant%20%3D%2042",
            9,
        ),
        ("a tenant's search by its body", "POST", "/search", 9),
    ];
    for (what, method, rest, layout) in kinds {
        let mut took = [0.0; 2];
        for (table, took) in [large, small].into_iter().zip(&mut took) {
            // As many different indexes as fit, so that no cache holds them all.
            let count = table
                .indexes
                .len()
                .saturating_sub(layout)
                .div_ceil(10)
                .max(1);
            let paths = (0..count.min(1000)).map(|place| {
                let spread = place * count.div_ceil(1000).max(1) % count;
                format!("/indexes/{}{rest}", name(spread * 10 + layout))
            });
            *took = decide_all(table, method, &paths.collect::<Vec<_>>())?;
        }
        rows.push(Row::compared(
            format!("a decision, {what} vs. {FEW} indexes"),
            took[0],
            took[1],
            "µs",
        ));
    }
    Ok(())
}

/// The mean time of a decision, in microseconds.
fn decide_all(table: &RoutingTable, method: &str, paths: &[String]) -> Result<f64> {
    const BODY: &[u8] =
        br#"{"q":"a search as people type it","filter":["tenant = 42","year > 1979"],"limit":20}"#;
    let policy = Policy {
        body_routing: true,
        max_body_bytes: 65_536,
    };
    let mut facts = Facts {
        authorization: Some("Bearer any-key-of-a-usual-length"),
        ..Facts::default()
    };
    facts.body.format = Some(BodyFormat::Json);
    facts.body.length = Some(BODY.len() as u64);
    let mut direct = 0;
    let begun = Instant::now();
    for path in paths.iter().cycle().take(DECISIONS) {
        let classified = classify(method, black_box(path))?;
        let decision = match decide(&classified, Some(table), facts, policy) {
            Decision::LookAtBody(format) => {
                let index = classified.index.as_deref().unwrap_or_default();
                let held = Held {
                    operation: Operation::SearchPost,
                    index,
                    format,
                    authorization: facts.authorization,
                };
                let route = table.get(index).context("no such index")?;
                decide_by_body(&held, route, black_box(BODY))
            }
            decision => decision,
        };
        direct += usize::from(matches!(black_box(decision), Decision::DirectRead(_)));
    }
    let took = begun.elapsed();
    ensure!(
        direct == DECISIONS,
        "{direct} of {DECISIONS} are direct: {paths:?}"
    );
    Ok(took.as_secs_f64() * 1e6 / DECISIONS as f64)
}

/// The memory of Envoys with the large table and with the small one, of one and of two workers.
async fn workers(large: &RoutingTable, small: &RoutingTable, rows: &mut Vec<Row>) -> Result<()> {
    let mut held = Vec::new();
    for table in [large, small] {
        let mut table = table.clone();
        // The index that tells whether Envoy answers.
        let route = IndexRoute::new(Arc::new(SlotMap::single(ShardId(0))));
        table.indexes.insert("x".to_owned(), route);
        let json: &'static str = table.to_json()?.leak();
        for count in [1, 2] {
            let front = front_of(Filter::Weft, stub::READS.with_table(json), count).await?;
            let bytes = front.envoy.resident_bytes().context("Envoy has ended")?;
            held.push(bytes as f64 / MIB);
        }
    }
    let &[one, two, few_one, few_two] = held.as_slice() else {
        anyhow::bail!("four Envoys were measured");
    };
    for (count, large, small) in [(1, one, few_one), (2, two, few_two)] {
        rows.push(Row::compared(
            format!("memory of Envoy, {count} worker(s), vs. {FEW} indexes"),
            large,
            small,
            "MiB",
        ));
    }
    let each = ((two - few_two) - (one - few_one)).max(0.0);
    rows.push(Row::alone(
        "what the table takes of a worker more",
        each,
        "MiB",
    ));
    Ok(())
}
