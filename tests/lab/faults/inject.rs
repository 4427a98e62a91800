//! Causes the fault, holds it for a while, and ends it. Recovery is up to the cluster.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::json;
use weft_cluster::{Api, Cluster, Deadline, Line, Process, until};

use super::control::{Control, Place};
use super::figures::Outage;
use super::history::At;
use super::kinds::Fault;
use super::world::World;

/// The delay of the slow node.
const LATE: Duration = Duration::from_millis(200);
/// The file size that a full disk still allows: too little for anything that matters.
pub(super) const FULL_BYTES: u64 = 16 << 10;
/// The number of documents in a batch of the bulk import: some megabytes.
const IMPORTED: u32 = 6_000;
/// How long the promises still don't apply after a process is back.
const GRACE: Duration = Duration::from_secs(2);

/// What was done, and when.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Injury {
    pub(super) victim: Option<Place>,
    /// When the (first part of the) fault began.
    pub(super) at: At,
    /// When the fault ended.
    pub(super) healed: At,
    /// When no request could have been answered: a shard had no live in-sync replica, or there was no Envoy or merger, at one edge
    /// or at all.
    pub(super) outages: Vec<Outage>,
    /// An extra line for the report.
    pub(super) note: Option<String>,
}

/// Causes faults in a cluster.
pub(super) struct Injector<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) control: &'a Control,
    pub(super) world: &'a World,
    pub(super) quick: bool,
    /// The round's number, for faults that alternate between several forms.
    pub(super) round: u32,
}

