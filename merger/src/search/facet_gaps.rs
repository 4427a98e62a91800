//! A second round for facets where the shards' cut lists may hide something: numbers that a shard cut in another order than
//! one node would (see [`super::facets::gaps`]), and counts (see [`super::facets::by_count`]).

use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value, json};

use super::SearchError;
use super::answer::ShardAnswer;
use super::facets::by_count::{self, Hidden};
use super::facets::gaps::{Gap, conditions, fill, gaps, whole_up_to};
use super::facets::{Counts, Filled, Stats};
use super::multi_search::results;
use super::one_index::ShardHits;
use super::plan::Plan;
use super::request::Carrier;
use super::scatter::{Ask, Outcome, Reader, Reply};
use super::settings::{FacetOrder, FacetSettings};

/// The complete counts of those `facets` that could be completed.
pub(super) async fn fill_gaps(
    reader: &Reader<'_>,
    index: &str,
    plan: &Plan,
    settings: &FacetSettings,
    lists: &[&ShardHits],
    facets: &[String],
) -> Result<Vec<Filled>, SearchError> {
    let mut filled = Vec::new();
    let by_count = |facet: &&String| settings.order(facet) == FacetOrder::Count;
    // With `distinct`, a filter doesn't select the same documents that a facet counted.
    for facet in facets
        .iter()
        .filter(by_count)
        .filter(|_| plan.distinct.is_none())
    {
        filled.extend(fill_counts(reader, index, plan, settings, lists, facet).await?);
    }
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
                .map(|counts| Filled {
                    facet: facet.clone(),
                    counts,
                    certain: true,
                }),
        );
    }
    Ok(filled)
}

/// The most frequent values of a facet, including those that the shards' lists hide.
async fn fill_counts(
    reader: &Reader<'_>,
    index: &str,
    plan: &Plan,
    settings: &FacetSettings,
    lists: &[&ShardHits],
    facet: &str,
) -> Result<Option<Filled>, SearchError> {
    let known: Vec<(Counts, Option<f64>)> = lists.iter().map(|list| known(list, facet)).collect();
    let numeric = known.iter().any(|(_, least)| least.is_some());
    let Some((longer, partitioned)) = lengthen(
        reader,
        index,
        plan,
        settings,
        (lists, &known),
        (facet, numeric),
    )
    .await?
    else {
        return Ok(None);
    };
    let counts: Vec<&Counts> = longer.iter().map(|(counts, _)| counts).collect();
    let hides: Vec<u64> = longer.iter().map(|(_, hides)| *hides).collect();
    let most = by_count::most_values(settings.max_values, partitioned);
    let hidden = by_count::hidden(&counts, &hides, numeric, settings.max_values, most);
    let all_asked = hidden.is_some();
    let mut hidden = hidden.unwrap_or_default();
    let all_asked = by_count::keep_nameable(&mut hidden) && all_asked;
    hidden.retain(|hidden| !hidden.values.is_empty());
    let about = (facet, hidden.as_slice());
    let mut found = None;
    if partitioned {
        found = count_by_lists(reader, index, plan, settings, lists, about).await?;
    }
    if found.is_none() {
        found = count_each(reader, index, plan, lists, about).await?;
    }
    Ok(found.map(|found| {
        let (counts, certain) =
            by_count::fill(&counts, &hides, &found, settings.max_values, numeric);
        Filled {
            facet: facet.to_owned(),
            counts,
            certain: certain && partitioned && all_asked,
        }
    }))
}

/// What the shards' lists hide of a facet, from lists of the documents that have those values; `None` if such a list is cut.
async fn count_by_lists(
    reader: &Reader<'_>,
    index: &str,
    plan: &Plan,
    settings: &FacetSettings,
    lists: &[&ShardHits],
    (facet, hidden): (&str, &[Hidden]),
) -> Result<Option<Vec<FoundIn>>, SearchError> {
    let ask = |hidden: &Hidden| {
        let parts = hidden
            .values
            .chunks(by_count::list_length(settings.max_values));
        let filters = parts.map(|values| vec![by_count::any_of(facet, values)]);
        narrowed(index, plan, lists.get(hidden.place)?, filters, Some(facet))
    };
    let counts = |reply: &Reply, hidden: &Hidden| {
        let lists = answers(&reply.body, facet)?;
        by_count::counted(&hidden.values, &lists, settings.max_values)
    };
    ask_for_hidden(reader, hidden, ask, counts).await
}

