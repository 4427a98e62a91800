//! What clients meet: the listener, authorisation, dispatch, and the one place that knows Meilisearch's error codes.
//!
//! `listen → (preflight |) classify → authorise → dispatch → (search | write | tasks | broadcast) → cors → compress → answer`

mod authorise;
mod compress;
mod cors;
mod dispatch;
mod errors;
mod internal;
mod listen;
mod page;
mod token;
mod unpack;

#[cfg(test)]
pub(crate) use dispatch::dispatch;
pub use errors::ApiError;
pub use listen::serve;

use std::sync::Arc;

use weft_routing::Origins;

use crate::base::stands_on;
use crate::keys::Keys;
use crate::{broadcast, repair, search, tasks, webhooks};

/// Every part that answers requests.
pub struct Context {
    /// The task registry.
    pub registry: Arc<tasks::Context>,
    /// Reads.
    pub search: Arc<search::Context>,
    /// Changes that are the same everywhere, and writes of documents below them.
    pub broadcast: Arc<broadcast::Context>,
    /// What keeps replicas equal: for operators.
    pub repair: Arc<repair::Context>,
    /// The webhooks.
    pub webhooks: Arc<webhooks::Context>,
    /// Pages of which origins may read answers.
    pub cors_origins: Origins,
    /// The API keys.
    pub keys: Arc<Keys>,
}

stands_on!(Context, registry, tasks::Context);
