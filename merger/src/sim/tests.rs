//! Sequences, random and kept.

use std::time::Instant;

use super::play::{Played, play};
use super::steps::Plan;

/// After how many failures it is enough.
const MOST_FAILURES: usize = 10;
/// How many shorter sequences are tried.
const TRIES: usize = 150;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What kind of failure it is, if it is one.
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

/// `WEFT_SIM_RUNS` says how many are played instead, `WEFT_SIM_SEED` with which seed the first begins.
#[test]
fn whatever_goes_wrong_in_whatever_order_what_clients_were_told_is_true() {
    let Some(runs) = number("WEFT_SIM_RUNS") else {
        return;
    };
    let first = number("WEFT_SIM_SEED").unwrap_or_else(|| fastrand::u64(0..1 << 40));
    println!("first seed {first}");
    let begun = Instant::now();
    let mut sum = Played::default();
    let mut count = 0;
    let mut failed = Vec::new();
    while count < runs {
        let plan = Plan::random(first + count);
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

/// Plays the sequence in the file that `WEFT_SIM_PLAN` names, and logs what the merger says.
#[test]
fn a_sequence_in_a_file_is_played() {
    let Ok(path) = std::env::var("WEFT_SIM_PLAN") else {
        return;
    };
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
