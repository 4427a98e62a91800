//! For a search with `distinct` and numbered pages: fetches the rest of the shards' lists, so that all values can be counted.
//!
//! A shard says how many values it has. The values that aren't known yet are asked for, without anything that only a page
//! needs. A node shows no hit beyond `maxTotalHits`; to get those, the merger searches again and excludes the values it
//! knows, round by round, up to [`MOST`] hits per shard in [`MOST_ROUNDS`] rounds. If that isn't all, the share of values
//! that several shards have is assumed to be the same among the rest.

use super::values::{Values, values_of};
use crate::search::SearchError;
use crate::search::explain::Explanation;
use crate::search::merge::Source;
use crate::search::one_index::ShardHits;
use crate::search::plan::Plan;
use crate::search::scatter::{Ask, Outcome, Reader};
use crate::search::settings::MergeSettings;

/// The most hits of one shard that are merged.
const MOST: usize = 10_000;
/// The most rounds.
const MOST_ROUNDS: usize = 10;

/// Fetches what the lists lack, and marks the lists that are complete afterwards.
///
/// # Errors
/// A shard gave no answer, or one that can't be read.
pub(in crate::search) async fn fetch_whole(
    reader: &Reader<'_>,
    index: &str,
    plan: &Plan,
    settings: &MergeSettings,
    lists: &mut [ShardHits],
    explanation: &mut Explanation,
) -> Result<(), SearchError> {
    let path = format!("/indexes/{index}/search");
    for list in lists.iter_mut() {
        list.whole = list.asked >= list.found();
    }
    let shown = settings.max_total_hits;
    let (mut asks, mut places, mut windows) = (Vec::new(), Vec::new(), Vec::new());
    for (place, list) in lists.iter().enumerate() {
        let take = list.found().min(shown).saturating_sub(list.asked);
        if !list.whole && take > 0 {
            asks.push(Ask::new(list.shard, &path, &plan.rest(list.asked, take)));
            places.push(place);
            windows.push((list.asked, take));
        }
    }
    ask(reader, asks, &places, &windows, lists, explanation).await?;
    for list in lists.iter_mut().filter(|list| !list.whole) {
        list.asked = list.asked.max(list.found().min(shown));
        list.whole = list.asked >= list.found();
    }
    if plan.hides_distinct || shown == 0 {
        return Ok(());
    }
    for _ in 0..MOST_ROUNDS {
        if !one_more(reader, &path, plan, shown, lists, explanation).await? {
            break;
        }
    }
    Ok(())
}

/// One round that excludes the known values. False if there is nothing more to ask for, or if a shard refused.
async fn one_more(
    reader: &Reader<'_>,
    path: &str,
    plan: &Plan,
    shown: usize,
    lists: &mut [ShardHits],
    explanation: &mut Explanation,
) -> Result<bool, SearchError> {
    let (mut asks, mut places, mut windows) = (Vec::new(), Vec::new(), Vec::new());
    for (place, list) in lists.iter().enumerate() {
        if list.whole || list.asked.saturating_add(shown) > MOST {
            continue;
        }
        let Some(carrier) = plan.rest_without(&values_in(plan, list)?, shown) else {
            continue;
        };
        asks.push(Ask::new(list.shard, path, &carrier));
        places.push(place);
        windows.push((list.asked, shown));
    }
    if asks.is_empty() || !ask(reader, asks, &places, &windows, lists, explanation).await? {
        return Ok(false);
    }
    for place in places {
        let Some(list) = lists.get_mut(place) else {
            continue;
        };
        // Documents without a value aren't in these rounds, so a list that ends is complete.
        list.whole = list.hits_of_last(plan)? < shown;
        list.asked = list.asked.saturating_add(shown);
    }
    Ok(true)
}

/// One round. False if a shard refused it because the attribute isn't filterable.
async fn ask(
    reader: &Reader<'_>,
    asks: Vec<Ask>,
    places: &[usize],
    windows: &[(usize, usize)],
    lists: &mut [ShardHits],
    explanation: &mut Explanation,
) -> Result<bool, SearchError> {
    if asks.is_empty() {
        return Ok(true);
    }
    let Outcome::Answers(gathered) = reader.gather(asks).await? else {
        return Ok(false);
    };
    explanation.add(&gathered, |at| windows.get(at).copied().unwrap_or_default());
    for reply in &gathered.replies {
        let list = places.get(reply.at).and_then(|place| lists.get_mut(*place));
        if let Some(list) = list {
            list.pages.push(reply.read()?);
        }
    }
    Ok(gathered.missing.is_empty())
}

/// The distinct values in a list.
fn values_in(plan: &Plan, list: &ShardHits) -> Result<Vec<String>, SearchError> {
    let Some(path) = plan.distinct.as_deref() else {
        return Ok(Vec::new());
    };
    let mut values = Vec::new();
    let unreadable = |error| list.unreadable(error);
    for page in &list.pages {
        let mut source = Source::new(vec![page.hits()], false);
        source.advance(&plan.interest).map_err(unreadable)?;
        while let Some(head) = source.take() {
            values.extend(values_of(path, &head, None::<&Values>));
            source.advance(&plan.interest).map_err(unreadable)?;
        }
    }
    Ok(values)
}
