//! Deletions by filter: only shards that can match are told, and what is deleted is what one node would delete.

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Single};

use super::{JSON, by_tenant, create, document, held, tenant_of};
use crate::strategies::write;
use crate::support::{MASTER_KEY, node, start};

/// How many deletions a shard's node has got.
async fn deletions(cluster: &Cluster, shard: u16) -> u64 {
    let path = "/tasks?types=documentDeletion&limit=1";
    let tasks = node(cluster, shard).get(path).await.unwrap();
    tasks.at("/total").as_u64().unwrap()
}

#[tokio::test]
async fn a_deletion_by_filter_is_told_to_the_shards_that_can_match_it() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let alone = Api::new(single.url(), Some(MASTER_KEY));
    let hash = json!({"strategy": "hash"});
    for (uid, sharding) in [("x", by_tenant(3)), ("y", hash)] {
        create(&api, uid, Some(&sharding)).await;
        create(&alone, uid, None).await;
        let all: Value = (0..300).map(|id| document(id, &tenant_of(id))).collect();
        // Documents that change their tenant leave no old version behind that a filter could find.
        let again: Value = (0..60).map(|id| document(id, &tenant_of(id + 3))).collect();
        let path = format!("/indexes/{uid}/documents");
        for body in [all, again] {
            for api in [&api, &alone] {
                write(api, Method::POST, &path, JSON, &body.to_string()).await;
            }
        }
    }
    for (uid, told, filter) in [
        ("x", 1, json!("tenant = acme AND group = 1")),
        (
            "x",
            1,
            json!(["tenant = ' BOLT'", ["group = 2", "group = 3"]]),
        ),
        ("x", 1, json!("tenant = 42")),
        ("x", 1, json!("tenant = nobody")),
        ("x", 1, json!("tenant = dune AND unknown = 1")),
        ("x", 3, json!("id IN [1, 2, 3]")),
        ("x", 3, json!("tenant = dune AND group != 2")),
        ("x", 3, json!("NOT tenant = ember AND group = 4")),
        ("y", 1, json!("id = 7")),
        ("y", 1, json!("id = 8 AND tenant = acme")),
        ("y", 3, json!("tenant = acme")),
    ] {
        let mut before = Vec::new();
        for shard in 0..3 {
            before.push(deletions(&cluster, shard).await);
        }
        let path = format!("/indexes/{uid}/documents/delete");
        let body = json!({"filter": filter}).to_string();
        let ours = write(&api, Method::POST, &path, JSON, &body).await;
        let theirs = write(&alone, Method::POST, &path, JSON, &body).await;
        assert_eq!(ours, theirs, "{filter}");
        let mut got = 0;
        for (shard, before) in (0..3).zip(before) {
            got += deletions(&cluster, shard).await - before;
        }
        assert_eq!(got, told, "{uid}: {filter}");
        assert_eq!(held(&api, uid).await, held(&alone, uid).await, "{filter}");
    }
}
