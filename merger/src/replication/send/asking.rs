//! Asks several replicas the same and decides when there are enough answers: which replicas may still answer, until when, and
//! which are late.
//!
//! This module knows nothing about the cluster: a replica is a key, and its answer a future. There are two kinds: replicas at
//! hand are asked at once, and replicas held back when their queue goes on. When the first has taken the request, the others have
//! a bounded time left: the fixed patience and twice the time that the first took.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

/// How much longer than the first replica the others may take, as a multiple of its time, in addition to the fixed patience.
const PATIENCE_FACTOR: u32 = 2;

/// The replica and its answer; `None` if it was late or must not be asked any more.
pub(super) type Answer<K, T> = (K, Option<T>);
type Running<K, T> = FuturesUnordered<BoxFuture<'static, Answer<K, T>>>;

/// How long a replica that was held back may take once its queue goes on. Known when the first of the others has taken the
/// request.
type Limit = Arc<OnceLock<Duration>>;

/// Replicas that are being asked.
pub(super) struct AckWait<K, T> {
    /// All replicas in the order of asking, and whether each is held back.
    order: Vec<(K, bool)>,
    at_hand: Running<K, T>,
    held: Running<K, T>,
    limit: Limit,
}

/// When a request counts as taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct AckRule {
    /// How many replicas must have taken it.
    pub(super) takers: usize,
    /// Whether all replicas at hand are waited for, within the patience.
    pub(super) everybody: bool,
    pub(super) patience: Duration,
}

/// The state when there were enough answers.
pub(super) struct Asked<K, T> {
    /// The answers in the order of asking, without the late replicas.
    pub(super) answers: Vec<Answer<K, T>>,
    /// The late replicas: they may still take it.
    pub(super) late: Vec<K>,
    pub(super) rest: Rest<K, T>,
}

/// The late replicas and their running requests.
pub(super) struct Rest<K, T> {
    /// The late replicas that were asked at once and haven't answered.
    at_hand: Vec<K>,
    running: Running<K, T>,
    until: Instant,
    held: Running<K, T>,
}

impl<K, T> AckWait<K, T>
where
    K: Clone + PartialEq + Send + 'static,
    T: Send + 'static,
{
    pub(super) fn new() -> Self {
        Self {
            order: Vec::new(),
            at_hand: Running::new(),
            held: Running::new(),
            limit: Limit::default(),
        }
    }

    /// Asks one more replica when its queue place comes first. If `place` yields `None`, the replica is not asked.
    pub(super) fn ask<P: Send + 'static>(
        &mut self,
        key: K,
        is_held: bool,
        place: impl Future<Output = Option<P>> + Send + 'static,
        sending: BoxFuture<'static, T>,
    ) {
        self.order.push((key.clone(), is_held));
        let limit = is_held.then(|| Arc::clone(&self.limit));
        let answer = Box::pin(async move {
            let Some(_place) = place.await else {
                return (key, None);
            };
            let answer = match limit.and_then(|limit| limit.get().copied()) {
                Some(limit) => tokio::time::timeout(limit, sending).await.ok(),
                None => Some(sending.await),
            };
            (key, answer)
        });
        match is_held {
            true => self.held.push(answer),
            false => self.at_hand.push(answer),
        }
    }

    /// Waits until there are enough answers.
    pub(super) async fn wait(mut self, enough: AckRule, taken: impl Fn(&T) -> bool) -> Asked<K, T> {
        let (begun, mut until, mut takers) = (Instant::now(), None::<Instant>, 0);
        let mut answers: Vec<Answer<K, T>> = Vec::with_capacity(self.order.len());
        while takers < enough.takers || enough.everybody {
            let next = match until {
                None => self.at_hand.next().await,
                Some(until) => match tokio::time::timeout_at(until, self.at_hand.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            let Some((key, answer)) = next else { break };
            if answer.as_ref().is_some_and(&taken) {
                takers += 1;
                let more = enough.patience + begun.elapsed() * PATIENCE_FACTOR;
                let more = *self.limit.get_or_init(|| more);
                until.get_or_insert_with(|| Instant::now() + more);
            }
            answers.push((key, answer));
        }
        // If no replica took it, no replica is late. If too few did, replicas at hand are not waited for any longer.
        let may_be_late = |is_held: bool| {
            takers > 0 && (is_held || (takers >= enough.takers && !enough.everybody))
        };
        let (mut late, mut at_hand) = (Vec::new(), Vec::new());
        for (key, is_held) in &self.order {
            if answers.iter().any(|(other, _)| other == key) {
                continue;
            }
            if !may_be_late(*is_held) {
                answers.push((key.clone(), None));
                continue;
            }
            late.push(key.clone());
            if !is_held {
                at_hand.push(key.clone());
            }
        }
        answers.sort_by_key(|(key, _)| self.order.iter().position(|(other, _)| other == key));
        let rest = Rest {
            at_hand,
            running: self.at_hand,
            until: until.unwrap_or_else(Instant::now),
            held: self.held,
        };
        Asked {
            answers,
            late,
            rest,
        }
    }
}

impl<K: Clone + PartialEq, T> Rest<K, T> {
    /// The next answer, or `None` for a replica whose time has run out; no item when all are done.
    pub(super) async fn next(&mut self) -> Option<Answer<K, T>> {
        tokio::select! {
            biased;
            Some((key, answer)) = self.running.next(), if !self.at_hand.is_empty() => {
                self.at_hand.retain(|other| *other != key);
                Some((key, answer))
            }
            () = tokio::time::sleep_until(self.until), if !self.at_hand.is_empty() => {
                // Their time is over: their requests are dropped here.
                self.running.clear();
                self.at_hand.pop().map(|key| (key, None))
            }
            Some(answer) = self.held.next(), if !self.held.is_empty() => Some(answer),
            else => None,
        }
    }
}

#[cfg(test)]
mod tests;
