//! Merged answers, remembered as long as they are exactly what the nodes would answer; and identical searches, sent once.
//!
//! Search boxes repeat themselves: prefixes as people type, the front page, the same facets. Every change that Weft makes on a node
//! is sent by this merger, so it can tell when an answer may be another one, without a time to live.
//!
//! # What is kept
//!
//! An answer is kept under what was [asked](key): the operation, the index, the parameters in the order of their names, the policy
//! for missing shards, and what the client's key allows (all of it: tokens with different rules never share an answer, two tokens with
//! the same rules and the same key do). Beside it stands the [moment](quiet::Moment) in which the search began: for each of its
//! indexes the number of the last request that may change it, the epochs of placements and of in-sync sets, and how often a node
//! was away.
//!
//! It is kept only if
//!
//! * in that moment nothing was [changing](quiet) the indexes: no request was under way, no node had a task of them, no slot was
//!   moving, no shard was in doubt, all replicas that may be read from were known to be what they were;
//! * the moment was still the same when the answer was there: nothing was sent meanwhile, nothing placed, no replica taken out;
//! * every shard answered at the first attempt, in time, and the answer is not too large.
//!
//! It is given to a client only if the moment is still the same. A request that may change an index makes another moment of it
//! *before* it leaves for a node, so before it can have any effect, and before its client hears of it. So:
//!
//! **Promise.** A remembered answer is one that the nodes could have given when the client asked: what the client could know of
//! any write before it asked is in the answer. Once a write's task has succeeded, no answer from before it is given.
//!
//! **A merger that follows** doesn't see what the leader sends. It sees new tasks of nodes by its own probes, and ends of tasks in the
//! state that it [follows](heard). So it may give an answer from before a write until the next of these: some 50 ms after the end as
//! a rule. A client that heard of the task's end through the same merger isn't given one, and neither is a search that names the task:
//! that goes to the leader.
//!
//! # What is not kept
//!
//! * Searches of replicas or tasks of the client's choice (`x-weft-read: primary`, `x-weft-after-task`), and answers that tell about
//!   their own request or user. Searches by a model (`hybrid` without a vector), because the model may answer differently.
//! * Anything with `--direct-writes`: filters send such writes to nodes before this merger hears of them.
//! * What people change on a node by hand is seen when the node's next probe shows its task, a tenth of a second later as a rule.
//!   Until then, old answers may be given.

mod flight;
mod heard;
mod key;
mod quiet;
mod text;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::time::Instant;
use weft_routing::headers;

pub(crate) use self::heard::Heard;
pub use self::key::canonical;

use self::flight::{Flights, Outcome, Place};
use self::key::Asked;
use self::quiet::{Lie, Moment, Rounds, is_quiet};
use super::read::parameters;
use super::{Attempt, Context, SearchError, attempts};
use crate::answer::Answer;
use crate::call::Call;

/// What a remembered answer takes beside its text and its key, in bytes, roughly.
const OVERHEAD: usize = 256;
/// The largest part of all memory for answers that one may take.
const LARGEST_SHARE: u64 = 32;
/// The largest answer that is remembered, in bytes.
const LARGEST: u64 = 1 << 20;
/// How many bytes an answer has that is neither small nor large.
const USUAL: u64 = 8 << 10;
/// A search that takes longer may have been cut short by its node, which then answers with what it has found so far.
const LONGEST: Duration = Duration::from_secs(1);

/// The remembered answers, and the searches under way.
pub struct Remembered {
    answers: Option<Cache<Arc<str>, Arc<Kept>, Weigh>>,
    largest: usize,
    flights: Arc<Flights<Moment>>,
    rounds: Rounds,
    /// What was heard of the leader, in a merger that follows.
    pub(crate) heard: Heard,
}

