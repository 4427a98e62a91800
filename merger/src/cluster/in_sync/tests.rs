use super::*;
use crate::store::RedbStore;

fn node(name: &str) -> NodeId {
    NodeId::from(name.to_owned())
}

fn topology(shards: &[&[&str]]) -> Topology {
    let clusters: Vec<_> = shards
        .iter()
        .enumerate()
        .map(|(number, nodes)| {
            let hosts: Vec<_> = nodes
                .iter()
                .map(|name| {
                    serde_json::json!({"hostname": name, "address":
                        {"socket_address": {"address": "127.0.0.1", "port_value": 7700}}})
                })
                .collect();
            serde_json::json!({"name": format!("shard-{number}"), "host_statuses": hosts})
        })
        .collect();
    let json = serde_json::json!({"cluster_statuses": clusters}).to_string();
    Topology::from_envoy(json.as_bytes(), &weft_routing::ShardNames::default()).unwrap()
}

async fn open(path: &std::path::Path) -> InSync {
    InSync::open(Arc::new(RedbStore::open(path).unwrap()))
        .await
        .unwrap()
}

#[tokio::test]
async fn the_last_replica_in_sync_is_never_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let in_sync = open(&path).await;
    in_sync.admit(&topology(&[&["a", "b"]])).await.unwrap();
    assert!(in_sync.holds(&node("a")) && in_sync.holds(&node("b")));
    let before = in_sync.epoch();
    assert_eq!(
        in_sync.remove_replica(&node("a"), "x").await.unwrap(),
        Removal::Removed
    );
    assert_eq!(
        in_sync.remove_replica(&node("a"), "x").await.unwrap(),
        Removal::AlreadyOut
    );
    assert_eq!(
        in_sync.remove_replica(&node("b"), "x").await.unwrap(),
        Removal::RefusedLast
    );
    assert_eq!(
        in_sync.drain(&node("b")).await.unwrap(),
        Removal::RefusedLast
    );
    assert_eq!(in_sync.epoch(), before + 1);
    drop(in_sync);
    let in_sync = open(&path).await;
    assert!(!in_sync.holds(&node("a")) && in_sync.holds(&node("b")));
    in_sync
        .bring_back(&node("a"), Some(4.into()), &Marks::unknown())
        .await
        .unwrap();
    let incarnations: Vec<u32> = in_sync
        .known()
        .iter()
        .map(|known| known.incarnation)
        .collect();
    assert_eq!(incarnations.iter().max(), Some(&1), "it began anew");
    assert_eq!(
        in_sync.remove_replica(&node("b"), "x").await.unwrap(),
        Removal::Removed
    );
}

#[tokio::test]
async fn who_is_new_beside_others_or_was_away_catches_up_first() {
    let folder = tempfile::tempdir().unwrap();
    let in_sync = open(&folder.path().join("weft.redb")).await;
    in_sync
        .admit(&topology(&[&["a"], &["x", "y"]]))
        .await
        .unwrap();
    in_sync
        .admit(&topology(&[&["a", "b"], &["x"]]))
        .await
        .unwrap();
    assert!(in_sync.holds(&node("a")) && !in_sync.holds(&node("b")));
    assert!(in_sync.holds(&node("x")) && !in_sync.holds(&node("y")));
    // No other replica is left that holds the acknowledged writes, so the nodes' states stay as they were.
    in_sync.admit(&topology(&[&[], &["x"]])).await.unwrap();
    assert!(in_sync.holds(&node("a")));
}

#[tokio::test]
async fn a_drained_node_stays_out_until_it_is_resumed_and_has_caught_up() {
    let folder = tempfile::tempdir().unwrap();
    let in_sync = open(&folder.path().join("weft.redb")).await;
    in_sync.admit(&topology(&[&["a", "b"]])).await.unwrap();
    assert_eq!(in_sync.drain(&node("a")).await.unwrap(), Removal::Removed);
    in_sync
        .bring_back(&node("a"), None, &Marks::unknown())
        .await
        .unwrap();
    assert!(
        !in_sync.holds(&node("a")),
        "a resync under way does not undo the drain"
    );
    in_sync.resume(&node("a")).await.unwrap();
    assert!(matches!(
        in_sync.sync_state(&node("a")),
        Some(SyncState::Out { .. })
    ));
    in_sync
        .bring_back(&node("a"), None, &Marks::unknown())
        .await
        .unwrap();
    assert!(in_sync.holds(&node("a")));
}
