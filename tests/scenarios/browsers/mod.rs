//! What browsers need: answers that pages may read, compressed answers, and pages that work.

mod compression;
mod cors;
mod pages;

pub(crate) use pages::chromium_for;

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, StatusCode};
use serde_json::json;
use weft_cluster::{Api, Cluster, ClusterBuilder, Deadline, until};

use crate::support::{counter, documents, start};

/// An answer as it came over the wire.
struct Raw {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Raw {
    fn all(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }
}

async fn ask(
    base: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Raw {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        all.append(name, HeaderValue::from_str(value).unwrap());
    }
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let answer = Client::new()
        .request(method, format!("{base}{path}"))
        .headers(all)
        .body(body)
        .send()
        .await
        .unwrap();
    Raw {
        status: answer.status(),
        headers: answer.headers().clone(),
        body: answer.bytes().await.unwrap().to_vec(),
    }
}

/// Creates `wide` on all shards and `tiny` on one, with the same documents.
async fn filled(api: &Api) {
    for (uid, shards) in [("wide", 3), ("tiny", 1)] {
        let index = json!({"uid": uid, "primaryKey": "id", "sharding": {"shardCount": shards}});
        let made = api.post("/indexes", &index).await.unwrap();
        api.succeed(&made).await.unwrap();
        fill(api, uid).await;
    }
}

async fn fill(api: &Api, uid: &str) {
    let added = api
        .post(&format!("/indexes/{uid}/documents"), &documents(0..300))
        .await
        .unwrap();
    api.succeed(&added).await.unwrap();
}

async fn cluster(filter: bool, change: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> Cluster {
    let builder = change(Cluster::builder().shards(3).filter(filter));
    let (cluster, api) = start(builder).await;
    filled(&api).await;
    cluster
}

/// Sends reads until one goes directly to a node: from then on, the filter has the routing table.
async fn read_directly(cluster: &Cluster) {
    let deadline = Deadline::after(Duration::from_secs(20));
    until("a read directly from a node", deadline, || async {
        ask(
            &cluster.url(),
            "GET",
            "/indexes/tiny/documents",
            &[BEARER],
            "",
        )
        .await;
        match counter(cluster, &["weft_filter_requests_direct_read"]).await {
            0 => Err("no read went directly to a node".to_owned()),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
}

const BEARER: (&str, &str) = ("authorization", "Bearer a-master-key-for-tests");
const JSON: (&str, &str) = ("content-type", "application/json");
