use std::sync::Arc;

use weft_routing::{
    BodyFacts, BodyFormat, Decision, DocumentId, Epoch, Facts, Held, IndexRoute, Needs, Policy,
    RoutingTable, ShardId, SlotMap, classify, decide, decide_by_body, needs,
};

use super::test;

const POLICY: Policy = Policy {
    body_routing: true,
    max_body_bytes: 65_536,
};
const SMALL_JSON: BodyFacts = BodyFacts {
    format: Some(BodyFormat::Json),
    encoded: false,
    length: Some(100),
};

/// `wide`: on three shards; `tiny`: all on shard 2; both with direct writes. `held`: like `wide`, but for the merger only.
fn table() -> RoutingTable {
    let wide = Arc::new(SlotMap::deal(&[ShardId(0), ShardId(1), ShardId(2)]).unwrap());
    let writable = |slots: Arc<SlotMap>| IndexRoute {
        primary_key: Some("id".to_owned()),
        direct_writes: true,
        ..IndexRoute::new(slots)
    };
    let held = IndexRoute {
        direct_reads: false,
        ..IndexRoute::new(Arc::clone(&wide))
    };
    let indexes = [
        ("wide".to_owned(), writable(wide)),
        (
            "tiny".to_owned(),
            writable(Arc::new(SlotMap::single(ShardId(2)))),
        ),
        ("held".to_owned(), held),
    ];
    RoutingTable {
        epoch: Epoch(1),
        origins: weft_routing::Origins::Any,
        lease_ms: 1000,
        indexes: indexes.into_iter().collect(),
    }
}

/// The decision, as one word.
fn verdict(method: &str, path: &str, change: impl Fn(&mut BodyFacts, &mut Policy)) -> String {
    let table = table();
    let (mut body, mut policy) = (SMALL_JSON, POLICY);
    change(&mut body, &mut policy);
    word(decide(
        &classify(method, path).unwrap(),
        Some(&table),
        Facts {
            body,
            ..Facts::default()
        },
        policy,
    ))
}

fn word(decision: Decision) -> String {
    match decision {
        Decision::DirectRead(shard) => format!("read {shard}"),
        Decision::DirectWrite(shard) => format!("write {shard}"),
        Decision::LookAtBody(..) => "look".to_owned(),
        Decision::Merge => "merge".to_owned(),
        Decision::Refuse => "refuse".to_owned(),
    }
}

fn plainly(method: &str, path: &str) -> String {
    verdict(method, path, |_, _| {})
}

fn owner(id: &str) -> ShardId {
    table()
        .get("wide")
        .unwrap()
        .slots
        .shard_of(&DocumentId::from_text(id).unwrap())
        .unwrap()
}

#[test]
fn a_document_is_read_and_deleted_at_its_owner() {
    for id in ["1", "2", "3", "abc", "%34%32"] {
        let plain = id.replace("%34%32", "42");
        let path = format!("/indexes/wide/documents/{id}");
        assert_eq!(plainly("GET", &path), format!("read {}", owner(&plain)));
        assert_eq!(plainly("DELETE", &path), format!("write {}", owner(&plain)));
    }
}

#[test]
fn odd_ids_and_odd_indexes_are_the_mergers() {
    assert_eq!(plainly("GET", "/indexes/wide/documents/a%20b"), "merge");
    assert_eq!(plainly("DELETE", "/indexes/wide/documents/1?x=y"), "merge");
    assert_eq!(plainly("GET", "/indexes/nosuch/documents/1"), "merge");
    assert_eq!(plainly("GET", "/indexes/held/documents/1"), "merge");
    assert_eq!(plainly("DELETE", "/indexes/held/documents/1"), "merge");
}

