//! The kinds of searches.

use serde_json::{Value, json};

use crate::data::DataSet;

/// One kind of search: parameters that are added to the query.
#[derive(Debug, Clone)]
pub struct Variant {
    /// A short name.
    pub name: &'static str,
    /// The parameters.
    pub parameters: Value,
    /// True if the parameters are a federation's, with the query as its only query.
    pub federated: bool,
}

fn variant(name: &'static str, parameters: Value) -> Variant {
    Variant {
        name,
        parameters,
        federated: false,
    }
}

fn federated(name: &'static str, parameters: Value) -> Variant {
    Variant {
        federated: true,
        ..variant(name, parameters)
    }
}

/// `distinct` by an attribute, with numbered pages: alone, with facets that follow the attribute, and federated.
fn by_distinct(attribute: &str) -> Vec<Variant> {
    vec![
        variant(
            "distinct, page 1",
            json!({"distinct": attribute, "page": 1, "hitsPerPage": 5}),
        ),
        variant(
            "distinct, page 3",
            json!({"distinct": attribute, "page": 3, "hitsPerPage": 10}),
        ),
        variant(
            "distinct, page, facets",
            json!({"distinct": attribute, "hitsPerPage": 10, "facets": [attribute]}),
        ),
        federated(
            "federated distinct",
            json!({"distinct": attribute, "page": 2, "hitsPerPage": 10}),
        ),
    ]
}

/// A field that only one document has, and so only one shard.
pub(super) const RARE: &str = "rare";
/// The value of this field.
pub(super) const ONLY_HERE: &str = "only here";

/// All kinds of searches for a data set.
pub fn variants(set: &DataSet) -> Vec<Variant> {
    let unequal = format!("{RARE} != '{ONLY_HERE}'");
    let mut all = vec![
        variant("plain", json!({})),
        variant("all words", json!({"matchingStrategy": "all"})),
        variant("frequency", json!({"matchingStrategy": "frequency"})),
        variant("page 2", json!({"page": 2, "hitsPerPage": 10})),
        variant("deep", json!({"offset": 100, "limit": 20})),
        variant("long", json!({"limit": 300})),
        variant("threshold", json!({"rankingScoreThreshold": 0.8})),
        variant(
            "highlight",
            json!({"attributesToHighlight": ["*"], "showMatchesPosition": true}),
        ),
        variant("nothing shown", json!({"limit": 0})),
        variant("rare, unequal", json!({"filter": unequal})),
        variant("rare, sorted", json!({"sort": [format!("{RARE}:asc")]})),
        federated("federated", json!({"limit": 20})),
        federated("federated, page 2", json!({"page": 2, "hitsPerPage": 10})),
        federated("federated, page 0", json!({"page": 0})),
    ];
    let (more, distinct) = match set.index {
        "packages" => (packages(), "section"),
        "movies" => (movies(), "director"),
        _ => (airports(), "state"),
    };
    all.extend(more);
    all.extend(by_distinct(distinct));
    if set.index == "packages" {
        all.push(variant(
            "distinct, many values",
            json!({"distinct": "maintainer", "page": 1, "hitsPerPage": 20}),
        ));
        all.push(variant(
            "distinct, several each",
            json!({"distinct": "tags", "page": 1, "hitsPerPage": 20}),
        ));
    }
    all
}

fn packages() -> Vec<Variant> {
    vec![
        variant("sort desc", json!({"sort": ["installed_size:desc"]})),
        variant("sort by text", json!({"sort": ["name:asc"]})),
        variant(
            "sort by two",
            json!({"sort": ["download_size:asc", "name:desc"]}),
        ),
        variant("one attribute", json!({"attributesToSearchOn": ["name"]})),
        variant(
            "filter",
            json!({"filter": "priority = optional AND installed_size < 500"}),
        ),
        variant("retrieve", json!({"attributesToRetrieve": ["id", "name"]})),
        variant("facets", json!({"facets": ["section", "priority"]})),
        variant("facets cut", json!({"facets": ["tags"]})),
        variant("facets, cut numbers", json!({"facets": ["installed_size"]})),
        variant("facets by count", json!({"facets": ["maintainer"]})),
        variant("locales", json!({"locales": ["eng"]})),
        variant("distinct", json!({"distinct": "maintainer"})),
    ]
}

fn movies() -> Vec<Variant> {
    vec![
        variant("sort desc", json!({"sort": ["rating:desc"]})),
        variant("sort by two", json!({"sort": ["votes:asc", "title:desc"]})),
        variant("filter", json!({"filter": "rating > 6"})),
        variant("one attribute", json!({"attributesToSearchOn": ["title"]})),
        variant("retrieve", json!({"attributesToRetrieve": ["id", "title"]})),
        variant("facets", json!({"facets": ["genre"]})),
        variant("all facets", json!({"facets": ["*"]})),
        variant("distinct", json!({"distinct": "genre"})),
    ]
}

fn airports() -> Vec<Variant> {
    vec![
        variant("nearest", json!({"sort": ["_geoPoint(40.7, -74.0):asc"]})),
        variant("farthest", json!({"sort": ["_geoPoint(40.7, -74.0):desc"]})),
        variant(
            "within",
            json!({"filter": "_geoRadius(40.7, -74.0, 900000)"}),
        ),
        variant("sort by text", json!({"sort": ["name:asc"]})),
        variant("filter", json!({"filter": "state IN [TX, CA]"})),
        variant(
            "retrieve",
            json!({"attributesToRetrieve": ["iata", "name"]}),
        ),
        variant("facets", json!({"facets": ["state", "country"]})),
        variant("distinct", json!({"distinct": "state"})),
    ]
}

/// Requests that a node refuses.
pub fn refused() -> Vec<Value> {
    vec![
        json!({"filter": "nope = 1"}),
        json!({"filter": "genre ="}),
        json!({"sort": ["nope:asc"]}),
        json!({"sort": ["name"]}),
        json!({"limit": -1}),
        json!({"offset": "a"}),
        json!({"page": 1.5}),
        json!({"q": 3}),
        json!({"bogus": true}),
        json!({"facets": ["nope"]}),
        json!({"distinct": "nope"}),
        json!({"attributesToSearchOn": ["nope"]}),
        json!({"matchingStrategy": "some"}),
        json!({"rankingScoreThreshold": 2}),
        json!({"hybrid": {"embedder": "none"}}),
        json!({"vector": [1.0]}),
        json!({"attributesToRetrieve": "title"}),
        json!({"showRankingScore": "yes"}),
        json!([]),
    ]
}
