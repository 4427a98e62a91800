//! A search in one index: `POST` and `GET /indexes/{uid}/search`.

use bytes::Bytes;
use http::StatusCode;
use weft_routing::placement::ShardId;

use super::answer::ShardAnswer;
use super::degraded::Degraded;
use super::explain::Explanation;
use super::merge::{Merged, Source, merge};
use super::plan::Plan;
use super::respond::{Writer, write_search};
use super::scan::Malformed;
use super::scatter::{Ask, Gathered, Outcome, Reader};
use super::settings::MergeSettings;
use super::{SearchError, where_it_is};
use crate::answer::Answer;

/// What one shard gave, over all steps.
pub(super) struct ShardHits {
    pub(super) shard: ShardId,
    /// The answers, the first one with the totals.
    pub(super) pages: Vec<Bytes>,
    /// How many hits were asked for so far.
    pub(super) asked: usize,
}

/// Carries out a planned search on `shards`.
pub(super) async fn search(
    reader: &Reader<'_>,
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
    let carrier = plan.ask(0, take);
    let asks = shards
        .iter()
        .map(|shard| Ask::new(*shard, path, &carrier))
        .collect();
    let gathered = match reader.gather(asks).await? {
        Outcome::Refused(answer, _) => return Ok(answer),
        Outcome::Answers(gathered) => gathered,
    };
    explanation.add(&gathered, 0, take);
    let missing = gathered.missing.clone();
    let mut lists = first_lists(gathered, take);
    loop {
        match assemble(plan, settings, &lists, &mut explanation)? {
            Step::Done(mut writer) => {
                let degraded = Degraded::new(&missing, shards.len());
                writer.optional("degraded", degraded.as_ref());
                if reader.explain {
                    writer.member("explain", &explanation);
                }
                let answer = Answer::json_bytes(StatusCode::OK, writer.finish());
                return Ok(degraded.map_or(answer.clone(), |degraded| degraded.on(answer)));
            }
            Step::More(dry) => {
                if let Some(refused) =
                    fetch_more(reader, path, plan, &mut lists, &dry, &mut explanation).await?
                {
                    return Ok(refused);
                }
            }
        }
    }
}

fn first_lists(gathered: Gathered, asked: usize) -> Vec<ShardHits> {
    let list = |reply: super::scatter::Reply| ShardHits {
        shard: reply.shard,
        pages: vec![reply.body],
        asked,
    };
    gathered.replies.into_iter().map(list).collect()
}

/// The next step of a long page: each dry shard is asked for as many hits as it gave so far.
async fn fetch_more(
    reader: &Reader<'_>,
    path: &str,
    plan: &Plan,
    lists: &mut [ShardHits],
    dry: &[usize],
    explanation: &mut Explanation,
) -> Result<Option<Answer>, SearchError> {
    let mut asks = Vec::new();
    let mut places = Vec::new();
    for at in dry {
        let Some(list) = lists.get_mut(*at) else {
            continue;
        };
        asks.push(Ask::new(
            list.shard,
            path,
            &plan.ask(list.asked, list.asked),
        ));
        places.push(*at);
    }
    let gathered = match reader.gather(asks).await? {
        Outcome::Refused(answer, _) => return Ok(Some(answer)),
        Outcome::Answers(gathered) => gathered,
    };
    explanation.add(&gathered, 0, 0);
    for at in places {
        let Some(list) = lists.get_mut(at) else {
            continue;
        };
        list.asked *= 2;
        // A shard that went away in between has no more to give.
        let page = gathered
            .replies
            .iter()
            .find(|reply| reply.shard == list.shard);
        match page {
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
}

fn assemble(
    plan: &Plan,
    settings: &MergeSettings,
    lists: &[ShardHits],
    explanation: &mut Explanation,
) -> Result<Step, SearchError> {
    let mut answers = Vec::with_capacity(lists.len());
    let mut sources = Vec::with_capacity(lists.len());
    for list in lists {
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
        let Some(first) = first else { continue };
        let found = usize::try_from(first.rest.total()).unwrap_or(usize::MAX);
        sources.push(Source::new(
            pages,
            list.asked < plan.window.end() && list.asked < found,
        ));
        answers.push(first);
    }
    let merged =
        merge(sources, &plan.merging()).map_err(|error| SearchError::unreadable(lists, error))?;
    if !merged.dry.is_empty() {
        return Ok(Step::More(merged.dry));
    }
    let size = merged
        .hits
        .iter()
        .map(|hit| hit.head.span.range.len() + 1)
        .sum::<usize>();
    let mut writer = Writer::new(size + 1024);
    explanation.uncertain_facets = write_search(&mut writer, plan, settings, &answers, &merged)
        .map_err(|error| SearchError::unreadable(lists, error))?;
    explain(explanation, lists, &answers, &merged);
    Ok(Step::Done(writer))
}

fn explain(
    explanation: &mut Explanation,
    lists: &[ShardHits],
    answers: &[ShardAnswer<'_>],
    merged: &Merged<'_>,
) {
    for ((list, answer), kept) in lists.iter().zip(answers).zip(&merged.kept) {
        explanation.outcome(list.shard, answer.rest.total(), *kept);
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
    if merged.duplicates > 0 {
        explanation.rebuilt.push(format!(
            "{} hits left out whose distinct value another shard has",
            merged.duplicates
        ));
    }
}