#[test]
fn reads_of_a_single_shard_index_go_there_if_the_shard_answers_as_the_cluster_would() {
    let path = |rest: &str| format!("/indexes/tiny{rest}");
    for (method, rest) in [
        ("POST", "/search"),
        ("GET", "/search?q=a"),
        ("POST", "/facet-search"),
        ("GET", "/similar"),
        ("POST", "/similar"),
        ("GET", "/documents"),
        ("POST", "/documents/fetch"),
        ("GET", "/documents/1"),
        ("GET", "/settings"),
        ("GET", "/settings/synonyms"),
        ("POST", "/fields"),
    ] {
        assert_eq!(plainly(method, &path(rest)), "read 2", "{method} {rest}");
        let wide = format!("/indexes/wide{rest}");
        let expected = if rest == "/documents/1" {
            format!("read {}", owner("1"))
        } else {
            "merge".to_owned()
        };
        assert_eq!(plainly(method, &wide), expected, "{method} {rest}");
    }
    for (method, rest) in [
        ("GET", ""),
        ("GET", "/stats"),
        ("DELETE", "/documents"),
        ("POST", "/documents/delete"),
        ("POST", "/documents/edit"),
        ("PATCH", "/settings"),
        ("PUT", "/settings/synonyms"),
        ("DELETE", ""),
        ("PATCH", ""),
        ("POST", "/compact"),
        ("GET", "/_shards"),
    ] {
        assert_eq!(plainly(method, &path(rest)), "merge", "{method} {rest}");
    }
}

#[test]
fn what_names_no_index_is_the_mergers() {
    for (method, path) in [
        ("POST", "/multi-search"),
        ("GET", "/tasks"),
        ("GET", "/health"),
        ("POST", "/indexes"),
        ("POST", "/swap-indexes"),
        ("GET", "/keys"),
        ("GET", "/_cluster/health"),
    ] {
        assert_eq!(plainly(method, path), "merge", "{method} {path}");
    }
    assert_eq!(plainly("GET", "/_weft/table"), "refuse");
}

#[test]
fn bodies_are_looked_at_only_if_small_plain_and_allowed() {
    let post = |change: &dyn Fn(&mut BodyFacts, &mut Policy)| {
        verdict("POST", "/indexes/wide/documents", change)
    };
    assert_eq!(post(&|_, _| {}), "look");
    assert_eq!(post(&|body, _| body.length = Some(65_536)), "look");
    assert_eq!(post(&|body, _| body.length = None), "look");
    assert_eq!(
        post(&|body, _| body.format = Some(BodyFormat::NdJson)),
        "look"
    );
    assert_eq!(post(&|body, _| body.length = Some(65_537)), "merge");
    assert_eq!(post(&|body, _| body.length = Some(0)), "merge");
    assert_eq!(post(&|body, _| body.encoded = true), "merge");
    assert_eq!(post(&|body, _| body.format = None), "merge");
    assert_eq!(post(&|_, policy| policy.body_routing = false), "merge");
    let held = |_: &mut BodyFacts, policy: &mut Policy| policy.body_routing = false;
    let delete = verdict("DELETE", "/indexes/wide/documents/1", held);
    assert_eq!(delete, "merge", "its answer would have to be held");
    assert_eq!(plainly("PUT", "/indexes/wide/documents"), "look");
    assert_eq!(
        plainly("POST", "/indexes/wide/documents/delete-batch"),
        "look"
    );
    assert_eq!(plainly("POST", "/indexes/held/documents"), "merge");
    assert_eq!(plainly("POST", "/indexes/nosuch/documents"), "merge");
}

#[test]
fn a_direct_writes_query_may_only_repeat_the_primary_key() {
    let query = |query: &str| plainly("POST", &format!("/indexes/wide/documents?{query}"));
    assert_eq!(query(""), "look");
    assert_eq!(query("primaryKey=id"), "look");
    for other in [
        "primaryKey=other",
        "primaryKey=id&x=1",
        "skipCreation=true",
        "csvDelimiter=,",
    ] {
        assert_eq!(query(other), "merge", "{other}");
    }
}

#[test]
fn without_a_valid_table_or_with_special_wishes_the_merger_does_it() {
    let table = table();
    for (method, path) in [
        ("GET", "/indexes/wide/documents/1"),
        ("POST", "/indexes/tiny/search"),
    ] {
        let classified = classify(method, path).unwrap();
        let facts = Facts {
            body: SMALL_JSON,
            ..Facts::default()
        };
        let stale = decide(&classified, None, facts, POLICY);
        assert_eq!(word(stale), "merge");
        let facts = Facts {
            special: true,
            ..facts
        };
        let special = decide(&classified, Some(&table), facts, POLICY);
        assert_eq!(word(special), "merge");
    }
    let internal = classify("GET", "/_weft/table").unwrap();
    assert_eq!(
        decide(&internal, None, Facts::default(), POLICY),
        Decision::Refuse
    );
}

