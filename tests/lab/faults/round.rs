//! One round: load, fault, end of the fault, green, end of all writes, inspection.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use weft_cluster::{Api, Cluster, PortBlock};

use super::check::{self, Violation};
use super::control::Control;
use super::documents::{INDEX, settings, whole, with_vector};
use super::figures::{self, Outage, ReadFigures};
use super::history::{At, Change};
use super::inject::{Injector, Injury};
use super::kinds::Fault;
use super::moving::{self, Moved, Moving, Way};
use super::world::{Gate, ReadKind, World};
use super::{FaultArgs, inspect, readers, writers};

const MASTER_KEY: &str = "a-master-key-for-faults";
/// Members of the etcd that several mergers share.
const ETCD_MEMBERS: u16 = 3;
const WRITERS: usize = 4;
const READERS: usize = 3;
/// Documents on each shard that never change: enough of them that each shard has one, however slots move.
const UNCHANGING: usize = 8;
/// How long a cluster may take to recover.
pub(super) const RECOVERY: Duration = Duration::from_secs(120);
/// How long after a fault gaps are looked for, at least.
const GAP_WINDOW: Duration = Duration::from_secs(5);

/// The results of a round.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Round {
    pub(super) fault: Fault,
    pub(super) number: u32,
    /// In a sequence, the chore done before the round.
    pub(super) chore: Option<String>,
    pub(super) injury: Option<Injury>,
    /// What became of the slots that moved meanwhile, if any did.
    pub(super) moved: Option<Moved>,
    /// From the end of the fault until green; `None` if the cluster never became green.
    pub(super) recovered_ms: Option<f64>,
    pub(super) documents: usize,
    pub(super) violations: Vec<Violation>,
    pub(super) reads: ReadFigures,
    /// The longest time without an answer to a read of the affected shard.
    pub(super) read_gap_ms: Option<f64>,
    /// The longest time without an acknowledged write to it.
    pub(super) write_gap_ms: Option<f64>,
    /// Why the round couldn't be finished.
    pub(super) error: Option<String>,
    #[serde(skip)]
    pub(super) before: Vec<Duration>,
    #[serde(skip)]
    pub(super) during: Vec<Duration>,
}

impl Round {
    pub(super) fn new(fault: Fault, number: u32) -> Self {
        Self {
            fault,
            number,
            chore: None,
            injury: None,
            moved: None,
            recovered_ms: None,
            documents: 0,
            violations: Vec::new(),
            reads: ReadFigures::default(),
            read_gap_ms: None,
            write_gap_ms: None,
            error: None,
            before: Vec::new(),
            during: Vec::new(),
        }
    }

    /// True if no hard promise was broken: those with a target of 0, and that the cluster recovers.
    pub(super) fn sound(&self) -> bool {
        self.error.is_none() && self.violations.is_empty()
    }
}

/// A cluster under load.
pub(super) struct LoadedCluster {
    pub(super) cluster: Cluster,
    folder: PathBuf,
    pub(super) control: Control,
    pub(super) world: Arc<World>,
    load: JoinSet<()>,
    /// The documents that never change.
    unchanging: Vec<String>,
    /// What moved last.
    moved: Option<Way>,
    _ports: PortBlock,
}

impl LoadedCluster {
    /// Starts a cluster, its index, and the load.
    pub(super) async fn start(arguments: &FaultArgs, fault: Fault, seed: u64) -> Result<Self> {
        let staggered = fault == Fault::BulkImport && !arguments.together;
        Self::start_for(
            arguments,
            &fault.name(),
            fault.on_the_line(),
            staggered,
            seed,
        )
        .await
    }

