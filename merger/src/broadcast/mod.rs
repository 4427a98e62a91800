//! Everything that is the same on every node: indexes, settings, keys, features, dumps. One client request becomes the same
//! request to every replica of the shards concerned, and one task.
//!
//! [`spread`] sends changes, [`gather`] collects reads; [`intents`] makes sure that all shards get a change that can't be
//! repeated. [`indexes`], [`deletion`], [`settings`], [`swap`], [`listing`], [`fields`], [`version`], [`keys`] and [`instance`]
//! decide what is sent where.

mod deletion;
mod fields;
mod gather;
mod indexes;
mod instance;
mod intents;
mod keys;
mod listing;
mod place;
mod settings;
mod settled;
mod sharding;
mod sizes;
mod spread;
mod strategy;
mod swap;
mod update;
mod version;

use std::sync::Arc;
use std::time::Duration;

use weft_routing::operation::Operation;
use weft_routing::placement::ShardId;

pub use indexes::written_to;
pub use intents::{Intents, take_up_intents};
pub use settings::{look_into, watch as watch_settings};
pub use settled::on_settled;

use crate::answer::Answer;
use crate::base::stands_on;
use crate::call::Call;
use crate::cluster::ClusterError;
use crate::keys::Keys;
use crate::store::StoreError;
use crate::tasks::{TaskError, Unknown};
use crate::upstream::UpstreamError;
use crate::write::{self, DecodeError};

/// The state that broadcasts need.
pub struct Context {
    /// The state that writes of documents need.
    pub write: Arc<write::Context>,
    /// How often settings are compared between nodes; zero for never.
    pub settings_check_interval: Duration,
    /// Changes of indexes that are not on all their shards yet.
    pub intents: Intents,
    /// The API keys.
    pub keys: Arc<Keys>,
}

stands_on!(Context, write, write::Context);

/// Why a broadcast failed.
#[derive(Debug, thiserror::Error)]
pub enum BroadcastError {
    /// A node gave no answer before anything was changed anywhere.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A shard or placement isn't usable.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task registry failed.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The client's body can't be read.
    #[error(transparent)]
    Read(#[from] DecodeError),
    /// `sharding` of `POST /indexes` has an invalid value.
    #[error("Invalid value at `.sharding`: {detail}")]
    InvalidSharding {
        /// What is wrong with it.
        detail: String,
    },
    /// The placement of the index changed in each attempt.
    #[error("the index `{0}` changes too often")]
    Unsettled(String),
    /// The index goes from one strategy to another, and can't be sent to a third one.
    #[error(
        "the index `{uid}` goes from `{from}` to `{to}`: it may go back, or to another strategy when it has arrived"
    )]
    Changing {
        /// The index.
        uid: String,
        /// The strategy that it had before.
        from: String,
        /// The strategy that it was to get.
        to: String,
    },
    /// Tasks under way decide whether the change can be made, and they take too long.
    #[error(
        "the index `{0}` has tasks under way on which the change depends; nothing was changed: try again when they have ended"
    )]
    Busy(String),
    /// No replica of a shard answers; nothing was changed anywhere.
    #[error("shard-{} does not answer; nothing was changed", .0.0)]
    Silent(ShardId),
    /// A shard that may have got the change gave no answer; no other shard was asked.
    #[error("shard-{}: {detail}; it is not known whether anything was changed", .shard.0)]
    Unknown {
        /// The shard.
        shard: ShardId,
        /// How the request ended.
        detail: String,
    },
    /// Some shards have taken a change of indexes, and others haven't yet.
    #[error(
        "the change was cut off and is being made whole, or undone: GET /tasks will tell; until then nothing is written to the index's shards"
    )]
    Unfinished,
    /// A node's answer doesn't have the shape that the API defines.
    #[error("shard-{}'s answer can't be read", .shard.0)]
    Unreadable {
        /// The shard.
        shard: ShardId,
    },
    /// The operation belongs to another part of the merger.
    #[error("`{operation}` has no answer here")]
    Misrouted {
        /// The operation's name.
        operation: &'static str,
    },
}

impl BroadcastError {
    /// Whether some replica may have the change despite this error.
    fn may_have_changed(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::Store(_) | Self::Task(_) => true,
            Self::Cluster(error) => matches!(error, ClusterError::Store(_)),
            _ => false,
        }
    }
}

impl From<Unknown> for BroadcastError {
    fn from(error: Unknown) -> Self {
        match error {
            Unknown::Cluster(error) => error.into(),
            Unknown::Upstream(error) => error.into(),
        }
    }
}

/// Answers an operation that concerns all nodes alike.
///
/// # Errors
/// [`BroadcastError`].
pub async fn handle(ctx: &Arc<Context>, call: Call) -> Result<Answer, BroadcastError> {
    use Operation as Op;
    match call.operation {
        Op::CreateIndex => indexes::create(ctx, call).await,
        Op::ListIndexes => listing::list(ctx, &call).await,
        Op::GetIndex => listing::get(ctx, &call).await,
        Op::IndexStats => listing::stats(ctx, &call).await,
        Op::DeleteIndex => deletion::delete(ctx, call).await,
        Op::UpdateIndex => update::update(ctx, call).await,
        Op::CompactIndex => indexes::compact(ctx, call).await,
        Op::UpdateSettings | Op::ResetSettings | Op::UpdateSetting(_) | Op::ResetSetting(_) => {
            settings::change(ctx, call).await
        }
        Op::SwapIndexes => swap::swap(ctx, call).await,
        Op::CreateKey | Op::UpdateKey | Op::DeleteKey => keys::change(ctx, call).await,
        Op::UpdateFeatures => instance::change_features(ctx, call).await,
        Op::UpdateChatSettings | Op::ResetChatSettings | Op::DeleteChat => {
            instance::change_chats(ctx, call).await
        }
        Op::CreateDump | Op::CreateSnapshot | Op::Export => instance::back_up(ctx, call).await,
        Op::ListFields => fields::list(ctx, call).await,
        Op::Version => version::version(ctx, &call).await,
        Op::RenderTemplate => gather::from_one_of(ctx, call).await,
        Op::Stats => instance::stats(ctx, &call).await,
        Op::ListKeys => gather::from_primary(ctx, call).await,
        Op::GetSettings
        | Op::GetSetting(_)
        | Op::GetKey
        | Op::GetFeatures
        | Op::GetNetwork
        | Op::ListChats
        | Op::GetChat
        | Op::GetChatSettings => gather::from_any(ctx, call).await,
        other => Err(BroadcastError::Misrouted {
            operation: other.name(),
        }),
    }
}