#[test]
fn a_body_of_one_shard_is_written_there() {
    let table = table();
    let route = table.get("wide").unwrap();
    let by_body = |operation, body: &[u8]| {
        let held = Held {
            operation,
            index: "wide",
            format: BodyFormat::Json,
            authorization: None,
        };
        word(decide_by_body(&held, route, body))
    };
    use weft_routing::Operation::{DeleteDocumentsBatch, ReplaceDocuments};
    assert_eq!(
        by_body(ReplaceDocuments, b"{\"id\":1}"),
        format!("write {}", owner("1"))
    );
    assert_eq!(
        by_body(DeleteDocumentsBatch, b"[\"1\"]"),
        format!("write {}", owner("1"))
    );
    let all: Vec<String> = (0..50).map(|id| format!("{{\"id\":{id}}}")).collect();
    let all = format!("[{}]", all.join(","));
    assert_eq!(by_body(ReplaceDocuments, all.as_bytes()), "merge");
    assert_eq!(by_body(ReplaceDocuments, b"oops"), "merge");
}

/// Some facts that lead to different decisions.
fn many_facts() -> Vec<Facts<'static>> {
    let bodies = [
        SMALL_JSON,
        BodyFacts::default(),
        BodyFacts {
            encoded: true,
            ..SMALL_JSON
        },
        BodyFacts {
            length: Some(65_537),
            ..SMALL_JSON
        },
    ];
    let facts = bodies.into_iter().flat_map(|body| {
        let keys = [None, Some("Bearer key"), Some("Bearer a.b.c")];
        keys.into_iter().flat_map(move |authorization| {
            [false, true].map(|special| Facts {
                special,
                body,
                authorization,
            })
        })
    });
    facts.collect()
}

#[test]
fn a_decision_depends_on_no_more_facts_than_it_says() {
    let mut table = table();
    let shards = [ShardId(0), ShardId(1), ShardId(2)];
    let by_field = SlotMap::deal_by(&"field:tenant".parse().unwrap(), &shards).unwrap();
    let by_field = IndexRoute::new(Arc::new(by_field));
    table.indexes.insert("tenants".to_owned(), by_field);
    let rests = [
        "",
        "/search",
        "/search?filter=tenant%20%3D%2042",
        "/documents",
        "/documents/1",
        "/documents/a%20b",
        "/documents/delete-batch",
        "/documents/fetch",
        "/settings",
        "/stats",
    ];
    let mut seen = [0; 3];
    for index in ["wide", "tiny", "held", "tenants", "nosuch"] {
        for rest in rests {
            for method in ["GET", "POST", "PUT", "DELETE"] {
                let path = format!("/indexes/{index}{rest}");
                let Ok(classified) = classify(method, &path) else {
                    continue;
                };
                for table in [Some(&table), None] {
                    let needs = needs(&classified, table);
                    for facts in many_facts() {
                        let found = match needs {
                            Needs::Nothing => Facts::default(),
                            Needs::Special => Facts {
                                special: facts.special,
                                ..Facts::default()
                            },
                            Needs::All => facts,
                        };
                        assert_eq!(
                            decide(&classified, table, found, POLICY),
                            decide(&classified, table, facts, POLICY),
                            "{method} {path} {needs:?} {facts:?}"
                        );
                    }
                    seen[needs as usize] += 1;
                }
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
    // What is asked most often needs no more than the few headers of Weft's own.
    for path in ["/indexes/wide/documents/1", "/indexes/tiny/search"] {
        let classified = classify("GET", path).unwrap();
        assert_eq!(needs(&classified, Some(&table)), Needs::Special, "{path}");
    }
    let merged = classify("POST", "/indexes/wide/search").unwrap();
    assert_eq!(needs(&merged, Some(&table)), Needs::Nothing);
}
