//! The API keys that every instance has from the start, and what may happen to them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use weft_cluster::{Api, Cluster, Deadline, Layout, PortBlock, until};

use crate::support::{MASTER_KEY, documents, node, start};

const SHARDS: u16 = 2;

/// All keys that a node or a cluster lists: uid → value.
async fn keys(api: &Api) -> BTreeMap<String, String> {
    let list = api.get("/keys?limit=1000").await.unwrap();
    assert_eq!(list.status, 200, "{}", list.text);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let results = list.at("/results").as_array().unwrap();
    results
        .iter()
        .map(|key| (text(&key["uid"]), text(&key["key"])))
        .collect()
}

/// Waits until every node lists the same keys as the cluster, and returns them.
async fn same_everywhere(cluster: &Cluster, master_key: &str) -> BTreeMap<String, String> {
    let api = Api::new(cluster.url(), Some(master_key));
    let deadline = Deadline::after(Duration::from_secs(20));
    until("the same keys everywhere", deadline, || async {
        let wanted = keys(&api).await;
        for shard in 0..SHARDS {
            let node = Api::new(cluster.node_url(shard, 0), Some(master_key));
            let held = keys(&node).await;
            if held != wanted {
                return Err(format!("shard-{shard} has {held:?}, not {wanted:?}"));
            }
        }
        Ok(())
    })
    .await
    .unwrap();
    keys(&api).await
}

/// The uid and value of the default key that may only search.
async fn search_key(api: &Api) -> (String, String) {
    let list = api.get("/keys?limit=1000").await.unwrap();
    let key = list.at("/results").as_array().unwrap().iter();
    let key = key
        .clone()
        .find(|key| key["actions"] == json!(["search"]))
        .unwrap_or_else(|| panic!("{}", list.text));
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    (text("uid"), text("key"))
}

async fn search(api: &Api, key: &str) -> u16 {
    let api = api.with_key(Some(key));
    let answer = api.post("/indexes/x/search", &json!({"q": "amber"})).await;
    answer.unwrap().status
}

async fn fill(api: &Api) {
    let path = "/indexes/x/documents?primaryKey=id";
    let accepted = api.post(path, &documents(0..20)).await.unwrap();
    api.succeed(&accepted).await.unwrap();
}

#[tokio::test]
async fn a_deleted_default_key_comes_back_on_no_node() {
    let (cluster, api) = start(Cluster::builder().shards(SHARDS)).await;
    fill(&api).await;
    let before = same_everywhere(&cluster, MASTER_KEY).await;
    let (uid, value) = search_key(&api).await;
    assert_eq!(search(&api, &value).await, 200);
    let deleted = api.delete(&format!("/keys/{uid}")).await.unwrap();
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    assert_eq!(search(&api, &value).await, 403);

    // Neither a restarted merger nor a restarted node creates it again.
    cluster.merger().kill().unwrap();
    cluster.merger().restart().unwrap();
    cluster.node(1, 0).kill().unwrap();
    cluster.node(1, 0).restart().unwrap();
    cluster.wait_ready().await.unwrap();
    let after = same_everywhere(&cluster, MASTER_KEY).await;
    assert!(!after.contains_key(&uid), "{after:?}");
    assert_eq!(after.len(), before.len() - 1);
    assert_eq!(search(&api, &value).await, 403);
    for shard in 0..SHARDS {
        assert_eq!(search(&node(&cluster, shard), &value).await, 403);
    }
}

