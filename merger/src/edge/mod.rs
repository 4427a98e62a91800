//! The side that clients see: the listener, authorisation, dispatch, and the one place that knows Meilisearch's error codes.
//!
//! `listen → (preflight |) classify → authorise → dispatch → (search | write | tasks | broadcast) → cors → compress → answer`
//!
//! A merger that [follows](follower) another one has a `search` only, and passes on to the leader what is no read.

mod authorise;
mod compress;
mod cors;
mod dispatch;
mod errors;
mod follower;
mod gauges;
mod internal;
mod listen;
mod mergers;
mod page;
mod status_page;
mod token;
mod told;
mod unpack;

#[cfg(test)]
pub(crate) use dispatch::dispatch;
pub use errors::ApiError;
pub use follower::Follower;
pub use gauges::measure;
pub use listen::{Door, serve};
pub use mergers::Peers;

use std::sync::Arc;

use weft_routing::Origins;

use crate::base::stands_on;
use crate::keys::Keys;
use crate::{broadcast, repair, search, tasks, webhooks};

/// What a merger does at the moment.
#[derive(Clone)]
pub enum Role {
    /// It leads, or it is alone with its store.
    Leads(Arc<Context>),
    /// Another one leads, or none.
    Follows(Arc<Follower>),
}

impl Role {
    fn reading(&self) -> &Reading {
        match self {
            Self::Leads(ctx) => &ctx.reading,
            Self::Follows(follower) => &follower.reading,
        }
    }
}

/// What answers reads, in every merger.
pub struct Reading {
    /// Searches and reads of documents.
    pub search: Arc<search::Context>,
    /// The cache of API keys.
    pub keys: Arc<Keys>,
    /// The origins whose pages may read answers.
    pub cors_origins: Origins,
}

stands_on!(Reading, search, search::Context);

/// All parts that answer requests, in a merger that leads.
pub struct Context {
    /// The task registry.
    pub registry: Arc<tasks::Context>,
    /// Everything that reads.
    pub reading: Arc<Reading>,
    /// Changes that are the same on all nodes; its base also handles writes of documents.
    pub broadcast: Arc<broadcast::Context>,
    /// The repair of replicas, for operators' requests.
    pub repair: Arc<repair::Context>,
    /// The webhooks.
    pub webhooks: Arc<webhooks::Context>,
    /// The mergers that share the state.
    pub peers: Arc<Peers>,
}

stands_on!(Context, registry, tasks::Context);
