//! The in-sync set under any sequence of writes, losses, maintenance, resyncs, changes of the topology, failures of the store
//! and restarts, beside a model of what each replica holds.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::store::memory::MemoryStore;

const SHARDS: usize = 2;
const REPLICAS: usize = 3;

/// A replica by its number.
type Number = usize;

#[derive(Debug, Clone)]
enum Step {
    /// A write to a shard. `missed_by` has a bit for each replica that misses it.
    Write {
        shard: usize,
        missed_by: u8,
    },
    Drain(Number),
    Resume(Number),
    /// A successful resync from a replica in sync.
    Resync(Number),
    /// Envoy's configuration has only these nodes, one bit each.
    Topology(u8),
    /// The store begins to fail, or works again.
    Store {
        fails: bool,
    },
    /// The merger restarts.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let all = SHARDS * REPLICAS;
    prop_oneof![
        6 => (0..SHARDS, 0_u8..8).prop_map(|(shard, missed_by)| Step::Write { shard, missed_by }),
        1 => (0..all).prop_map(Step::Drain),
        2 => (0..all).prop_map(Step::Resume),
        4 => (0..all).prop_map(Step::Resync),
        1 => (1_u8..64).prop_map(Step::Topology),
        1 => any::<bool>().prop_map(|fails| Step::Store { fails }),
        1 => Just(Step::Restart),
    ]
}

fn id(number: Number) -> NodeId {
    NodeId::from(format!(
        "shard-{}-node-{}",
        number / REPLICAS,
        number % REPLICAS
    ))
}

fn topology(present: u8) -> Topology {
    let clusters: Vec<_> = (0..SHARDS)
        .map(|shard| {
            let hosts: Vec<_> = (shard * REPLICAS..(shard + 1) * REPLICAS)
                .filter(|number| present & (1 << number) != 0)
                .map(|number| {
                    serde_json::json!({"hostname": id(number).as_str(), "address":
                        {"socket_address": {"address": "127.0.0.1", "port_value": 7700 + number}}})
                })
                .collect();
            serde_json::json!({"name": format!("shard-{shard}"), "host_statuses": hosts})
        })
        .collect();
    let json = serde_json::json!({"cluster_statuses": clusters}).to_string();
    Topology::from_envoy(json.as_bytes(), &weft_routing::ShardNames::default()).unwrap()
}

/// What the replicas hold, and which writes were acknowledged to clients.
struct Model {
    store: MemoryStore,
    in_sync: InSync,
    present: u8,
    next: u32,
    holds: Vec<BTreeSet<u32>>,
    acknowledged: Vec<BTreeSet<u32>>,
    epoch: u64,
}

impl Model {
    async fn open() -> Self {
        let store = MemoryStore::default();
        let in_sync = InSync::open(Arc::new(store.clone())).await.unwrap();
        in_sync.admit(&topology(0x3f)).await.unwrap();
        Self {
            epoch: in_sync.epoch(),
            store,
            in_sync,
            present: 0x3f,
            next: 0,
            holds: vec![BTreeSet::new(); SHARDS * REPLICAS],
            acknowledged: vec![BTreeSet::new(); SHARDS],
        }
    }

    fn is_present(&self, number: Number) -> bool {
        self.present & (1 << number) != 0
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Write { shard, missed_by } => self.write(shard, missed_by).await,
            Step::Drain(number) => drop(self.in_sync.drain(&id(number)).await),
            Step::Resume(number) => drop(self.in_sync.resume(&id(number)).await),
            Step::Resync(number) => self.resync(number).await,
            Step::Topology(present) => {
                if self.in_sync.admit(&topology(present)).await.is_ok() {
                    self.present = present;
                }
            }
            Step::Store { fails } => self.store.set_failing(fails),
            Step::Restart => {
                let before = self.standings();
                self.in_sync = InSync::open(Arc::new(self.store.clone())).await.unwrap();
                assert_eq!(self.standings(), before, "a restart changes nothing");
            }
        }
    }

    /// Writes as `deliver` does: to all replicas in sync. Those that missed it are removed before it is acknowledged.
    async fn write(&mut self, shard: usize, missed_by: u8) {
        let replicas: Vec<Number> = (shard * REPLICAS..(shard + 1) * REPLICAS)
            .filter(|number| self.is_present(*number) && self.in_sync.holds(&id(*number)))
            .collect();
        let write = self.next;
        self.next += 1;
        let misses = |number: &Number| missed_by & (1 << (number % REPLICAS)) != 0;
        let (missed, took): (Vec<_>, Vec<_>) = replicas.into_iter().partition(misses);
        if took.is_empty() {
            return;
        }
        for number in took {
            self.holds[number].insert(write);
        }
        for number in missed {
            match self
                .in_sync
                .remove_replica(&id(number), "it missed a write")
                .await
            {
                Ok(outcome) => assert_ne!(outcome, Removal::RefusedLast, "another took the write"),
                // The write isn't acknowledged then.
                Err(_) => return,
            }
        }
        self.acknowledged[shard].insert(write);
    }

    async fn resync(&mut self, number: Number) {
        let shard = number / REPLICAS;
        let source = (shard * REPLICAS..(shard + 1) * REPLICAS).find(|other| {
            *other != number && self.is_present(*other) && self.in_sync.holds(&id(*other))
        });
        let out = matches!(
            self.in_sync.sync_state(&id(number)),
            Some(SyncState::Out { .. })
        );
        let Some(source) = source.filter(|_| out && self.is_present(number)) else {
            return;
        };
        self.holds[number] = self.holds[source].clone();
        drop(
            self.in_sync
                .bring_back(&id(number), Some(self.next.into()), &Marks::unknown())
                .await,
        );
    }

    fn standings(&self) -> BTreeMap<NodeId, Option<SyncState>> {
        let all = 0..SHARDS * REPLICAS;
        all.map(|number| (id(number), self.in_sync.sync_state(&id(number))))
            .collect()
    }

    fn check(&mut self) {
        assert!(self.in_sync.epoch() >= self.epoch, "an epoch goes back");
        self.epoch = self.in_sync.epoch();
        for shard in 0..SHARDS {
            let members = (shard * REPLICAS..(shard + 1) * REPLICAS)
                .filter(|number| self.in_sync.holds(&id(*number)));
            let mut any = false;
            for number in members {
                any = true;
                let missing: Vec<_> = self.acknowledged[shard]
                    .difference(&self.holds[number])
                    .collect();
                assert!(
                    missing.is_empty(),
                    "{} is in sync without {missing:?}",
                    id(number)
                );
            }
            assert!(any, "shard {shard} has no replica in sync");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn who_is_in_sync_holds_every_acknowledged_write_whatever_happens(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut model = Model::open().await;
            for step in steps {
                model.take(step).await;
                model.check();
            }
        });
    }
}
