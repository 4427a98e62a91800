//! What the filter sends to one shard without the merger is what the merger would pass on to the same shard as it came.

use proptest::prelude::*;
use weft_routing::{
    BodyFacts, BodyFormat, Decision, Facts, Held, IndexRoute, Policy, RoutingTable, decide,
    decide_by_body,
};

use super::*;

fn slots(strategy: &str) -> Arc<SlotMap> {
    let shards: Vec<ShardId> = (0..4).map(ShardId).collect();
    Arc::new(SlotMap::deal_by(&strategy.parse().unwrap(), &shards).unwrap())
}

/// The shard to which the filter sends a call, if it does.
fn directly(call: &Call, body: &str, slots: &Arc<SlotMap>) -> Option<ShardId> {
    let mut table = RoutingTable::default();
    let mut route = IndexRoute::new(Arc::clone(slots));
    route.primary_key = Some("id".to_owned());
    table.indexes.insert("x".to_owned(), route.clone());
    let authorization = call.header("authorization");
    let facts = Facts {
        special: false,
        body: BodyFacts {
            format: call
                .header("content-type")
                .and_then(BodyFormat::of_content_type),
            encoded: false,
            length: None,
        },
        authorization,
    };
    let policy = Policy {
        body_routing: true,
        max_body_bytes: 1 << 16,
    };
    let classified = classify(call.method.as_str(), &call.path_and_query).unwrap();
    let decision = match decide(&classified, Some(&table), facts, policy) {
        Decision::LookAtBody(format) => {
            let held = Held {
                operation: classified.operation,
                index: "x",
                format,
                authorization,
            };
            decide_by_body(&held, &route, body.as_bytes())
        }
        decision => decision,
    };
    match decision {
        Decision::DirectRead(shard) => Some(shard),
        Decision::Merge => None,
        other => panic!("{other:?}"),
    }
}

fn condition() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "tenant = acme", "tenant = ' ACME'", "tenant = bolt", "tenant = 42", "tenant = 42.0",
            "tenant IN [acme]", "tenant IN [acme, bolt, 42]", "tenant IN []", "tenant > b", "tenant = ''",
        ]),
        2 => prop::sample::select(vec![
            "group = 1", "group != 1", "tenant != acme", "tenant EXISTS", "id = 7", "", "NOT tenant = acme",
            "_geoRadius(1, 2, 3)", "tenant = 'a\\'", "group = '!='",
        ]),
    ]
    .prop_map(str::to_owned)
}

fn text() -> impl Strategy<Value = String> {
    condition().prop_recursive(3, 8, 2, |inner| {
        (
            inner.clone(),
            prop::sample::select(vec!["AND", "AND", "OR"]),
            inner,
        )
            .prop_map(|(one, word, two)| format!("({one}) {word} {two}"))
    })
}

fn filter() -> impl Strategy<Value = Value> {
    let inner = prop_oneof![
        4 => text().prop_map(Value::from),
        1 => prop::collection::vec(text(), 0..3).prop_map(Value::from),
        1 => Just(json!({"a": "!="})),
    ];
    prop_oneof![
        4 => text().prop_map(Value::from),
        2 => prop::collection::vec(inner, 0..3).prop_map(Value::from),
        1 => prop::sample::select(vec![json!(null), json!(7), json!({})]),
    ]
}

/// Parameters as a body has them; some of them no node would take.
fn parameters() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let more = prop::sample::select(vec![
        ("q", json!("amber")),
        ("q", json!(" ")),
        ("limit", json!(3)),
        ("facets", json!(["*"])),
        ("sort", json!(["order:asc"])),
        ("distinct", json!("group")),
        ("attributesToSearchOn", json!(["name"])),
        ("attributesToSearchOn", json!(null)),
        ("matchingStrategy", json!("frequency")),
        ("matchingStrategy", json!("all")),
        ("matchingStrategy", json!(7)),
        ("showRankingScore", json!(true)),
        ("rankingScoreThreshold", json!(0.5)),
        ("vector", json!([0.5, 1])),
        ("unknown", json!({"filter": "tenant = bolt"})),
    ]);
    (
        prop::option::weighted(0.9, filter()),
        prop::collection::vec(more, 0..3),
    )
        .prop_map(|(filter, mut more)| {
            more.extend(filter.map(|filter| ("filter", filter)));
            more
        })
}