    /// The same under any name, with or without relays between Envoy and the nodes.
    pub(super) async fn start_for(
        arguments: &FaultArgs,
        name: &str,
        links: bool,
        staggered: bool,
        seed: u64,
    ) -> Result<Self> {
        let folder = arguments.folder.join(format!("{name}-{seed}"));
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let folder = folder.canonicalize()?;
        let builder = Cluster::builder()
            .shards(arguments.shards)
            .replicas(arguments.replicas)
            .mergers(arguments.mergers)
            .etcd(match arguments.mergers {
                1 => 0,
                _ => ETCD_MEMBERS,
            })
            .links(links);
        let ports = PortBlock::claim(builder.layout(1)?.width())?;
        let cluster = builder
            .master_key(MASTER_KEY)
            .access_log("all")
            .merger_env("WEFT_STAGGERED", staggered.to_string())
            .merger_env("WEFT_STAGGERED_MIN_BYTES", "262144")
            .merger_env("WEFT_MOVE_BATCH", moving::BATCH)
            .at(ports.base(), &folder)
            .start()
            .await?;
        let api = Api::new(cluster.url(), Some(MASTER_KEY));
        let world = World::new(cluster.edges(), arguments.shards, arguments.mode)?;
        let mut loaded = Self {
            cluster,
            folder,
            control: Control::new(api),
            world,
            load: JoinSet::new(),
            unchanging: Vec::new(),
            moved: None,
            _ports: ports,
        };
        loaded.prepare().await?;
        for number in 0..WRITERS {
            let seed = seed.wrapping_mul(1_000).wrapping_add(number as u64);
            let world = Arc::clone(&loaded.world);
            loaded.load.spawn(writers::writer(world, number, seed));
        }
        for number in 0..READERS {
            let seed = seed.wrapping_mul(1_000).wrapping_add(500 + number as u64);
            let world = Arc::clone(&loaded.world);
            loaded.load.spawn(readers::reader(world, seed));
        }
        Ok(loaded)
    }

    /// Creates the index, and on each shard documents that never change.
    async fn prepare(&mut self) -> Result<()> {
        let api = self.world.api();
        api.succeed(
            &api.post("/indexes", &json!({"uid": INDEX, "primaryKey": "id"}))
                .await?,
        )
        .await?;
        let path = format!("/indexes/{INDEX}/settings");
        api.succeed(&api.json(Method::PATCH, &path, &settings()).await?)
            .await?;
        for shard in 0..self.cluster.layout().shards() {
            let ids = (0_u64..).map(|salt| format!("still-{salt}"));
            let ids = ids.filter(|id| self.world.shard_of(id) == shard);
            let ids: Vec<String> = ids.take(UNCHANGING).collect();
            let fields: Vec<_> = ids.iter().map(|id| whole(id, 1)).collect();
            let now = self.world.now();
            let mut tickets = Vec::new();
            for (id, fields) in ids.iter().zip(&fields) {
                let change = Change::Replace(fields.clone());
                tickets.push(self.world.history().send(id, change, now));
            }
            let path = format!("/indexes/{INDEX}/documents");
            let body = fields.iter().map(with_vector).collect();
            let request = (Method::POST, path, Some(body));
            let task = self.world.write(tickets, request).await;
            let succeeded = match task {
                Some(task) => task.await?,
                None => false,
            };
            ensure!(
                succeeded,
                "the first write to shard {shard} did not succeed"
            );
            let node = Api::new(self.cluster.node_url(shard, 0), Some(MASTER_KEY));
            for id in &ids {
                let path = format!("/indexes/{INDEX}/documents/{id}");
                let there = node.get(&path).await?;
                if there.status != 200 {
                    bail!("{id} is not on the expected node: {}", there.text);
                }
            }
            self.unchanging.extend(ids);
        }
        Ok(())
    }

    /// The number of nodes.
    pub(super) fn nodes(&self) -> usize {
        let layout = self.cluster.layout();
        usize::from(layout.shards() * layout.replicas())
    }

    /// The id of a document that never changes, one of this shard if it has any.
    fn unchanging(&self, shard: u16) -> String {
        let mut ids = self.unchanging.iter();
        let there = ids.find(|id| self.world.shard_of(id) == shard);
        there
            .or(self.unchanging.first())
            .cloned()
            .unwrap_or_default()
    }

    /// Runs one round. Only the harness's own failures are errors.
    pub(super) async fn run_round(
        &mut self,
        arguments: &FaultArgs,
        fault: Fault,
        number: u32,
        random: &mut fastrand::Rng,
    ) -> Result<Round> {
        let mut round = Round::new(fault, number);
        if let Err(error) = self.run_steps(arguments, &mut round, random).await {
            round.error = Some(format!("{error:#}"));
        }
        round.violations.extend(self.world.take_violations());
        Ok(round)
    }

