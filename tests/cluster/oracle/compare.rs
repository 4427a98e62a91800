//! Compares two answers to one search as a client would see them.

use serde_json::Value;

use super::member;

/// What was compared, and with which result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The name of each compared part, and whether it was equal.
    pub compared: Vec<(&'static str, bool)>,
    /// The first difference, as text.
    pub difference: Option<String>,
}

/// What a hit is ordered by, as far as a client sees it.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    score: f64,
    values: Vec<String>,
}

impl Key {
    fn of(hit: &Value) -> Self {
        let details = member(hit, "_rankingScoreDetails").as_object();
        let sorts = details
            .into_iter()
            .flatten()
            .filter(|(rule, _)| rule.contains(':'));
        let values = sorts.map(|(_, rule)| {
            let distance = member(rule, "distance");
            if distance.is_null() {
                member(rule, "value").to_string()
            } else {
                distance.to_string()
            }
        });
        Self {
            score: member(hit, "_rankingScore").as_f64().unwrap_or(-1.0),
            values: values.collect(),
        }
    }

    fn same(&self, other: &Self) -> bool {
        (self.score - other.score).abs() < 1e-9 && self.values == other.values
    }
}

/// Compares one node's answer (status and body) with a cluster's to the search `request`.
pub fn compare(
    one: (u16, &Value),
    many: (u16, &Value),
    request: &Value,
    primary_key: &str,
) -> Verdict {
    let mut verdict = Verdict::default();
    let mut note = |what: &'static str, same: bool, words: &dyn Fn() -> String| {
        verdict.compared.push((what, same));
        if !same && verdict.difference.is_none() {
            verdict.difference = Some(format!("{what}: {}", words()));
        }
    };
    let code = |body: &Value| member(body, "code").clone();
    let answered = one.0 == many.0 && code(one.1) == code(many.1);
    note("status", answered, &|| format!("{} and {}", one.0, many.0));
    if !answered || one.0 != 200 {
        return verdict;
    }
    let (alone, merged) = (hits(one.1), hits(many.1));
    let keys = |hits: &[Value]| hits.iter().map(Key::of).collect::<Vec<_>>();
    let (a, b) = (keys(alone), keys(merged));
    let first = a.iter().zip(&b).position(|(a, b)| !a.same(b));
    let scores = first.is_none() && a.len() == b.len();
    note("scores", scores, &|| match first {
        Some(at) => format!("hit {at}: {:?} and {:?}", a.get(at), b.get(at)),
        None => format!("{} and {} hits", a.len(), b.len()),
    });
    let groups = |keys, hits| groups(keys, hits, primary_key, begins_within(request));
    let ties = !scores
        || member(request, "distinct").is_string()
        || groups(&a, alone) == groups(&b, merged);
    note("ties", ties, &|| {
        "a complete group of equal hits has other documents".to_owned()
    });
    let totals = [
        "estimatedTotalHits",
        "totalHits",
        "totalPages",
        "limit",
        "offset",
        "page",
        "hitsPerPage",
    ];
    let differing = totals
        .iter()
        .find(|name| member(one.1, name) != member(many.1, name));
    note("totals", differing.is_none(), &|| {
        let name = differing.copied().unwrap_or_default();
        format!(
            "{name} {} and {}",
            member(one.1, name),
            member(many.1, name)
        )
    });
    if !member(request, "facets").is_null() {
        for what in ["facetDistribution", "facetStats"] {
            let (x, y) = (member(one.1, what), member(many.1, what));
            note(what, same_facets(x, y), &|| facet_difference(x, y));
        }
    }
    verdict
}

fn hits(body: &Value) -> &[Value] {
    member(body, "hits").as_array().map_or(&[], Vec::as_slice)
}

/// True if the page doesn't begin with the first hit: its first group may then be incomplete.
fn begins_within(request: &Value) -> bool {
    let number = |name: &str| member(request, name).as_u64().unwrap_or(0);
    number("offset") > 0 || number("page") > 1
}

/// The ids of each group of equal hits that lies completely within the page.
fn groups(
    keys: &[Key],
    hits: &[Value],
    primary_key: &str,
    begins_within: bool,
) -> Vec<Vec<String>> {
    let mut groups: Vec<(&Key, Vec<String>)> = Vec::new();
    for (key, hit) in keys.iter().zip(hits) {
        let id = member(hit, primary_key).to_string();
        match groups.last_mut() {
            Some((last, ids)) if last.same(key) => ids.push(id),
            _ => groups.push((key, vec![id])),
        }
    }
    // The last group may continue beyond the page.
    groups.pop();
    let whole = groups.into_iter().skip(usize::from(begins_within));
    whole
        .map(|(_, mut ids)| {
            ids.sort_unstable();
            ids
        })
        .collect()
}

