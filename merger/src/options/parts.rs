//! What each part gets of the options.

use std::net::SocketAddr;
use std::time::Duration;

use super::ServeOptions;
use crate::bounds;
use crate::call::Pace;
use crate::cluster::ClusterOptions;
use crate::repair::RepairOptions;
use crate::replication::ReplicationOptions;
use crate::search::policy::{Policy, WhenMissing};
use crate::sockets::Listen;
use crate::spares::SpareOptions;
use crate::tasks::Limits;
use crate::tls::Way;
use crate::upstream::EgressOptions;
use crate::write::WriteOptions;

impl ServeOptions {
    /// Where other mergers' Envoys reach this one; `None` if it listens on sockets only.
    pub fn advertised(&self) -> Option<SocketAddr> {
        let listens = self.listen.iter().find_map(|place| match place {
            Listen::Tcp(address) => Some(*address),
            Listen::Unix(_) => None,
        });
        self.advertise.or(listens)
    }

    /// All places on which it listens, as a text.
    pub fn listens_on(&self) -> String {
        let places: Vec<String> = self.listen.iter().map(Listen::to_string).collect();
        places.join(",")
    }

    /// How long a leader leads without renewing its lease.
    pub fn leader_lease(&self) -> Duration {
        Duration::from_millis(self.leader_lease_ms)
    }

    /// How much all requests together may take.
    pub fn limits(&self) -> bounds::Limits {
        bounds::Limits {
            requests: self.max_requests,
            reading: self.max_reading,
            bodies: self.max_bodies_bytes,
            spools: self.max_spools_bytes,
        }
    }

    /// The way to the nodes.
    pub fn egress(&self) -> EgressOptions {
        EgressOptions {
            way: self.way_to_egress(),
            names: self.shard_prefix.clone(),
            max_answer_bytes: self.max_node_answer_bytes,
            max_answers_bytes: self.max_answers_bytes,
        }
    }

    /// The way to Envoy's egress listener.
    pub fn way_to_egress(&self) -> Way {
        Way::to_egress(&self.egress, self.tls.certificates())
    }

    /// The way to Envoy's admin interface.
    pub fn way_to_admin(&self) -> Way {
        Way::to(&self.envoy_admin, self.tls.certificates())
    }

    /// How indexes are placed, written and published.
    pub fn cluster(&self) -> ClusterOptions {
        ClusterOptions {
            default_shard_count: self.default_shard_count,
            default_strategy: self.default_strategy.clone(),
            write_mode: self.write_mode,
            direct_writes: self.direct_writes,
            down_after: self.down_after(),
            lease: Duration::from_millis(self.lease_ms),
            cors_origins: self.cors_origins.clone(),
        }
    }

    /// How long replicas may be behind.
    pub fn replication(&self) -> ReplicationOptions {
        ReplicationOptions {
            patience: Duration::from_millis(self.replica_patience_ms),
            staggered_from: self.staggered.then_some(self.staggered_min_bytes),
        }
    }

    /// How often nodes are looked at, and how fast replicas are copied.
    pub fn repair(&self) -> RepairOptions {
        RepairOptions {
            discovery_interval: Duration::from_millis(self.discovery_interval_ms.max(10)),
            probe_interval: Duration::from_millis(self.probe_interval_ms.max(10)),
            verify_interval: Duration::from_secs(self.verify_interval_s),
            resync_bytes_per_second: self.resync_bytes_per_second,
            rebalance_threshold: (self.rebalance_threshold_percent > 0)
                .then(|| f64::from(self.rebalance_threshold_percent) / 100.0),
            move_batch: usize::try_from(self.move_batch).unwrap_or(usize::MAX),
        }
    }

    /// What is done with spare nodes; `None` where nobody said in which files they stand.
    pub fn spares(&self) -> Option<SpareOptions> {
        Some(SpareOptions {
            folder: self.eds_dir.clone()?,
            after: (self.replace_after_s > 0).then(|| Duration::from_secs(self.replace_after_s)),
            probe_interval: self.repair().probe_interval,
        })
    }

    /// Sizes of writes, and whether small ones go together.
    pub fn write(&self) -> WriteOptions {
        WriteOptions {
            coalesce: self.coalesce,
            coalesce_wait: Duration::from_millis(self.coalesce_wait_ms),
            max_import_bytes: self.max_import_bytes,
            max_node_payload_bytes: self.max_node_payload_bytes,
            spool_memory_bytes: usize::try_from(self.spool_memory_bytes).unwrap_or(usize::MAX),
            spool_folder: self.data_dir.clone(),
        }
    }

    /// What a read does when a shard gives no answer, where the client doesn't say.
    pub fn when_missing(&self) -> Policy {
        let otherwise = Policy {
            when_missing: WhenMissing::Error,
            deadline: self.search_timeout(),
        };
        Policy::parse(&self.partial, otherwise).unwrap_or(otherwise)
    }

    /// How long a search may take on a shard.
    pub fn search_timeout(&self) -> Duration {
        Duration::from_millis(self.search_timeout_ms)
    }

    /// How fast a client must send its body.
    pub fn pace(&self) -> Pace {
        Pace {
            idle: Duration::from_millis(self.body_idle_timeout_ms),
            total: Duration::from_millis(self.body_timeout_ms),
        }
    }

    /// After how long without an answer a node is down.
    pub fn down_after(&self) -> Duration {
        if self.heartbeat_interval_ms.is_none() && self.heartbeat_misses.is_none() {
            return Duration::from_millis(self.node_down_after_ms);
        }
        let interval = self.heartbeat_interval_ms.unwrap_or(5_000);
        Duration::from_millis(interval) * self.heartbeat_misses.unwrap_or(3).max(1)
    }

    /// Which finished tasks are kept.
    pub fn task_limits(&self) -> Limits {
        let age = self.max_task_age_seconds;
        Limits {
            max_tasks: self.max_tasks,
            one_record_each: self.keep_state_format,
            max_age: (age > 0).then(|| Duration::from_secs(age)),
        }
    }

    /// How long a node may take to accept a write.
    pub fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }
}
