//! Turns the shards' answers into one answer, or into the next question to the shards.
//!
//! Pure: functions of values.

use weft_routing::placement::ShardId;

use super::ShardHits;
use crate::search::SearchError;
use crate::search::answer::{Rest, ShardAnswer};
use crate::search::distinct::{self, Documents, Values};
use crate::search::explain::Explanation;
use crate::search::facets::Filled;
use crate::search::frequency::Share;
use crate::search::merge::{Merged, Order, Pairs, Source, is_semantic, merge};
use crate::search::performance::Times;
use crate::search::plan::Plan;
use crate::search::rank::{Known, Ranks, compare};
use crate::search::respond::{Findings, Writer, write_search};
use crate::search::scan::Malformed;
use crate::search::settings::MergeSettings;

/// What further rounds have found out.
#[derive(Default)]
pub(super) struct Learned {
    /// What each shard knows of the query's words.
    pub(super) words: Option<Vec<Known>>,
    /// Facets' complete counts.
    pub(super) facets: Option<Vec<Filled>>,
    /// True if the keyword search was good enough, so that one node wouldn't have made a semantic search.
    pub(super) words_suffice: bool,
    /// Distinct values that hits don't show.
    pub(super) hidden: Option<Values>,
    /// True if the whole lists of distinct values were asked for.
    pub(super) lists: bool,
    /// The documents that were left out for their distinct value, if facets count them.
    pub(super) losers: Option<Documents>,
    /// How long the search took so far.
    pub(super) times: Times,
}

/// The result of a merge.
pub(super) enum Step {
    /// The answer, except for members that may still be added.
    Done(Writer),
    /// The lists at these positions ran out too early.
    More(Vec<usize>),
    /// One node would have searched by keywords alone.
    WordsSuffice,
    /// These facets may lack values.
    Gaps(Vec<String>),
    /// One node counts distinct values exactly: the shards' whole lists are needed.
    Lists,
    /// Facets count these documents, which were left out for another shard's documents: their values of these facets are needed.
    Losers(Vec<(ShardId, String)>, Vec<String>),
    /// A shard splits words otherwise than the merger: it must be asked for the search as it is.
    PartsUnclear,
    /// A shard called hits exact without having compared all words: see [`crate::search::rank::suspects`].
    Doubt,
}

pub(super) fn assemble(
    plan: &Plan,
    settings: &MergeSettings,
    lists: &[ShardHits],
    learned: &Learned,
    uid: Option<&str>,
    explanation: &mut Explanation,
) -> Result<Step, SearchError> {
    let mut answers = Vec::with_capacity(lists.len());
    let mut sources = Vec::with_capacity(lists.len());
    let mut found_by = Vec::with_capacity(lists.len());
    let pairs = match plan.by_frequency() {
        true => Some(pairs_of(plan, lists)?),
        false => None,
    };
    for (at, list) in lists.iter().enumerate() {
        let Some(first) = list.pages.first() else {
            continue;
        };
        let pages = list.pages.iter().map(ShardAnswer::hits).collect();
        let more = list.asked < plan.window.end() && list.asked < list.found();
        let source = source_of(plan, list, pages, more);
        let source = match &pairs {
            Some(pairs) => source.on_scales(plan.scheme, pairs.clone()),
            None => source,
        };
        sources.push(
            match learned.words.as_ref().and_then(|known| known.get(at)) {
                Some(known) => source.knowing(plan.scheme, known.clone()),
                None => source,
            },
        );
        found_by.push((list.shard, first.rest.total()));
        if list.counts() {
            answers.push(first);
        }
    }
    let rests: Vec<&Rest> = answers.iter().map(|answer| &answer.rest).collect();
    let malformed = |error| SearchError::unreadable(lists, error);
    if words_suffice(plan, &answers).map_err(malformed)? {
        return Ok(Step::WordsSuffice);
    }
    let mut merged = merge(sources, &plan.merging(learned.hidden.as_ref()))
        .map_err(|error| SearchError::unreadable(lists, error))?;
    if merged.unclear {
        return Ok(Step::PartsUnclear);
    }
    if !merged.dry.is_empty() {
        return Ok(Step::More(merged.dry));
    }
    if lists.iter().any(|list| list.share.is_some()) {
        // A document is in several parts, but is counted once.
        merged.twins = 0;
    }
    if merged.doubtful && learned.words.is_none() {
        return Ok(Step::Doubt);
    }
    let in_parts = lists.iter().any(|list| list.share.is_some());
    if plan.counts_distinct() && !learned.lists && !in_parts {
        return Ok(Step::Lists);
    }
    let whole = merged.at_the_end
        && lists
            .iter()
            .zip(&found_by)
            .all(|(list, (_, found))| list.has_all(*found));
    if plan.counts_distinct() && !whole && !in_parts {
        estimate(&mut merged, lists, &found_by);
        if explanation.estimated.is_empty() {
            explanation
                .estimated
                .push("the total: shards have more distinct values than were united".to_owned());
        }
    }
    if plan.distinct.is_some()
        && whole
        && learned.losers.is_none()
        && !merged.losers.is_empty()
        && let Some(facets) = facets_of(&rests)
        && let Some(losers) = distinct::losers(&merged, lists)
    {
        return Ok(Step::Losers(losers, facets));
    }
    let size = merged
        .hits
        .iter()
        .map(|hit| hit.head.span.range.len() + 1)
        .sum::<usize>();
    let mut writer = Writer::new(size + 1024);
    writer.optional("indexUid", uid.as_ref());
    explanation.uncertain_facets = write_search(
        &mut writer,
        plan,
        settings,
        &rests,
        &merged,
        &Findings {
            facets: learned.facets.as_deref().unwrap_or_default(),
            losers: learned.losers.as_deref().unwrap_or_default(),
            times: learned.times,
        },
    )
    .map_err(|error| SearchError::unreadable(lists, error))?;
    if learned.words_suffice {
        writer.member("semanticHitCount", &0);
    }
    if learned.facets.is_none() && !explanation.uncertain_facets.is_empty() {
        return Ok(Step::Gaps(explanation.uncertain_facets.clone()));
    }
    explain(explanation, &found_by, &merged);
    Ok(Step::Done(writer))
}