    async fn run_steps(
        &mut self,
        arguments: &FaultArgs,
        round: &mut Round,
        random: &mut fastrand::Rng,
    ) -> Result<()> {
        let (world, quick) = (Arc::clone(&self.world), arguments.quick);
        drop((world.take_reads(), world.take_beats()));
        let injector = Injector {
            cluster: &self.cluster,
            control: &self.control,
            world: &world,
            quick,
            round: round.number,
        };
        let victim = injector.victim(round.fault, random).await?;
        let watched = world.owner_or(victim.shard);
        world.gate.send_replace(Gate::Open);
        let mut beats = JoinSet::new();
        beats.spawn(readers::beat(Arc::clone(&world), self.unchanging(watched)));
        let name = writers::beat_name(round.number);
        beats.spawn(writers::beat(Arc::clone(&world), name, watched));

        let begun = world.now();
        let calm = if round.fault.is_timed() { 5_000 } else { 1_500 };
        let calm = random.u64(calm / 2..calm * 3 / 2) / if quick { 2 } else { 1 };
        tokio::time::sleep(Duration::from_millis(calm)).await;
        let moving = match arguments.moving {
            true => {
                let way = Way::after(self.moved, arguments.shards, random);
                self.moved = Some(way);
                let moving = Moving::begin(&self.cluster, &world, way).await?;
                moving.wait_for_some(random).await?;
                Some(moving)
            }
            false => None,
        };
        let at_fault = match &moving {
            Some(moving) => moving.progress().await?,
            None => None,
        };
        let injury = injector.run(round.fault, victim, random).await?;
        let recovered = self.control.green(self.nodes(), RECOVERY).await;
        let after_fault = match &moving {
            Some(moving) => moving.go_on().await?,
            None => false,
        };
        // A recovered cluster must stay healthy under load for a moment.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ended = world.now();
        world.gate.send_replace(Gate::NoWrites);
        beats.abort_all();

        let (reads, acknowledged) = (world.take_reads(), world.take_beats());
        let last = match round.fault {
            Fault::RollingRestart => injury.healed,
            _ => injury.at,
        };
        round.reads = figures::reads(&reads, injury.at, last, &injury.outages);
        let until = injury.healed.max(injury.at + GAP_WINDOW).min(ended);
        let gap = |successes: &[At]| figures::longest_gap(successes, injury.at, until).map(millis);
        // Through an edge that was broken itself, nothing could succeed. Where each was broken in its turn, all of them count.
        let each_in_turn = (0..world.edges().len()).all(|edge| breaks(&injury.outages, edge));
        let meant = |edge: usize| each_in_turn || !breaks(&injury.outages, edge);
        let (reads_elsewhere, beats): (Vec<_>, Vec<_>) = (
            reads
                .iter()
                .filter(|read| meant(read.edge))
                .cloned()
                .collect(),
            acknowledged
                .iter()
                .filter(|(_, edge)| meant(*edge))
                .collect(),
        );
        round.read_gap_ms = gap(&figures::successes(&reads_elsewhere, ReadKind::Beat));
        let beats: Vec<At> = beats.into_iter().map(|(at, _)| *at).collect();
        round.write_gap_ms = gap(&beats);
        round.before = figures::latencies(&reads, begun, injury.at);
        round.during = figures::latencies(&reads, injury.at, injury.healed);
        round.injury = Some(injury);
        round.recovered_ms = Some(millis(recovered?));

        if let Some(moving) = moving {
            round.moved = Some(moving.end(at_fault, after_fault).await?);
        }
        round
            .violations
            .extend(inspect::wait_for_writes(&world).await);
        round
            .violations
            .extend(inspect::stored(&self.cluster, &world).await?);
        round.documents = world.history().len();
        Ok(())
    }

    /// Writes everything known of the first documents that broke a promise to a folder, and returns its path.
    pub(super) async fn write_evidence(&self, round: &Round) -> Result<PathBuf> {
        let mut lines = vec![format!(
            "{:?} {}: {:?}",
            round.fault, round.number, round.error
        )];
        let mut ids: Vec<&str> = Vec::new();
        for violation in &round.violations {
            lines.push(format!(
                "{:?} {} at {}: {}",
                violation.breach, violation.what, violation.place, violation.detail
            ));
            if ids.len() < 20 && !ids.contains(&violation.what.as_str()) {
                ids.push(&violation.what);
            }
        }
        lines.push(format!("{:?}", round.injury));
        for id in ids {
            lines.extend(check::describe(id, self.world.history().life(id)));
            lines.extend(inspect::held(&self.cluster, self.world.shard_of(id), id).await);
        }
        let file = self.folder.join("violations.txt");
        fs::write(&file, lines.join("\n")).with_context(|| file.display().to_string())?;
        Ok(file)
    }

    /// Ends everything. The cluster's files are kept if `keep` is set.
    pub(super) async fn stop(mut self, keep: bool) -> Result<()> {
        self.world.gate.send_replace(Gate::Closed);
        self.load.shutdown().await;
        let folder = self.folder.clone();
        drop(self);
        if !keep {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        Ok(())
    }
}

/// True if this edge was broken, and not all of them.
fn breaks(outages: &[Outage], edge: usize) -> bool {
    outages.iter().any(|outage| outage.edge == Some(edge))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
