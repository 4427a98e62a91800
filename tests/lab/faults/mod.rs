//! `weft-lab faults`: breaks real clusters under load, and checks what happened to every acknowledged write.
//!
//! ```text
//! writers ─► history ◄─ readers          what a client knows: sent, accepted, acknowledged, in doubt
//!    │          │          │
//!    ▼          ▼          ▼
//!  Envoy … nodes      check (pure)       what it may be shown, and what must be stored
//! ```
//!
//! Each fault has its own cluster. [`round`] combines load, fault, recovery and inspection, [`inject`] causes the fault,
//! [`check`] judges, [`report`] prints the table. Invariant: the judgement uses what clients were told, and never what the
//! cluster says about itself, except for the time when it says that it has recovered.

mod check;
mod control;
mod documents;
mod figures;
mod history;
mod inject;
mod inspect;
mod kinds;
mod mergers;
mod moving;
mod readers;
mod report;
mod round;
mod sequence;
mod world;
mod writers;

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use weft_cluster::Binaries;

use crate::say;
use kinds::Fault;
use round::{LoadedCluster, Round};
use world::Mode;

/// The number of rounds with a broken promise after which a fault isn't repeated.
const ENOUGH: usize = 3;

/// Options of `weft-lab faults`.
#[derive(Debug, Args)]
pub(crate) struct FaultArgs {
    /// How often each fault is injected.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Repeats the random choices of an earlier run, but not its timing.
    #[arg(long)]
    seed: Option<u64>,
    /// Instead, this many random faults one after the other on one cluster, with deletions of tasks, restarts of the merger
    /// and replaced disks between them.
    #[arg(long)]
    sequence: Option<u32>,
    /// Which faults; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Shards.
    #[arg(long, default_value_t = 3)]
    shards: u16,
    /// Nodes in each shard.
    #[arg(long, default_value_t = 2)]
    replicas: u16,
    /// Pairs of Envoy and merger. Several share an etcd of three members, and have faults of their own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    mergers: u16,
    /// The mode of writes.
    #[arg(long, value_enum, default_value_t = Mode::Sync)]
    mode: Mode,
    /// Let all replicas apply the bulk import at the same time, to compare.
    #[arg(long)]
    together: bool,
    /// Shorter faults, for a quick check.
    #[arg(long)]
    quick: bool,
    /// Whether slots move while faults happen.
    #[arg(skip)]
    moving: bool,
    /// Folder for the clusters' files, which are kept if a promise was broken.
    #[arg(long, default_value = "target/faults")]
    folder: PathBuf,
    /// Folder for the JSON file.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

impl FaultArgs {
    /// Replaces the names on the command line by the faults to inject.
    fn choose_faults(&mut self) -> Result<()> {
        self.moving = self.faults.contains(&Fault::Move);
        ensure!(
            !self.moving || self.shards > 1,
            "slots can't move between fewer than two shards"
        );
        self.faults.retain(|fault| *fault != Fault::Move);
        let several = self.mergers > 1;
        if self.faults.is_empty() {
            self.faults = Fault::value_variants().to_vec();
            self.faults.retain(|fault| {
                *fault != Fault::Move && (several || !fault.needs_several_mergers())
            });
        }
        let mut named = self.faults.iter();
        if let Some(fault) = named.find(|fault| !several && fault.needs_several_mergers()) {
            bail!("{} needs several mergers: --mergers 3", fault.name());
        }
        Ok(())
    }

    /// What a headline says of the cluster and the load.
    fn setting(&self) -> String {
        format!(
            "{} × {} nodes with {} merger(s), writes in mode {:?}{}",
            self.shards,
            self.replicas,
            self.mergers,
            self.mode,
            if self.moving {
                ", while slots move"
            } else {
                ""
            }
        )
    }
}

pub(crate) async fn run(mut arguments: FaultArgs) -> Result<()> {
    ensure!(arguments.rounds > 0, "--rounds must be at least 1");
    arguments.choose_faults()?;
    if arguments.mergers > 1 {
        // Said before the first cluster starts.
        Binaries::etcd().map_err(|error| anyhow::anyhow!(error.line()))?;
    }
    let seed = arguments
        .seed
        .unwrap_or_else(|| fastrand::u64(0..1_000_000));
    if let Some(length) = arguments.sequence {
        say(format_args!(
            "{length} faults in a row on {}; --seed {seed}\n",
            arguments.setting()
        ));
        say(report::heading());
        let rounds = sequence::run(&arguments, length, seed).await?;
        return conclude(&arguments, seed, &rounds);
    }
    say(format_args!(
        "{} rounds of each fault on {}; --seed {seed}\n",
        arguments.rounds,
        arguments.setting()
    ));
    say(report::heading());
    let mut rounds = Vec::new();
    for fault in arguments.faults.clone() {
        let of_fault = run_rounds(&arguments, fault, seed).await?;
        say(report::row(fault, &of_fault, arguments.rounds));
        rounds.extend(of_fault);
    }
    conclude(&arguments, seed, &rounds)
}

fn conclude(arguments: &FaultArgs, seed: u64, rounds: &[Round]) -> Result<()> {
    let promises = report::promises(rounds, arguments.mode);
    say(report::table(&promises));
    let file = report::write(&arguments.out, seed, rounds, &promises)?;
    say(format_args!("Written to {}.", file.display()));
    let unsound = rounds.iter().any(|round| !round.sound());
    if unsound || promises.iter().any(report::Promise::broken) {
        bail!("a promise was broken; repeat it with --seed {seed}");
    }
    Ok(())
}

/// Runs all rounds of a fault. A cluster that broke a promise is left as it is, and the next round gets a new one.
async fn run_rounds(arguments: &FaultArgs, fault: Fault, seed: u64) -> Result<Vec<Round>> {
    // Each fault has its own random choices, whichever other faults are injected.
    let mut random = fastrand::Rng::with_seed(seed ^ ((fault as u64 + 1) << 32));
    let (mut rounds, mut broken) = (Vec::new(), 0);
    let mut loaded: Option<LoadedCluster> = None;
    for number in 0..arguments.rounds {
        let current = match &mut loaded {
            Some(cluster) => cluster,
            None => {
                let seed = random.u64(..) % 1_000_000;
                loaded.insert(LoadedCluster::start(arguments, fault, seed).await?)
            }
        };
        let round = current
            .run_round(arguments, fault, number, &mut random)
            .await?;
        let sound = round.sound();
        if !sound {
            broken += 1;
            let file = current.write_evidence(&round).await?;
            say(report::broken(&round, &file));
        }
        rounds.push(round);
        if !sound && let Some(cluster) = loaded.take() {
            cluster.stop(true).await?;
        }
        if broken >= ENOUGH {
            break;
        }
    }
    if let Some(cluster) = loaded {
        cluster.stop(false).await?;
    }
    Ok(rounds)
}
