//! The cache of API keys. When a client sends a key, a node is asked for that key alone, and the answer is remembered for a
//! moment.
//!
//! There may be any number of keys, and anybody may send any number of wrong ones. So the cache is bounded, and so is how many
//! unknown keys are asked about at once. No request reads the whole list of keys. Changes made through Weft are seen at once,
//! changes made by hand on every node after [`FRESH`].

mod equalise;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use http::{Method, StatusCode};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub use equalise::{KeysError, equalise_keys, equalise_keys_now};

use crate::clock::now_utc;
use crate::cluster::Context;
use crate::upstream::{NodeRequest, Target, UpstreamError};

/// How old the remembered facts about a key may be.
pub(crate) const FRESH: Duration = Duration::from_secs(5);
/// The same for a value that is not a key.
const AGAIN: Duration = Duration::from_millis(500);
/// The same if a node checks the key too.
pub(crate) const JUDGED_AGAIN: Duration = Duration::from_secs(60);
/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many keys are remembered. When the limit is reached, all are forgotten.
const MOST_KEYS: usize = 10_000;
/// How many values that are not keys are remembered. When the limit is reached, all of these are forgotten.
const MOST_STRANGERS: usize = 10_000;
/// How many keys are asked about at once: those that were known before, and all others.
const LOOKUPS: usize = 32;
const STRANGERS: usize = 4;
/// A limit above the length of any key's value.
const MOST_BYTES: usize = 128;

/// A cache of the API keys as nodes know them.
#[derive(Debug)]
pub struct Keys {
    known: Mutex<Known>,
    known_before: Semaphore,
    strangers: Semaphore,
    changing: tokio::sync::Mutex<()>,
}

/// A key and its rights, as a node reports them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Key {
    pub(crate) uid: String,
    pub(crate) key: String,
    pub(crate) actions: Vec<String>,
    pub(crate) indexes: Vec<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) expires_at: Option<OffsetDateTime>,
}

impl Key {
    pub(crate) fn has_expired(&self) -> bool {
        self.expires_at.is_some_and(|at| at <= now_utc())
    }
}

/// How a key is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By<'a> {
    /// By the value that a client sends.
    Value(&'a str),
    /// By the uid that a tenant token names.
    Uid(&'a str),
}

impl<'a> By<'a> {
    fn name(self) -> &'a str {
        match self {
            Self::Value(name) | Self::Uid(name) => name,
        }
    }

    /// The name in the cache. A uid sent as a value is not a valid key, although the same uid is valid in a token, so the two
    /// have different names.
    fn remembered_as(self) -> String {
        match self {
            Self::Value(value) => format!("value {value}"),
            Self::Uid(uid) => format!("uid {uid}"),
        }
    }

    /// Whether this can belong to a key at all. Anything else is refused without asking a node.
    fn can_be(self) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let name = self.name();
        (1..=MOST_BYTES).contains(&name.len()) && name.bytes().all(allowed)
    }

    /// Whether the key that a node found is the one that was meant. Nodes find a key by its value and by its uid, but a uid sent
    /// as a value is not a key.
    fn is_of(self, key: &Key) -> bool {
        match self {
            Self::Value(value) => value.as_bytes().ct_eq(key.key.as_bytes()).into(),
            Self::Uid(uid) => uid.eq_ignore_ascii_case(&key.uid),
        }
    }
}

#[derive(Debug, Default)]
struct Known {
    keys: HashMap<String, (Arc<Key>, Instant)>,
    strangers: HashMap<String, Instant>,
    /// How often the cache was emptied by [`Keys::forget`].
    forgotten: u64,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            known_before: Semaphore::new(LOOKUPS),
            strangers: Semaphore::new(STRANGERS),
            changing: tokio::sync::Mutex::default(),
        }
    }
}

/// What the cache says about a key.
enum Remembered {
    Key(Arc<Key>),
    NoKey,
    /// Nothing recent; `known_before` says whether it was a key when it was last asked for.
    Unsure {
        known_before: bool,
    },
}

impl Keys {
    /// The lock for changing keys on several nodes. Without it, a comparison of the nodes meanwhile would undo a change on some
    /// of them.
    pub async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Empties the cache after a change of a key.
    pub fn forget(&self) {
        let mut known = self.lock();
        *known = Known {
            forgotten: known.forgotten + 1,
            ..Known::default()
        };
    }

    /// The key, or `None` if there is no such key. A remembered key may be as old as `fresh`.
    ///
    /// # Errors
    /// No node gave an answer.
    pub(crate) async fn find(
        &self,
        ctx: &Context,
        by: By<'_>,
        fresh: Duration,
    ) -> Result<Option<Arc<Key>>, UpstreamError> {
        self.find_with(by, fresh, || ask(ctx, by)).await
    }

