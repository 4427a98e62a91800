//! An index goes from one strategy to another while clients write and search.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, ClusterBuilder, Deadline, Single, until};

use super::asked;
use super::by_field::moving::{DOCUMENTS, search, write};
use super::by_field::{
    assert_alike, assert_together, by_tenant, create, document, held, read_all, tenant_of,
};
use crate::backups::done;
use crate::support::{MASTER_KEY, documents, ids, node, start};

const PATH: &str = "/indexes/x/documents";

/// A cluster whose filters hear soon of a new table, and whose batches are small.
fn cluster(shards: u16) -> ClusterBuilder {
    let builder = Cluster::builder().shards(shards).replicas(1);
    let builder = builder.merger_env("WEFT_LEASE_MS", "1000");
    builder.merger_env("WEFT_MOVE_BATCH", "100")
}

/// Fills the index `x` with documents of several tenants.
async fn fill(api: &Api, count: u64) {
    let all: Value = (0..count).map(|id| document(id, &tenant_of(id))).collect();
    let added = api.post(PATH, &all).await.unwrap();
    api.succeed(&added).await.unwrap();
}

/// An index `x` by hash that can be filtered by its order, too.
async fn create_with_order(api: &Api) {
    create(api, "x", None).await;
    let settings = json!({"filterableAttributes": ["id", "tenant", "group", "mark", "order"]});
    let set = api.json(Method::PATCH, "/indexes/x/settings", &settings);
    api.succeed(&set.await.unwrap()).await.unwrap();
}

/// Asks for a strategy, and returns the answer.
async fn ask_for(api: &Api, sharding: &Value) -> weft_cluster::Reply {
    let body = json!({"sharding": sharding});
    api.json(Method::PATCH, "/indexes/x", &body).await.unwrap()
}

async fn change_to(api: &Api, sharding: &Value) {
    let taken = ask_for(api, sharding).await;
    api.succeed(&taken).await.unwrap();
}

async fn lies(api: &Api) -> Value {
    let lies = api.get("/indexes/x/_shards").await.unwrap();
    assert_eq!(lies.status, 200, "{}", lies.text);
    lies.body
}

/// Waits until what `is_so` says of the index is so.
async fn until_lies(api: &Api, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    until(what, Deadline::after(Duration::from_secs(120)), || async {
        let Ok(lies) = api.get("/indexes/x/_shards").await else {
            return Err("no answer".to_owned());
        };
        match lies.status == 200 && is_so(&lies.body) {
            true => Ok(lies.body),
            false => Err(lies.text),
        }
    })
    .await
    .unwrap()
}

/// Waits until no change of strategy is under way.
async fn until_changed(api: &Api) -> Value {
    let is_over = |lies: &Value| lies["change"].is_null() && lies["unsettled"] == json!([]);
    until_lies(api, "the change is over", is_over).await
}

/// Slows moves down, so that a change takes a while.
async fn slow_down(api: &Api, bytes_per_second: Value) {
    let slow = json!({"bytesPerSecond": bytes_per_second});
    let set = api.json(Method::PATCH, "/_cluster/moves", &slow).await;
    assert_eq!(set.unwrap().status, 200);
}

/// What each shard holds of the index.
async fn on_each(cluster: &Cluster, shards: u16) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for shard in 0..shards {
        let held = held(&node(cluster, shard), "x").await;
        found.push(held.into_keys().collect());
    }
    found
}

