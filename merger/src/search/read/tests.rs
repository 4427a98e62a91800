use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use weft_routing::operation::classify;
use weft_routing::placement::SlotMap;

use super::*;
use crate::call::{ForwardedHeaders, Grant, empty};
use crate::search::settings::MergeSettings;

mod direct;

/// The shard that answers if no other must. No index of these tests lies on it.
const ANYONE: ShardId = ShardId(9);

fn on(shards: &[u16]) -> Placement {
    let shards: Vec<ShardId> = shards.iter().copied().map(ShardId).collect();
    Placement {
        uid: "x".to_owned(),
        slots: Arc::new(SlotMap::deal(&shards).unwrap()),
        primary_key: Some("id".to_owned()),
        deleted_by: None,
        write_mode: None,
        shard_count: None,
        unsettled: std::collections::BTreeSet::new(),
        changing: None,
        change_error: None,
    }
}

fn four() -> Placement {
    on(&[0, 1, 2, 3])
}

fn call(method: &str, path: &str) -> Call {
    let classified = classify(method, path).unwrap();
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    Call {
        operation: classified.operation,
        method: method.parse().unwrap(),
        path_and_query: path.to_owned(),
        index: classified.index.map(|index| index.into_owned()),
        document: classified.document.map(|id| id.into_owned()),
        item: None,
        headers: HeaderMap::from_iter([(http::header::CONTENT_TYPE, json)]),
        grant: Grant::all(),
        rights: None,
        forwarded: ForwardedHeaders::default(),
        peer: None,
        body: empty(),
    }
}

/// What a read is, in words.
fn told(read: Option<Read>) -> String {
    let list = |shards: &[ShardId]| {
        let shards: Vec<String> = shards.iter().map(ShardId::to_string).collect();
        shards.join(" ")
    };
    let shares = |shares: Shares| {
        let share = |(shard, places): &(ShardId, Vec<usize>)| format!("{shard}: {places:?}");
        shares.iter().map(share).collect::<Vec<_>>().join(", ")
    };
    match read.unwrap_or(Read::Whole(ANYONE)) {
        Read::Whole(ANYONE) => "passed on".to_owned(),
        Read::Whole(shard) => format!("whole on {shard}"),
        Read::Search(_, shards) => format!("search on {}", list(&shards)),
        Read::FacetSearch(_, shards) => format!("facet search on {}", list(&shards)),
        Read::Documents(_, shards) => format!("documents on {}", list(&shards)),
        Read::Similar(similar, owner, shards) => {
            let owner = owner.map_or("any".to_owned(), |owner| owner.to_string());
            format!("similar to {} of {owner} on {}", similar.id, list(&shards))
        }
        Read::Document(shards) => format!("document on {}", list(&shards)),
        Read::Several(queries, asked) => format!("{} on {}", queries.len(), shares(asked)),
        Read::Federated(_, asked) => format!("federated on {}", shares(asked)),
    }
}

fn read(method: &str, path: &str, body: &str) -> String {
    told(in_one_index(&call(method, path), body.as_bytes(), &four()))
}

fn post(what: &str, body: &Value) -> String {
    read("POST", &format!("/indexes/x/{what}"), &body.to_string())
}

fn get(what: &str) -> String {
    read("GET", &format!("/indexes/x/{what}"), "")
}

fn owner(id: &str) -> ShardId {
    let id = DocumentId::from_text(id).unwrap();
    four().slots.shard_of(&id).unwrap()
}

