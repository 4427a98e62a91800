//! A search in one index: `POST` and `GET /indexes/{uid}/search`.

use bytes::Bytes;
use http::StatusCode;
use weft_routing::placement::ShardId;

use super::answer::ShardAnswer;
use super::degraded::Degraded;
use super::explain::Explanation;
use super::facet_gaps::fill_gaps;
use super::facets::Filled;
use super::frequency::{self, Share};
use super::merge::{Merged, Order, Pairs, Source, is_semantic, merge};
use super::plan::Plan;
use super::rank::{Known, Ranks, compare};
use super::request::Carrier;
use super::respond::{Writer, write_search};
use super::scan::Malformed;
use super::scatter::{Ask, Gathered, Outcome, Reader};
use super::settings::MergeSettings;
use super::vocabulary::known_words;
use super::{SearchError, where_it_is};
use crate::answer::Answer;

/// What one shard gave, over all steps.
pub(super) struct ShardHits {
    pub(super) shard: ShardId,
    /// The answers, the first one with the totals.
    pub(super) pages: Vec<Bytes>,
    /// How many hits were asked for so far.
    pub(super) asked: usize,
    /// What was asked instead of the client's search. Such a shard has several lists.
    pub(super) share: Option<Share>,
}

impl ShardHits {
    /// True where the totals and facets are the shard's.
    fn counts(&self) -> bool {
        self.share.as_ref().is_none_or(|share| share.counts)
    }

    /// True where the hits aren't looked at.
    fn counts_only(&self) -> bool {
        self.share
            .as_ref()
            .is_some_and(|share| share.part.is_none())
    }
}

/// Carries out a planned search on `shards`.
pub(super) async fn search(
    reader: &Reader<'_>,
    index: &str,
    path: &str,
    plan: &Plan,
    settings: &MergeSettings,
    shards: &[ShardId],
) -> Result<Answer, SearchError> {
    let mut explanation = Explanation {
        why: where_it_is(shards),
        ..Explanation::default()
    };
    let take = plan.first_step(shards.len());
    let shares = frequency::shares(reader, index, plan, settings, shards).await;
    let shares = asked_shares(shards, shares);
    let asks = shares
        .iter()
        .map(|(shard, share)| Ask::new(*shard, path, &first_ask(plan, take, share.as_ref())))
        .collect();
    let gathered = match reader.gather(asks).await? {
        Outcome::Refused(answer, _) => return Ok(answer),
        Outcome::Answers(gathered) => gathered,
    };
    explanation.add(&gathered, |_| (0, take));
    if shares.iter().any(|(_, share)| share.is_some()) {
        explanation.rebuilt.push(
            "which words may be dropped, from how often all shards together hold them".to_owned(),
        );
    }
    let missing = gathered.missing.clone();
    let mut lists = first_lists(gathered, take, shares);
    let done = complete(
        reader,
        index,
        plan,
        settings,
        &mut lists,
        None,
        &mut explanation,
    )
    .await?;
    let mut writer = match done {
        Done::Merged(writer) => writer,
        Done::Refused(answer) => return Ok(answer),
    };
    let degraded = Degraded::new(&missing, shards.len());
    writer.optional("degraded", degraded.as_ref());
    if reader.explain {
        writer.member("explain", &explanation);
    }
    let answer = Answer::json_bytes(StatusCode::OK, writer.finish());
    Ok(degraded.map_or(answer.clone(), |degraded| degraded.on(answer)))
}

/// How a search ended.
pub(super) enum Done {
    /// With an answer, to which members may be added.
    Merged(Writer),
    /// With a node's refusal.
    Refused(Answer),
}

