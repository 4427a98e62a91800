//! Searches of an index by field that one shard answers.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use weft_routing::{
    BodyFacts, BodyFormat, Decision, Facts, Held, IndexRoute, Policy, RoutingTable, RoutingValue,
    ShardId, SlotMap, Strategy, classify, decide, decide_by_body,
};

use super::{Random, test};

const POLICY: Policy = Policy {
    body_routing: true,
    max_body_bytes: 65_536,
};
const JSON: BodyFacts = BodyFacts {
    format: Some(BodyFormat::Json),
    encoded: false,
    length: Some(100),
};

fn slots(strategy: &str) -> Arc<SlotMap> {
    let strategy: Strategy = strategy.parse().unwrap();
    let shards: Vec<ShardId> = (0..5).map(ShardId).collect();
    Arc::new(SlotMap::deal_by(&strategy, &shards).unwrap())
}

/// `x` by field; `moving` as well, but its slots are being moved; `hashed` and `ranged` by their ids.
fn table() -> RoutingTable {
    let mut table = RoutingTable::default();
    for (uid, strategy, direct_reads) in [
        ("x", "field:tenant", true),
        ("moving", "field:tenant", false),
        ("hashed", "hash", true),
        ("ranged", "range:1000,2000,3000,4000", true),
    ] {
        let route = IndexRoute {
            primary_key: Some("id".to_owned()),
            direct_reads,
            ..IndexRoute::new(slots(strategy))
        };
        table.indexes.insert(uid.to_owned(), route);
    }
    table
}

fn home(tenant: &str) -> ShardId {
    let value = RoutingValue::from_text(tenant).unwrap();
    slots("field:tenant").shard_of_value(&value)
}

fn facts(authorization: Option<&str>) -> Facts<'_> {
    Facts {
        special: false,
        body: JSON,
        authorization,
    }
}

fn encoded(query: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish()
}

fn get(index: &str, query: &[(&str, &str)], authorization: Option<&str>) -> Decision {
    let path = format!("/indexes/{index}/search?{}", encoded(query));
    let classified = classify("GET", &path).unwrap();
    decide(&classified, Some(&table()), facts(authorization), POLICY)
}

fn post(index: &str, body: &str, authorization: Option<&str>) -> Decision {
    let table = table();
    let path = format!("/indexes/{index}/search");
    let classified = classify("POST", &path).unwrap();
    match decide(&classified, Some(&table), facts(authorization), POLICY) {
        Decision::LookAtBody(format) => {
            let held = Held {
                operation: classified.operation,
                index,
                format,
                authorization,
            };
            decide_by_body(&held, table.get(index).unwrap(), body.as_bytes())
        }
        decision => decision,
    }
}

fn token(rules: &Value) -> String {
    let payload = json!({"searchRules": rules, "apiKeyUid": "u"}).to_string();
    format!("Bearer e30.{}.s", BASE64_URL_SAFE_NO_PAD.encode(payload))
}

