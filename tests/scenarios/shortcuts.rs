//! Requests that the filter sends directly to a shard don't reach the merger, and headers that clients may not send have no effect.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use weft_cluster::{Api, Cluster, Deadline, until};

use crate::support::{MASTER_KEY, counter, documents, merger_requests, node, start};

/// Waits until every worker's filter has a table that knows the index: reads by id no longer reach the merger.
pub(crate) async fn wait_for_tables(cluster: &Cluster, api: &Api, path: &str) {
    until(
        "the filters' tables",
        Deadline::after(Duration::from_secs(30)),
        || async {
            let before = merger_requests(cluster).await;
            for _ in 0..20 {
                api.get(path).await.map_err(|error| error.to_string())?;
            }
            // Polls of the table reach the merger, too, but far fewer than one per read.
            let more = merger_requests(cluster).await - before;
            if more < 5 {
                Ok(())
            } else {
                Err(format!("{more} of 20 reads reached the merger"))
            }
        },
    )
    .await
    .unwrap();
}

/// Waits until the filter's count has this value. The filter passes its counts to Envoy with a delay.
async fn wait_for_count(cluster: &Cluster, words: &[&str], expected: u64) {
    until(
        "the filter's count",
        Deadline::after(Duration::from_secs(10)),
        || async {
            let count = counter(cluster, words).await;
            if count == expected {
                Ok(())
            } else {
                Err(format!("{count} where {expected} were sent"))
            }
        },
    )
    .await
    .unwrap();
}