/// Merges `lists`, the shards' first answers, asking for more where the page or a verdict needs it. With `uid` the answer
/// begins with the index's name.
pub(super) async fn complete(
    reader: &Reader<'_>,
    index: &str,
    plan: &Plan,
    settings: &MergeSettings,
    lists: &mut Vec<ShardHits>,
    uid: Option<&str>,
    explanation: &mut Explanation,
) -> Result<Done, SearchError> {
    let mut learned = Learned::default();
    let mut by_words = None;
    loop {
        let plan = by_words.as_ref().unwrap_or(plan);
        match assemble(plan, settings, lists, &learned, uid, explanation)? {
            Step::Done(writer) => return Ok(Done::Merged(writer)),
            Step::More(dry) => {
                if let Some(refused) =
                    fetch_more(reader, index, plan, lists, &dry, explanation).await?
                {
                    return Ok(Done::Refused(refused));
                }
            }
            Step::Doubt => {
                let shards: Vec<ShardId> = lists.iter().map(|list| list.shard).collect();
                let words = plan.words.as_deref().unwrap_or_default();
                // An answer a little less exact is better than none.
                let known = known_words(reader, index, words, &shards).await;
                learned.words = Some(known.unwrap_or_default());
            }
            Step::WordsSuffice => {
                let plan = plan.by_words_alone(settings);
                if let Some(refused) = ask_again(reader, index, &plan, lists, explanation).await? {
                    return Ok(Done::Refused(refused));
                }
                by_words = Some(plan);
                learned.words_suffice = true;
            }
            Step::PartsUnclear => {
                lists.dedup_by_key(|list| list.shard);
                for list in lists.iter_mut() {
                    list.share = None;
                    list.pages.clear();
                }
                if let Some(refused) = ask_again(reader, index, plan, lists, explanation).await? {
                    return Ok(Done::Refused(refused));
                }
                lists.retain(|list| !list.pages.is_empty());
            }
            Step::Gaps(facets) => {
                let settings = &settings.facets;
                let lists: Vec<&ShardHits> = lists.iter().filter(|list| list.counts()).collect();
                let filled = fill_gaps(reader, index, plan, settings, &lists, &facets).await;
                learned.facets = Some(filled.unwrap_or_default());
            }
        }
    }
}

/// What further rounds have told.
#[derive(Default)]
struct Learned {
    /// What each shard knows of the query's words.
    words: Option<Vec<Known>>,
    /// Facets' whole counts.
    facets: Option<Vec<Filled>>,
    /// True where the search by words was good enough for one node not to search by meaning.
    words_suffice: bool,
}

/// Asks all shards anew, by another plan.
async fn ask_again(
    reader: &Reader<'_>,
    index: &str,
    plan: &Plan,
    lists: &mut [ShardHits],
    explanation: &mut Explanation,
) -> Result<Option<Answer>, SearchError> {
    let path = format!("/indexes/{index}/search");
    let take = plan.first_step(lists.len());
    let mut carrier = plan.ask(0, take);
    carrier.remove("indexUid");
    let asks = lists
        .iter()
        .map(|list| Ask::new(list.shard, &path, &carrier))
        .collect();
    let gathered = match reader.gather(asks).await? {
        Outcome::Refused(answer, _) => return Ok(Some(answer)),
        Outcome::Answers(gathered) => gathered,
    };
    explanation.add(&gathered, |_| (0, take));
    for list in lists {
        if let Some(reply) = gathered
            .replies
            .iter()
            .find(|reply| reply.shard == list.shard)
        {
            list.pages = vec![reply.body.clone()];
            list.asked = take;
        }
    }
    Ok(None)
}