#[tokio::test]
async fn an_index_comes_to_lie_by_tenant_while_clients_write_and_search() {
    let (cluster, api) = start(cluster(3)).await;
    create_with_order(&api).await;
    fill(&api, DOCUMENTS).await;
    let of_acme = json!({"filter": "tenant = acme"});
    assert_eq!(asked(&api, "/indexes/x/search", &of_acme).await.len(), 3);
    let stop = Arc::new(AtomicBool::new(false));
    let searcher = tokio::spawn(search(api.clone(), Arc::clone(&stop)));
    let writer = tokio::spawn(write(api.clone(), Arc::clone(&stop)));
    let by_tenant = json!({"strategy": "field", "field": "tenant"});
    change_to(&api, &by_tenant).await;
    let begun = lies(&api).await;
    assert_eq!(begun["change"]["to"], by_tenant, "{begun}");
    assert_eq!(begun["change"]["from"], json!({"strategy": "hash"}));
    let changed = until_changed(&api).await;
    stop.store(true, Ordering::Relaxed);
    let mut wanted = writer.await.unwrap();
    assert!(searcher.await.unwrap() > 13, "searches went on");
    assert_eq!(changed["changeError"], Value::Null, "{changed}");
    assert_eq!(changed["field"], "tenant", "{changed}");
    let last = document(2_000, &json!("acme"));
    let added = api.post(PATH, &json!([last])).await.unwrap();
    api.succeed(&added).await.unwrap();
    wanted.insert("2000".to_owned(), last);
    let failed = api.get("/tasks?statuses=failed").await.unwrap();
    assert_eq!(failed.at("/total"), 0, "{}", failed.text);
    wanted.extend((0..500).map(|id| (id.to_string(), document(id, &tenant_of(id)))));
    assert_eq!(held(&api, "x").await, wanted);
    assert_together(&cluster, "x", 3).await;
    // One node with the same documents says the same.
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let single = Api::new(single.url(), Some(MASTER_KEY));
    create_with_order(&single).await;
    let all: Value = wanted.into_values().collect();
    let added = single.post(PATH, &all).await.unwrap();
    single.succeed(&added).await.unwrap();
    let (ours, theirs) = (read_all(&api, "x").await, read_all(&single, "x").await);
    assert_alike("x", &ours, &theirs);
    assert_eq!(asked(&api, "/indexes/x/search", &of_acme).await.len(), 1);
}

#[tokio::test]
async fn the_newest_range_is_split_and_what_lies_in_the_others_stays() {
    let (cluster, api) = start(cluster(3)).await;
    let by_range = |ranges: Value| json!({"strategy": "range", "ranges": ranges});
    let sharding = by_range(json!([500, 1000]));
    create(&api, "x", Some(&sharding)).await;
    let added = api.post(PATH, &documents(0..1_600)).await.unwrap();
    api.succeed(&added).await.unwrap();
    let held_by = async |shard: u16| ids(&node(&cluster, shard), "x").await;
    assert_eq!(held_by(2).await, (1_000..1_600).collect::<Vec<_>>());
    let split = by_range(json!([500, 1000, 1300]));
    change_to(&api, &split).await;
    let changed = until_changed(&api).await;
    assert_eq!(changed["ranges"], split["ranges"], "{changed}");
    let each = [held_by(0).await, held_by(1).await, held_by(2).await];
    let count: usize = each.iter().map(Vec::len).sum();
    assert_eq!(count, 1_600, "no document is on two shards");
    for (shard, first) in [(0, 0), (1, 500)] {
        let old: Vec<u64> = each[shard]
            .iter()
            .copied()
            .filter(|id| *id < 1_000)
            .collect();
        assert_eq!(old, (first..first + 500).collect::<Vec<_>>());
        let new = each[shard].len() - old.len();
        assert!(
            (40..160).contains(&new),
            "shard {shard} has {new} of the newest"
        );
    }
    let of_old = json!({"filter": "id IN [3, 400]"});
    assert_eq!(asked_by_id(&api, &of_old).await, BTreeSet::from([0]));
    // The same again, and with the boundaries in another spelling, is nothing new.
    let before = api.get("/_cluster/moves").await.unwrap().text;
    change_to(&api, &by_range(json!(["500", 1000, "1300"]))).await;
    assert_eq!(lies(&api).await["change"], Value::Null);
    assert_eq!(api.get("/_cluster/moves").await.unwrap().text, before);
}

async fn asked_by_id(api: &Api, search: &Value) -> BTreeSet<u64> {
    let mut body = search.clone();
    body["limit"] = json!(1_000);
    asked(api, "/indexes/x/search", &body).await
}

#[tokio::test]
async fn an_index_by_tenant_comes_to_lie_by_hash_though_the_merger_dies_again_and_again() {
    let (cluster, api) = start(cluster(3)).await;
    create(&api, "x", Some(&by_tenant(3))).await;
    fill(&api, DOCUMENTS).await;
    slow_down(&api, json!(10_000)).await;
    change_to(&api, &json!({"strategy": "hash"})).await;
    let mut wanted = held(&api, "x").await;
    for pause in [1_100_u64, 700, 1_900] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        cluster.merger().kill().unwrap();
        cluster.merger().restart().unwrap();
        cluster.wait_ready().await.unwrap();
        // Until it is over, a document needs the field by which others still lie.
        let new = document(10_000 + pause, &json!("acme"));
        let added = api.post(PATH, &json!([new])).await.unwrap();
        api.succeed(&added).await.unwrap();
        wanted.insert((10_000 + pause).to_string(), new);
    }
    slow_down(&api, Value::Null).await;
    let changed = until_changed(&api).await;
    assert_eq!(changed["strategy"], "hash", "{changed}");
    assert_eq!(changed["field"], Value::Null, "{changed}");
    let new = json!({"id": 7, "name": "nobody's"});
    let added = api.post(PATH, &json!([new])).await.unwrap();
    api.succeed(&added).await.unwrap();
    wanted.insert("7".to_owned(), new);
    assert_eq!(held(&api, "x").await, wanted);
    let each = on_each(&cluster, 3).await;
    assert_eq!(each.iter().map(Vec::len).sum::<usize>(), wanted.len());
    let share = wanted.len() / 3;
    let even = each
        .iter()
        .all(|one| one.len() > share * 4 / 5 && one.len() < share * 6 / 5);
    assert!(even, "{:?}", each.iter().map(Vec::len).collect::<Vec<_>>());
}