impl Injector<'_> {
    /// Chooses the replica for the fault.
    pub(super) async fn victim(&self, fault: Fault, random: &mut fastrand::Rng) -> Result<Place> {
        let layout = self.cluster.layout();
        let shard = random.u16(0..layout.shards());
        let primary = self.control.primary(shard).await?;
        let replica = match fault {
            Fault::KillPrimary => primary.replica,
            Fault::KillReplica => {
                ensure!(layout.replicas() > 1, "kill-replica needs two replicas");
                (primary.replica + random.u16(1..layout.replicas())) % layout.replicas()
            }
            _ => random.u16(0..layout.replicas()),
        };
        Ok(Place { shard, replica })
    }

    /// Causes the fault and ends it.
    pub(super) async fn run(
        &self,
        fault: Fault,
        victim: Place,
        random: &mut fastrand::Rng,
    ) -> Result<Injury> {
        let node = self.cluster.node(victim.shard, victim.replica);
        let at = self.world.now();
        let mut injury = Injury {
            victim: Some(victim),
            at,
            healed: at,
            outages: Vec::new(),
            note: None,
        };
        match fault {
            Fault::KillReplica | Fault::KillPrimary => {
                node.kill()?;
                self.wait(random, 500..4_000).await;
                node.restart()?;
            }
            Fault::EmptyDisk => {
                node.wipe()?;
                self.wait(random, 500..4_000).await;
                node.restart()?;
            }
            Fault::KillBoth => injury.outages.push(self.kill_both(victim, random).await?),
            Fault::Hang => {
                node.pause()?;
                let seconds = if self.quick { 5 } else { 30 };
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                node.resume()?;
            }
            Fault::CutOff => {
                let line = [Line::Silent, Line::Refused];
                self.line(victim, self.by_turns(line), random).await?;
            }
            Fault::ServerErrors => self.line(victim, Line::ServerErrors, random).await?,
            Fault::Garbage => {
                let line = [Line::Garbage, Line::AnswersLost];
                self.line(victim, self.by_turns(line), random).await?;
            }
            Fault::Slow => self.line(victim, Line::Late(LATE), random).await?,
            Fault::KillMerger => {
                injury.victim = None;
                let outage = self.outage(self.cluster.merger(), random).await?;
                injury.outages.push(outage);
            }
            Fault::KillEnvoy => {
                injury.victim = None;
                let outage = self.outage(self.cluster.envoy(), random).await?;
                injury.outages.push(outage);
            }
            Fault::BulkImport => {
                injury.victim = None;
                let batches = if self.quick { 3 } else { 10 };
                for number in 0..batches {
                    self.import(number).await?;
                }
            }
            Fault::DiskFull => injury.note = self.fill_disk(node, random).await?,
            Fault::MergerDiskFull => {
                injury.victim = None;
                let merger = self.cluster.merger();
                merger.limit_file_size(Some(FULL_BYTES))?;
                self.wait(random, 3_000..8_000).await;
                merger.limit_file_size(None)?;
                self.wait_for_accepted_write().await?;
            }
            of_several if of_several.needs_several_mergers() => {
                injury.victim = None;
                injury.outages = self.break_mergers(of_several, random).await?;
            }
            other => bail!("{} is not known here", other.name()),
        }
        injury.healed = self.world.now();
        Ok(injury)
    }

    pub(super) fn by_turns(&self, forms: [Line; 2]) -> Line {
        let [even, odd] = forms;
        if self.round.is_multiple_of(2) {
            even
        } else {
            odd
        }
    }

    async fn line(&self, victim: Place, line: Line, random: &mut fastrand::Rng) -> Result<()> {
        let link = self
            .cluster
            .link(victim.shard, victim.replica)
            .context("this cluster has no relays between Envoy and the nodes")?;
        link.set(line);
        self.wait(random, 3_000..8_000).await;
        link.set(Line::Open);
        Ok(())
    }

    async fn kill_both(&self, first: Place, random: &mut fastrand::Rng) -> Result<Outage> {
        let others: Vec<Place> = (0..self.cluster.layout().replicas())
            .filter(|replica| *replica != first.replica)
            .map(|replica| Place { replica, ..first })
            .collect();
        let node = |place: &Place| self.cluster.node(place.shard, place.replica);
        node(&first).kill()?;
        self.wait(random, 200..2_500).await;
        for other in &others {
            node(other).kill()?;
        }
        let begun = self.world.now();
        self.wait(random, 200..2_000).await;
        let mut all: Vec<Place> = others;
        all.push(first);
        random.shuffle(&mut all);
        for place in &all {
            node(place).restart()?;
            self.wait(random, 0..1_000).await;
        }
        // The replica that died last holds everything; no other replica may answer before it is back.
        for place in &all {
            let url = self.cluster.node_url(place.shard, place.replica);
            self.wait_for_answer(&url, "/health").await?;
        }
        Ok(self.outage_since(begun, None))
    }

    /// An outage that has just ended, at one edge or at all.
    pub(super) fn outage_since(&self, from: At, edge: Option<usize>) -> Outage {
        let to = self.world.now() + GRACE;
        Outage { from, to, edge }
    }

    /// Kills the first Envoy or its merger. If there are no others, no promise applies until it is back.
    async fn outage(&self, process: &Process, random: &mut fastrand::Rng) -> Result<Outage> {
        let edge = (self.cluster.pairs().len() > 1).then_some(0);
        self.world.set_broken(edge);
        let begun = self.world.now();
        process.kill()?;
        self.wait(random, 0..3_000).await;
        process.restart()?;
        self.wait_for_edge(0).await?;
        self.world.set_broken(None);
        Ok(self.outage_since(begun, edge))
    }

    /// Waits until an edge answers what needs its Envoy, a merger and a node.
    pub(super) async fn wait_for_edge(&self, edge: usize) -> Result<()> {
        let url = self.cluster.pair(edge).url();
        self.wait_for_answer(&url, "/version").await
    }

    /// Imports a batch of documents that keeps nodes busy for a while, and waits for it as importers do.
    async fn import(&self, number: u32) -> Result<()> {
        let words: Vec<String> = (0..2_000).map(|word| format!("word{word}")).collect();
        let word = |place: u32| {
            words
                .get(place as usize % words.len())
                .map_or("", String::as_str)
        };
        let document = |id: u32| {
            let text: Vec<&str> = (0..60)
                .map(|place| word(id * 31 + place * (id % 97)))
                .collect();
            json!({"id": id, "title": word(id), "text": text.join(" ")})
        };
        let first = number * IMPORTED;
        let documents: Vec<_> = (first..first + IMPORTED).map(document).collect();
        let path = "/indexes/bulk/documents?primaryKey=id";
        let accepted = self.world.api().post(path, &json!(documents)).await?;
        ensure!(
            accepted.status == 202,
            "an import was refused: {}",
            accepted.text
        );
        self.world.api().succeed(&accepted).await?;
        Ok(())
    }

    async fn fill_disk(
        &self,
        node: &Process,
        random: &mut fastrand::Rng,
    ) -> Result<Option<String>> {
        node.limit_file_size(Some(FULL_BYTES))?;
        self.wait(random, 3_000..8_000).await;
        let note = node
            .check_alive()
            .is_err()
            .then(|| format!("{} ended by itself", node.name()));
        // As an operator would do it: free some space, and restart the node. A node that failed to store how a task ended
        // may never recover otherwise.
        node.restart()?;
        Ok(note)
    }

    /// Waits until a write is accepted.
    pub(super) async fn wait_for_accepted_write(&self) -> Result<()> {
        let path = "/indexes/bulk/documents?primaryKey=id";
        let deadline = Deadline::after(Duration::from_secs(60));
        until("a write that is accepted", deadline, || async {
            let write = self.world.api().post(path, &json!([{"id": 0}])).await;
            let write = write.map_err(|error| error.line())?;
            (write.status == 202).then_some(()).ok_or(write.text)
        })
        .await?;
        Ok(())
    }

    pub(super) async fn wait(&self, random: &mut fastrand::Rng, millis: Range<u64>) {
        let millis = random.u64(millis);
        let millis = if self.quick { millis / 2 } else { millis };
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    async fn wait_for_answer(&self, url: &str, path: &str) -> Result<()> {
        let api = Api::new(url, self.cluster.master_key());
        let deadline = Deadline::after(Duration::from_secs(60));
        until(&format!("an answer from {url}"), deadline, || async {
            match api.get(path).await {
                Ok(reply) if reply.status == 200 => Ok(()),
                Ok(reply) => Err(reply.text),
                Err(error) => Err(error.line()),
            }
        })
        .await?;
        Ok(())
    }
}
