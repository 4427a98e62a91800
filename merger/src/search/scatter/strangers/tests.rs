use std::collections::BTreeSet;

use http::Method;
use serde_json::json;
use weft_routing::placement::{ShardId, SlotMap};
use weft_routing::strategy::Change;

use super::*;

const SHARD: ShardId = ShardId(0);

fn placement(uid: &str) -> Arc<Placement> {
    let slots = SlotMap::deal(&[SHARD, ShardId(1)]).unwrap();
    let mut placement = Placement::new(uid, Arc::new(slots), None);
    placement.primary_key = Some("id".to_owned());
    placement.unsettled = BTreeSet::from([SHARD]);
    Arc::new(placement)
}

fn is_own(id: u64) -> bool {
    let id = id.to_string();
    let id = DocumentId::from_text(&id).unwrap();
    placement("x").slots.shard_of(&id) == Some(SHARD)
}

fn ask(path: &str, body: Value) -> Ask {
    Ask {
        shard: SHARD,
        method: Method::POST,
        path_and_query: path.to_owned(),
        body: Some(body.to_string().into()),
    }
}

fn strange<'a>(
    ask: &'a Ask,
    operation: Operation,
    lists: Vec<(Option<&str>, Wanted)>,
) -> Strange<'a> {
    let indexes = [("x".to_owned(), placement("x"))].into_iter().collect();
    let list = |(index, wanted): (Option<&str>, Wanted)| List {
        wanted,
        by_page: false,
        index: index.map(str::to_owned),
    };
    Strange {
        ask,
        operation,
        indexes,
        lists: lists.into_iter().map(list).collect(),
        more: std::iter::repeat_with(More::default).take(2).collect(),
    }
}

#[test]
fn while_the_strategy_changes_both_the_id_and_the_value_tell_whose_a_hit_is() {
    let shards = [SHARD, ShardId(1)];
    let map = |strategy: &str| {
        let strategy = strategy.parse().unwrap();
        Arc::new(SlotMap::deal_by(&strategy, &shards).unwrap())
    };
    let change = Change::new(map("hash"), map("field:tenant")).unwrap();
    let begun = SlotMap::begun(&Arc::new(change));
    // What goes from the first shard to the second one has arrived.
    let pair: Vec<_> = (1_024..2_048).map(weft_routing::slot::Slot).collect();
    let slots = Arc::new(begun.with_owner_of_all(&pair, ShardId(1)));
    let placement = Arc::new(Placement {
        slots: Arc::clone(&slots),
        ..Placement::clone(&placement("x"))
    });
    let wanted = Wanted { skip: 0, take: 100 };
    let body = json!({"limit": 100, "attributesToRetrieve": ["t"]});
    let ask = ask("/indexes/x/search", body.clone());
    let carrier = Carrier::from_body(body.to_string().as_bytes()).unwrap();
    let more = More::of(&carrier, &placement, "attributesToRetrieve").unwrap();
    assert_eq!(more.names, ["id", "tenant"]);
    let mut strange = strange(&ask, Operation::SearchPost, vec![(Some("x"), wanted)]);
    strange.indexes.insert("x".to_owned(), placement);
    strange.more = vec![more];
    let hit = |id: u64| json!({"id": id, "tenant": id % 9, "t": id});
    let body = json!({"hits": (0..60).map(hit).collect::<Vec<_>>(), "estimatedTotalHits": 60});
    let owned = strange.without(body.to_string().as_bytes(), 0).unwrap();
    let left: Value = serde_json::from_slice(&owned.body).unwrap();
    let is_own = |id: &u64| {
        let (id, tenant) = (id.to_string(), (id % 9).to_string());
        let id = DocumentId::from_text(&id).unwrap();
        let tenant = RoutingValue::from_text(&tenant).unwrap();
        slots.shard_of_document(&id, Some(&tenant)) == Some(SHARD)
    };
    let own: Vec<Value> = (0..60).filter(is_own).map(|id| json!({"t": id})).collect();
    assert!((5..45).contains(&own.len()), "{own:?}");
    assert_eq!(left["hits"], json!(own));
}

fn hits(ids: impl IntoIterator<Item = u64>) -> Vec<Value> {
    let hit = |id| json!({"id": id, "t": "a \"b\" [c]"});
    ids.into_iter().map(hit).collect()
}