#[tokio::test]
async fn documents_without_the_field_keep_an_index_as_it_is_and_people_are_told_why() {
    let (cluster, api) = start(cluster(3)).await;
    create(&api, "x", None).await;
    fill(&api, 300).await;
    let odd = json!([{"id": 1_000, "name": "birch"}, {"id": 1_001, "tenant": null}, {"id": 1_002, "tenant": 1.5},
        {"id": 1_003, "tenant": ["acme"]}]);
    let added = api.post(PATH, &odd).await.unwrap();
    api.succeed(&added).await.unwrap();
    let before = (held(&api, "x").await, on_each(&cluster, 3).await);
    change_to(&api, &json!({"strategy": "field", "field": "tenant"})).await;
    let left = until_changed(&api).await;
    let error = left["changeError"].as_str().unwrap_or_default();
    assert!(error.starts_with("`100"), "{left}");
    assert!(
        error.contains("` and 3 more documents lack a value of `tenant`"),
        "{left}"
    );
    assert_eq!(left["strategy"], "hash", "{left}");
    assert_eq!(before, (held(&api, "x").await, on_each(&cluster, 3).await));
    let moves = api.get("/_cluster/moves").await.unwrap();
    assert_eq!(moves.at("/moves"), &json!([]), "{}", moves.text);
    // Documents without the field are welcome again.
    let added = api.post(PATH, &json!([{"id": 1_004}])).await.unwrap();
    api.succeed(&added).await.unwrap();
    for id in 1_000..1_005 {
        let gone = api.delete(&format!("{PATH}/{id}")).await.unwrap();
        api.succeed(&gone).await.unwrap();
    }
    change_to(&api, &json!({"strategy": "field", "field": "tenant"})).await;
    let changed = until_changed(&api).await;
    assert_eq!(changed["changeError"], Value::Null, "{changed}");
    assert_eq!(changed["field"], "tenant", "{changed}");
    assert_together(&cluster, "x", 3).await;
}

#[tokio::test]
async fn a_backup_of_a_changing_index_is_whole_and_the_change_goes_on() {
    let (cluster, api) = start(cluster(3)).await;
    create_with_order(&api).await;
    fill(&api, DOCUMENTS).await;
    slow_down(&api, json!(20_000)).await;
    let by_tenant = json!({"strategy": "field", "field": "tenant"});
    change_to(&api, &by_tenant).await;
    let half_way = |lies: &Value| {
        let change = &lies["change"];
        change["stage"] == "moving" && change["progress"].as_f64() > Some(0.0)
    };
    until_lies(&api, "some slots have moved", half_way).await;
    let before = held(&api, "x").await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("b");
    let made = done(&cluster, &["backup"], &folder).await;
    assert_eq!(made["documents"], DOCUMENTS, "{made}");
    let still = lies(&api).await;
    assert_eq!(still["change"]["to"], by_tenant, "not over before: {still}");
    slow_down(&api, Value::Null).await;
    let changed = until_changed(&api).await;
    assert_eq!(changed["changeError"], Value::Null, "{changed}");
    assert_eq!(changed["field"], "tenant", "{changed}");
    assert_together(&cluster, "x", 3).await;
    assert_eq!(held(&api, "x").await, before);

    // All documents had the field when the backup began: so what is restored lies by it.
    let (other, copy) = start(Cluster::builder().shards(2)).await;
    let restored = done(&other, &["restore"], &folder).await;
    assert_eq!(restored["checked"], true, "{restored}");
    let there = lies(&copy).await;
    assert_eq!(there["field"], "tenant", "{there}");
    assert_eq!(held(&copy, "x").await, before);
    assert_together(&other, "x", 2).await;
}

