//! The same search over the same three nodes, by Weft and by the servers' own network search (`useNetwork`). This needs a
//! real server: the embedded node has no network search.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Map, Value, json};
use weft_cluster::data::DataSet;
use weft_cluster::{Api, Cluster};

use super::Row;
use super::fan_out::{KEY, fill};
use super::load::{Load, Shot, fire};

const SHARDS: u16 = 3;
/// How many turns each of the two gets.
const TURNS: u64 = 6;

pub(super) async fn measure(seconds: u64) -> Result<Vec<Row>> {
    let set = DataSet::movies()?;
    let cluster = Cluster::builder()
        .shards(SHARDS)
        .master_key(KEY)
        .access_log("off")
        // What the nodes' answers cost is measured, not what it costs to remember them.
        .merger_env("WEFT_ANSWER_CACHE_BYTES", "0")
        .start()
        .await?;
    fill(&Api::new(cluster.url(), Some(KEY)), &set).await?;
    connect(&cluster).await?;
    let mut rows = Vec::new();
    for (what, body) in [
        ("plain", json!({"q": "star war", "limit": 20})),
        (
            "facets",
            json!({"q": "the", "limit": 20, "facets": ["genre"]}),
        ),
        ("100 hits", json!({"q": "the", "limit": 100})),
    ] {
        let shot = |port: u16, network: bool| {
            let mut body = body.clone();
            if let (Some(body), true) = (body.as_object_mut(), network) {
                body.insert("useNetwork".to_owned(), true.into());
            }
            Shot {
                port,
                method: "POST",
                path: format!("/indexes/{}/search", set.index),
                key: Some(KEY.to_owned()),
                body: Bytes::from(body.to_string()),
            }
        };
        let shots = [
            shot(cluster.layout().edge(), false),
            shot(cluster.layout().node(0, 0), true),
            shot(cluster.layout().node(0, 0), false),
        ];
        for clients in [1, 8] {
            let mut loads: [Load; 3] = Default::default();
            for _ in 0..TURNS {
                for (load, shot) in loads.iter_mut().zip(&shots) {
                    let more = fire(shot, clients, seconds as f64 / TURNS as f64).await?;
                    *load = std::mem::take(load).and(more);
                }
            }
            let [weft, network, shard] = loads;
            let name = format!("{what}, {clients} client(s)");
            let mut median = Row::compared(
                format!("{name}: median vs. useNetwork"),
                weft.quantile_ms(0.5),
                network.quantile_ms(0.5),
                "ms",
            );
            let mut rate = Row::compared(
                format!("{name}: answers vs. useNetwork"),
                weft.rate(),
                network.rate(),
                "1/s",
            );
            median = median.goal(if what == "plain" {
                "≤ 1.1"
            } else {
                "≤ 0.8"
            });
            if what == "plain" && clients == 8 {
                rate = rate.goal("≥ 0.95");
            }
            rows.push(median);
            rows.push(Row::compared(
                format!("{name}: median vs. one shard directly"),
                weft.quantile_ms(0.5),
                shard.quantile_ms(0.5),
                "ms",
            ));
            rows.push(rate);
        }
    }
    Ok(rows)
}

/// Configures every node to search all of them when a search uses the network.
async fn connect(cluster: &Cluster) -> Result<()> {
    let name = |shard: u16| format!("shard-{shard}");
    let remotes: Map<String, Value> = (0..SHARDS)
        .map(|shard| {
            let remote = json!({"url": cluster.node_url(shard, 0), "searchApiKey": KEY});
            (name(shard), remote)
        })
        .collect();
    for shard in 0..SHARDS {
        let node = Api::new(cluster.node_url(shard, 0), Some(KEY));
        for (path, body) in [
            ("/experimental-features", json!({"network": true})),
            ("/network", json!({"self": name(shard), "remotes": remotes})),
        ] {
            let reply = node
                .json(Method::PATCH, path, &body)
                .await
                .with_context(|| format!("{path} of {}", name(shard)))?;
            if reply.status != 200 {
                bail!(
                    "{path} of {} answered {}: {}",
                    name(shard),
                    reply.status,
                    reply.text
                );
            }
        }
    }
    Ok(())
}