    async fn find_with<R>(
        &self,
        by: By<'_>,
        fresh: Duration,
        ask: impl Fn() -> R,
    ) -> Result<Option<Arc<Key>>, UpstreamError>
    where
        R: Future<Output = Result<Option<Key>, UpstreamError>>,
    {
        if !by.can_be() {
            return Ok(None);
        }
        let known_before = match self.remembered(by, fresh) {
            Remembered::Key(key) => return Ok(Some(key)),
            Remembered::NoKey => return Ok(None),
            Remembered::Unsure { known_before } => known_before,
        };
        // Keys that were known before have their own places, so unknown keys can't make them wait.
        let places = match known_before {
            true => &self.known_before,
            false => &self.strangers,
        };
        let place = tokio::time::timeout(TIMEOUT, places.acquire());
        let _place = place.await.map_err(|_| too_many())?;
        // Another request may have asked meanwhile.
        match self.remembered(by, fresh) {
            Remembered::Key(key) => return Ok(Some(key)),
            Remembered::NoKey => return Ok(None),
            Remembered::Unsure { .. } => {}
        }
        let forgotten = self.lock().forgotten;
        let found = ask().await?.filter(|key| by.is_of(key)).map(Arc::new);
        self.remember(by, found.clone(), forgotten);
        Ok(found)
    }

    fn remembered(&self, by: By<'_>, fresh: Duration) -> Remembered {
        let name = by.remembered_as();
        let known = self.lock();
        if let Some((key, at)) = known.keys.get(&name) {
            return match at.elapsed() < fresh {
                true => Remembered::Key(Arc::clone(key)),
                false => Remembered::Unsure { known_before: true },
            };
        }
        match known.strangers.get(&name) {
            Some(at) if at.elapsed() < AGAIN => Remembered::NoKey,
            _ => Remembered::Unsure {
                known_before: false,
            },
        }
    }

