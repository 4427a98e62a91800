//! Faults one after the other on one cluster, with ordinary work of operators between them.
//!
//! On a new cluster, a fault never meets the effects of an earlier one. Here tasks are deleted, the merger is restarted
//! and disks are replaced while nobody writes, and everything is compared after each of these and after each fault.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::json;
use weft_cluster::{Api, Deadline, until};

use super::check::{Breach, Violation};
use super::documents::INDEX;
use super::history::{Change, Outcome};
use super::round::{LoadedCluster, RECOVERY, Round};
use super::{FaultArgs, inspect, report, writers};
use crate::say;

/// The index of bulk imports.
const BULK: &str = "/indexes/bulk";
/// How long the merger may take to answer after its restart.
const RESTART: Duration = Duration::from_secs(60);

/// The work between two faults.
#[derive(Debug, Clone, Copy)]
enum Chore {
    Nothing,
    DeleteTasks,
    RestartMerger,
    DeleteTasksAndRestartMerger,
    /// Replaces a disk while there is no merger, and without a task that would show the loss.
    ReplaceDisk,
}

impl Chore {
    fn random(random: &mut fastrand::Rng) -> Self {
        match random.u8(0..6) {
            0 => Self::Nothing,
            1 => Self::DeleteTasks,
            2 => Self::RestartMerger,
            3 => Self::DeleteTasksAndRestartMerger,
            _ => Self::ReplaceDisk,
        }
    }

    fn deletes_tasks(self, random: &mut fastrand::Rng) -> bool {
        match self {
            Self::DeleteTasks | Self::DeleteTasksAndRestartMerger => true,
            Self::ReplaceDisk => random.bool(),
            Self::Nothing | Self::RestartMerger => false,
        }
    }

    fn restarts_merger(self) -> bool {
        !matches!(self, Self::Nothing | Self::DeleteTasks)
    }
}

/// Injects `length` random faults into one cluster. Stops at the first broken promise, and keeps the cluster's files.
pub(super) async fn run(arguments: &FaultArgs, length: u32, seed: u64) -> Result<Vec<Round>> {
    ensure!(arguments.replicas > 1, "a sequence needs two replicas");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cluster =
        LoadedCluster::start_for(arguments, "sequence", true, random.bool(), seed).await?;
    let mut rounds = Vec::new();
    for number in 0..length {
        let chore = Chore::random(&mut random);
        let place = random.usize(..arguments.faults.len());
        let fault = *arguments.faults.get(place).context("no fault is chosen")?;
        let mut round = match cluster.do_chore(chore, &mut random).await {
            Ok(violations) if violations.is_empty() => {
                cluster
                    .run_round(arguments, fault, number, &mut random)
                    .await?
            }
            // The fault isn't injected, because the chore has broken a promise already.
            Ok(violations) => Round {
                violations,
                ..Round::new(fault, number)
            },
            Err(error) => Round {
                error: Some(format!("after {chore:?}: {error:#}")),
                ..Round::new(fault, number)
            },
        };
        cluster.delete_leftovers(number).await?;
        round.chore = Some(format!("{chore:?}"));
        say(format_args!(
            "{} after {chore:?}",
            report::row(fault, std::slice::from_ref(&round), 1)
        ));
        let sound = round.sound();
        if !sound {
            let file = cluster.write_evidence(&round).await?;
            say(report::broken(&round, &file));
        }
        rounds.push(round);
        if !sound {
            cluster.stop(true).await?;
            return Ok(rounds);
        }
    }
    cluster.stop(false).await?;
    Ok(rounds)
}

impl LoadedCluster {
    /// Deletes what was written at a steady interval in a round, and what its writer can't write again. Otherwise the index
    /// would grow with every round, and with it each resync.
    async fn delete_leftovers(&self, number: u32) -> Result<()> {
        let prefix = writers::beat_name(number);
        let (ids, tickets) = {
            let mut history = self.world.history();
            let (mut beats, mut in_doubt) = (Vec::new(), Vec::new());
            for (id, life) in history.lives() {
                match life.writable() {
                    true if id.starts_with(&prefix) => beats.push(id.to_owned()),
                    false if !life.ends_with_deletion() => in_doubt.push(id.to_owned()),
                    _ => {}
                }
            }
            let now = self.world.now();
            let tickets = beats.iter().map(|id| history.send(id, Change::Delete, now));
            let tickets = tickets.collect();
            // Writes that got no answer stay in doubt, even if they are followed by this deletion.
            for id in &in_doubt {
                let ticket = history.send(id, Change::Delete, now);
                history.end(
                    &ticket,
                    Outcome::InDoubt("deleted after a write in doubt".to_owned()),
                );
            }
            beats.extend(in_doubt);
            (beats, tickets)
        };
        if ids.is_empty() {
            return Ok(());
        }
        let path = format!("/indexes/{INDEX}/documents/delete-batch");
        let request = (Method::POST, path, Some(json!(ids)));
        if let Some(task) = self.world.write(tickets, request).await {
            task.await?;
        }
        Ok(())
    }

    /// Does a chore while nobody writes, waits until the cluster has recovered, and inspects every node.
    async fn do_chore(
        &mut self,
        chore: Chore,
        random: &mut fastrand::Rng,
    ) -> Result<Vec<Violation>> {
        let api = self.world.api().clone();
        if chore.deletes_tasks(random) {
            let path = "/tasks?statuses=succeeded,failed,canceled";
            let deleted = api.send(Method::DELETE, path, &[], String::new()).await?;
            api.succeed(&deleted).await?;
        }
        // Bulk imports would make the cluster larger and larger, and each resync longer.
        if random.bool() {
            // The task fails if there is no such index.
            let gone = api.send(Method::DELETE, BULK, &[], String::new()).await?;
            api.settle(&gone).await?;
        }
        if chore.restarts_merger() {
            let merger = self.cluster.merger();
            match random.bool() {
                true => merger.kill()?,
                false => merger.terminate()?,
            }
            if let Chore::ReplaceDisk = chore {
                let layout = self.cluster.layout();
                let (shard, replica) = (
                    random.u16(0..layout.shards()),
                    random.u16(0..layout.replicas()),
                );
                let node = self.cluster.node(shard, replica);
                node.wipe()?;
                node.restart()?;
            }
            merger.restart()?;
            let health = Api::new(self.cluster.merger_url(), None);
            until("the merger", Deadline::after(RESTART), || async {
                match health.get("/health").await {
                    Ok(reply) if reply.status == 200 => Ok(()),
                    Ok(reply) => Err(reply.text),
                    Err(error) => Err(error.line()),
                }
            })
            .await?;
        }
        self.control.green(self.nodes(), RECOVERY).await?;
        let mut seen = self.world.take_violations();
        if let Chore::ReplaceDisk = chore {
            // While there is no merger, Envoy uses the last state it got, and may read from a disk that was replaced since.
            seen.retain(|violation| violation.breach != Breach::StaleRead);
        }
        seen.extend(inspect::stored(&self.cluster, &self.world).await?);
        Ok(seen)
    }
}
