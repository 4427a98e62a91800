//! A leader that loses all nodes when it has just begun to lead: reads through other mergers' Envoys must not notice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Event, History, INDEX, Pair, World, lock, number, on_a_runtime, world_of};
use crate::edge::Role;

/// How often a document is written, and read through each merger.
const CLIENTS_ACT: Duration = Duration::from_millis(10);

/// For how long it is looked at reads after the cut: longer than another merger takes to lead.
const WATCHED_FOR: Duration = Duration::from_secs(8);

/// When the leader is cut off, in milliseconds since it was the leader.
const CUT_AFTER: std::ops::Range<u64> = 0..2_500;

/// Reads something of every shard; `None` if that failed. An index of which only some replicas have been told is found, or not.
async fn read(world: &World, pair: &Arc<Pair>) -> Option<u16> {
    let path = format!("/indexes/{INDEX}/documents/fetch");
    let body = json!({"limit": 1});
    let (status, _) = world.ask(pair, Method::POST, &path, Some(&body)).await?;
    (status < 500).then_some(status)
}

/// Reads all the time, and notes when that failed through a merger by which it had succeeded before.
async fn act(world: World, pair: Arc<Pair>) {
    let mut succeeded = false;
    while world.goes_on() {
        let at = world.mesh.now();
        let status = read(&world, &pair).await;
        if succeeded && status.is_none() {
            let said = format!("at {at} a read failed through {}", pair.merger.id());
            lock(&world.told).wrong.push(said);
        }
        succeeded |= status == Some(200);
        sleep(CLIENTS_ACT).await;
    }
}

async fn leader(world: &World) -> Arc<Pair> {
    loop {
        let leads = |pair: &Arc<Pair>| matches!(&*pair.roles.borrow(), Role::Leads(_));
        if let Some(leader) = world.alive().into_iter().find(leads) {
            return leader;
        }
        sleep(CLIENTS_ACT).await;
    }
}

/// Cuts the leader off when it has led for so long; returns what went wrong with reads through others.
async fn cut_off(seed: u64, after: u64) -> Vec<String> {
    let world = world_of(seed, History::Moving).await;
    let mut random = fastrand::Rng::with_seed(seed);
    {
        // It is judged later than others.
        let mut state = world.mesh.lock();
        let names: Vec<String> = state.nodes.keys().cloned().collect();
        let name = &names[random.usize(..names.len())];
        if let Some(node) = state.nodes.get_mut(name) {
            node.slow_ms = random.u64(0..500);
        }
        state.plan(random.u64(500..3_000), name, Event::IsQuick);
    }
    let leader = leader(&world).await;
    let led = Instant::now();
    let others: Vec<_> = world
        .alive()
        .into_iter()
        .filter(|pair| !Arc::ptr_eq(pair, &leader))
        .collect();
    for pair in &others {
        tokio::spawn(act(world.clone(), Arc::clone(pair)));
    }
    let writers = (1..4).map(|writer| tokio::spawn(world.clone().write(random.fork(), writer)));
    let writers: Vec<_> = writers.collect();
    sleep_until(led + Duration::from_millis(after)).await;
    leader.sidecar.cut.store(true, Ordering::SeqCst);
    sleep(WATCHED_FOR).await;
    world.ends.store(true, Ordering::SeqCst);
    leader.sidecar.cut.store(false, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    std::mem::take(&mut lock(&world.told).wrong)
}

#[test]
fn a_leader_that_loses_all_nodes_when_it_has_just_begun_takes_no_reads_of_others_with_it() {
    let every = number("WEFT_SIM_EVERY", 250);
    for (seed, after) in (1..).zip(CUT_AFTER.step_by(usize::try_from(every).unwrap_or(1))) {
        let wrong = on_a_runtime(cut_off(seed, after));
        assert_eq!(
            wrong,
            Vec::<String>::new(),
            "seed {seed}, cut off after {after} ms"
        );
    }
}
