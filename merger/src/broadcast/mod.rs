//! Whatever is the same on every node: indexes, settings, keys, features, dumps. One request of a client becomes the same
//! request to every replica of the shards that it is about, and one task.
//!
//! [`spread`] sends changes, [`gather`] collects reads; [`indexes`], [`settings`], [`swap`], [`listing`], [`keys`] and
//! [`instance`] say what goes where.

mod gather;
mod indexes;
mod instance;
mod keys;
mod listing;
mod settings;
mod settled;
mod spread;
mod swap;

use std::sync::Arc;

use weft_routing::operation::Operation;
use weft_routing::placement::ShardId;

pub use indexes::written_to;
pub use keys::{equalise_keys, equalise_keys_now};
pub use settled::on_settled;

use crate::answer::Answer;
use crate::app::App;
use crate::call::{Call, ReadError};
use crate::cluster::ClusterError;
use crate::store::StoreError;
use crate::tasks::TaskError;
use crate::upstream::UpstreamError;

/// Why a broadcast came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BroadcastError {
    /// A node gave no answer before anything was changed anywhere.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Shards or placements.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task registry.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The client's body.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// `sharding` of `POST /indexes` isn't what it may be.
    #[error("Invalid value at `.sharding`: {detail}")]
    InvalidSharding {
        /// What is wrong with it.
        detail: String,
    },
    /// Two indexes that lie on different shards can't be swapped by swapping them on each node.
    #[error("`{one}` and `{two}` lie on different shards: they can't be swapped")]
    DifferentPlacements {
        /// One index.
        one: String,
        /// The other.
        two: String,
    },
    /// A node's answer isn't what the API says it is.
    #[error("shard-{}'s answer can't be read", .shard.0)]
    Unreadable {
        /// The shard.
        shard: ShardId,
    },
    /// An operation that this version doesn't serve.
    #[error("`{operation}` is not built yet")]
    NotBuilt {
        /// Its name.
        operation: &'static str,
    },
}

/// Answers an operation that concerns all nodes alike.
///
/// # Errors
/// [`BroadcastError`].
pub async fn handle(app: &Arc<App>, call: Call) -> Result<Answer, BroadcastError> {
    use Operation as Op;
    match call.operation {
        Op::CreateIndex => indexes::create(app, call).await,
        Op::ListIndexes => listing::list(app, &call).await,
        Op::GetIndex => listing::get(app, &call).await,
        Op::IndexStats => listing::stats(app, &call).await,
        Op::DeleteIndex => indexes::delete(app, call).await,
        Op::UpdateIndex | Op::CompactIndex => indexes::change(app, call).await,
        Op::UpdateSettings | Op::ResetSettings | Op::UpdateSetting(_) | Op::ResetSetting(_) => {
            settings::change(app, call).await
        }
        Op::SwapIndexes => swap::swap(app, call).await,
        Op::CreateKey | Op::UpdateKey | Op::DeleteKey => keys::change(app, call).await,
        Op::UpdateFeatures => instance::change_features(app, call).await,
        Op::CreateDump | Op::CreateSnapshot => instance::back_up(app, call).await,
        Op::Stats => instance::stats(app, &call).await,
        Op::GetSettings
        | Op::GetSetting(_)
        | Op::ListKeys
        | Op::GetKey
        | Op::GetFeatures
        | Op::Version
        | Op::RenderTemplate
        | Op::ListChats
        | Op::GetChat
        | Op::GetChatSettings => gather::from_any(app, call).await,
        other => Err(BroadcastError::NotBuilt {
            operation: other.name(),
        }),
    }
}