/// The filter's count, once it no longer changes.
pub(crate) async fn final_count(cluster: &Cluster, words: &[&str]) -> u64 {
    let mut last = [u64::MAX; 3];
    while !last
        .iter()
        .all(|count| *count == last[0] && *count != u64::MAX)
    {
        last = [last[1], last[2], counter(cluster, words).await];
        // Longer than the delay with which the filter passes its counts on.
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    last[0]
}

#[tokio::test]
async fn a_document_by_id_and_a_search_on_one_shard_do_not_reach_the_merger() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    let create = json!({"uid": "small", "primaryKey": "id", "sharding": {"shardCount": 1}});
    api.succeed(&api.post("/indexes", &create).await.unwrap())
        .await
        .unwrap();
    api.succeed(
        &api.post("/indexes/small/documents", &documents(0..50))
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    api.succeed(
        &api.post("/indexes/wide/documents?primaryKey=id", &documents(0..50))
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    wait_for_tables(&cluster, &api, "/indexes/wide/documents/7").await;
    wait_for_tables(&cluster, &api, "/indexes/small/documents/7").await;

    let direct = ["direct_read"];
    let reads = final_count(&cluster, &direct).await;
    let merger = merger_requests(&cluster).await;
    for id in 0..50 {
        assert_eq!(
            api.get(&format!("/indexes/wide/documents/{id}"))
                .await
                .unwrap()
                .at("/id"),
            id
        );
        let found = api
            .post(
                "/indexes/small/search",
                &json!({"q": format!("number {id}")}),
            )
            .await
            .unwrap();
        assert_eq!(found.status, 200);
    }
    wait_for_count(&cluster, &direct, reads + 100).await;
    let polls = merger_requests(&cluster).await - merger;
    assert!(
        polls < 50,
        "{polls} requests reached the merger during 100 direct reads"
    );
}

#[tokio::test]
async fn a_small_write_goes_directly_to_its_shard_and_is_registered() {
    let (cluster, api) = start(
        Cluster::builder()
            .shards(3)
            .merger_env("WEFT_DIRECT_WRITES", "true"),
    )
    .await;
    api.succeed(
        &api.post("/indexes/x/documents?primaryKey=id", &documents(0..3))
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    wait_for_tables(&cluster, &api, "/indexes/x/documents/1").await;
    let direct = ["direct_write"];
    let (writes, mut last) = (final_count(&cluster, &direct).await, 0);
    for id in 100..140 {
        let accepted = api
            .post("/indexes/x/documents", &json!({"id": id, "name": "direct"}))
            .await
            .unwrap();
        assert_eq!(accepted.status, 202, "{}", accepted.text);
        let uid = accepted.at("/taskUid").as_u64().unwrap();
        assert!(uid > last, "{uid} after {last}");
        last = uid;
        let task = api.succeed(&accepted).await.unwrap();
        assert_eq!(task["type"], "documentAdditionOrUpdate");
        assert_eq!(task["indexUid"], "x");
    }
    wait_for_count(&cluster, &direct, writes + 40).await;
    assert_eq!(
        api.get("/indexes/x/stats")
            .await
            .unwrap()
            .at("/numberOfDocuments"),
        43
    );
    let accepted = api.delete("/indexes/x/documents/100").await.unwrap();
    api.succeed(&accepted).await.unwrap();
    assert_eq!(
        api.get("/indexes/x/documents/100").await.unwrap().status,
        404
    );
}

#[tokio::test]
async fn an_index_written_to_right_after_its_deletion_exists_on_all_shards() {
    let (cluster, api) = start(
        Cluster::builder()
            .shards(3)
            .merger_env("WEFT_DIRECT_WRITES", "true"),
    )
    .await;
    // Many rounds, so that in some of them the write arrives just when the deletion ends.
    for round in 0..20 {
        let accepted = api
            .post("/indexes/x/documents?primaryKey=id", &documents(0..30))
            .await
            .unwrap();
        api.succeed(&accepted).await.unwrap();
        if round == 1 {
            wait_for_tables(&cluster, &api, "/indexes/x/documents/1").await;
        }
        let gone = api.delete("/indexes/x").await.unwrap();
        // One document, which a filter may still send directly to a shard that is about to lose the index.
        let again = api
            .post(
                "/indexes/x/documents?primaryKey=id",
                &json!({"id": 1, "name": "again"}),
            )
            .await
            .unwrap();
        api.succeed(&gone).await.unwrap();
        api.succeed(&again).await.unwrap();
        let deadline = Deadline::after(Duration::from_secs(10));
        until("the index on every shard", deadline, || async {
            for shard in 0..3 {
                let found = node(&cluster, shard)
                    .get("/indexes/x")
                    .await
                    .map_err(|error| error.to_string())?;
                if found.status != 200 {
                    return Err(format!("shard {shard}: {}", found.text));
                }
            }
            Ok(())
        })
        .await
        .unwrap();
        let found = api
            .post("/indexes/x/search", &json!({"q": "again"}))
            .await
            .unwrap();
        assert_eq!(
            (found.status, found.at("/hits/0/id").as_u64()),
            (200, Some(1)),
            "{}",
            found.text
        );
        api.succeed(&api.delete("/indexes/x").await.unwrap())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn clients_cannot_choose_a_node_or_pose_as_the_filter() {
    for filter in [true, false] {
        let (cluster, api) = start(Cluster::builder().shards(3).filter(filter)).await;
        api.succeed(
            &api.post("/indexes/x/documents?primaryKey=id", &documents(0..30))
                .await
                .unwrap(),
        )
        .await
        .unwrap();
        let address = cluster.node_url(0, 0).replace("http://", "");
        let forged = [
            ("x-weft-cluster", "node"),
            ("X-Envoy-Original-Dst-Host", address.as_str()),
            ("x-weft-shards", "0"),
            ("x-weft-epoch", "1"),
            ("x-envoy-upstream-rq-timeout-ms", "1"),
        ];
        let reply = api
            .send(Method::GET, "/indexes/x/stats", &forged, "")
            .await
            .unwrap();
        assert_eq!(
            (reply.status, reply.at("/numberOfDocuments").as_u64()),
            (200, Some(30)),
            "{}",
            reply.text
        );
        for path in [
            "/_weft/table",
            "/_weft/register",
            "/%5fweft/table",
            "//_weft/table",
            "/_weft",
            "/_weft/../_weft/table",
        ] {
            let reply = api.get(path).await.unwrap();
            assert_eq!((reply.status, reply.text.as_str()), (404, ""), "{path}");
        }
        let wrong = api.with_key(Some("wrong")).get("/tasks").await.unwrap();
        assert_eq!(
            (wrong.status, wrong.at("/code").as_str()),
            (403, Some("invalid_api_key"))
        );
        let none = api
            .with_key(None)
            .post("/indexes/x/documents", &documents(0..1))
            .await
            .unwrap();
        assert_eq!(
            (none.status, none.at("/code").as_str()),
            (401, Some("missing_authorization_header"))
        );
        assert_ne!(MASTER_KEY, "wrong");
    }
}

#[tokio::test]
async fn shards_can_have_the_names_of_a_service_mesh() {
    let names = "outbound|7700||shard-{}.ns.svc.cluster.local";
    let builder = Cluster::builder()
        .shards(2)
        .merger_env("WEFT_SHARD_PREFIX", names);
    let (cluster, api) = start(builder).await;
    let create = json!({"uid": "small", "primaryKey": "id", "sharding": {"shardCount": 1}});
    let created = api.post("/indexes", &create).await.unwrap();
    api.succeed(&created).await.unwrap();
    for index in ["small", "wide"] {
        let path = format!("/indexes/{index}/documents?primaryKey=id");
        let accepted = api.post(&path, &documents(0..50)).await.unwrap();
        api.succeed(&accepted).await.unwrap();
    }
    for index in ["small", "wide"] {
        wait_for_tables(&cluster, &api, &format!("/indexes/{index}/documents/7")).await;
        let search = format!("/indexes/{index}/search");
        let found = api.post(&search, &json!({"q": "amber"})).await.unwrap();
        assert_eq!(found.status, 200, "{}", found.text);
        assert_eq!(found.at("/estimatedTotalHits"), 10, "{}", found.text);
    }
    let deadline = Deadline::after(Duration::from_secs(30));
    // The filter passes its counts to Envoy with a delay.
    until("a direct read", deadline, || async {
        let count = counter(&cluster, &["direct_read"]).await;
        (count > 0).then_some(()).ok_or("none".to_owned())
    })
    .await
    .unwrap();
    until("a green cluster", deadline, || async {
        let health = api.get("/_cluster/health").await.unwrap();
        match health.at("/status") == "green" {
            true => Ok(()),
            false => Err(health.text),
        }
    })
    .await
    .unwrap();
}
