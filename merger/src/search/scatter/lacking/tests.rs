use http::HeaderMap;
use serde_json::json;
use weft_routing::placement::ShardId;

use super::*;

fn post(path: &str, body: Value) -> Ask {
    Ask {
        shard: ShardId(0),
        method: Method::POST,
        path_and_query: path.to_owned(),
        body: Some(body.to_string().into()),
    }
}

fn get(path: &str) -> Ask {
    Ask {
        method: Method::GET,
        body: None,
        ..post(path, Value::Null)
    }
}

fn refusal(code: &str, message: &str) -> NodeAnswer {
    NodeAnswer {
        status: StatusCode::BAD_REQUEST,
        headers: HeaderMap::new(),
        body: json!({"message": message, "code": code}).to_string().into(),
    }
}

fn attribute(index: &str, name: &str) -> Lack {
    Lack::Attribute {
        index: index.to_owned(),
        name: name.to_owned(),
    }
}

fn body(ask: &Ask) -> Value {
    serde_json::from_slice(ask.body.as_deref().unwrap()).unwrap()
}

const NOT_SEARCHABLE: &str = "invalid_search_attributes_to_search_on";

#[test]
fn a_refusal_says_what_a_shard_lacks() {
    let lack = |ask: &Ask, code: &str, message: &str| {
        lack_of(ask, &Ok(refusal(code, message))).map(|(lack, _)| lack)
    };
    let one = post("/indexes/x/search", json!({}));
    let said = "Attribute `a.*` is not searchable. Available searchable attributes are: `b`.";
    assert_eq!(
        lack(&one, NOT_SEARCHABLE, said),
        Some(attribute("x", "a.*"))
    );
    let named = format!("Inside `.queries[1]`: Index `y`: {said}");
    let many = post(
        "/multi-search",
        json!({"queries": [{"indexUid": "x"}, {"indexUid": "y"}]}),
    );
    assert_eq!(
        lack(&many, NOT_SEARCHABLE, &named),
        Some(attribute("y", "a.*"))
    );
    assert_eq!(lack(&one, "invalid_search_sort", said), None);
    let sort = "Attribute `_geo` is not sortable. Available sortable attributes are: `_geo`.";
    let fetch = post("/indexes/x/documents/fetch", json!({}));
    assert_eq!(
        lack(&fetch, "invalid_document_sort", sort),
        Some(Lack::Place)
    );
    let sort = "Attribute `a` is not sortable.";
    assert_eq!(lack(&fetch, "invalid_document_sort", sort), None);
}

#[test]
fn a_shard_is_asked_without_what_it_lacks() {
    let ask = post(
        "/indexes/x/search",
        json!({"q": "w", "attributesToSearchOn": ["a", "b", "a"]}),
    );
    let without = ask.without(&attribute("x", "a")).unwrap();
    assert_eq!(
        body(&without),
        json!({"q": "w", "attributesToSearchOn": ["b"]})
    );
    let nowhere = without.without(&attribute("x", "b")).unwrap();
    assert_eq!(body(&nowhere)["attributesToSearchOn"], json!([]));
    assert!(nowhere.without(&attribute("x", "b")).is_none());
    assert!(ask.without(&attribute("y", "a")).is_none());

    let get_ask = get("/indexes/x/search?q=w&attributesToSearchOn=a&limit=3");
    let without = get_ask.without(&attribute("x", "a")).unwrap();
    assert_eq!(
        (&without.method, &*without.path_and_query),
        (&Method::POST, "/indexes/x/search")
    );
    assert_eq!(
        body(&without),
        json!({"q": "w", "attributesToSearchOn": [], "limit": 3})
    );

    let query = |uid: &str| json!({"indexUid": uid, "attributesToSearchOn": ["a"]});
    let many = post(
        "/multi-search",
        json!({"queries": [query("x"), query("y")]}),
    );
    let without = many.without(&attribute("y", "a")).unwrap();
    assert_eq!(body(&without)["queries"][0], query("x"));
    assert_eq!(
        body(&without)["queries"][1]["attributesToSearchOn"],
        json!([])
    );
}

#[test]
fn documents_without_places_are_sorted_by_the_rest() {
    let fetch = post(
        "/indexes/x/documents/fetch",
        json!({"sort": ["a:asc", "_geoPoint(1, 2):desc"]}),
    );
    let without = fetch.without(&Lack::Place).unwrap();
    assert_eq!(body(&without), json!({"sort": ["a:asc"]}));
    let list = |sort: &str| get(&format!("/indexes/x/documents?limit=2{sort}"));
    let without = list("&sort=_geoPoint(1,2):asc,a:desc")
        .without(&Lack::Place)
        .unwrap();
    assert_eq!(
        without.path_and_query,
        "/indexes/x/documents?limit=2&sort=a%3Adesc"
    );
    let without = list("&sort=_geoPoint(1,2):asc")
        .without(&Lack::Place)
        .unwrap();
    assert_eq!(without.path_and_query, "/indexes/x/documents?limit=2");
    assert!(list("&sort=a:asc").without(&Lack::Place).is_none());
}

#[test]
fn what_every_shard_lacks_is_refused_with_all_names() {
    let ask = |shard: u16, names: &[&str]| Ask {
        shard: ShardId(shard),
        ..post("/indexes/x/search", json!({"attributesToSearchOn": names}))
    };
    let fine = || {
        let answer = NodeAnswer {
            status: StatusCode::OK,
            ..refusal("", "")
        };
        (Ok(answer), Duration::ZERO)
    };
    let said = |name: &str, known: &str| {
        let known = format!("Available searchable attributes are: `{known}`.");
        let message = format!("Attribute `{name}` is not searchable. {known}");
        (attribute("x", name), refusal(NOT_SEARCHABLE, &message))
    };
    let asks = [ask(0, &["a", "b"]), ask(1, &["a", "b"])];
    let message = |lacking: [&[&str]; 2], refusals| {
        let lacking = lacking.map(|names| names.iter().map(|name| attribute("x", name)).collect());
        let results = refuse_what_all_lack(&asks, &lacking, refusals, vec![fine(), fine()]);
        let refused = results
            .into_iter()
            .filter_map(|(result, _)| result.ok().filter(|answer| !answer.status.is_success()));
        let text = |answer: NodeAnswer| {
            let error: Value = serde_json::from_slice(&answer.body).unwrap();
            error["message"].as_str().unwrap().to_owned()
        };
        refused.map(text).collect::<Vec<_>>()
    };
    let each_one = vec![said("a", "b, d"), said("b", "a, c")];
    assert!(message([&["a"], &["b"]], each_one).is_empty());
    let both = vec![said("a", "d, z"), said("a", "b, c, <..hidden-attributes>")];
    let expected = "Attribute `a` is not searchable. Available searchable attributes are: \
                    `b, c, d, z, <..hidden-attributes>`.";
    assert_eq!(message([&["a"], &["a"]], both), [expected]);
}