/// Facets whose values the oracle's indexes list by count. The engine orders equally frequent values by the shape of its
/// tree of values, which shards can't know.
pub(super) const BY_COUNT: [&str; 3] = ["maintainer", "director", "city"];

/// True if facets and their order are equal, ignoring the order of equally frequent values of a facet listed by count.
fn same_facets(one: &Value, many: &Value) -> bool {
    let (Some(a), Some(b)) = (one.as_object(), many.as_object()) else {
        return one == many;
    };
    a.len() == b.len()
        && a.iter().zip(b).all(|((name, x), (other, y))| {
            let by_count = BY_COUNT.contains(&name.as_str());
            // Compared as texts, because the order of values is part of the answer.
            let [mine, theirs] = [x, y].map(Value::to_string);
            name == other
                && (mine == theirs || by_count && by_count_groups(x) == by_count_groups(y))
        })
}

/// The counts of a facet's list, each with its values. The last count is without its values if the list may end within them.
fn by_count_groups(facet: &Value) -> Vec<(u64, Vec<&str>)> {
    let mut groups: Vec<(u64, Vec<&str>)> = Vec::new();
    let values: Vec<(&String, &Value)> = facet.as_object().into_iter().flatten().collect();
    for (value, count) in &values {
        let count = count.as_u64().unwrap_or(0);
        match groups.last_mut().filter(|(known, _)| *known == count) {
            Some((_, values)) => values.push(value),
            None => groups.push((count, vec![value.as_str()])),
        }
    }
    if let Some((_, last)) = groups.last_mut().filter(|_| values.len() >= CUT) {
        *last = vec![""; last.len()];
    }
    groups
        .iter_mut()
        .for_each(|(_, values)| values.sort_unstable());
    groups
}

/// `maxValuesPerFacet` of the oracle's indexes.
pub(super) const CUT: usize = 100;

fn facet_difference(one: &Value, many: &Value) -> String {
    let Some(facets) = one.as_object() else {
        return "missing".to_owned();
    };
    for (facet, values) in facets {
        let other = member(many, facet);
        let texts = (values.to_string(), other.to_string());
        if texts.0 != texts.1 {
            let short = |value: &Value| value.to_string().chars().take(120).collect::<String>();
            return format!("{facet}: {} and {}", short(values), short(other));
        }
    }
    "more facets".to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(hits: &[(u32, f64)]) -> Value {
        let hits: Vec<Value> = hits
            .iter()
            .map(|(id, score)| json!({"id": id, "_rankingScore": score}))
            .collect();
        json!({"hits": hits, "estimatedTotalHits": 9})
    }

    fn differs(one: &Value, many: &Value) -> Vec<&'static str> {
        let verdict = compare((200, one), (200, many), &json!({}), "id");
        verdict
            .compared
            .into_iter()
            .filter(|(_, same)| !same)
            .map(|(what, _)| what)
            .collect()
    }

    #[test]
    fn equal_hits_may_be_in_any_order_but_must_be_the_same_documents() {
        let one = answer(&[(1, 0.9), (2, 0.9), (3, 0.5), (4, 0.4)]);
        assert!(differs(&one, &answer(&[(2, 0.9), (1, 0.9), (3, 0.5), (7, 0.4)])).is_empty());
        assert_eq!(
            differs(&one, &answer(&[(2, 0.9), (8, 0.9), (3, 0.5), (4, 0.4)])),
            ["ties"]
        );
        assert_eq!(
            differs(&one, &answer(&[(1, 0.9), (2, 0.9), (3, 0.6), (4, 0.4)])),
            ["scores"]
        );
        assert_eq!(
            differs(&one, &answer(&[(1, 0.9), (2, 0.9), (3, 0.5)])),
            ["scores"]
        );
    }

    #[test]
    fn the_order_of_facet_values_counts() {
        let request = json!({"facets": ["a"]});
        let answer = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let one = answer(r#"{"facetDistribution":{"a":{"x":1,"y":2}},"facetStats":{}}"#);
        let many = answer(r#"{"facetDistribution":{"a":{"y":2,"x":1}},"facetStats":{}}"#);
        let verdict = compare((200, &one), (200, &many), &request, "id");
        assert!(verdict.compared.contains(&("facetDistribution", false)));
        assert!(verdict.compared.contains(&("facetStats", true)));
    }
}