/// A remembered answer.
struct Kept {
    answer: text::Shared,
    moment: Moment,
    at: Instant,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Arc<str>, Arc<Kept>> for Weigh {
    fn weight(&self, key: &Arc<str>, kept: &Arc<Kept>) -> u64 {
        weight(key, &kept.answer) as u64
    }
}

fn weight(key: &str, answer: &text::Shared) -> usize {
    OVERHEAD + key.len() + answer.len()
}

impl Remembered {
    /// Remembers answers of so many bytes in all; none if it is 0.
    pub fn new(bytes: u64) -> Self {
        let usual = usize::try_from(bytes / USUAL).unwrap_or(usize::MAX).max(16);
        Self {
            answers: (bytes > 0).then(|| Cache::with_weighter(usual, bytes, Weigh)),
            largest: usize::try_from(LARGEST.min(bytes / LARGEST_SHARE)).unwrap_or(usize::MAX),
            flights: Arc::default(),
            rounds: Rounds::default(),
            heard: Heard::default(),
        }
    }
}

/// Answers a search: from memory, together with others, or by itself.
pub(super) async fn answer(
    ctx: &Arc<Context>,
    call: Call,
    body: Bytes,
) -> Result<Answer, SearchError> {
    let asked = parameters(&call, &body).and_then(|read| Asked::of(&call, &read));
    let Some((asked, lie)) = asked.and_then(|asked| {
        let lie = Lie::of(ctx, &asked.indexes)?;
        Some((asked, lie))
    }) else {
        return attempts(ctx, &call, &body).await.answer;
    };
    let now = lie.moment(ctx);
    let explains = call
        .header(headers::EXPLAIN)
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let key: Arc<str> = asked.key.into();
    if let Some(kept) = look(ctx, &lie, &key, &now) {
        call.forwarded.asked().note_remembered();
        return Ok(match explains {
            true => kept.answer.explained(kept.at.elapsed().as_millis()),
            false => kept.answer.for_client(),
        });
    }
    if explains {
        return attempts(ctx, &call, &body).await.answer;
    }
    let search = Search {
        ctx: Arc::clone(ctx),
        call,
        body,
        lie,
        key,
        may_keep: asked.may_keep,
        own: Mutex::default(),
    };
    Arc::new(search).together(now).await
}

/// The remembered answer, if it still holds.
fn look(ctx: &Context, lie: &Lie, key: &Arc<str>, now: &Moment) -> Option<Arc<Kept>> {
    let kept = ctx.remembered.answers.as_ref()?.get(key);
    let holds = kept.filter(|kept| kept.moment == *now && lie.is_known(ctx));
    count(ctx, if holds.is_some() { "hit" } else { "miss" });
    holds
}

fn count(ctx: &Context, outcome: &str) {
    ctx.metrics.remembered.with_label_values(&[outcome]).inc();
}

/// A search that others may wait for, too.
struct Search {
    ctx: Arc<Context>,
    call: Call,
    body: Bytes,
    lie: Lie,
    key: Arc<str>,
    may_keep: bool,
    /// What came of it, if that is for the client that began it alone: an error, or an answer that lacks something.
    own: Mutex<Option<Result<Answer, SearchError>>>,
}

impl Search {
    /// Sends the search, unless an identical one is under way that it may join.
    async fn together(self: Arc<Self>, now: Moment) -> Result<Answer, SearchError> {
        let begun = Arc::clone(&self);
        let begin = move || {
            let moment = begun.lie.moment(&begun.ctx);
            let moment = is_quiet(&begun.ctx, &begun.lie).then_some(moment);
            // A merger that follows hears too late of what was sent meanwhile.
            let joined_until = moment.clone().filter(|_| begun.ctx.tasks.is_some());
            (joined_until, begun.run(moment))
        };
        let flights = &self.ctx.remembered.flights;
        let outcome = match flights.join(&self.key, &now, begin) {
            Place::Own(running) => running.await,
            Place::Joined(running) => {
                let outcome = running.await;
                if outcome.is_some() {
                    count(&self.ctx, "joined");
                    self.call.forwarded.asked().note_remembered();
                }
                outcome
            }
        };
        if let Some(answer) = outcome {
            return Ok(answer.for_client());
        }
        let own = self
            .own
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match own {
            Some(own) => own,
            None => attempts(&self.ctx, &self.call, &self.body).await.answer,
        }
    }

    /// Carries the search out, and remembers its answer if that holds beyond it.
    async fn run(self: Arc<Self>, moment: Option<Moment>) -> Outcome {
        let began = Instant::now();
        let Attempt { answer, exact } = attempts(&self.ctx, &self.call, &self.body).await;
        // A note that something is missing is a header.
        let whole = answer
            .as_ref()
            .ok()
            .filter(|answer| answer.status == StatusCode::OK && answer.headers.is_empty());
        let Some(shared) = whole.and_then(text::Shared::of) else {
            let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            *own = Some(answer);
            return None;
        };
        if let Some(moment) = moment
            && exact
            && self.may_keep
            && began.elapsed() < LONGEST
        {
            self.keep(&shared, moment);
        }
        Some(Arc::new(shared))
    }

    fn keep(&self, answer: &text::Shared, moment: Moment) {
        let remembered = &self.ctx.remembered;
        let Some(answers) = &remembered.answers else {
            return;
        };
        let fits = weight(&self.key, answer) <= remembered.largest;
        if !fits || self.lie.moment(&self.ctx) != moment {
            return;
        }
        if let Some(answer) = answer.to_keep() {
            let kept = Kept {
                answer,
                moment,
                at: Instant::now(),
            };
            answers.insert(Arc::clone(&self.key), Arc::new(kept));
            let bytes = i64::try_from(answers.weight()).unwrap_or(i64::MAX);
            self.ctx.metrics.remembered_bytes.set(bytes);
        }
    }
}