#[tokio::test]
async fn a_new_master_key_gives_every_key_a_new_value_that_is_the_same_on_all_nodes() {
    const NEXT_KEY: &str = "another-master-key-for-tests";
    let folder = tempfile::tempdir().unwrap();
    let ports = PortBlock::claim(Layout::new(1, SHARDS, 1).unwrap().width()).unwrap();
    let builder = || {
        Cluster::builder()
            .shards(SHARDS)
            .at(ports.base(), folder.path())
    };
    let (cluster, api) = start(builder()).await;
    fill(&api).await;
    let own = json!({"name": "own", "actions": ["search"], "indexes": ["x"], "expiresAt": null});
    let own = api.post("/keys", &own).await.unwrap();
    assert_eq!(own.status, 201, "{}", own.text);
    let before = same_everywhere(&cluster, MASTER_KEY).await;
    drop(cluster);

    let cluster = builder().master_key(NEXT_KEY).start().await.unwrap();
    let api = Api::new(cluster.url(), Some(NEXT_KEY));
    let after = same_everywhere(&cluster, NEXT_KEY).await;
    let uids = |keys: &BTreeMap<String, String>| keys.keys().cloned().collect::<Vec<_>>();
    assert_eq!(uids(&after), uids(&before));
    for (uid, value) in &after {
        assert_ne!(Some(value), before.get(uid));
    }
    let uid = own.at("/uid").as_str().unwrap();
    assert_eq!(search(&api, &before[uid]).await, 403);
    assert_eq!(search(&api, &after[uid]).await, 200);
    let old_master = Api::new(cluster.url(), Some(MASTER_KEY));
    assert_eq!(old_master.get("/keys").await.unwrap().status, 403);
    // Documents that were written before still exist.
    let found = api.get("/indexes/x/stats").await.unwrap();
    assert_eq!(found.at("/numberOfDocuments"), 20, "{}", found.text);
}

/// Creates keys, a few at the same time.
async fn make_keys(api: &Api, uids: &[String]) {
    for some in uids.chunks(8) {
        let made = some.iter().map(|uid| async move {
            let key = json!({"uid": uid, "name": uid, "actions": ["documents.add", "search", "tasks.get"],
                "indexes": ["x"], "expiresAt": null});
            let made = api.post("/keys", &key).await.unwrap();
            assert_eq!(made.status, 201, "{}", made.text);
        });
        futures_util::future::join_all(made).await;
    }
}

async fn total(api: &Api) -> u64 {
    let list = api.get("/keys?limit=1").await.unwrap();
    list.at("/total").as_u64().unwrap()
}

#[tokio::test]
async fn more_than_a_thousand_keys_all_work_and_none_is_deleted() {
    const MANY: u64 = 1_100;
    let (cluster, api) = start(Cluster::builder().shards(SHARDS)).await;
    fill(&api).await;
    let before = u64::try_from(same_everywhere(&cluster, MASTER_KEY).await.len()).unwrap();
    // The same keys in opposite orders, as after a resync.
    let uids: Vec<String> = (0..MANY)
        .map(|number| format!("00000000-0000-4000-8000-{number:012}"))
        .collect();
    let reversed: Vec<String> = uids.iter().rev().cloned().collect();
    let (first, second) = (node(&cluster, 0), node(&cluster, 1));
    // The merger must not compare the nodes' keys before both have all of them.
    cluster.merger().kill().unwrap();
    tokio::join!(make_keys(&first, &uids), make_keys(&second, &reversed));
    cluster.merger().restart().unwrap();
    cluster.wait_ready().await.unwrap();
    // The oldest key of each node can write, and so can one in the middle.
    for uid in [&uids[0], &uids[600], &uids[1_099]] {
        let key = api.get(&format!("/keys/{uid}")).await.unwrap();
        let value = key.at("/key").as_str().unwrap().to_owned();
        let client = api.with_key(Some(&value));
        let path = "/indexes/x/documents";
        let accepted = client.post(path, &documents(0..2)).await.unwrap();
        assert_eq!(accepted.status, 202, "{}", accepted.text);
        client.succeed(&accepted).await.unwrap();
        assert_eq!(search(&api, &value).await, 200);
        // A deleted key is refused immediately, everywhere.
        if *uid == uids[600] {
            let deleted = api.delete(&format!("/keys/{uid}")).await.unwrap();
            assert_eq!(deleted.status, 204, "{}", deleted.text);
            let refused = client.post(path, &documents(0..2)).await.unwrap();
            assert_eq!(refused.status, 403, "{}", refused.text);
        }
    }
    // Once a name that was changed by hand is corrected, all keys have been compared.
    let path = format!("/keys/{}", uids[3]);
    let name = json!({"name": "by hand"});
    let changed = second.json(reqwest::Method::PATCH, &path, &name).await;
    assert_eq!(changed.unwrap().status, 200);
    let deadline = Deadline::after(Duration::from_secs(120));
    until("the keys compared", deadline, || async {
        let key = second.get(&path).await.map_err(|error| error.to_string())?;
        match key.at("/name") == uids[3].as_str() {
            true => Ok(()),
            false => Err(key.text),
        }
    })
    .await
    .unwrap();
    for api in [&api, &first, &second] {
        assert_eq!(total(api).await, before + MANY - 1);
    }
}
