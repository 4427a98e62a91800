//! A second round for numeric facets that shards have cut in another order than one node: see [`super::facets::gaps`].

use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value, json};

use super::SearchError;
use super::answer::ShardAnswer;
use super::facets::gaps::{Gap, conditions, fill, gaps, whole_up_to};
use super::facets::{Counts, FacetStats};
use super::multi_search::results;
use super::one_index::ShardHits;
use super::plan::Plan;
use super::request::Carrier;
use super::scatter::{Ask, Outcome, Reader};
use super::settings::{FacetOrder, FacetSettings};

/// The whole counts of those of `facets` that could be filled.
pub(super) async fn fill_gaps(
    reader: &Reader<'_>,
    index: &str,
    plan: &Plan,
    settings: &FacetSettings,
    lists: &[&ShardHits],
    facets: &[String],
) -> Result<Vec<(String, Counts)>, SearchError> {
    let mut filled = Vec::new();
    for facet in facets
        .iter()
        .filter(|facet| settings.order(facet) == FacetOrder::Alpha)
    {
        let known: Vec<(Counts, Option<f64>)> =
            lists.iter().map(|list| known(list, facet)).collect();
        let gaps = gaps(&known, settings.max_values);
        let asks: Option<Vec<Ask>> = gaps
            .iter()
            .map(|gap| ask(index, plan, facet, gap, lists))
            .collect();
        let Some(asks) = asks else { continue };
        let Outcome::Answers(gathered) = reader.gather(asks).await? else {
            continue;
        };
        let whole = |gap: &Gap| {
            let shard = lists.get(gap.place)?.shard;
            let reply = gathered.replies.iter().find(|reply| reply.shard == shard)?;
            let (values, bound) =
                whole_up_to(gap, &answers(&reply.body, facet)?, settings.max_values);
            Some((gap.place, values, bound))
        };
        let whole: Option<Vec<(usize, Counts, f64)>> = gaps.iter().map(whole).collect();
        filled.extend(
            whole
                .and_then(|whole| fill(&known, &whole, settings.max_values))
                .map(|counts| (facet.clone(), counts)),
        );
    }
    Ok(filled)
}

/// A shard's values of a facet, and its least number.
fn known(list: &ShardHits, facet: &str) -> (Counts, Option<f64>) {
    let rest = list
        .pages
        .first()
        .and_then(|page| ShardAnswer::read(page).ok())
        .map(|answer| answer.rest);
    let Some(rest) = rest else {
        return (Counts::default(), None);
    };
    let counts = rest
        .facet_distribution
        .and_then(|facets| facets.get(facet).cloned());
    let least = |stats: &FacetStats| stats.min;
    let stats = rest.facet_stats.and_then(|stats| {
        stats
            .0
            .iter()
            .find(|(name, _)| name == facet)
            .map(|(_, s)| least(s))
    });
    (counts.unwrap_or_default(), stats)
}

/// The same search without hits, once for each range; `None` for a search that came as a query string.
fn ask(index: &str, plan: &Plan, facet: &str, gap: &Gap, lists: &[&ShardHits]) -> Option<Ask> {
    const SAME: [&str; 8] = [
        "q",
        "matchingStrategy",
        "attributesToSearchOn",
        "locales",
        "rankingScoreThreshold",
        "distinct",
        "vector",
        "hybrid",
    ];
    let share = lists.get(gap.place)?.share.as_ref();
    let Carrier::Body(members) = plan.ask_share(0, 0, share) else {
        return None;
    };
    let query = |(at, range): (usize, &(f64, f64))| {
        let mut query = Map::new();
        for name in SAME {
            if let Some(value) = members.get(name) {
                query.insert(name.to_owned(), value.clone());
            }
        }
        let mut filter = match members.get("filter") {
            Some(Value::Array(all)) => all.clone(),
            None | Some(Value::Null) => Vec::new(),
            Some(one) => vec![one.clone()],
        };
        filter.extend(conditions(facet, *range, at == 0).map(Value::from));
        query.insert("filter".to_owned(), Value::Array(filter));
        query.insert("facets".to_owned(), json!([facet]));
        query.insert("limit".to_owned(), Value::from(0));
        query.insert("indexUid".to_owned(), Value::from(index));
        Value::Object(query)
    };
    let queries: Vec<Value> = gap.ranges.iter().enumerate().map(query).collect();
    let body = serde_json::to_vec(&json!({ "queries": queries })).ok()?;
    Some(Ask {
        shard: lists.get(gap.place)?.shard,
        method: Method::POST,
        path_and_query: "/multi-search".to_owned(),
        body: Some(body.into()),
    })
}

/// The facet's values in each of the results.
fn answers(body: &Bytes, facet: &str) -> Option<Vec<Counts>> {
    let ranges = results(body).ok()?;
    let counts = |range| {
        let answer = ShardAnswer::read(body.get(range)?).ok()?;
        Some(
            answer
                .rest
                .facet_distribution
                .and_then(|facets| facets.get(facet).cloned())
                .unwrap_or_default(),
        )
    };
    ranges.into_iter().map(counts).collect()
}
