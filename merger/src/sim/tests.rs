//! Plays sequences: random ones and stored ones.

use std::time::{Duration, Instant};

use http::Method;

use super::nodes::{Event, new_disk};
use super::play::play;
use super::played::Played;
use super::steps::{Kind, Meanwhile, Plan, Step};
use super::world::World;

/// How long sequences are played in an ordinary test run, the first seed, and the most sequences.
const SHORT: Duration = Duration::from_secs(20);
const SHORT_SEED: u64 = 2;
const SHORT_RUNS: u64 = 150;
/// The number of failures after which the run stops.
const MOST_FAILURES: usize = 10;
/// How many shorter sequences are tried.
const TRIES: usize = 150;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The kind of failure, if the sequence failed.
fn kind(played: &Played) -> Option<String> {
    let first = played.violations.first()?;
    Some(
        [
            "document ",
            "differ",
            "not whole",
            "a client read",
            "given twice",
            "have waited",
        ]
        .iter()
        .find(|kind| first.contains(**kind))
        .map_or_else(|| first.clone(), |kind| (*kind).to_owned()),
    )
}

/// Plays sequences for a while. `WEFT_SIM_RUNS` sets a number of sequences instead; `WEFT_SIM_SEED` sets the first seed.
fn play_many(plan_of: impl Fn(u64) -> Plan) {
    let runs = number("WEFT_SIM_RUNS");
    let first = number("WEFT_SIM_SEED").unwrap_or(SHORT_SEED);
    println!("first seed {first}");
    let begun = Instant::now();
    let mut sum = Played::default();
    let mut count = 0;
    let mut failed = Vec::new();
    while runs.map_or(begun.elapsed() < SHORT && count < SHORT_RUNS, |runs| {
        count < runs
    }) {
        let plan = plan_of(first + count);
        count += 1;
        let played = play(&plan);
        sum.add(&played);
        if !played.violations.is_empty() {
            println!("seed {}: {}", plan.seed, in_short(&played.violations));
            failed.push(plan);
            if failed.len() >= MOST_FAILURES {
                break;
            }
        }
    }
    println!(
        "{count} sequences in {:.1} s: {sum}",
        begun.elapsed().as_secs_f64()
    );
    let shortened = number("WEFT_SIM_SHRINK").unwrap_or(1);
    let mut text = String::new();
    for plan in failed.iter().take(usize::try_from(shortened).unwrap_or(1)) {
        let wanted = kind(&play(plan));
        let short = plan.shrink(
            |plan| wanted.is_some() && kind(&play(plan)) == wanted,
            TRIES,
        );
        let why = in_short(&play(&short).violations);
        let json = serde_json::to_string(&short).unwrap();
        text.push_str(&format!(
            "seed {} fails, and so does this shorter sequence, to be kept:\n{json}\n{why}\n",
            plan.seed
        ));
    }
    assert!(failed.is_empty(), "{text}");
}

#[test]
fn whatever_goes_wrong_in_whatever_order_what_clients_were_told_is_true() {
    play_many(Plan::random);
}

#[test]
fn whatever_goes_wrong_while_slots_move_what_clients_were_told_is_true() {
    play_many(Plan::moving);
}

#[test]
fn whatever_goes_wrong_while_slots_of_values_move_what_clients_were_told_is_true() {
    play_many(Plan::moving_by_field);
}

#[test]
fn whatever_goes_wrong_while_strategies_change_what_clients_were_told_is_true() {
    play_many(Plan::changing);
}

fn plan(steps: Vec<Step>) -> Plan {
    Plan {
        seed: 1,
        shards: 1,
        replicas: 2,
        by_field: false,
        steps,
    }
}

fn writes() -> impl Iterator<Item = Step> {
    (0..30).map(|number| Step::Write {
        index: 0,
        writer: number % 4,
        kind: Kind::Replace,
        documents: 2,
    })
}

#[test]
fn no_replica_goes_because_tasks_were_deleted_and_the_merger_restarted() {
    let restart = Step::Restart {
        gently: true,
        down_ms: 500,
        meanwhile: Meanwhile::Nothing,
    };
    let mut steps: Vec<Step> = writes().collect();
    steps.extend([
        Step::Compare,
        Step::CleanTasks,
        Step::Wait { ms: 1_000 },
        restart,
    ]);
    let played = play(&plan(steps));
    assert_eq!(played.violations, Vec::<String>::new());
    assert_eq!((played.taken_out, played.lives), (0, 2));
}