const READABLE: [(&str, &str, &str, &str); 9] = [
    ("POST", "search", r#"{"q":"a"}"#, "search on 0 1 2 3"),
    ("GET", "search?q=a&limit=3", "", "search on 0 1 2 3"),
    ("POST", "search", "{}", "search on 0 1 2 3"),
    (
        "POST",
        "facet-search",
        r#"{"facetName":3}"#,
        "facet search on 0 1 2 3",
    ),
    (
        "POST",
        "documents/fetch",
        r#"{"limit":3}"#,
        "documents on 0 1 2 3",
    ),
    (
        "GET",
        "documents?limit=3&sort=a:asc",
        "",
        "documents on 0 1 2 3",
    ),
    ("GET", "documents", "", "documents on 0 1 2 3"),
    ("POST", "fields", "{}", "passed on"),
    ("GET", "documents/a%20b", "", "passed on"),
];

#[test]
fn each_read_that_can_be_read_is_known_for_what_it_is() {
    for (method, what, body, expected) in READABLE {
        let path = format!("/indexes/x/{what}");
        assert_eq!(read(method, &path, body), expected, "{method} {what}");
    }
    let on = owner("7");
    let similar = format!("similar to 7 of {on} on 0 1 2 3");
    let body = json!({"id": 7, "embedder": "e"});
    assert_eq!(post("similar", &body), similar);
    assert_eq!(get("similar?id=7&embedder=e"), similar);
    assert_eq!(get("documents/7?fields=a"), format!("whole on {on}"));
}

#[test]
fn with_one_shard_every_read_goes_there_as_it_came() {
    let similar = ("GET", "similar?id=7&embedder=e", "", "");
    let document = ("GET", "documents/7", "", "");
    for (method, what, body, _) in READABLE.into_iter().chain([similar, document]) {
        let call = call(method, &format!("/indexes/x/{what}"));
        let read = in_one_index(&call, body.as_bytes(), &on(&[5]));
        assert_eq!(told(read), "passed on", "{method} {what}");
    }
}

#[test]
fn what_cannot_be_read_is_passed_on() {
    for (what, body) in [
        ("search", "{"),
        ("search", "[]"),
        ("search", ""),
        ("search", r#"{"limit":-1}"#),
        ("search", r#"{"limit":-1,"filter":"id = 7"}"#),
        ("facet-search", "[]"),
        ("documents/fetch", r#"{"offset":"a"}"#),
        ("documents/fetch", r#"{"sort":["a"]}"#),
        ("similar", r#"{"embedder":"e"}"#),
        ("similar", r#"{"id":7}"#),
        ("similar", r#"{"id":[7],"embedder":"e"}"#),
        // No document can have this id.
        ("similar", r#"{"id":"a b","embedder":"e"}"#),
    ] {
        let path = format!("/indexes/x/{what}");
        assert_eq!(read("POST", &path, body), "passed on", "{what} {body}");
    }
    for what in [
        "search?limit=a",
        "search?showRankingScore=maybe",
        "documents?limit=a",
        "similar?id=7",
        "similar?embedder=e",
        "similar?id=a%20b&embedder=e",
    ] {
        assert_eq!(get(what), "passed on", "{what}");
    }
}

#[test]
fn a_body_that_is_not_said_to_be_json_is_not_read() {
    let mut call = call("POST", "/indexes/x/search");
    let mut read = |kind: Option<&'static str>| {
        call.headers.clear();
        let kind = kind.map(HeaderValue::from_static);
        let kind = kind.map(|kind| (http::header::CONTENT_TYPE, kind));
        call.headers.extend(kind);
        told(in_one_index(&call, b"{}", &four()))
    };
    assert_eq!(read(None), "passed on");
    assert_eq!(read(Some("text/plain")), "passed on");
    assert_eq!(read(Some("application/jsonl")), "passed on");
    assert_eq!(read(Some(" APPLICATION/JSON ;a=b")), "search on 0 1 2 3");
}

#[test]
fn a_filter_by_id_leads_to_the_shards_of_the_documents() {
    let only = format!("whole on {}", owner("7"));
    let search = |body: Value| post("search", &body);
    assert_eq!(search(json!({"filter": "id = 7"})), only);
    assert_eq!(search(json!({"filter": ["a = 1", "id = 7"]})), only);
    assert_eq!(get("search?filter=id+%3D+7"), only);
    assert_eq!(get("search?filter=%5B%22id+%3D+7%22%5D"), only);
    let other = (8..).find(|id: &u32| owner(&id.to_string()) != owner("7"));
    let other = other.unwrap();
    let mut both = [owner("7"), owner(&other.to_string())];
    both.sort_unstable();
    assert_eq!(
        search(json!({"filter": format!("id IN [7, {other}]")})),
        format!("search on {} {}", both[0], both[1])
    );
    let seven = owner("7");
    assert_eq!(
        post(
            "facet-search",
            &json!({"facetName": "a", "filter": "id = 7"})
        ),
        format!("facet search on {seven}")
    );
    assert_eq!(
        post("documents/fetch", &json!({"filter": ["id = 7", "a = 1"]})),
        format!("documents on {seven}")
    );
    assert_eq!(
        get("documents?filter=id+%3D+7"),
        format!("documents on {seven}")
    );
    let similar = json!({"id": 9, "embedder": "e", "filter": "id = 7"});
    let nine = owner("9");
    assert_eq!(
        post("similar", &similar),
        format!("similar to 9 of {nine} on {seven}")
    );
    for body in [
        json!({"filter": "id > 7"}),
        json!({"filter": "id = 7", "matchingStrategy": "frequency"}),
        json!({"filter": null}),
        json!({"filter": 7}),
        // A shard's answer may depend on fields that only other shards know.
        json!({"filter": "id = 7", "attributesToSearchOn": ["a"]}),
        json!({"filter": ["id = 7", "a != 1"]}),
        json!({"filter": ["id = 7", ["b = 1", "a!=1"]]}),
        json!({"filter": ["id = 7", {"a": "!="}]}),
    ] {
        assert_eq!(search(body.clone()), "search on 0 1 2 3", "{body}");
    }
    let without = Placement {
        primary_key: None,
        ..four()
    };
    let call = call("POST", "/indexes/x/search");
    let read = in_one_index(&call, br#"{"filter":"id = 7"}"#, &without);
    assert_eq!(told(read), "search on 0 1 2 3");
}

#[test]
fn a_tenants_filter_may_depend_on_fields_that_only_other_shards_know() {
    let mut call = call("POST", "/indexes/x/search");
    let mut read = |filter: &str| {
        let payload = json!({"searchRules": {"*": {"filter": filter}}}).to_string();
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
        let token = format!("Bearer e30.{payload}.s").parse().unwrap();
        call.headers.insert(http::header::AUTHORIZATION, token);
        told(in_one_index(&call, br#"{"filter":"id = 7"}"#, &four()))
    };
    assert_eq!(read("a = 1"), format!("whole on {}", owner("7")));
    assert_eq!(read("a != 1"), "search on 0 1 2 3");
}

#[test]
fn a_tenants_filter_leads_to_the_shards_of_the_documents_too() {
    let mut call = call("POST", "/indexes/x/search");
    let payload = json!({"searchRules": {"x": {"filter": "id = 7 AND a = 1"}}}).to_string();
    let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
    let token = format!("Bearer e30.{payload}.s").parse().unwrap();
    call.headers.insert(http::header::AUTHORIZATION, token);
    let only = format!("whole on {}", owner("7"));
    for body in [
        json!({}),
        json!({"filter": "b = 2"}),
        json!({"filter": ["b = 2", "id IN [7, 8]"]}),
    ] {
        let read = in_one_index(&call, body.to_string().as_bytes(), &four());
        assert_eq!(told(read), only, "{body}");
    }
}

#[test]
fn a_federated_search_asks_all_queries_of_an_index_on_the_same_shards() {
    let query = |index: &str, shards: &[u16]| {
        let search = named(of(index)).unwrap().1;
        let settings = Arc::new(MergeSettings::default());
        Query {
            shards: shards.iter().copied().map(ShardId).collect(),
            ..Query::new(index.to_owned(), search, None, settings, ANYONE)
        }
    };
    let mut queries = vec![query("a", &[2]), query("b", &[0]), query("a", &[1, 3])];
    ask_alike(&mut queries);
    let asked: Vec<Vec<u16>> = queries
        .iter()
        .map(|query| query.shards.iter().map(|shard| shard.0).collect())
        .collect();
    assert_eq!(asked, [vec![1, 2, 3], vec![0], vec![1, 2, 3]]);
}

/// Several searches: of `wide`, `left` and `right`, and of indexes that the cluster doesn't know.
fn several(body: &Value) -> String {
    let call = call("POST", "/multi-search");
    let read = || {
        let searches = parameters(&call, body.to_string().as_bytes()).and_then(Searches::read)?;
        let planned = |query: Value| {
            let (index, search) = named(query)?;
            let placement = match index.as_str() {
                "wide" => Some(four()),
                "left" => Some(on(&[1])),
                "right" => Some(on(&[2])),
                _ => None,
            };
            let settings = Arc::new(MergeSettings::default());
            let placement = placement.as_ref();
            Some(Query::new(index, search, placement, settings, ANYONE))
        };
        let queries = searches.queries.into_iter().map(planned);
        together(queries.collect::<Option<_>>()?, searches.federation)
    };
    told(read())
}

fn of(index: &str) -> Value {
    json!({"indexUid": index, "q": "a"})
}

#[test]
fn each_shard_is_asked_the_searches_of_the_indexes_that_it_holds() {
    let both = json!([of("left"), of("right"), of("left")]);
    assert_eq!(several(&json!({"queries": both})), "3 on 1: [0, 2], 2: [1]");
    assert_eq!(
        several(&json!({"queries": both, "federation": null})),
        "3 on 1: [0, 2], 2: [1]"
    );
    assert_eq!(
        several(&json!({"queries": both, "federation": {}})),
        "federated on 1: [0, 2], 2: [1]"
    );
    assert_eq!(
        several(&json!({"queries": [of("left"), of("wide")]})),
        "2 on 0: [1], 1: [0, 1], 2: [1], 3: [1]"
    );
    assert_eq!(
        several(&json!({"queries": [of("unknown"), of("left")]})),
        "2 on 1: [1], 9: [0]"
    );
}

#[test]
fn searches_that_one_shard_can_answer_go_there_as_they_came() {
    let left = json!([of("left"), of("left")]);
    for federation in [json!(null), json!({}), json!("none"), json!({"limit": -1})] {
        let body = json!({"queries": left, "federation": federation});
        assert_eq!(several(&body), "whole on 1", "{body}");
    }
    assert_eq!(several(&json!({"queries": []})), "passed on");
    assert_eq!(several(&json!({"queries": [of("unknown")]})), "passed on");
}

#[test]
fn several_searches_that_cannot_be_read_are_passed_on() {
    let both = json!([of("left"), of("right")]);
    let weighed = |weight: Value| {
        let mut query = of("left");
        query["federationOptions"] = json!({"weight": weight});
        json!({"queries": [query, of("right")], "federation": {}})
    };
    assert_ne!(several(&weighed(json!(0.5))), "passed on");
    for body in [
        json!([]),
        json!({}),
        json!({"queries": {}}),
        json!({"queries": both, "other": 1}),
        json!({"queries": [of("left"), of("right"), "wide"]}),
        json!({"queries": [of("left"), of("right"), {"q": "a"}]}),
        json!({"queries": [of("left"), of("right"), {"indexUid": 1}]}),
        json!({"queries": [of("left"), {"indexUid": "right", "limit": -1}]}),
        json!({"queries": both, "federation": "all"}),
        json!({"queries": both, "federation": {"limit": -1}}),
        json!({"queries": both, "federation": {"distinct": 1}}),
        weighed(json!("heavy")),
    ] {
        assert_eq!(several(&body), "passed on", "{body}");
    }
}