/// What the shards' lists hide of a facet, asked value by value.
async fn count_each(
    reader: &Reader<'_>,
    index: &str,
    plan: &Plan,
    lists: &[&ShardHits],
    (facet, hidden): (&str, &[Hidden]),
) -> Result<Option<Vec<FoundIn>>, SearchError> {
    let too_many = |hidden: &Hidden| hidden.values.len() > by_count::MOST_VALUES;
    if hidden.iter().any(too_many) {
        return Ok(None);
    }
    let ask = |hidden: &Hidden| {
        let list = lists.get(hidden.place)?;
        let filters = hidden
            .values
            .iter()
            .map(|value| vec![by_count::condition(facet, value)]);
        narrowed(index, plan, list, filters, None)
    };
    let counts = |reply: &Reply, hidden: &Hidden| {
        let totals = results(&reply.body)
            .ok()?
            .into_iter()
            .map(|text| Some(ShardAnswer::read(text).ok()?.rest.total()));
        let totals: Vec<u64> = totals.collect::<Option<_>>()?;
        (totals.len() == hidden.values.len())
            .then(|| hidden.values.iter().cloned().zip(totals).collect())
    };
    ask_for_hidden(reader, hidden, ask, counts).await
}

/// One round: a request for each list that hides values, and the counts from its answer.
async fn ask_for_hidden(
    reader: &Reader<'_>,
    hidden: &[Hidden],
    ask: impl Fn(&Hidden) -> Option<Ask>,
    counts: impl Fn(&Reply, &Hidden) -> Option<Vec<(String, u64)>>,
) -> Result<Option<Vec<FoundIn>>, SearchError> {
    let Some(asks) = hidden.iter().map(ask).collect::<Option<Vec<Ask>>>() else {
        return Ok(None);
    };
    let Outcome::Answers(gathered) = reader.gather(asks).await? else {
        return Ok(None);
    };
    let found = |(asked, hidden): (usize, &Hidden)| {
        let reply = gathered.replies.iter().find(|reply| reply.at == asked)?;
        Some((hidden.place, counts(reply, hidden)?))
    };
    Ok(hidden.iter().enumerate().map(found).collect())
}

/// The list's position, and how often its shard counts each of the values that the list hid.
type FoundIn = (usize, Vec<(String, u64)>);

/// For each list, its counts and how often the shard may have counted a value that the list doesn't hold; and whether those
/// limits are reliable.
type Longer = (Vec<(Counts, u64)>, bool);

/// The lists with the values beyond the cut. A document with several values is excluded as soon as one of its values is:
/// the values beyond the cut are then counted too low, and the result isn't reliable.
async fn lengthen(
    reader: &Reader<'_>,
    index: &str,
    plan: &Plan,
    settings: &FacetSettings,
    (lists, known): (&[&ShardHits], &[(Counts, Option<f64>)]),
    (facet, numeric): (&str, bool),
) -> Result<Option<Longer>, SearchError> {
    let mut asks = Vec::new();
    let mut places = Vec::new();
    for (place, (list, (counts, _))) in lists.iter().zip(known).enumerate() {
        if let Some(condition) = by_count::beyond(facet, counts, numeric, settings.max_values) {
            let filters = std::iter::once(vec![condition]);
            let Some(ask) = narrowed(index, plan, list, filters, Some(facet)) else {
                return Ok(None);
            };
            asks.push(ask);
            places.push(place);
        }
    }
    let Outcome::Answers(gathered) = reader.gather(asks).await? else {
        return Ok(None);
    };
    let mut longer = Vec::with_capacity(lists.len());
    let mut partitioned = true;
    for (place, (list, (counts, _))) in lists.iter().zip(known).enumerate() {
        let mut more = None;
        if let Some(asked) = places.iter().position(|asked| *asked == place) {
            let reply = gathered.replies.iter().find(|reply| reply.at == asked);
            let Some((values, left)) = reply.and_then(|reply| {
                let values = answers(&reply.body, facet)?.into_iter().next()?;
                Some((values, total(&reply.body)?))
            }) else {
                return Ok(None);
            };
            let listed: u64 = counts.0.iter().map(|(_, count)| count).sum();
            let first = list.pages.first();
            partitioned &= first.is_some_and(|page| page.rest.total() == left + listed);
            more = Some(values);
        }
        longer.push(by_count::lengthened(
            counts,
            more.as_ref(),
            numeric,
            settings.max_values,
        ));
    }
    Ok(Some((longer, partitioned)))
}

