//! The faults, and what must still hold during each of them.

use clap::ValueEnum;
use serde::Serialize;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    /// kill -9 of a replica that isn't its shard's primary
    KillReplica,
    /// kill -9 of a primary
    KillPrimary,
    /// kill -9 of both replicas of a shard, one after the other
    KillBoth,
    /// A node that hangs (SIGSTOP) for 30 s
    Hang,
    /// A node that is cut off for a while, in turn by silence and by refused connections
    CutOff,
    /// A node that comes back with an empty disk
    EmptyDisk,
    /// A node that answers everything with 500
    ServerErrors,
    /// A node whose answers are garbage, in turn without processing the request and after processing it
    Garbage,
    /// kill -9 of the merger
    KillMerger,
    /// kill -9 of Envoy
    KillEnvoy,
    /// A node whose writes to disk fail (`EFBIG` beyond 16 KiB of a file)
    DiskFull,
    /// A merger whose writes to disk fail in the same way; it isn't restarted
    MergerDiskFull,
    /// A node whose answers are delayed by 200 ms
    Slow,
    /// No fault: a bulk import into another index, applied by one replica after the other
    BulkImport,
    /// No fault of its own: all other faults, or those that are named too, happen while slots move from shard to shard
    Move,
    /// Several mergers: kill -9 of the one that leads
    KillLeader,
    /// Several mergers: the one that leads hangs (SIGSTOP), and goes on after its successor has written
    FreezeLeader,
    /// Several mergers: the one that leads is cut off from etcd, in turn by silence and by refused connections
    CutLeaderFromEtcd,
    /// Several mergers: the one that leads is cut off from all nodes, in turn in the same two ways
    CutLeaderFromNodes,
    /// Several mergers: kill -9 of one that doesn't lead
    KillFollower,
    /// Several mergers: kill -9 of all of them at once
    KillAllMergers,
    /// Several mergers: kill -9 of the Envoy of the one that leads
    KillLeadersEnvoy,
    /// Several mergers: kill -9 of a member of etcd
    KillEtcdMember,
    /// Several mergers: etcd has no quorum for 10 s
    EtcdWithoutQuorum,
    /// Several mergers: the members' writes to disk fail (`EFBIG`)
    EtcdDiskFull,
    /// Several mergers: every process is restarted in good order, one after the other
    RollingRestart,
}

impl Fault {
    /// The fault's name on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// True if the fault is on the connection to a node or to etcd. Then the cluster needs relays that can be cut.
    pub(super) fn on_the_line(self) -> bool {
        matches!(
            self,
            Self::CutOff
                | Self::ServerErrors
                | Self::Garbage
                | Self::Slow
                | Self::CutLeaderFromEtcd
                | Self::CutLeaderFromNodes
        )
    }

    /// True if the fault is one of a cluster with several mergers.
    pub(super) fn needs_several_mergers(self) -> bool {
        // They are the last ones of the list.
        self >= Self::KillLeader
    }

    /// True if the fault ends a merger's leadership without notice. Then writes must work again within five seconds.
    pub(super) fn ends_the_leader(self) -> bool {
        matches!(
            self,
            Self::KillLeader | Self::FreezeLeader | Self::CutLeaderFromEtcd
        )
    }

    /// True if searches are timed before and during the fault.
    pub(super) fn is_timed(self) -> bool {
        matches!(self, Self::Slow | Self::BulkImport)
    }

    /// True if the fault ends a node's process. Then reads must work again within a second, and writes within three.
    pub(super) fn kills_a_node(self) -> bool {
        matches!(
            self,
            Self::KillReplica | Self::KillPrimary | Self::EmptyDisk
        )
    }
}
