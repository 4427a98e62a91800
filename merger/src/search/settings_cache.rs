//! Indexes' settings, as far as merges need them, remembered for a moment.
//!
//! A merge must know `maxTotalHits`, how facets are ordered and cut, the distinct attribute and whether custom rules rank.
//! One `GET …/settings` to a shard brings them. They are forgotten when a task that may have changed them has ended, and
//! asked for anew in the background when they are older than [`FRESH`], so that a change made on a node itself shows too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use http::Method;
use tokio::time::Instant;
use weft_routing::placement::ShardId;

use super::settings::MergeSettings;
use crate::app::App;
use crate::upstream::{NodeRequest, Target};

/// Younger settings are used without asking.
const FRESH: Duration = Duration::from_secs(1);
/// Older settings aren't used at all.
const STALE: Duration = Duration::from_secs(30);
/// So many indexes are remembered; beyond, all are forgotten.
const MOST_INDEXES: usize = 10_000;
/// A settings request that takes longer isn't waited for.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The remembered settings.
#[derive(Debug, Default)]
pub struct SettingsCache {
    known: Mutex<HashMap<String, Known>>,
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
        self.lock().remove(uid);
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known; `true` if the caller shall ask anew.
    fn look(&self, uid: &str) -> Option<(Arc<MergeSettings>, bool)> {
        let mut known = self.lock();
        let entry = known.get_mut(uid)?;
        let age = entry.since.elapsed();
        if age > STALE {
            return None;
        }
        let refresh = age > FRESH && !entry.refreshing;
        entry.refreshing |= refresh;
        Some((Arc::clone(&entry.settings), refresh))
    }

    fn remember(&self, uid: &str, settings: Arc<MergeSettings>) {
        let mut known = self.lock();
        if known.len() >= MOST_INDEXES && !known.contains_key(uid) {
            known.clear();
        }
        known.insert(
            uid.to_owned(),
            Known {
                settings,
                since: Instant::now(),
                refreshing: false,
            },
        );
    }
}

/// An index's settings; the engine's defaults where its shard doesn't tell.
pub(super) async fn settings_of(app: &Arc<App>, uid: &str, shard: ShardId) -> Arc<MergeSettings> {
    match app.search_settings.look(uid) {
        Some((settings, false)) => settings,
        Some((settings, true)) => {
            let (app, uid) = (Arc::clone(app), uid.to_owned());
            tokio::spawn(async move { fetch(&app, &uid, shard).await });
            settings
        }
        None => fetch(app, uid, shard).await,
    }
}

async fn fetch(app: &App, uid: &str, shard: ShardId) -> Arc<MergeSettings> {
    let path = format!("/indexes/{uid}/settings");
    let request = NodeRequest::new(
        Target::Shard(shard),
        Method::GET,
        path,
        &app.own_authority(),
        TIMEOUT,
    );
    let answer = app
        .upstream
        .send(request)
        .await
        .ok()
        .filter(|answer| answer.status.is_success());
    match answer.and_then(|answer| MergeSettings::from_json(&answer.body).ok()) {
        Some(settings) => {
            let settings = Arc::new(settings);
            app.search_settings.remember(uid, Arc::clone(&settings));
            settings
        }
        None => {
            app.search_settings.forget(uid);
            Arc::default()
        }
    }
}
