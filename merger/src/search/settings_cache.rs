//! A short-lived cache of the indexes' settings that merges need.
//!
//! A merge must know `maxTotalHits`, how facets are ordered and cut, the distinct attribute and whether custom rules rank.
//! One `GET …/settings` to a shard returns them. They are forgotten before anybody can see that a task has ended which may have
//! changed them.
//! Settings older than [`FRESH`] are fetched again in the background, so that a change made directly on a node shows too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use http::{Method, StatusCode};
use tokio::time::Instant;
use weft_routing::placement::ShardId;

use super::SearchError;
use super::settings::MergeSettings;
use crate::cluster::ReadFrom;
use crate::search::Context;
use crate::upstream::{NodeRequest, Target, UpstreamError};

/// Younger settings are used without asking a node.
const FRESH: Duration = Duration::from_secs(1);
/// Older settings aren't used at all.
const STALE: Duration = Duration::from_secs(30);
/// The most indexes that are remembered. Beyond this, all are forgotten.
const MOST_INDEXES: usize = 10_000;
/// How long a settings request is waited for.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The remembered settings.
#[derive(Debug, Default)]
pub struct SettingsCache {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Incremented each time something is forgotten, so that an answer from before isn't remembered afterwards.
    forgotten: u64,
    known: HashMap<String, Known>,
}

#[derive(Debug, Clone)]
struct Known {
    settings: Arc<MergeSettings>,
    since: Instant,
    refreshing: bool,
}

impl SettingsCache {
    /// Forgets an index's settings: the next search asks for them.
    pub fn forget(&self, uid: &str) {
        let mut inner = self.lock();
        inner.forgotten += 1;
        inner.known.remove(uid);
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        let mut inner = self.lock();
        inner.forgotten += 1;
        inner.known.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mark to take before a shard is asked.
    fn mark(&self) -> u64 {
        self.lock().forgotten
    }

    /// The remembered settings; `true` if the caller must fetch them again.
    fn look(&self, uid: &str) -> Option<(Arc<MergeSettings>, bool)> {
        let mut inner = self.lock();
        let entry = inner.known.get_mut(uid)?;
        let age = entry.since.elapsed();
        if age > STALE {
            return None;
        }
        let refresh = age > FRESH && !entry.refreshing;
        entry.refreshing |= refresh;
        Some((Arc::clone(&entry.settings), refresh))
    }

    /// Notes that the settings couldn't be fetched; the next search tries again.
    fn tried(&self, uid: &str) {
        if let Some(known) = self.lock().known.get_mut(uid) {
            known.refreshing = false;
        }
    }

    /// Remembers what a shard said after `mark` was taken, unless something was forgotten since: it may be what holds no longer.
    fn remember(&self, mark: u64, uid: &str, settings: Arc<MergeSettings>) {
        let mut inner = self.lock();
        if inner.forgotten != mark {
            return;
        }
        if inner.known.len() >= MOST_INDEXES && !inner.known.contains_key(uid) {
            inner.known.clear();
        }
        let known = Known {
            settings,
            since: Instant::now(),
            refreshing: false,
        };
        inner.known.insert(uid.to_owned(), known);
    }
}

/// An index's settings, from the first of its shards that returns them. `from` says which replicas the read asks.
///
/// # Errors
/// No shard returns the settings. A merge without them could be in a wrong order without anyone noticing.
pub(super) async fn settings_of(
    ctx: &Arc<Context>,
    from: &ReadFrom,
    uid: &str,
    shards: &[ShardId],
) -> Result<Arc<MergeSettings>, SearchError> {
    if !from.goes_by_memory() {
        return fetch(ctx, from, uid, shards).await;
    }
    match ctx.search_settings.look(uid) {
        Some((settings, false)) => Ok(settings),
        Some((settings, true)) => {
            let (ctx, uid, shards) = (Arc::clone(ctx), uid.to_owned(), shards.to_vec());
            tokio::spawn(async move {
                if let Err(error) = fetch(&ctx, &ReadFrom::Any, &uid, &shards).await {
                    tracing::debug!(index = uid, %error, "settings can't be asked for anew");
                }
            });
            Ok(settings)
        }
        None => fetch(ctx, &ReadFrom::Any, uid, shards).await,
    }
}

async fn fetch(
    ctx: &Context,
    from: &ReadFrom,
    uid: &str,
    shards: &[ShardId],
) -> Result<Arc<MergeSettings>, SearchError> {
    let mut last = SearchError::NoShards;
    for shard in shards {
        let mark = ctx.search_settings.mark();
        let target = ctx.cluster.target(*shard, from);
        match ask(ctx, uid, target).await {
            Ok(Some(settings)) => {
                let settings = Arc::new(settings);
                if from.goes_by_memory() {
                    let remembered = Arc::clone(&settings);
                    ctx.search_settings.remember(mark, uid, remembered);
                }
                return Ok(settings);
            }
            // The index is gone, and the shards' answers will say so.
            Ok(None) => {
                ctx.search_settings.forget(uid);
                return Ok(Arc::default());
            }
            Err(error) => last = error,
        }
    }
    ctx.search_settings.tried(uid);
    Err(last)
}

/// The settings from a shard; `None` if the index doesn't exist there.
async fn ask(
    ctx: &Context,
    uid: &str,
    target: Target,
) -> Result<Option<MergeSettings>, SearchError> {
    let path = format!("/indexes/{uid}/settings");
    let authority = ctx.own_authority();
    let request = NodeRequest::new(target.clone(), Method::GET, path, &authority, TIMEOUT);
    let answer = ctx.upstream.send(request).await?;
    let detail = match answer.status {
        StatusCode::NOT_FOUND => return Ok(None),
        status if status.is_success() => match MergeSettings::from_json(&answer.body) {
            Ok(settings) => return Ok(Some(settings)),
            Err(error) => error.to_string(),
        },
        status => format!("status {status}"),
    };
    let detail = format!("the settings of `{uid}` can't be read: {detail}");
    Err(UpstreamError::Unreachable { target, detail }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_from_before_a_change_is_not_remembered_after_it() {
        let cache = SettingsCache::default();
        let settings = Arc::<MergeSettings>::default();
        let mark = cache.mark();
        cache.forget("films");
        cache.remember(mark, "films", Arc::clone(&settings));
        assert!(cache.look("films").is_none());
        let mark = cache.mark();
        cache.remember(mark, "films", Arc::clone(&settings));
        assert!(matches!(cache.look("films"), Some((_, false))));
        tokio::time::advance(FRESH * 2).await;
        // One search asks for them again, and the others use what is there.
        let mark = cache.mark();
        assert!(matches!(cache.look("films"), Some((_, true))));
        assert!(matches!(cache.look("films"), Some((_, false))));
        cache.forget_all();
        cache.remember(mark, "films", settings);
        assert!(cache.look("films").is_none());
    }
}
