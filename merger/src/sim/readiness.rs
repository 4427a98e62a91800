//! What an Envoy is told of a replica that leaves the in-sync set.

use std::time::Duration;

use tokio::time::sleep;

use super::mesh::id;
use super::world::World;
use crate::cluster::Readiness;
use crate::sockets::Peer;

/// Longer than such a replica may serve reads.
const LONG: Duration = Duration::from_millis(450);

#[test]
fn a_replica_that_leaves_serves_reads_until_another_one_does_and_not_for_long() {
    let world = World::of(1, 2);
    world.life(async |merger| {
        sleep(Duration::from_secs(3)).await;
        let cluster = &merger.ctx.cluster;
        let (leaves, stays) = (id("b0"), id("a0"));
        let told = || cluster.readiness(&leaves, Peer::Local(1));
        let another = |ready| {
            cluster
                .health
                .record_readiness(&stays, Peer::Local(1), ready);
        };
        assert_eq!(told(), Readiness::Ready);
        // Nothing brings it back meanwhile.
        cluster.in_sync.drain(&leaves).await.unwrap();
        another(false);
        assert_eq!(told(), Readiness::Unknown, "no Envoy reads from another");
        assert!(!cluster.reads_have_left(&leaves), "nothing is acknowledged");
        another(true);
        assert_eq!(told(), Readiness::NotReady("it is not in sync"));
        assert!(cluster.reads_have_left(&leaves));
        another(false);
        assert_eq!(told(), Readiness::Unknown);
        sleep(LONG).await;
        another(false);
        assert_eq!(told(), Readiness::NotReady("it is not in sync"));
    });
}
