//! Compares a search over all shards, through Envoy, filter and merger, with the same search sent directly to one shard,
//! and to one node that holds everything.

use anyhow::Result;
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::data::DataSet;
use weft_cluster::{Api, Cluster, Process, Single};

use super::Row;
use super::load::{Load, Shot, fire};

pub(super) const KEY: &str = "a-master-key-for-measuring";
/// How many turns each measurement gets.
const TURNS: u64 = 4;

pub(super) async fn measure(seconds: u64) -> Result<Vec<Row>> {
    let set = DataSet::movies()?;
    let cluster = Cluster::builder()
        .shards(3)
        .master_key(KEY)
        .access_log("off")
        // What the nodes' answers cost is measured, not what it costs to remember them.
        .merger_env("WEFT_ANSWER_CACHE_BYTES", "0")
        .start()
        .await?;
    let single = Single::start(Some(KEY)).await?;
    fill(&Api::new(cluster.url(), Some(KEY)), &set).await?;
    fill(&Api::new(single.url(), Some(KEY)), &set).await?;
    let shot = |port: u16, body: &Value| Shot {
        port,
        method: "POST",
        path: format!("/indexes/{}/search", set.index),
        key: Some(KEY.to_owned()),
        body: Bytes::from(body.to_string()),
    };
    let edge = cluster.layout().edge();
    let shard = cluster.layout().node(0, 0);
    let alone = single
        .url()
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .unwrap_or_default();
    let searches = [
        ("plain", json!({"q": "star war", "limit": 20})),
        ("facets", json!({"q": "the", "limit": 20, "facets": ["*"]})),
        (
            "sorted, 100 hits",
            json!({"q": "", "limit": 100, "sort": [format!("{}:asc", sortable(&set))]}),
        ),
    ];
    let mut rows = Vec::new();
    for (what, body) in &searches {
        for clients in [1, 8] {
            let ports = [edge, shard, alone];
            let mut loads: [Load; 3] = Default::default();
            for _ in 0..TURNS {
                for (load, port) in loads.iter_mut().zip(ports) {
                    let more =
                        fire(&shot(port, body), clients, seconds as f64 / TURNS as f64).await?;
                    *load = std::mem::take(load).and(more);
                }
            }
            let [weft, shard, alone] = loads;
            let name = format!("{what}, {clients} client(s)");
            rows.push(Row::compared(
                format!("{name}: median vs. one shard directly"),
                weft.quantile_ms(0.5),
                shard.quantile_ms(0.5),
                "ms",
            ));
            rows.push(Row::compared(
                format!("{name}: median vs. one node with everything"),
                weft.quantile_ms(0.5),
                alone.quantile_ms(0.5),
                "ms",
            ));
            rows.push(Row::compared(
                format!("{name}: answers vs. one node with everything"),
                weft.rate(),
                alone.rate(),
                "1/s",
            ));
        }
    }
    let mib = |process: &Process| {
        process.resident_bytes().unwrap_or_default() as f64 / f64::from(1 << 20)
    };
    rows.push(Row::alone(
        "memory of Envoy (RSS)",
        mib(cluster.envoy()),
        "MiB",
    ));
    rows.push(Row::alone(
        "memory of the merger (RSS)",
        mib(cluster.merger()),
        "MiB",
    ));
    Ok(rows)
}

/// The first attribute of the set that is sortable.
fn sortable(set: &DataSet) -> String {
    let attribute = set
        .settings
        .pointer("/sortableAttributes/0")
        .and_then(Value::as_str);
    attribute.unwrap_or(set.primary_key).to_owned()
}

pub(super) async fn fill(api: &Api, set: &DataSet) -> Result<()> {
    let index = format!("/indexes/{}", set.index);
    let create = json!({"uid": set.index, "primaryKey": set.primary_key});
    api.succeed(&api.post("/indexes", &create).await?).await?;
    api.succeed(
        &api.json(Method::PATCH, &format!("{index}/settings"), &set.settings)
            .await?,
    )
    .await?;
    let ndjson = [("content-type", "application/x-ndjson")];
    let all = set.ndjson(0, set.documents.len());
    api.succeed(
        &api.send(Method::POST, &format!("{index}/documents"), &ndjson, all)
            .await?,
    )
    .await?;
    Ok(())
}
