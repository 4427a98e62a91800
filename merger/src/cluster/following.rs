//! A follower's cluster state: what the leader has stored is applied in memory, and nothing is stored.

use std::collections::BTreeMap;

use super::leader_view::VIEW_KEY;
use super::{Cluster, Epochs, Topology};

/// A stored entry that has changed: its key and its bytes, or `None` if it is gone.
pub(crate) type Changed = (String, Option<Vec<u8>>);

impl Cluster {
    /// Applies what the leader has changed. Entries that concern no part of this state are ignored.
    ///
    /// # Errors
    /// The key of an entry that can't be read. Nothing of its kind is applied then.
    pub(crate) fn apply(&self, changed: &[Changed]) -> Result<(), String> {
        self.placements.apply(changed)?;
        self.in_sync.apply(changed)?;
        self.replacements.apply(changed)?;
        for (key, value) in changed.iter().filter(|(key, _)| key == VIEW_KEY) {
            let view = value.as_deref().map(serde_json::from_slice).transpose();
            self.adopt(view.map_err(|_| key.clone())?.unwrap_or_default());
        }
        Ok(())
    }

    /// Applies the whole state: what is not in it is gone.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub(crate) fn apply_all(&self, all: Vec<(String, Vec<u8>)>) -> Result<(), String> {
        let placements = self.placements.keys().into_iter();
        let known = placements
            .chain(self.in_sync.keys())
            .chain(self.replacements.keys());
        let mut changed: BTreeMap<String, Option<Vec<u8>>> = known.map(|key| (key, None)).collect();
        changed.insert(VIEW_KEY.to_owned(), None);
        changed.extend(all.into_iter().map(|(key, value)| (key, Some(value))));
        self.apply(&changed.into_iter().collect::<Vec<_>>())
    }

    /// The epochs that are applied.
    pub(crate) fn epochs(&self) -> Epochs {
        Epochs {
            in_sync: self.in_sync.epoch(),
            table: self.placements.epoch().0,
        }
    }

    /// Takes the topology over without storing anything: who is in sync is the leader's matter.
    pub(crate) fn follow_topology(&self, topology: Topology) {
        if **self.topology.borrow() != topology {
            tracing::info!(shards = ?topology.summary(), "topology changed");
            self.topology.send_replace(std::sync::Arc::new(topology));
        }
    }

    /// Whether no Envoy of this merger sends reads to a replica that is out of sync, as far as they were told.
    pub(crate) fn reads_have_left_all(&self) -> bool {
        let topology = self.topology();
        let mut out = topology
            .all_nodes()
            .filter(|(_, node)| !self.in_sync.holds(&node.id));
        out.all(|(_, node)| !self.health.is_ready(&node.id))
    }

    /// Waits until every merger reads by the placements as they are now, or is gone with its lease. Whoever stored them, a leader
    /// that is gone now included, may not have waited for that.
    pub(crate) async fn mergers_follow(&self) {
        let epoch = self.placements.epoch().0;
        self.mergers.until_all_serve(epoch).await;
    }

    /// Waits until no filter uses a routing table that is older than the present one.
    pub(crate) async fn filters_follow(&self) {
        self.mergers_follow().await;
        tokio::time::sleep(self.lease()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::VIEW_KEY;
    use crate::cluster::{in_sync, placements, spares};
    use crate::store::is_read_by_followers;

    #[test]
    fn followers_are_told_of_everything_that_they_apply() {
        for key in [
            VIEW_KEY,
            in_sync::EPOCH_KEY,
            in_sync::PREFIX,
            placements::EPOCH_KEY,
            placements::PREFIX,
            placements::UNDIRECTED_KEY,
            spares::PREFIX,
        ] {
            assert!(is_read_by_followers(key), "{key}");
        }
    }
}