/// How many documents the first of the results found.
fn total(body: &Bytes) -> Option<u64> {
    let first = results(body).ok()?.into_iter().next()?;
    Some(ShardAnswer::read(first).ok()?.rest.total())
}

/// The shard's values of a facet, and the least number among them.
fn known(list: &ShardHits, facet: &str) -> (Counts, Option<f64>) {
    let Some(page) = list.pages.first() else {
        return (Counts::default(), None);
    };
    let facets = page.rest.facet_distribution.as_ref();
    let counts = facets.and_then(|facets| facets.get(facet).cloned());
    let stats = page.rest.facet_stats.as_ref();
    let of_facet = |stats: &Stats| {
        let (_, stats) = stats.0.iter().find(|(name, _)| name == facet)?;
        Some(stats.min)
    };
    (counts.unwrap_or_default(), stats.and_then(of_facet))
}

/// The same search without hits, once for each range; `None` for a search sent as a query string.
fn ask(index: &str, plan: &Plan, facet: &str, gap: &Gap, lists: &[&ShardHits]) -> Option<Ask> {
    let list = lists.get(gap.place)?;
    let filters = gap
        .ranges
        .iter()
        .enumerate()
        .map(|(at, range)| conditions(facet, *range, at == 0).to_vec());
    narrowed(index, plan, list, filters, Some(facet))
}

/// The same search without hits, on the shard of `list`, once for each of `filters` in addition to the client's own filter;
/// `None` for a search sent as a query string.
fn narrowed(
    index: &str,
    plan: &Plan,
    list: &ShardHits,
    filters: impl Iterator<Item = Vec<String>>,
    facet: Option<&str>,
) -> Option<Ask> {
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
    let Carrier::Body(members) = plan.ask_share(0, 0, list.share.as_ref()) else {
        return None;
    };
    let query = |more: Vec<String>| {
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
        filter.extend(more.into_iter().map(Value::from));
        query.insert("filter".to_owned(), Value::Array(filter));
        if let Some(facet) = facet {
            query.insert("facets".to_owned(), json!([facet]));
        }
        query.insert("limit".to_owned(), Value::from(0));
        query.insert("indexUid".to_owned(), Value::from(index));
        Value::Object(query)
    };
    let queries: Vec<Value> = filters.map(query).collect();
    let body = serde_json::to_vec(&json!({ "queries": queries })).ok()?;
    Some(Ask {
        shard: list.shard,
        method: Method::POST,
        path_and_query: "/multi-search".to_owned(),
        body: Some(body.into()),
    })
}

/// The facet's values in each of the results.
fn answers(body: &Bytes, facet: &str) -> Option<Vec<Counts>> {
    let counts = |text| {
        let answer = ShardAnswer::read(text).ok()?;
        Some(
            answer
                .rest
                .facet_distribution
                .and_then(|facets| facets.get(facet).cloned())
                .unwrap_or_default(),
        )
    };
    results(body).ok()?.into_iter().map(counts).collect()
}
