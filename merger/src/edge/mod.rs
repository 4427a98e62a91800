//! The side that clients see: the listener, authorisation, dispatch, and the one place that knows Meilisearch's error codes.
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
mod standby;
mod token;
mod unpack;

#[cfg(test)]
pub(crate) use dispatch::dispatch;
pub use errors::ApiError;
pub use listen::serve;
pub use standby::{Standby, stand_by};

use std::sync::Arc;

use weft_routing::Origins;

use crate::base::stands_on;
use crate::keys::Keys;
use crate::{broadcast, repair, search, tasks, webhooks};

/// All parts that answer requests.
pub struct Context {
    /// The task registry.
    pub registry: Arc<tasks::Context>,
    /// Searches and reads of documents.
    pub search: Arc<search::Context>,
    /// Changes that are the same on all nodes; its base also handles writes of documents.
    pub broadcast: Arc<broadcast::Context>,
    /// The repair of replicas, for operators' requests.
    pub repair: Arc<repair::Context>,
    /// The webhooks.
    pub webhooks: Arc<webhooks::Context>,
    /// The origins whose pages may read answers.
    pub cors_origins: Origins,
    /// The cache of API keys.
    pub keys: Arc<Keys>,
}

stands_on!(Context, registry, tasks::Context);