/// True where all hits of the page, found by words alone, are good enough for one node not to search by meaning: their
/// weighed scores reach 0.45. A shard with fewer good hits than the page has searched by meaning nevertheless.
fn words_suffice(plan: &Plan, answers: &[ShardAnswer<'_>]) -> Result<bool, Malformed> {
    const GOOD_ENOUGH: f64 = 0.45;
    let Order::Hybrid { ratio } = plan.order else {
        return Ok(false);
    };
    let found = |answer: &ShardAnswer<'_>| {
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
        let mut source = Source::new(vec![(answer.text, answer.hits_at)], false);
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

/// What each shard is asked: the client's search, or its own shares of it. A shard's shares follow each other.
fn asked_shares(
    shards: &[ShardId],
    shares: Vec<(ShardId, Share)>,
) -> Vec<(ShardId, Option<Share>)> {
    let has_shares = |shard: &ShardId| shares.iter().any(|(known, _)| known == shard);
    let whole: Vec<ShardId> = shards
        .iter()
        .copied()
        .filter(|shard| !has_shares(shard))
        .collect();
    let mut asked: Vec<(ShardId, Option<Share>)> =
        whole.into_iter().map(|shard| (shard, None)).collect();
    asked.extend(
        shares
            .into_iter()
            .map(|(shard, share)| (shard, Some(share))),
    );
    asked.sort_by_key(|(shard, _)| *shard);
    asked
}

fn first_ask(plan: &Plan, take: usize, share: Option<&Share>) -> Carrier {
    let counts_only = share.is_some_and(|share| share.part.is_none());
    plan.ask_share(0, if counts_only { take.min(1) } else { take }, share)
}

fn first_lists(
    gathered: Gathered,
    asked: usize,
    shares: Vec<(ShardId, Option<Share>)>,
) -> Vec<ShardHits> {
    let missing = gathered.missing;
    let list = |reply: super::scatter::Reply| ShardHits {
        shard: reply.shard,
        pages: vec![reply.body],
        asked,
        share: shares.get(reply.at).and_then(|(_, share)| share.clone()),
    };
    let lists = gathered.replies.into_iter().map(list);
    // Of a shard that gave some of its shares, the others would be missing.
    lists
        .filter(|list| !missing.contains(&list.shard))
        .collect()
}

/// The next step of a long page: each dry shard is asked for as many hits as it gave so far.
async fn fetch_more(
    reader: &Reader<'_>,
    index: &str,
    plan: &Plan,
    lists: &mut [ShardHits],
    dry: &[usize],
    explanation: &mut Explanation,
) -> Result<Option<Answer>, SearchError> {
    let path = format!("/indexes/{index}/search");
    let (mut asks, mut asked, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for at in dry {
        let Some(list) = lists.get_mut(*at) else {
            continue;
        };
        let mut carrier = plan.ask_share(list.asked, list.asked, list.share.as_ref());
        carrier.remove("indexUid");
        asks.push(Ask::new(list.shard, &path, &carrier));
        asked.push((list.asked, list.asked));
        places.push(*at);
    }
    let gathered = match reader.gather(asks).await? {
        Outcome::Refused(answer, _) => return Ok(Some(answer)),
        Outcome::Answers(gathered) => gathered,
    };
    explanation.add(&gathered, |at| asked.get(at).copied().unwrap_or_default());
    for (asked, at) in places.into_iter().enumerate() {
        let Some(list) = lists.get_mut(at) else {
            continue;
        };
        list.asked *= 2;
        // A shard that went away in between has no more to give.
        match gathered.replies.iter().find(|reply| reply.at == asked) {
            Some(reply) => list.pages.push(reply.body.clone()),
            None => list.asked = usize::MAX,
        }
    }
    Ok(None)
}

/// What a merge led to.
enum Step {
    /// The answer, but for what may be added to it.
    Done(Writer),
    /// These lists ran out too early.
    More(Vec<usize>),
    /// One node would have searched by words alone.
    WordsSuffice,
    /// These facets may lack values.
    Gaps(Vec<String>),
    /// A shard tells words apart otherwise than the merger: it must be asked for the search as it is.
    PartsUnclear,
    /// A shard called hits exact without having compared all words: see [`super::rank::suspects`].
    Doubt,
}

fn assemble(
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
        let unreadable = |error: Malformed| SearchError::Unreadable {
            shard: list.shard,
            error,
        };
        let mut pages = Vec::with_capacity(list.pages.len());
        let mut first = None;
        for page in &list.pages {
            let answer = ShardAnswer::read(page).map_err(unreadable)?;
            pages.push((answer.text, answer.hits_at));
            first.get_or_insert(answer);
        }
        let Some(mut first) = first else { continue };
        let found = usize::try_from(first.rest.total()).unwrap_or(usize::MAX);
        let more = list.asked < plan.window.end() && list.asked < found;
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
        if list.share.is_some() {
            first.rest.query = plan.query();
        }
        if list.counts() {
            answers.push(first);
        }
    }
    let malformed = |error| SearchError::unreadable(lists, error);
    if words_suffice(plan, &answers).map_err(malformed)? {
        return Ok(Step::WordsSuffice);
    }
    let mut merged =
        merge(sources, &plan.merging()).map_err(|error| SearchError::unreadable(lists, error))?;
    if merged.unclear {
        return Ok(Step::PartsUnclear);
    }
    if !merged.dry.is_empty() {
        return Ok(Step::More(merged.dry));
    }
    if lists.iter().any(|list| list.share.is_some()) {
        // A document stands in several parts, but is counted once.
        merged.twins = 0;
    }
    if merged.doubtful && learned.words.is_none() {
        return Ok(Step::Doubt);
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
        &answers,
        &merged,
        learned.facets.as_deref().unwrap_or_default(),
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

/// A list's hits, as far as they count.
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
        let unreadable = |error: Malformed| SearchError::Unreadable {
            shard: list.shard,
            error,
        };
        for page in &list.pages {
            let answer = ShardAnswer::read(page).map_err(unreadable)?;
            let hits = vec![(answer.text, answer.hits_at)];
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
            matches!(rank, super::rank::Rank::Typo { max, .. } if hit.max_typos.is_some_and(|scale| scale != *max))
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
