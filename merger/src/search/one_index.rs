//! A search in one index: `POST` and `GET /indexes/{uid}/search`.

mod assemble;

use assemble::{Learned, Step, assemble};
use http::StatusCode;
use weft_routing::placement::ShardId;

use super::answer::ShardAnswer;
use super::degraded::Degraded;
use super::distinct;
use super::explain::Explanation;
use super::facet_gaps::fill_gaps;
use super::frequency::{self, Share};
use super::merge::Source;
use super::plan::Plan;
use super::respond::Writer;
use super::scan::Malformed;
use super::scatter::{Ask, Gathered, Outcome, Reader};
use super::settings::MergeSettings;
use super::vocabulary::known_words;
use super::{SearchError, where_it_is};
use crate::answer::Answer;

/// What one shard gave, in all rounds.
pub(super) struct ShardHits {
    pub(super) shard: ShardId,
    /// The answers. The first one has the totals.
    pub(super) pages: Vec<ShardAnswer>,
    /// How many hits were asked for so far.
    pub(super) asked: usize,
    /// What was asked instead of the client's search. A shard with shares has several lists.
    pub(super) share: Option<Share>,
    /// For `distinct`: true if all of the shard's hits were asked for, not only those of a page.
    pub(super) whole: bool,
}

impl ShardHits {
    /// How many hits the shard has, according to its first answer.
    pub(super) fn found(&self) -> usize {
        let found = self.pages.first().map_or(0, |page| page.rest.total());
        usize::try_from(found).unwrap_or(usize::MAX)
    }

    /// How many hits its last answer has.
    pub(super) fn hits_of_last(&self, plan: &Plan) -> Result<usize, SearchError> {
        let Some(page) = self.pages.last() else {
            return Ok(0);
        };
        let unreadable = |error| self.unreadable(error);
        let mut source = Source::new(vec![page.hits()], false);
        let mut hits = 0;
        source.advance(&plan.interest).map_err(unreadable)?;
        while source.take().is_some() {
            hits += 1;
            source.advance(&plan.interest).map_err(unreadable)?;
        }
        Ok(hits)
    }

    /// True if all of the `found` hits were asked for.
    fn has_all(&self, found: u64) -> bool {
        self.whole || usize::try_from(found).is_ok_and(|found| self.asked >= found)
    }

    pub(super) fn unreadable(&self, error: Malformed) -> SearchError {
        SearchError::Unreadable {
            shard: self.shard,
            error,
        }
    }

    /// True if the shard's totals and facets are taken from this list.
    fn counts(&self) -> bool {
        self.share.as_ref().is_none_or(|share| share.counts)
    }

    /// True if this list's hits aren't used.
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
        why: where_it_is(shards, reader.index_shards),
        ..Explanation::default()
    };
    let take = plan.first_step(shards.len());
    let shares = frequency::shares(reader, index, plan, settings, shards).await;
    let shares = asked_shares(shards, shares);
    let asks = first_asks(plan, path, take, &shares);
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
    let mut lists = first_lists(gathered, take, plan, &shares)?;
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
    /// An answer, to which members may be added.
    Merged(Writer),
    /// A node's refusal.
    Refused(Answer),
}

/// Merges `lists`, the shards' first answers, and asks for more if the page or a verdict needs it. With `uid`, the answer
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
        if plan.hides_distinct {
            let known = learned.hidden.get_or_insert_default();
            distinct::values_of_hidden(reader, index, plan, lists, known).await?;
        }
        learned.times = reader.times();
        let merging = reader.phase("merge");
        let step = assemble(plan, settings, lists, &learned, uid, explanation)?;
        drop(merging);
        match step {
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
                // A slightly less exact answer is better than none.
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
            Step::Lists => {
                distinct::fetch_whole(reader, index, plan, settings, lists, explanation).await?;
                learned.lists = true;
            }
            Step::Losers(losers, facets) => {
                learned.losers = Some(distinct::fetch(reader, index, &losers, &facets).await?);
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

/// Asks all shards again, by another plan.
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
            list.pages = vec![reply.read()?];
            list.asked = take;
        }
    }
    Ok(None)
}

/// What each shard is asked: the client's search, or its own shares of it. A shard's shares follow one another.
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

fn first_asks(
    plan: &Plan,
    path: &str,
    take: usize,
    shares: &[(ShardId, Option<Share>)],
) -> Vec<Ask> {
    // The client's own search is the same for all shards and may be long, so it is written once.
    let own = shares.iter().find(|(_, share)| share.is_none());
    let own = own.map(|(shard, _)| Ask::new(*shard, path, &plan.ask(0, take)));
    let ask = |(shard, share): &(ShardId, Option<Share>)| match (share, &own) {
        (None, Some(own)) => own.for_shard(*shard),
        _ => {
            let counts_only = share.as_ref().is_some_and(|share| share.part.is_none());
            let take = if counts_only { take.min(1) } else { take };
            Ask::new(*shard, path, &plan.ask_share(0, take, share.as_ref()))
        }
    };
    shares.iter().map(ask).collect()
}

fn first_lists(
    gathered: Gathered,
    asked: usize,
    plan: &Plan,
    shares: &[(ShardId, Option<Share>)],
) -> Result<Vec<ShardHits>, SearchError> {
    let Gathered {
        replies, missing, ..
    } = gathered;
    let mut lists = Vec::with_capacity(replies.len());
    // If a shard answered only some of its shares, the hits of the others would be missing.
    for reply in replies
        .iter()
        .filter(|reply| !missing.contains(&reply.shard))
    {
        let mut page = reply.read()?;
        let share = shares.get(reply.at).and_then(|(_, share)| share.clone());
        if share.is_some() {
            page.rest.query = plan.query();
        }
        lists.push(ShardHits {
            shard: reply.shard,
            pages: vec![page],
            asked,
            share,
            whole: false,
        });
    }
    Ok(lists)
}

/// The next round for a long page: each dry shard is asked for as many hits as it has given so far.
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
        // A shard that failed in the meantime has no more to give.
        match gathered.replies.iter().find(|reply| reply.at == asked) {
            Some(reply) => list.pages.push(reply.read()?),
            None => list.asked = usize::MAX,
        }
    }
    Ok(None)
}
