//! Indexes are on the right shards, and exist on all of their shards or on none.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use weft_cluster::{Api, Cluster};

use crate::support::{documents, ids, node, start};

/// The shards whose node has an index.
async fn shards_with(cluster: &Cluster, shards: u16, uid: &str) -> Vec<u16> {
    let mut found = Vec::new();
    for shard in 0..shards {
        let reply = node(cluster, shard)
            .get(&format!("/indexes/{uid}"))
            .await
            .unwrap();
        if reply.status == 200 {
            found.push(shard);
        }
    }
    found
}

async fn create(api: &Api, body: &Value) -> Value {
    let accepted = api.post("/indexes", body).await.unwrap();
    api.succeed(&accepted).await.unwrap()
}

#[tokio::test]
async fn an_index_is_created_on_the_requested_or_the_default_number_of_shards() {
    let builder = Cluster::builder()
        .shards(3)
        .merger_env("WEFT_DEFAULT_SHARD_COUNT", "2");
    let (cluster, api) = start(builder).await;
    create(
        &api,
        &json!({"uid": "asked", "primaryKey": "id", "sharding": {"shardCount": 1}}),
    )
    .await;
    create(
        &api,
        &json!({"uid": "all", "sharding": {"shardCount": 3, "replicationFactor": 1}}),
    )
    .await;
    create(&api, &json!({"uid": "default"})).await;
    let accepted = api
        .post(
            "/indexes/implicit/documents?primaryKey=id",
            &documents(0..50),
        )
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    for (uid, count) in [("asked", 1), ("all", 3), ("default", 2), ("implicit", 2)] {
        assert_eq!(shards_with(&cluster, 3, uid).await.len(), count, "{uid}");
    }
    assert!(ids(&api, "implicit").await.into_iter().eq(0..50));
    for (sharding, words) in [
        (
            json!({"shardCount": 4}),
            "4 shards were asked for, and there are 3",
        ),
        (
            json!({"replicationFactor": 2}),
            "2 replicas a shard were asked for",
        ),
        (json!({"shardCount": 0}), "counts start from 1"),
        (json!({"strategy": "astrology"}), "unknown strategy"),
        (json!({"shards": 1}), "unknown field"),
    ] {
        let refused = api
            .post("/indexes", &json!({"uid": "no", "sharding": sharding}))
            .await
            .unwrap();
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(refused.text.contains(words), "{}", refused.text);
    }
    assert!(shards_with(&cluster, 3, "no").await.is_empty());
}

#[tokio::test]
async fn indexes_on_different_shards_can_be_swapped_and_renamed() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    // Two indexes on one shard each, which differ, and an index on all shards.
    let mut places: BTreeMap<u16, String> = BTreeMap::new();
    for n in 0..12 {
        let uid = format!("tenant-{n}");
        create(
            &api,
            &json!({"uid": uid, "primaryKey": "id", "sharding": {"shardCount": 1}}),
        )
        .await;
        let at = shards_with(&cluster, 3, &uid).await;
        places.entry(at[0]).or_insert(uid);
    }
    let mut names = places.into_iter();
    let ((here, one), (there, two)) = (names.next().unwrap(), names.next().unwrap());
    create(&api, &json!({"uid": "wide", "primaryKey": "id"})).await;
    for (uid, range) in [
        (one.as_str(), 0..10),
        (two.as_str(), 10..20),
        ("wide", 20..80),
    ] {
        let path = format!("/indexes/{uid}/documents");
        let accepted = api.post(&path, &documents(range)).await.unwrap();
        api.succeed(&accepted).await.unwrap();
    }
    let accepted = api
        .post("/swap-indexes", &json!([{"indexes": [one, two]}]))
        .await
        .unwrap();
    // A write that is sent right after the swap goes to the new shards.
    let late = api
        .post(&format!("/indexes/{one}/documents"), &documents(100..110))
        .await
        .unwrap();
    let task = api.succeed(&accepted).await.unwrap();
    assert_eq!(
        task["details"],
        json!({"swaps": [{"indexes": [one, two], "rename": false}]})
    );
    api.succeed(&late).await.unwrap();
    assert_eq!(shards_with(&cluster, 3, &one).await, [there]);
    assert_eq!(shards_with(&cluster, 3, &two).await, [here]);
    assert!(
        ids(&api, &one)
            .await
            .into_iter()
            .eq((10..20).chain(100..110))
    );
    assert!(ids(&api, &two).await.into_iter().eq(0..10));
    let accepted = api
        .post("/swap-indexes", &json!([{"indexes": ["wide", two]}]))
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    assert_eq!(ids(&api, &two).await, (20..80).collect::<Vec<_>>());
    assert!(ids(&api, "wide").await.into_iter().eq(0..10));
    // A new name is valid as soon as the change is accepted.
    let accepted = api
        .json(
            reqwest::Method::PATCH,
            "/indexes/wide",
            &json!({"uid": "renamed"}),
        )
        .await
        .unwrap();
    let late = api
        .post("/indexes/renamed/documents", &documents(200..210))
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    api.succeed(&late).await.unwrap();
    assert!(
        ids(&api, "renamed")
            .await
            .into_iter()
            .eq((0..10).chain(200..210))
    );
    assert_eq!(api.get("/indexes/wide").await.unwrap().status, 404);
    let accepted = api
        .json(
            reqwest::Method::PATCH,
            "/indexes/renamed",
            &json!({"uid": "wide"}),
        )
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    let accepted = api
        .post(
            "/indexes/wide/documents/delete-batch",
            &json!((200..210).collect::<Vec<u64>>()),
        )
        .await
        .unwrap();
    api.succeed(&accepted).await.unwrap();
    // A swap with a missing index fails as on a node, and changes nothing.
    let accepted = api
        .post("/swap-indexes", &json!([{"indexes": ["wide", "ghost"]}]))
        .await
        .unwrap();
    let task = api.settle(&accepted).await.unwrap();
    assert_eq!(task["error"]["code"], "index_not_found", "{task}");
    assert!(ids(&api, "wide").await.into_iter().eq(0..10));
}

