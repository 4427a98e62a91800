//! How long `GET /tasks/{uid}` takes: waiting clients send it every few milliseconds.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster};

use super::Row;
use super::load::{Shot, fire};

const KEY: &str = "bench-master-key";
/// The number of finished tasks in addition to the requested one.
const TASKS: usize = 500;

pub(super) async fn measure(seconds: u64) -> Result<Vec<Row>> {
    let cluster = Cluster::builder()
        .shards(3)
        .master_key(KEY)
        .access_log("off")
        .start()
        .await?;
    let api = Api::new(cluster.url(), Some(KEY));
    let mut last = None;
    for id in 0..TASKS {
        let path = "/indexes/tasks/documents?primaryKey=id";
        last = Some(api.post(path, &json!([{"id": id}])).await?);
    }
    let mut uid = 0;
    if let Some(last) = last {
        let task = api.settle(&last).await?;
        uid = task.get("uid").and_then(Value::as_u64).unwrap_or_default();
    }
    let shot = |port: u16, path: String| Shot {
        port,
        method: "GET",
        path,
        key: Some(KEY.to_owned()),
        body: Bytes::new(),
    };
    let (edge, node) = (cluster.layout().edge(), cluster.layout().node(0, 0));
    let seconds = Duration::from_secs(seconds).as_secs_f64() / 2.0;
    let mut rows = Vec::new();
    for clients in [1, 16] {
        let weft = fire(&shot(edge, format!("/tasks/{uid}")), clients, seconds).await?;
        let direct = fire(&shot(node, "/tasks/0".to_owned()), clients, seconds).await?;
        rows.push(
            Row::compared(
                format!("GET /tasks/{{uid}}, median, {clients} clients vs. one node's"),
                weft.quantile_ms(0.5),
                direct.quantile_ms(0.5),
                "ms",
            )
            .goal("1 ms or less with one client"),
        );
    }
    let list = fire(&shot(edge, "/tasks?limit=20".to_owned()), 1, seconds).await?;
    rows.push(Row::alone(
        "GET /tasks?limit=20, median",
        list.quantile_ms(0.5),
        "ms",
    ));
    Ok(rows)
}
