//! Replicas are compared while clients write: unfinished writes don't count as differences.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use weft_cluster::{Api, Cluster, Deadline, until};

use crate::support::{documents, ids, start};

/// The client's import: the documents of a batch, the time between two batches, and the number of batches.
const DOCUMENTS: u64 = 1_500;
const EVERY: Duration = Duration::from_millis(300);
const BATCHES: u64 = 30;

/// Sends batches at a steady interval, however long the answers take. Returns the answers.
async fn import(api: Api, begun: Arc<AtomicBool>) -> Vec<weft_cluster::Reply> {
    let mut sending = Vec::new();
    let mut pace = tokio::time::interval(EVERY);
    for batch in 0..BATCHES {
        pace.tick().await;
        let api = api.clone();
        sending.push(tokio::spawn(async move {
            let from = batch * DOCUMENTS;
            let path = "/indexes/x/documents?primaryKey=id";
            api.post(path, &documents(from..from + DOCUMENTS)).await
        }));
        begun.store(batch > 1, Ordering::Relaxed);
    }
    let mut accepted = Vec::new();
    for sent in sending {
        let reply = sent.await.unwrap().unwrap();
        assert_eq!(reply.status, 202, "{}", reply.text);
        accepted.push(reply);
    }
    accepted
}

#[tokio::test]
async fn no_difference_is_reported_during_a_steady_import() {
    let (cluster, api) = start(Cluster::builder().shards(1).replicas(2)).await;
    let begun = Arc::new(AtomicBool::new(false));
    let importing = tokio::spawn(import(api.clone(), Arc::clone(&begun)));
    until(
        "the import",
        Deadline::after(Duration::from_secs(60)),
        || {
            let begun = begun.load(Ordering::Relaxed);
            async move { begun.then_some(()).ok_or("not yet".to_owned()) }
        },
    )
    .await
    .unwrap();
    let mut meanwhile = 0;
    while !importing.is_finished() {
        let report = api.post("/_cluster/verify", &json!({})).await.unwrap();
        assert_eq!(report.status, 200, "{}", report.text);
        assert_eq!(report.at("/differences"), 0, "{}", report.text);
        let compared = report.at("/shards/0/compared").as_array().map(Vec::len);
        assert_eq!(compared, Some(2), "{}", report.text);
        meanwhile += usize::from(!importing.is_finished());
    }
    assert!(
        meanwhile >= 1,
        "the import was over before the first comparison"
    );
    for accepted in importing.await.unwrap() {
        api.succeed(&accepted).await.unwrap();
    }
    let merger = Api::new(cluster.merger_url(), None);
    let metrics = merger.get("/_weft/metrics").await.unwrap();
    let taken_out = "weft_merger_replicas_taken_out_total 0";
    assert!(metrics.text.contains(taken_out), "{}", metrics.text);
    let health = api.get("/_cluster/health").await.unwrap();
    assert_eq!(health.at("/status"), "green", "{}", health.text);
    let wanted: Vec<u64> = (0..BATCHES * DOCUMENTS).collect();
    for replica in 0..2 {
        let node = Api::new(cluster.node_url(0, replica), cluster.master_key());
        assert_eq!(ids(&node, "x").await, wanted, "replica {replica}");
    }
}