#[tokio::test]
async fn a_change_is_sent_back_by_asking_for_what_was_before_and_nothing_else_comes_between() {
    let (cluster, api) = start(cluster(3)).await;
    create(&api, "x", None).await;
    fill(&api, DOCUMENTS).await;
    let before = on_each(&cluster, 3).await;
    slow_down(&api, json!(6_000)).await;
    let (hash, by_tenant) = (
        json!({"strategy": "hash"}),
        json!({"strategy": "field", "field": "tenant"}),
    );
    change_to(&api, &by_tenant).await;
    let is_half = |lies: &Value| lies["change"]["progress"].as_f64() > Some(0.05);
    until_lies(&api, "something is moved", is_half).await;
    let refused = ask_for(&api, &json!({"strategy": "range", "ranges": [5]})).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert_eq!(
        refused.at("/code"),
        "index_changes_strategy",
        "{}",
        refused.text
    );
    let lacking = json!([{"id": 5_000}]);
    let lacking = api.post(PATH, &lacking).await.unwrap();
    let failed = api.settle(&lacking).await.unwrap();
    assert_eq!(
        failed["error"]["code"], "missing_sharding_field",
        "{failed}"
    );
    let edition = json!({"function": "doc.tenant = 1"});
    let refused = api.post(&format!("{PATH}/edit"), &edition).await.unwrap();
    assert_eq!(refused.status, 400, "{}", refused.text);
    let plan = api.post("/_cluster/rebalance", &json!({})).await.unwrap();
    assert_eq!(plan.at("/changing"), &json!(["x"]), "{}", plan.text);
    // The same once more is nothing new.
    change_to(&api, &by_tenant).await;
    assert_eq!(lies(&api).await["change"]["stage"], "moving");
    change_to(&api, &hash).await;
    assert_eq!(lies(&api).await["change"]["stage"], "going-back");
    slow_down(&api, Value::Null).await;
    let back = until_changed(&api).await;
    assert_eq!(back["strategy"], "hash", "{back}");
    assert_eq!(back["changeError"], Value::Null, "{back}");
    assert_eq!(on_each(&cluster, 3).await, before);
}

#[tokio::test]
async fn an_index_goes_from_one_field_to_another_by_way_of_its_ids() {
    let (cluster, api) = start(cluster(3)).await;
    create(&api, "x", Some(&by_tenant(3))).await;
    fill(&api, 600).await;
    let wanted = held(&api, "x").await;
    let by_group = json!({"strategy": "field", "field": "group"});
    change_to(&api, &by_group).await;
    let begun = lies(&api).await;
    assert_eq!(
        begun["change"]["to"],
        json!({"strategy": "hash"}),
        "{begun}"
    );
    assert_eq!(begun["change"]["then"], by_group, "{begun}");
    let changed = until_changed(&api).await;
    assert_eq!(changed["field"], "group", "{changed}");
    assert_eq!(held(&api, "x").await, wanted);
    let mut homes = std::collections::BTreeMap::new();
    for shard in 0..3 {
        for one in held(&node(&cluster, shard), "x").await.into_values() {
            let home = *homes.entry(one["group"].to_string()).or_insert(shard);
            assert_eq!(home, shard, "{one}");
        }
    }
    // What lacks the last of them is seen before anything is moved.
    let added = api
        .post(PATH, &json!([{"id": 1, "group": 1}]))
        .await
        .unwrap();
    api.succeed(&added).await.unwrap();
    let before = on_each(&cluster, 3).await;
    change_to(&api, &json!({"strategy": "field", "field": "tenant"})).await;
    let left = until_changed(&api).await;
    assert_eq!(left["field"], "group", "{left}");
    let error = left["changeError"].as_str().unwrap_or_default();
    assert!(error.starts_with("`1` lacks a value of `tenant`"), "{left}");
    assert_eq!(on_each(&cluster, 3).await, before);
}

