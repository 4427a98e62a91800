//! What searches remember is forgotten before anybody can see that a task has ended which may have changed it.

use std::sync::{Arc, Weak};

use crate::follower::ChangedKey;
use crate::search::{self, Stale, forget};
use crate::tasks::BeforeEnd;

/// Forgets in this merger, and lets its followers forget.
pub(super) struct Forgetting {
    search: Weak<search::Context>,
    has_followers: bool,
}

impl Forgetting {
    /// For the caches of this context. Followers hear of ends in the commits that store them.
    pub(super) fn new(search: &Arc<search::Context>, has_followers: bool) -> Arc<Self> {
        Arc::new(Self {
            search: Arc::downgrade(search),
            has_followers,
        })
    }
}

impl BeforeEnd for Forgetting {
    fn ends(&self, kind: &str, index_uid: Option<&str>) {
        if let Some(search) = self.search.upgrade() {
            forget(&search, &Stale::by(kind, index_uid));
        }
    }

    fn told_with(&self, kind: &str, index_uid: Option<&str>) -> Option<String> {
        self.has_followers
            .then(|| ChangedKey::Stale(Stale::by(kind, index_uid)).name())
    }
}