#[test]
fn only_own_hits_are_left_as_many_as_were_asked_for() {
    let wanted = Wanted { skip: 1, take: 3 };
    let ask = ask(
        "/indexes/x/search",
        json!({"offset": 1, "limit": 3, "q": "a"}),
    );
    let strange = strange(&ask, Operation::SearchPost, vec![(Some("x"), wanted)]);
    let wider: Value = serde_json::from_slice(&strange.wider(0).unwrap().body.unwrap()).unwrap();
    assert_eq!(wider, json!({"offset": 0, "limit": 9, "q": "a"}));
    let body = json!({"hits": hits(0..9), "query": "a", "estimatedTotalHits": 100});
    let owned = strange.without(body.to_string().as_bytes(), 0).unwrap();
    assert_eq!(owned.lacks, 0);
    let left: Value = serde_json::from_slice(&owned.body).unwrap();
    let own: Vec<u64> = (0..9).filter(|id| is_own(*id)).collect();
    assert!((4..9).contains(&own.len()), "{own:?}");
    assert_eq!(left["hits"], json!(hits(own[1..4].iter().copied())));
    assert_eq!(left["estimatedTotalHits"], 100 - (9 - own.len()));
    assert_eq!(left["query"], "a");
    // A full list with too few of its own is not enough.
    let others: Vec<u64> = (0..100).filter(|id| !is_own(*id)).take(9).collect();
    let body = json!({"hits": hits(others.iter().copied()), "estimatedTotalHits": 100});
    let owned = strange.without(body.to_string().as_bytes(), 0).unwrap();
    assert_eq!(owned.lacks, 4);
    let body = json!({"hits": hits(others[..8].iter().copied()), "estimatedTotalHits": 8});
    let owned = strange.without(body.to_string().as_bytes(), 0).unwrap();
    let left: Value = serde_json::from_slice(&owned.body).unwrap();
    assert_eq!(
        (owned.lacks, &left),
        (0, &json!({"hits": [], "estimatedTotalHits": 0}))
    );
}

#[test]
fn each_list_of_several_keeps_its_own_hits() {
    let wanted = Wanted { skip: 0, take: 20 };
    let queries = json!({"queries": [{"indexUid": "y"}, {"indexUid": "x"}]});
    let ask = ask("/multi-search", queries);
    let strange = strange(
        &ask,
        Operation::MultiSearch,
        vec![(Some("y"), wanted), (Some("x"), wanted)],
    );
    let wider: Value = serde_json::from_slice(&strange.wider(0).unwrap().body.unwrap()).unwrap();
    assert_eq!(wider["queries"][0], json!({"indexUid": "y"}));
    assert_eq!(wider["queries"][1]["limit"], 29);
    let result = |uid: &str| json!({"indexUid": uid, "hits": hits(0..6), "totalHits": 6});
    let body = json!({"results": [result("y"), result("x")]}).to_string();
    let owned = strange.without(body.as_bytes(), 0).unwrap();
    let left: Value = serde_json::from_slice(&owned.body).unwrap();
    assert_eq!(left["results"][0], result("y"));
    let own = hits((0..6).filter(|id| is_own(*id)));
    assert_eq!(left["results"][1]["totalHits"], own.len());
    assert_eq!(left["results"][1]["hits"], json!(own));
}

#[test]
fn a_list_is_read_as_far_as_the_client_wants_but_not_from_far_beyond() {
    for (skip, is_read) in [(0, true), (10_000, true), (10_001, false)] {
        let wanted = Wanted {
            skip,
            take: 100_000,
        };
        let ask = ask("/indexes/x/documents/fetch", json!({"limit": 100_000}));
        let strange = strange(&ask, Operation::FetchDocuments, vec![(Some("x"), wanted)]);
        assert_eq!(strange.wider(0).is_some(), is_read, "{skip}");
    }
}

#[test]
fn hits_of_a_federation_are_told_by_their_index() {
    let wanted = Wanted { skip: 0, take: 20 };
    let federation = json!({"federation": {}, "queries": [{"indexUid": "y"}, {"indexUid": "x"}]});
    let ask = ask("/multi-search", federation);
    let strange = strange(&ask, Operation::MultiSearch, vec![(None, wanted)]);
    let wider: Value = serde_json::from_slice(&strange.wider(0).unwrap().body.unwrap()).unwrap();
    assert_eq!(wider["federation"], json!({"offset": 0, "limit": 29}));
    let note = |uid: &str, id: u64| json!({"id": id, "_federation": {"indexUid": uid}});
    let all: Vec<Value> = (0..6)
        .flat_map(|id| [note("y", id), note("x", id)])
        .collect();
    let body = json!({"hits": all, "estimatedTotalHits": 12}).to_string();
    let owned = strange.without(body.as_bytes(), 0).unwrap();
    let left: Value = serde_json::from_slice(&owned.body).unwrap();
    let kept =
        |hit: &Value| hit["_federation"]["indexUid"] == "y" || is_own(hit["id"].as_u64().unwrap());
    let expected: Vec<Value> = all.into_iter().filter(kept).collect();
    assert_eq!(left["hits"], json!(expected));
}