/// A seeded generator (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Several writers, each with its own ids, while another client deletes and creates the index.
///
/// In the end, all shards have the index or none has, and documents that were written after the acknowledgement of the last
/// deletion exist.
#[tokio::test]
async fn an_index_is_complete_whatever_happens_during_its_deletion() {
    let seed = std::env::var("WEFT_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(17);
    eprintln!("seed {seed}");
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    for round in 0..6_u64 {
        let uid = format!("race-{round}");
        create(&api, &json!({"uid": uid, "primaryKey": "id"})).await;
        let writers =
            (0..3_u64).map(|writer| write(&api, &uid, writer, Random(seed + round * 10 + writer)));
        let writers = futures_util::future::join_all(writers);
        let (_, last) = tokio::join!(writers, disturb(&api, &uid, Random(seed * 31 + round)));
        let last_deletion = api.settle(&last).await.unwrap();
        // These are sent after the last deletion was acknowledged, so they must exist, and the index on all shards.
        let big = api
            .post(
                &format!("/indexes/{uid}/documents?primaryKey=id"),
                &documents(900_000..900_090),
            )
            .await
            .unwrap();
        let small = api
            .post(
                &format!("/indexes/{uid}/documents"),
                &documents(800_000..800_001),
            )
            .await
            .unwrap();
        api.succeed(&big).await.unwrap();
        api.succeed(&small).await.unwrap();
        let held: BTreeSet<u64> = ids(&api, &uid).await.into_iter().collect();
        let expected: BTreeSet<u64> = (900_000..900_090).chain([800_000]).collect();
        let missing: Vec<_> = expected.difference(&held).collect();
        assert!(
            missing.is_empty(),
            "seed {seed}, round {round}: {missing:?} are gone; {last_deletion}"
        );
        assert_eq!(
            shards_with(&cluster, 3, &uid).await,
            [0, 1, 2],
            "seed {seed}, round {round}"
        );
        // After another deletion, the index exists on no shard.
        let accepted = api.delete(&format!("/indexes/{uid}")).await.unwrap();
        api.succeed(&accepted).await.unwrap();
        let left = shards_with(&cluster, 3, &uid).await;
        assert!(
            left.is_empty(),
            "seed {seed}, round {round}: still on {left:?}"
        );
        assert_eq!(
            api.get(&format!("/indexes/{uid}")).await.unwrap().status,
            404
        );
    }
}

/// Writes single documents, which go directly to their shard or together with others, and batches for all shards.
async fn write(api: &Api, uid: &str, writer: u64, mut random: Random) {
    let mut accepted = Vec::new();
    for step in 0..25 {
        let first = writer * 10_000 + step * 100;
        let count = if random.below(3) == 0 { 60 } else { 1 };
        let key = if random.below(2) == 0 {
            "?primaryKey=id"
        } else {
            ""
        };
        let path = format!("/indexes/{uid}/documents{key}");
        let reply = api
            .post(&path, &documents(first..first + count))
            .await
            .unwrap();
        assert!([202, 503].contains(&reply.status), "{}", reply.text);
        if reply.status == 202 {
            accepted.push(reply);
        }
    }
    for reply in accepted {
        api.settle(&reply).await.unwrap();
    }
}

/// Deletes and creates the index, and changes its settings. The last request is a deletion, whose answer is returned.
async fn disturb(api: &Api, uid: &str, mut random: Random) -> weft_cluster::Reply {
    for _ in 0..6 {
        let settings = format!("/indexes/{uid}/settings/sortable-attributes");
        let _ = match random.below(3) {
            0 => {
                api.post("/indexes", &json!({"uid": uid, "primaryKey": "id"}))
                    .await
            }
            1 => {
                api.json(reqwest::Method::PUT, &settings, &json!(["group"]))
                    .await
            }
            _ => api.delete(&format!("/indexes/{uid}")).await,
        }
        .unwrap();
    }
    let path = format!("/indexes/{uid}");
    loop {
        let last = api.delete(&path).await.unwrap();
        // Only an accepted deletion is the last one; the index may be missing at the moment.
        if last.status == 202 {
            return last;
        }
    }
}