    /// Remembers the answer, unless the cache was emptied since the node was asked: the answer may be from before a change.
    fn remember(&self, by: By<'_>, found: Option<Arc<Key>>, forgotten: u64) {
        let mut known = self.lock();
        if known.forgotten != forgotten {
            return;
        }
        let name = by.remembered_as();
        let now = Instant::now();
        match found {
            Some(key) => {
                if known.keys.len() >= MOST_KEYS {
                    known.keys.clear();
                }
                known.strangers.remove(&name);
                known.keys.insert(name, (key, now));
            }
            None => {
                if known.strangers.len() >= MOST_STRANGERS {
                    known.strangers.clear();
                }
                known.keys.remove(&name);
                known.strangers.insert(name, now);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many() -> UpstreamError {
    UpstreamError::Unreachable {
        target: Target::Shard(weft_routing::placement::ShardId(0)),
        detail: "too many unknown keys are asked about at once".to_owned(),
    }
}

/// Asks a node of any shard, because keys are the same on all.
async fn ask(ctx: &Context, by: By<'_>) -> Result<Option<Key>, UpstreamError> {
    let mut last = None;
    for shard in ctx.cluster.shards() {
        let target = Target::Shard(shard);
        let path = format!("/keys/{}", by.name());
        let authority = ctx.own_authority();
        let request = NodeRequest::new(target.clone(), Method::GET, path, &authority, TIMEOUT);
        let detail = match ctx.upstream.send(request).await {
            Ok(answer) if answer.status == StatusCode::NOT_FOUND => return Ok(None),
            Ok(answer) if answer.status == StatusCode::OK => {
                match serde_json::from_slice(&answer.body) {
                    Ok(key) => return Ok(Some(key)),
                    Err(error) => error.to_string(),
                }
            }
            Ok(answer) => format!("the master key is told {} about a key", answer.status),
            Err(error) => {
                last = Some(error);
                continue;
            }
        };
        last = Some(UpstreamError::Unreachable { target, detail });
    }
    Err(last.unwrap_or_else(|| UpstreamError::Unreachable {
        target: Target::Shard(weft_routing::placement::ShardId(0)),
        detail: "no shard is known yet".to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn key(value: &str) -> Key {
        Key {
            uid: format!("uid-of-{value}"),
            key: value.to_owned(),
            actions: Vec::new(),
            indexes: Vec::new(),
            expires_at: None,
        }
    }

    /// A node with these keys, which counts how often it is asked.
    struct Node {
        values: Vec<String>,
        asked: Cell<usize>,
    }

    impl Node {
        fn with(count: usize) -> Self {
            Self {
                values: (0..count).map(|number| format!("key-{number}")).collect(),
                asked: Cell::new(0),
            }
        }

        async fn find(&self, keys: &Keys, by: By<'_>) -> bool {
            let ask = || {
                self.asked.set(self.asked.get() + 1);
                let name = by.name();
                let values = self.values.iter();
                let mut found = values.map(|value| key(value));
                let found = found.find(|key| key.key == name || key.uid == name);
                async move { Ok(found) }
            };
            let found = keys.find_with(by, FRESH, ask).await.unwrap();
            found.is_some()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_many_keys_is_asked_for_once_and_again_when_it_is_old() {
        let (keys, node) = (Keys::default(), Node::with(3_000));
        for _ in 0..3 {
            for value in &node.values {
                assert!(node.find(&keys, By::Value(value)).await, "{value}");
            }
        }
        assert_eq!(node.asked.get(), 3_000);
        tokio::time::advance(FRESH).await;
        assert!(node.find(&keys, By::Value("key-0")).await);
        assert_eq!(node.asked.get(), 3_001);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_is_asked_about_once_and_seen_soon_when_it_becomes_a_key() {
        let (keys, mut node) = (Keys::default(), Node::with(1));
        for _ in 0..5 {
            assert!(!node.find(&keys, By::Value("later")).await);
        }
        assert_eq!(node.asked.get(), 1);
        node.values.push("later".to_owned());
        // A change through Weft is seen at once.
        keys.forget();
        assert!(node.find(&keys, By::Value("later")).await);
        // A change by hand is seen a moment later.
        assert!(!node.find(&keys, By::Value("by-hand")).await);
        node.values.push("by-hand".to_owned());
        tokio::time::advance(AGAIN).await;
        assert!(node.find(&keys, By::Value("by-hand")).await);
        // A deletion through Weft is seen at once.
        node.values.clear();
        keys.forget();
        assert!(!node.find(&keys, By::Value("later")).await);
    }

    #[tokio::test(start_paused = true)]
    async fn random_keys_cost_a_lookup_each_and_no_more_memory_than_there_is() {
        let (keys, node) = (Keys::default(), Node::with(10));
        assert!(node.find(&keys, By::Value("key-3")).await);
        for number in 0..MOST_STRANGERS * 2 + 5 {
            let random = format!("random-{number}");
            assert!(!node.find(&keys, By::Value(&random)).await);
        }
        assert_eq!(node.asked.get(), MOST_STRANGERS * 2 + 6);
        assert!(keys.lock().strangers.len() <= MOST_STRANGERS);
        // A key that was known before is still known.
        assert!(node.find(&keys, By::Value("key-3")).await);
        assert_eq!(node.asked.get(), MOST_STRANGERS * 2 + 6);
    }

    #[tokio::test]
    async fn what_can_be_no_key_is_asked_of_nobody() {
        let (keys, node) = (Keys::default(), Node::with(10));
        let long = "a".repeat(MOST_BYTES + 1);
        for odd in ["", "a/b", "a b", "..", "a?b", "ü", "a%2f", &long] {
            assert!(!node.find(&keys, By::Value(odd)).await, "{odd}");
        }
        assert_eq!(node.asked.get(), 0);
    }

    #[tokio::test]
    async fn a_uid_is_no_key_and_a_key_is_no_uid() {
        let (keys, node) = (Keys::default(), Node::with(10));
        assert!(!node.find(&keys, By::Value("uid-of-key-1")).await);
        assert!(node.find(&keys, By::Uid("uid-of-key-1")).await);
        assert!(!node.find(&keys, By::Value("uid-of-key-1")).await);
        assert!(!node.find(&keys, By::Uid("key-1")).await);
    }

    #[tokio::test]
    async fn what_was_asked_before_a_change_is_not_remembered_after_it() {
        let keys = Keys::default();
        let by = By::Value("key-1");
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            let first = asked.get() == 1;
            if first {
                keys.forget();
            }
            async move { Ok(first.then(|| key("key-1"))) }
        };
        assert!(keys.find_with(by, FRESH, ask).await.unwrap().is_some());
        assert!(keys.find_with(by, FRESH, ask).await.unwrap().is_none());
        assert_eq!(asked.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_that_wait_keep_no_known_key_waiting() {
        let keys = Arc::new(Keys::default());
        let known = By::Value("known");
        let found = keys.find_with(known, FRESH, || async { Ok(Some(key("known"))) });
        assert!(found.await.unwrap().is_some());
        let crowd: Vec<_> = (0..50)
            .map(|number| {
                let keys = Arc::clone(&keys);
                tokio::spawn(async move {
                    let name = format!("stranger-{number}");
                    let never = || std::future::pending();
                    keys.find_with(By::Value(&name), FRESH, never).await
                })
            })
            .collect();
        tokio::time::advance(FRESH + Duration::from_secs(1)).await;
        let begun = Instant::now();
        let found = keys.find_with(known, FRESH, || async { Ok(Some(key("known"))) });
        assert!(found.await.unwrap().is_some());
        assert_eq!(begun.elapsed(), Duration::ZERO);
        crowd.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
