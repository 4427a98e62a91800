//! Faults of a cluster with several mergers: the one that leads, the others, their Envoys, etcd.

use std::time::Duration;

use anyhow::Result;
use weft_cluster::{Line, Pair, Process};

use super::figures::Outage;
use super::inject::{FULL_BYTES, Injector};
use super::kinds::Fault;

impl Injector<'_> {
    /// Causes the fault and ends it; returns when and where nothing could be answered.
    pub(super) async fn break_mergers(
        &self,
        fault: Fault,
        random: &mut fastrand::Rng,
    ) -> Result<Vec<Outage>> {
        let leader = self.cluster.wait_leader(None).await?;
        let pairs = self.cluster.pairs().len();
        let follower = (leader + random.usize(1..pairs)) % pairs;
        let outage = match fault {
            Fault::KillLeader => {
                let process = Pair::merger;
                self.at_edge(leader, self.killed(process, leader, random))
                    .await?
            }
            Fault::KillFollower => {
                let process = Pair::merger;
                self.at_edge(follower, self.killed(process, follower, random))
                    .await?
            }
            Fault::KillLeadersEnvoy => {
                let process = Pair::envoy;
                self.at_edge(leader, self.killed(process, leader, random))
                    .await?
            }
            Fault::FreezeLeader => self.at_edge(leader, self.frozen(leader, random)).await?,
            Fault::CutLeaderFromEtcd => {
                self.at_edge(leader, self.cut_from_etcd(leader, random))
                    .await?
            }
            Fault::CutLeaderFromNodes => {
                self.at_edge(leader, self.cut_from_nodes(leader, random))
                    .await?
            }
            Fault::KillEtcdMember => {
                // By turns the one that leads etcd, without which the others must elect another, and any of them.
                let members = self.cluster.etcd();
                let leading = match self.round.is_multiple_of(2) {
                    true => self.cluster.etcd_leader().await,
                    false => None,
                };
                let any = random.usize(0..members.len().max(1));
                if let Some(member) = members.get(leading.unwrap_or(any)) {
                    member.kill()?;
                    self.wait(random, 2_000..6_000).await;
                    member.restart()?;
                    self.wait_for_accepted_write().await?;
                }
                // The others are enough.
                return Ok(Vec::new());
            }
            Fault::EtcdWithoutQuorum => self.everywhere(self.without_quorum()).await?,
            Fault::EtcdDiskFull => self.everywhere(self.etcd_full(random)).await?,
            Fault::KillAllMergers => self.everywhere(self.all_killed(random)).await?,
            _ => return self.restart_everything(random).await,
        };
        Ok(vec![outage])
    }

    /// What happens to one pair, until its edge answers again.
    async fn at_edge(
        &self,
        edge: usize,
        fault: impl Future<Output = Result<()>>,
    ) -> Result<Outage> {
        let begun = self.world.now();
        self.world.set_broken(Some(edge));
        fault.await?;
        self.wait_for_edge(edge).await?;
        self.world.set_broken(None);
        Ok(self.outage_since(begun, Some(edge)))
    }

    /// What happens to all pairs, until writes are accepted again and every edge answers.
    async fn everywhere(&self, fault: impl Future<Output = Result<()>>) -> Result<Outage> {
        let begun = self.world.now();
        fault.await?;
        self.wait_for_accepted_write().await?;
        for edge in 0..self.cluster.pairs().len() {
            self.wait_for_edge(edge).await?;
        }
        Ok(self.outage_since(begun, None))
    }

    async fn killed(
        &self,
        process: fn(&Pair) -> &Process,
        pair: usize,
        random: &mut fastrand::Rng,
    ) -> Result<()> {
        let process = process(self.cluster.pair(pair));
        process.kill()?;
        // Sometimes it is back before its lease is over, sometimes long after.
        self.wait(random, 0..8_000).await;
        process.restart()?;
        Ok(())
    }

    /// The leader hangs until its successor has had time to write.
    async fn frozen(&self, leader: usize, random: &mut fastrand::Rng) -> Result<()> {
        let merger = self.cluster.pair(leader).merger();
        merger.pause()?;
        let next = self.cluster.wait_leader(Some(leader)).await;
        self.wait(random, 1_000..4_000).await;
        // It must not stay stopped, whatever became of the others.
        merger.resume()?;
        next?;
        Ok(())
    }

    async fn cut_from_etcd(&self, leader: usize, random: &mut fastrand::Rng) -> Result<()> {
        let pair = self.cluster.pair(leader);
        pair.set_etcd(self.by_turns([Line::Silent, Line::Refused]))?;
        let next = self.cluster.wait_leader(Some(leader)).await;
        self.wait(random, 1_000..5_000).await;
        pair.set_etcd(Line::Open)?;
        next?;
        Ok(())
    }

    async fn cut_from_nodes(&self, leader: usize, random: &mut fastrand::Rng) -> Result<()> {
        let pair = self.cluster.pair(leader);
        pair.set_nodes(self.by_turns([Line::Silent, Line::Refused]))?;
        self.wait(random, 3_000..8_000).await;
        pair.set_nodes(Line::Open)?;
        Ok(())
    }

    async fn without_quorum(&self) -> Result<()> {
        let members = self.cluster.etcd();
        let majority = members.iter().take(members.len() / 2 + 1);
        for member in majority.clone() {
            member.kill()?;
        }
        let seconds = if self.quick { 5 } else { 10 };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        for member in majority {
            member.restart()?;
        }
        Ok(())
    }

    async fn etcd_full(&self, random: &mut fastrand::Rng) -> Result<()> {
        for member in self.cluster.etcd() {
            member.limit_file_size(Some(FULL_BYTES))?;
        }
        self.wait(random, 3_000..8_000).await;
        // A member whose write failed has ended, as etcd does. The others get their disk back by the restart, too.
        for member in self.cluster.etcd() {
            member.restart()?;
        }
        Ok(())
    }

    async fn all_killed(&self, random: &mut fastrand::Rng) -> Result<()> {
        let mut mergers: Vec<&Process> = self.cluster.pairs().iter().map(Pair::merger).collect();
        for merger in &mergers {
            merger.kill()?;
        }
        self.wait(random, 0..2_000).await;
        random.shuffle(&mut mergers);
        for merger in mergers {
            merger.restart()?;
            self.wait(random, 0..1_000).await;
        }
        Ok(())
    }

    /// Mergers, members of etcd, nodes and Envoys, each in good order, and the next one when all is well. Only a restart of an
    /// Envoy excuses requests to it: the rest is the mesh's to hide.
    async fn restart_everything(&self, random: &mut fastrand::Rng) -> Result<Vec<Outage>> {
        let pairs = self.cluster.pairs();
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        random.shuffle(&mut order);
        for pair in order.iter().copied() {
            again(self.cluster.pair(pair).merger())?;
            self.wait_for_edge(pair).await?;
            self.control
                .green(self.nodes(), super::round::RECOVERY)
                .await?;
        }
        for member in self.cluster.etcd() {
            again(member)?;
            self.wait_for_accepted_write().await?;
        }
        let layout = self.cluster.layout();
        for (shard, replica) in layout.nodes() {
            again(self.cluster.node(shard, replica))?;
            self.control
                .green(self.nodes(), super::round::RECOVERY)
                .await?;
        }
        let mut outages = Vec::new();
        for pair in order {
            let restart = async { again(self.cluster.pair(pair).envoy()) };
            outages.push(self.at_edge(pair, restart).await?);
        }
        Ok(outages)
    }

    fn nodes(&self) -> usize {
        self.cluster.layout().nodes().count()
    }
}

/// Ends a program in good order and starts it again.
fn again(process: &Process) -> Result<()> {
    process.terminate()?;
    process.restart()?;
    Ok(())
}