/// The facets in the answers, if there are any.
fn facets_of(rests: &[&Rest]) -> Option<Vec<String>> {
    let told = rests
        .iter()
        .filter_map(|rest| rest.facet_distribution.as_ref());
    let mut names: Vec<String> = told
        .flat_map(|facets| facets.0.iter().map(|(name, _)| name.clone()))
        .collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then_some(names)
}

/// For lists that aren't known to their ends: assumes that the share of values that several shards have is the same among
/// the unknown values as among the known ones.
fn estimate(merged: &mut Merged<'_>, lists: &[ShardHits], found_by: &[(ShardId, u64)]) {
    let found: u64 = found_by.iter().map(|(_, found)| *found).sum();
    let known = lists.iter().zip(found_by).map(|(list, (_, found))| {
        let asked = u64::try_from(list.asked).unwrap_or(u64::MAX);
        if list.whole {
            *found
        } else {
            asked.min(*found)
        }
    });
    let known: u64 = known.sum();
    let duplicates = u128::try_from(merged.duplicates).unwrap_or(u128::MAX);
    if known > 0 {
        let all = duplicates * u128::from(found) / u128::from(known);
        merged.duplicates = usize::try_from(all).unwrap_or(usize::MAX);
    }
}

/// A list's hits, if they are used.
fn source_of<'a>(
    plan: &Plan,
    list: &ShardHits,
    pages: Vec<(&'a [u8], usize)>,
    more: bool,
) -> Source<'a> {
    match &list.share {
        Some(_) if list.counts_only() => Source::new(Vec::new(), false),
        Some(Share {
            part: Some(part), ..
        }) => Source::new(pages, more).in_part(plan.scheme, *part),
        _ => Source::new(pages, more),
    }
}

/// The widest scales of the `proximity` rule, from all hits that the shards gave.
fn pairs_of(plan: &Plan, lists: &[ShardHits]) -> Result<Pairs, SearchError> {
    let mut pairs = Pairs::default();
    for list in lists {
        let unreadable = |error| list.unreadable(error);
        for page in &list.pages {
            let hits = vec![page.hits()];
            let mut source =
                source_of(plan, list, hits, false).on_scales(plan.scheme, Pairs::default());
            source.advance(&plan.interest).map_err(unreadable)?;
            while let Some(head) = source.take() {
                pairs.see(&head.ranks, head.pairs.unwrap_or(0));
                source.advance(&plan.interest).map_err(unreadable)?;
            }
        }
    }
    Ok(pairs)
}

fn explain(explanation: &mut Explanation, found_by: &[(ShardId, u64)], merged: &Merged<'_>) {
    for ((shard, found), kept) in found_by.iter().zip(&merged.kept) {
        explanation.outcome(*shard, *found, *kept);
    }
    if merged.twins > 0 {
        explanation.rebuilt.push(format!(
            "{} documents shown once that two shards hold",
            merged.twins
        ));
    }
    let rescaled = merged.hits.iter().any(|hit| {
        hit.head.ranks.iter().any(|rank| {
            matches!(rank, crate::search::rank::Rank::Typo { max, .. } if hit.max_typos.is_some_and(|scale| scale != *max))
        })
    });
    if rescaled {
        explanation
            .rebuilt
            .push("the scale of the typo rule, and with it ranking scores".to_owned());
    }
    if merged.hits.iter().any(|hit| hit.head.corrected) {
        explanation
            .rebuilt
            .push("exactness of hits whose shard has never seen one of the words".to_owned());
    }
    if merged.duplicates > 0 {
        explanation.rebuilt.push(format!(
            "{} hits left out whose distinct value another shard has",
            merged.duplicates
        ));
    }
}

/// True if all hits of the page, found by keywords alone, are good enough for one node not to make a semantic search: their
/// weighted scores reach 0.45. A shard with fewer good hits than the page has made a semantic search nevertheless.
fn words_suffice(plan: &Plan, answers: &[&ShardAnswer]) -> Result<bool, Malformed> {
    const GOOD_ENOUGH: f64 = 0.45;
    let Order::Hybrid { ratio } = plan.order else {
        return Ok(false);
    };
    let found = |answer: &&ShardAnswer| {
        answer
            .rest
            .semantic_hit_count
            .is_some_and(|count| count > 0)
    };
    let end = plan.window.end();
    if !answers.iter().any(found) || !plan.search.has_words || end == 0 {
        return Ok(false);
    }
    let mut hits = Vec::new();
    for answer in answers {
        let mut source = Source::new(vec![answer.hits()], false);
        source.advance(&plan.interest)?;
        while let Some(head) = source.take() {
            if !is_semantic(&head.ranks) {
                hits.push((head.ranks, head.score.unwrap_or(0.0)));
            }
            source.advance(&plan.interest)?;
        }
    }
    hits.sort_by(|(a, _), (b, _)| compare(a, b));
    let good = |(_, score): &(Ranks, f64)| score * (1.0 - ratio) >= GOOD_ENOUGH;
    Ok(hits.len() >= end && hits.iter().take(end).all(good))
}
