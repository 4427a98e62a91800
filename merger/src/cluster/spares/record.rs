//! A spare in a replica's place, as it is stored.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use weft_routing::placement::ShardId;

use super::Choice;
use crate::cluster::NodeId;

/// How many earlier holders of a place are remembered: files that are older still are brought up to date by hand.
const MOST_NAMES: usize = 16;

/// A spare that has a replica's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replacement {
    /// Its number: a later one counts more.
    pub(crate) number: u64,
    /// The shard.
    pub(crate) shard: ShardId,
    /// Who had the place before, the last one last.
    pub(crate) names: Vec<NodeId>,
    /// Who has it now.
    pub(crate) spare: NodeId,
    /// Where that node listens.
    pub(crate) address: SocketAddr,
    /// When it was decided.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) since: OffsetDateTime,
    /// The leader's Envoy doesn't list it yet.
    pub(crate) taking: bool,
}

impl Replacement {
    /// `names` had the place before the one that goes now.
    pub(super) fn new(
        number: u64,
        choice: &Choice,
        mut names: Vec<NodeId>,
        since: OffsetDateTime,
    ) -> Self {
        names.push(choice.out.clone());
        names.retain(|name| *name != choice.spare.id);
        names.drain(..names.len().saturating_sub(MOST_NAMES));
        Self {
            number,
            shard: choice.shard,
            names,
            spare: choice.spare.id.clone(),
            address: choice.spare.address,
            since,
            taking: true,
        }
    }

    /// Whether it must be done before this choice can be.
    pub(super) fn excludes(&self, choice: &Choice) -> bool {
        self.taking && (self.shard == choice.shard || self.spare == choice.spare.id)
    }
}