#[tokio::test]
async fn a_changing_index_may_be_swapped_drained_deleted_and_get_fewer_shards() {
    let (cluster, api) = start(cluster(4)).await;
    for uid in ["x", "y"] {
        create(&api, uid, None).await;
    }
    fill(&api, DOCUMENTS).await;
    let wanted = held(&api, "x").await;
    slow_down(&api, json!(6_000)).await;
    change_to(&api, &json!({"strategy": "field", "field": "tenant"})).await;
    let is_begun = |lies: &Value| lies["change"]["progress"].as_f64() > Some(0.02);
    until_lies(&api, "something is moved", is_begun).await;
    for _ in 0..2 {
        let swap = json!([{"indexes": ["x", "y"]}]);
        let swapped = api.post("/swap-indexes", &swap).await.unwrap();
        api.succeed(&swapped).await.unwrap();
    }
    assert_eq!(held(&api, "x").await, wanted);
    let drained = api
        .post("/_cluster/shards/3/drain", &json!({}))
        .await
        .unwrap();
    assert_eq!(drained.status, 202, "{}", drained.text);
    assert_eq!(drained.at("/changing"), &json!(["x"]), "{}", drained.text);
    slow_down(&api, Value::Null).await;
    let changed = until_changed(&api).await;
    assert_eq!(changed["field"], "tenant", "{changed}");
    until(
        "the drained shard is empty",
        Deadline::after(Duration::from_secs(60)),
        || async {
            let shards = api.get("/_cluster/shards").await.unwrap();
            let is_empty = shards.at("/shards/3/removable") == &json!(true);
            is_empty.then_some(()).ok_or(shards.text)
        },
    )
    .await
    .unwrap();
    assert_together(&cluster, "x", 3).await;
    assert_eq!(held(&api, "x").await, wanted);
    // Fewer shards and another strategy in one request.
    let both = json!({"strategy": "hash", "shardCount": 2});
    change_to(&api, &both).await;
    let changed = until_changed(&api).await;
    assert_eq!(changed["shardCount"], 2, "{changed}");
    assert_eq!(changed["strategy"], "hash", "{changed}");
    assert_eq!(held(&api, "x").await, wanted);
    // Deleted in the middle, it leaves nothing, and a new one begins as it is told.
    slow_down(&api, json!(6_000)).await;
    change_to(&api, &json!({"strategy": "field", "field": "tenant"})).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let gone = api.delete("/indexes/x").await.unwrap();
    api.succeed(&gone).await.unwrap();
    create(&api, "x", None).await;
    fill(&api, 60).await;
    let anew = lies(&api).await;
    assert_eq!(anew["strategy"], "hash", "{anew}");
    assert_eq!(anew["change"], Value::Null, "{anew}");
    assert_eq!(held(&api, "x").await.len(), 60);
}

#[tokio::test]
async fn an_index_on_one_shard_gets_another_strategy_without_a_move_and_nonsense_is_refused() {
    let (cluster, api) = start(cluster(2)).await;
    create(&api, "x", Some(&json!({"shardCount": 1}))).await;
    fill(&api, 50).await;
    let before = held(&api, "x").await;
    change_to(&api, &json!({"strategy": "field", "field": "tenant"})).await;
    let changed = until_changed(&api).await;
    assert_eq!(changed["field"], "tenant", "{changed}");
    let moves = api.get("/_cluster/moves").await.unwrap();
    assert_eq!(moves.at("/moves"), &json!([]), "{}", moves.text);
    let lacking = api.post(PATH, &json!([{"id": 1}])).await.unwrap();
    let failed = api.settle(&lacking).await.unwrap();
    assert_eq!(
        failed["error"]["code"], "missing_sharding_field",
        "{failed}"
    );
    assert_eq!(held(&api, "x").await, before);
    for (sharding, words) in [
        (json!({"strategy": "round-robin"}), "unknown strategy"),
        (json!({"strategy": "range"}), "needs `ranges`"),
        (
            json!({"strategy": "range", "ranges": [2, 1]}),
            "isn't larger",
        ),
        (json!({"strategy": "range", "ranges": []}), "at least one"),
        (json!({"strategy": "field"}), "needs `field`"),
        (
            json!({"strategy": "field", "field": "a.b"}),
            "can't be a routing field",
        ),
        (json!({"strategy": "hash", "field": "a"}), "goes with"),
        (json!({"field": "a"}), "goes with"),
        (json!({"ranges": [1]}), "goes with"),
        (json!({"strategy": 7}), "invalid type"),
        (json!({"strategies": "hash"}), "unknown field"),
        (json!({"shardCount": 0}), "counts start from 1"),
        (json!({"shardCount": 3, "strategy": "hash"}), "3 shards"),
    ] {
        let refused = ask_for(&api, &sharding).await;
        assert_eq!(refused.status, 400, "{sharding}: {}", refused.text);
        assert!(refused.text.contains(words), "{sharding}: {}", refused.text);
    }
    let lies = lies(&api).await;
    assert_eq!(lies["field"], "tenant", "{lies}");
    assert_eq!(lies["change"], Value::Null, "{lies}");
    let body = json!({"sharding": {"strategy": "hash"}});
    let unknown = api
        .json(Method::PATCH, "/indexes/none", &body)
        .await
        .unwrap();
    let failed = api.settle(&unknown).await.unwrap();
    assert_eq!(failed["error"]["code"], "index_not_found", "{failed}");
    drop(cluster);
}
