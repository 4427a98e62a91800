//! How many replicas must have taken a write before it is acknowledged to the client.

use clap::ValueEnum;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use weft_routing::headers;
use weft_routing::placement::ShardId;

use super::{Cluster, ClusterError, Placement};

/// How many replicas must have taken a write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum WriteMode {
    /// Every replica in sync.
    #[default]
    Sync,
    /// More than half of the shard's replicas, in sync or not.
    Quorum,
    /// One replica in sync.
    Async,
}

impl WriteMode {
    fn parse(word: &str) -> Option<Self> {
        match word.trim().to_ascii_lowercase().as_str() {
            "sync" => Some(Self::Sync),
            "quorum" => Some(Self::Quorum),
            "async" => Some(Self::Async),
            _ => None,
        }
    }

    /// How many replicas must have taken a write on a shard of `all` replicas, of which `in_sync` are in sync.
    pub(crate) fn enough(self, all: usize, in_sync: usize) -> usize {
        match self {
            Self::Sync => in_sync,
            Self::Quorum => all / 2 + 1,
            Self::Async => 1,
        }
    }
}

impl Cluster {
    /// The mode of a write: the client's `x-weft-write` header, else the index's own mode, else the cluster's.
    ///
    /// # Errors
    /// The header's value is unknown.
    pub fn write_mode(
        &self,
        index_uid: Option<&str>,
        wishes: &HeaderMap,
    ) -> Result<WriteMode, ClusterError> {
        if let Some(wish) = wishes.get(headers::WRITE) {
            let word = wish.to_str().unwrap_or_default();
            return WriteMode::parse(word).ok_or_else(|| {
                let name = headers::WRITE;
                ClusterError::InvalidWish(format!("Invalid value in header `{name}`: `{word}`"))
            });
        }
        let placement = index_uid.and_then(|uid| self.placement(uid));
        Ok(placement.map_or(self.options.write_mode, |placement| {
            self.default_mode(&placement)
        }))
    }

    /// The mode of an index's writes that don't choose one.
    pub fn default_mode(&self, placement: &Placement) -> WriteMode {
        placement.write_mode.unwrap_or(self.options.write_mode)
    }

    /// How many replicas of a shard are a quorum.
    pub fn quorum(&self, shard: ShardId) -> usize {
        WriteMode::Quorum.enough(self.topology().nodes(shard).len(), 0)
    }

    /// Checks that enough replicas of the shard are in sync for a quorum.
    ///
    /// # Errors
    /// Fewer replicas of the shard take writes.
    pub fn has_quorum(&self, shard: ShardId) -> Result<(), ClusterError> {
        let (wanted, in_sync) = (self.quorum(shard), self.replicas(shard).len());
        if in_sync < wanted {
            return Err(ClusterError::NoQuorum {
                shard,
                in_sync,
                wanted,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_more_than_half_of_all_and_not_of_those_that_are_left() {
        for (all, enough) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
            assert_eq!(WriteMode::Quorum.enough(all, 1), enough);
        }
        assert_eq!(WriteMode::Sync.enough(3, 2), 2);
        assert_eq!(WriteMode::Async.enough(3, 3), 1);
        assert_eq!(WriteMode::parse(" Quorum "), Some(WriteMode::Quorum));
        assert_eq!(WriteMode::parse("all"), None);
    }
}
