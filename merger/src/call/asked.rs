//! Which shards were asked for a request, and whether none had to be, where Envoy's access log wants to know.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use weft_routing::placement::ShardId;

/// What was asked so far; or nothing, where nobody wants to know. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Asked(Option<Arc<Mutex<Noted>>>);

#[derive(Debug, Default)]
struct Noted {
    shards: BTreeSet<ShardId>,
    nodes: BTreeSet<SocketAddr>,
    remembered: bool,
}

impl Asked {
    /// Notes what is asked from now on.
    pub fn noting() -> Self {
        Self(Some(Arc::default()))
    }

    /// A shard is asked: any of its replicas.
    pub fn note_shard(&self, shard: ShardId) {
        self.note(|noted| {
            noted.shards.insert(shard);
        });
    }

    /// One node is asked.
    pub fn note_node(&self, node: SocketAddr) {
        self.note(|noted| {
            noted.nodes.insert(node);
        });
    }

    /// The answer was there already, or comes from an identical request.
    pub fn note_remembered(&self) {
        self.note(|noted| noted.remembered = true);
    }

    /// Whether the answer was there already.
    pub fn is_remembered(&self) -> bool {
        self.0.as_ref().is_some_and(|noted| {
            let noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.remembered
        })
    }

    fn note(&self, note: impl FnOnce(&mut Noted)) {
        if let Some(noted) = &self.0 {
            note(&mut noted.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The shards that were asked, in order; `shard_of` tells a node's. Empty if nobody wants to know.
    pub fn shards(&self, shard_of: impl Fn(SocketAddr) -> Option<ShardId>) -> Vec<ShardId> {
        let Some(noted) = &self.0 else {
            return Vec::new();
        };
        let noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
        let by_node = noted.nodes.iter().filter_map(|node| shard_of(*node));
        let all: BTreeSet<ShardId> = noted.shards.iter().copied().chain(by_node).collect();
        all.into_iter().collect()
    }

    /// Whether somebody wants to know.
    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_is_named_once_however_it_was_asked() {
        let (asked, nobody) = (Asked::noting(), Asked::default());
        let node = |port| SocketAddr::from(([127, 0, 0, 1], port));
        for asked in [&asked, &asked.clone(), &nobody] {
            asked.note_shard(ShardId(2));
            asked.note_node(node(1));
            asked.note_node(node(7));
        }
        let shard_of = |node: SocketAddr| (node.port() < 5).then(|| ShardId(node.port()));
        assert_eq!(asked.shards(shard_of), [ShardId(1), ShardId(2)]);
        assert_eq!(nobody.shards(shard_of), []);
    }
}