fn authorization() -> impl Strategy<Value = Option<String>> {
    let rules = prop_oneof![
        Just(json!(["*"])),
        Just(json!({"y": {"filter": "group != 1"}, "x": null})),
        filter().prop_map(|filter| json!({"x": {"filter": filter}})),
        filter().prop_map(|filter| json!({"*": {"filter": filter}})),
    ];
    let token = rules.prop_map(|rules| {
        let payload = json!({"searchRules": rules}).to_string();
        format!("Bearer e30.{}.s", BASE64_URL_SAFE_NO_PAD.encode(payload))
    });
    prop_oneof![
        3 => Just(None),
        1 => Just(Some("Bearer key".to_owned())),
        2 => token.prop_map(Some),
    ]
}

fn query_of(parameters: &[(&str, Value)]) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let pairs = parameters.iter().map(|(name, value)| (*name, text(value)));
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_direct_search_is_one_that_the_merger_passes_on(
        parameters in parameters(),
        authorization in authorization(),
        by_post in any::<bool>(),
        strategy in prop::sample::select(vec!["field:tenant", "field:tenant", "field:tenant", "hash", "range:5,10,15"]),
    ) {
        let slots = slots(strategy);
        let placement = Placement { slots: Arc::clone(&slots), ..four() };
        let (mut call, body) = match by_post {
            true => {
                let body: serde_json::Map<String, Value> =
                    parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
                (call("POST", "/indexes/x/search"), Value::from(body).to_string())
            }
            false => {
                let path = format!("/indexes/x/search?{}", query_of(&parameters));
                (call("GET", &path), String::new())
            }
        };
        if let Some(authorization) = &authorization {
            let value = authorization.parse().unwrap();
            call.headers.insert(http::header::AUTHORIZATION, value);
        }
        let direct = directly(&call, &body, &slots);
        let passed_on = match in_one_index(&call, body.as_bytes(), &placement) {
            Some(Read::Whole(shard)) => Some(shard),
            _ => None,
        };
        if strategy == "field:tenant" {
            // Parameters that come twice are judged by the merger alone.
            let twice = !by_post && ["filter", "attributesToSearchOn", "matchingStrategy"]
                .iter()
                .any(|name| parameters.iter().filter(|(known, _)| known == name).count() > 1);
            if direct.is_some() || !twice {
                prop_assert_eq!(direct, passed_on, "{:?} {}", call.path_and_query, body);
            }
        } else {
            prop_assert_eq!(direct, None);
        }
    }
}

#[test]
fn the_filter_and_the_merger_send_a_tenants_search_to_the_same_shard() {
    let slots = slots("field:tenant");
    let placement = Placement {
        slots: Arc::clone(&slots),
        ..four()
    };
    for (body, is_direct) in [
        (r#"{"filter":"tenant = acme"}"#, true),
        (
            r#"{"filter":["tenant = acme",["group = 1"]],"q":"a","sort":["a:asc"]}"#,
            true,
        ),
        (r#"{"filter":"tenant = acme AND group != 1"}"#, false),
    ] {
        let call = call("POST", "/indexes/x/search");
        let direct = directly(&call, body, &slots);
        assert_eq!(direct.is_some(), is_direct, "{body}");
        let merged = told(in_one_index(&call, body.as_bytes(), &placement));
        let expected = match direct {
            Some(shard) => format!("whole on {shard}"),
            None => "search on 0 1 2 3".to_owned(),
        };
        assert_eq!(merged, expected, "{body}");
    }
}