#[test]
fn a_tenants_search_goes_to_its_shard() {
    let acme = Decision::DirectRead(home("acme"));
    for filter in [
        "tenant = acme",
        "tenant='ACME '",
        "tenant = acme AND group = 3",
        "(group = 1 OR group = 2) AND tenant IN [acme]",
        "NOT group = 1 AND tenant = acme AND mark EXISTS",
        r#"["group = 1", "tenant = acme"]"#,
        r#"[["tenant = acme", "tenant = Acme"], "group = 1"]"#,
    ] {
        let query = [("q", "a b"), ("filter", filter), ("limit", "3")];
        assert_eq!(get("x", &query, None), acme, "{filter}");
        let json = serde_json::from_str(filter).unwrap_or_else(|_| json!(filter));
        let body = json!({"q": "a", "filter": json, "facets": ["*"], "vector": [0.5, 1]});
        assert_eq!(post("x", &body.to_string(), None), acme, "{filter}");
    }
    let number = Decision::DirectRead(home("42"));
    assert_eq!(get("x", &[("filter", "tenant = 42")], None), number);
    assert_eq!(post("x", r#"{"filter":"tenant = '42'"}"#, None), number);
    // A text may be written so, too, which is another value.
    assert_eq!(
        post("x", r#"{"filter":"tenant = 42.0"}"#, None),
        Decision::Merge
    );
}

#[test]
fn everything_else_is_the_mergers() {
    let filter = ("filter", "tenant = acme");
    for query in [
        vec![],
        vec![("q", "acme")],
        vec![("filter", "group = 1")],
        vec![("filter", "tenant != acme")],
        vec![("filter", "NOT tenant = acme")],
        vec![("filter", "tenant = acme OR group = 1")],
        vec![("filter", "tenant IN [a, b, c, d, e, f, g, h]")],
        vec![("filter", "tenant > acme")],
        vec![("filter", "tenant = acme AND tenant = bolt")],
        vec![("filter", "tenant = acme AND group != 1")],
        vec![("filter", "tenant = 'acme")],
        vec![("filter", "id = 1")],
        vec![filter, ("attributesToSearchOn", "name")],
        vec![filter, ("matchingStrategy", "frequency")],
        vec![filter, filter],
    ] {
        assert_eq!(get("x", &query, None), Decision::Merge, "{query:?}");
    }
    for body in [
        "",
        "{",
        "[]",
        r#"["tenant = acme", null, null]"#,
        r#"{"filter":null}"#,
        r#"{"filter":7}"#,
        r#"{"filter":{"tenant":"acme"}}"#,
        r#"{"filter":[["tenant = acme", "group = 1"]]}"#,
        r#"{"filter":["tenant = acme", "group != 1"]}"#,
        r#"{"filter":"tenant = acme","attributesToSearchOn":["name"]}"#,
        r#"{"filter":"tenant = acme","matchingStrategy":"frequency"}"#,
        r#"{"filter":"tenant = acme","filter":"tenant = bolt"}"#,
    ] {
        assert_eq!(post("x", body, None), Decision::Merge, "{body}");
    }
    // By ids it depends on the name of the primary key, which may have changed a moment ago.
    for index in ["hashed", "ranged"] {
        assert_eq!(get(index, &[("filter", "id = 1")], None), Decision::Merge);
        assert_eq!(post(index, r#"{"filter":"id = 1"}"#, None), Decision::Merge);
    }
    assert_eq!(get("moving", &[filter], None), Decision::Merge);
    let body = r#"{"filter":"tenant = acme"}"#;
    assert_eq!(post("moving", body, None), Decision::Merge);
}

#[test]
fn a_filter_that_takes_long_to_judge_is_the_mergers() {
    let filter = |values: usize| {
        let values = vec!["acme"; values].join(",");
        json!({"filter": format!("tenant IN [{values}]")}).to_string()
    };
    assert_eq!(
        post("x", &filter(800), None),
        Decision::DirectRead(home("acme"))
    );
    assert_eq!(post("x", &filter(900), None), Decision::Merge);
}

#[test]
fn the_body_of_a_search_is_looked_at_only_where_it_may_tell() {
    let table = table();
    let look = |index: &str, change: &dyn Fn(&mut Facts<'_>, &mut Policy)| {
        let (mut facts, mut policy) = (facts(None), POLICY);
        change(&mut facts, &mut policy);
        let path = format!("/indexes/{index}/search");
        let classified = classify("POST", &path).unwrap();
        decide(&classified, Some(&table), facts, policy) == Decision::LookAtBody(BodyFormat::Json)
    };
    assert!(look("x", &|_, _| {}));
    assert!(look("x", &|facts, _| facts.body.length = None));
    assert!(!look("hashed", &|_, _| {}));
    assert!(!look("ranged", &|_, _| {}));
    assert!(!look("moving", &|_, _| {}));
    assert!(!look("x", &|_, policy| policy.body_routing = false));
    assert!(!look("x", &|facts, _| facts.special = true));
    assert!(!look("x", &|facts, _| facts.body.encoded = true));
    assert!(!look("x", &|facts, _| facts.body.length = Some(65_537)));
    assert!(!look("x", &|facts, _| facts.body.length = Some(0)));
    assert!(!look("x", &|facts, _| facts.body.format = None));
    let lines = Some(BodyFormat::NdJson);
    assert!(!look("x", &|facts, _| facts.body.format = lines));
}

#[test]
fn a_tenant_tokens_filter_counts() {
    let acme = Decision::DirectRead(home("acme"));
    let bare = |rules: &Value| {
        let token = token(rules);
        let (get, post) = (get("x", &[], Some(&token)), post("x", "{}", Some(&token)));
        assert_eq!(get, post);
        get
    };
    assert_eq!(bare(&json!({"x": {"filter": "tenant = acme"}})), acme);
    assert_eq!(bare(&json!({"*": {"filter": ["tenant = acme"]}})), acme);
    assert_eq!(
        bare(&json!({"*": {"filter": "tenant = acme"}, "x": {}})),
        Decision::Merge
    );
    assert_eq!(
        bare(&json!({"y": {"filter": "tenant = acme"}})),
        Decision::Merge
    );
    assert_eq!(bare(&json!(["x"])), Decision::Merge);
    let own = |rules: &Value, filter: &str| {
        let body = json!({"filter": filter}).to_string();
        post("x", &body, Some(&token(rules)))
    };
    assert_eq!(own(&json!(["x"]), "tenant = acme"), acme);
    assert_eq!(
        own(&json!({"x": {"filter": "group = 1"}}), "tenant = acme"),
        acme
    );
    let narrower = json!({"x": {"filter": "tenant = acme AND group = 1"}});
    assert_eq!(own(&narrower, "tenant IN [acme, a, b, c, d, e, f]"), acme);
    // A rule that doesn't mean the same on every shard, of whatever index.
    for rules in [
        json!({"x": {"filter": "group != 1"}}),
        json!({"x": {}, "y": {"filter": "group != 1"}}),
    ] {
        assert_eq!(own(&rules, "tenant = acme"), Decision::Merge, "{rules}");
    }
    let body = r#"{"filter":"tenant = acme"}"#;
    assert_eq!(post("x", body, Some("Bearer a.b.c")), Decision::Merge);
    assert_eq!(post("x", body, Some("Bearer a-key")), acme);
}

/// A filter, and whether it matches a document of a tenant and a group.
type Judged = (String, Box<dyn Fn(&str, u64) -> bool>);

fn filter(random: &mut Random, depth: u64) -> Judged {
    const TENANTS: [&str; 6] = ["acme", "bolt", "cite", "42", "dune", "ember"];
    let tenant = |random: &mut Random| {
        let place = usize::try_from(random.below(6)).unwrap();
        TENANTS[place]
    };
    match random.below(if depth == 0 { 4 } else { 8 }) {
        0 | 1 => {
            let one = tenant(random);
            let written = match random.below(3) {
                0 => one.to_owned(),
                1 => format!("'{}'", one.to_uppercase()),
                _ => format!("\" {one}\""),
            };
            (
                format!("tenant = {written}"),
                Box::new(move |tenant, _| tenant == one),
            )
        }
        2 => {
            let some: Vec<&str> = (0..random.below(3)).map(|_| tenant(random)).collect();
            (
                format!("tenant IN [{}]", some.join(", ")),
                Box::new(move |tenant, _| some.contains(&tenant)),
            )
        }
        3 => {
            let one = random.below(3);
            (
                format!("group = {one}"),
                Box::new(move |_, group| group == one),
            )
        }
        4 => {
            let (text, holds) = filter(random, depth - 1);
            (
                format!("NOT ({text})"),
                Box::new(move |tenant, group| !holds(tenant, group)),
            )
        }
        both => {
            let (one, holds_one) = filter(random, depth - 1);
            let (two, holds_two) = filter(random, depth - 1);
            if both == 7 {
                return (
                    format!("({one} OR {two})"),
                    Box::new(move |tenant, group| {
                        holds_one(tenant, group) || holds_two(tenant, group)
                    }),
                );
            }
            (
                format!("({one} AND {two})"),
                Box::new(move |tenant, group| holds_one(tenant, group) && holds_two(tenant, group)),
            )
        }
    }
}

#[test]
fn whatever_a_search_on_one_shard_can_match_lies_there() {
    let mut random = Random(42);
    let mut direct = 0;
    for _ in 0..4000 {
        let (own, holds_own) = filter(&mut random, 3);
        let (rule, holds_rule) = filter(&mut random, 1);
        let rules = token(&json!({"x": {"filter": rule}}));
        let authorization = (random.below(2) == 0).then_some(rules.as_str());
        let body = json!({"filter": own}).to_string();
        let decision = post("x", &body, authorization);
        assert_eq!(get("x", &[("filter", &own)], authorization), decision);
        let Decision::DirectRead(shard) = decision else {
            assert_eq!(decision, Decision::Merge);
            continue;
        };
        direct += 1;
        for tenant in ["acme", "bolt", "cite", "42", "dune", "ember"] {
            for group in 0..3 {
                let holds = holds_own(tenant, group)
                    && (authorization.is_none() || holds_rule(tenant, group));
                let is_there = home(tenant) == shard;
                assert!(!holds || is_there, "{own} and {rule}: {tenant} isn't there");
            }
        }
    }
    assert!(direct > 1000, "{direct} of 4000 were sent to one shard");
}