#[test]
fn an_empty_disk_is_no_model_though_no_task_shows_what_it_lost() {
    for node in 0..2 {
        let meanwhile = Meanwhile::ReplaceDisk { node, older: false };
        let restart = Step::Restart {
            gently: true,
            down_ms: 500,
            meanwhile,
        };
        let mut steps: Vec<Step> = writes().collect();
        steps.extend([
            Step::Compare,
            Step::CleanTasks,
            Step::Wait { ms: 1_000 },
            restart,
        ]);
        let played = play(&plan(steps));
        assert_eq!(played.violations, Vec::<String>::new(), "node {node}");
        assert!(played.compared > 0);
    }
}

#[test]
fn a_resync_whose_source_comes_back_empty_deletes_nothing() {
    let world = World::new(&plan(Vec::new()));
    let documents = |name: &str| {
        let state = world.mesh.lock();
        let index = state
            .nodes
            .get(name)
            .and_then(|node| node.disk.indexes.get("i0"));
        index.map_or(0, |index| index.documents.len())
    };
    world.life(async |merger| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        merger.write(0, 0, Kind::Replace, 200);
        tokio::time::sleep(Duration::from_secs(2)).await;
        {
            let mut state = world.mesh.lock();
            state.kill("b0");
            state.plan(4_000, "b0", Event::Starts);
        }
        merger.write(0, 1, Kind::Replace, 100);
        tokio::time::sleep(Duration::from_secs(3)).await;
        // The resync takes some seconds.
        world
            .mesh
            .lock()
            .nodes
            .values_mut()
            .for_each(|node| node.slow_ms = 200);
        let under_way = async || {
            let (_, said) = merger.ask(Method::GET, "/_cluster/nodes", None).await;
            let nodes = said["nodes"].as_array().cloned().unwrap_or_default();
            nodes
                .iter()
                .any(|node| node["resync"]["phase"] == "copying")
        };
        while !under_way().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        {
            let mut state = world.mesh.lock();
            state.kill("a0");
            state.plan(400, "a0", Event::StartsWith(Box::new(new_disk(9))));
        }
        let before = documents("b0");
        assert!(before >= 200, "{before}");
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(
                documents("b0") >= before,
                "{} of {before} are left",
                documents("b0")
            );
        }
        let (_, health) = merger.ask(Method::GET, "/_cluster/health", None).await;
        assert_ne!(health["status"], "green");
    });
}

/// Sequences that once failed, as the failure was found. The text before each says what it showed.
const KEPT: &str = include_str!("kept.jsonl");

#[test]
fn sequences_that_once_failed_fail_no_more() {
    let mut failed = Vec::new();
    for line in KEPT.lines().filter(|line| line.starts_with('{')) {
        let plan: Plan = serde_json::from_str(line).unwrap();
        let played = play(&plan);
        if !played.violations.is_empty() {
            failed.push(format!("{line}\n{}", in_short(&played.violations)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Plays the sequence in the file named by `WEFT_SIM_PLAN`, and prints the merger's log.
#[test]
#[ignore = "plays the file that WEFT_SIM_PLAN names"]
fn a_sequence_in_a_file_is_played() {
    let path = std::env::var("WEFT_SIM_PLAN").unwrap();
    let plan: Plan = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let filter = std::env::var("WEFT_LOG").unwrap_or_else(|_| "debug".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(SimulatedTime)
        .with_ansi(false)
        .init();
    let played = play(&plan);
    println!("{played}");
    assert!(
        played.violations.is_empty(),
        "{}",
        played.violations.join("\n")
    );
}

struct SimulatedTime;

impl tracing_subscriber::fmt::time::FormatTime for SimulatedTime {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        let since = (crate::clock::now_utc() - super::BEGIN).whole_milliseconds();
        write!(w, "{since:>8}")
    }
}

fn in_short(violations: &[String]) -> String {
    let first: Vec<&str> = violations.iter().take(4).map(String::as_str).collect();
    format!("{} (of {})", first.join("\n  "), violations.len())
}
