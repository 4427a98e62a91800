//! Writers: each owns its documents, writes them in every possible way, and records the outcome of each write.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::documents::{INDEX, part, whole, with_vector};
use super::history::{Change, Ticket};
use super::world::World;

/// How many tasks a writer waits for at the same time.
const DEPTH: usize = 3;
/// Approximately how many documents a writer keeps.
const POPULATION: usize = 300;
/// The pause between two writes: long enough to leave a machine of two cores some capacity.
const PAUSE: Duration = Duration::from_millis(25);
/// The interval of the steady writes.
const BEAT: Duration = Duration::from_millis(100);
/// The most steady writes that may be open.
const BEATS: usize = 128;

/// Writes until the run is over.
pub(super) async fn writer(world: Arc<World>, number: usize, seed: u64) {
    let mut writer = Writer {
        world,
        number,
        random: fastrand::Rng::with_seed(seed),
        ids: Vec::new(),
        version: 0,
    };
    let mut tasks: VecDeque<JoinHandle<bool>> = VecDeque::new();
    while writer.world.may_write().await {
        if let Some(task) = writer.step().await {
            tasks.push_back(task);
        }
        while tasks.len() > DEPTH
            && let Some(task) = tasks.pop_front()
        {
            drop(task.await);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How the ids of a round's steady writes begin.
pub(super) fn beat_name(round: u32) -> String {
    format!("b{round}-")
}

/// Makes small writes to one shard at a steady interval, whatever the outcome of earlier ones. They show for how
/// long writes failed.
pub(super) async fn beat(world: Arc<World>, name: String, shard: u16) {
    let mut next = Instant::now();
    let mut tasks: VecDeque<JoinHandle<()>> = VecDeque::new();
    for number in 0_u64.. {
        if !world.may_write().await {
            return;
        }
        let id = (0_u64..)
            .map(|salt| format!("{name}{number}-{salt}"))
            .find(|id| world.shard_of(id) == shard)
            .unwrap_or_default();
        let (world, id) = (Arc::clone(&world), id);
        tasks.push_back(tokio::spawn(async move {
            let fields = whole(&id, number);
            let ticket = world
                .history()
                .send(&id, Change::Replace(fields.clone()), world.now());
            let request = (
                Method::POST,
                documents(),
                Some(json!([with_vector(&fields)])),
            );
            let edge = world.next_edge();
            let task = world.write_at(edge, vec![ticket], request).await;
            if let Some(task) = task
                && matches!(task.await, Ok(true))
            {
                world.note_beat(edge);
            }
        }));
        while tasks.len() > BEATS
            && let Some(task) = tasks.pop_front()
        {
            drop(task.await);
        }
        next += BEAT;
        tokio::time::sleep_until(next).await;
    }
}

struct Writer {
    world: Arc<World>,
    number: usize,
    random: fastrand::Rng,
    ids: Vec<String>,
    version: u64,
}

impl Writer {
    /// Makes one write of some kind.
    async fn step(&mut self) -> Option<JoinHandle<bool>> {
        let full = self.ids.len() > POPULATION;
        match self.random.u32(0..100) {
            0..35 if !full => self.replace(1, true).await,
            0..55 => self.replace(1, false).await,
            55..75 => self.update().await,
            75..88 => self.delete().await,
            88..91 => self.delete_batch().await,
            91..99 => self.replace(self.few(), !full).await,
            _ => self.replace(300, !full).await,
        }
    }

    fn few(&self) -> usize {
        2 + usize::try_from(self.version % 12).unwrap_or(0)
    }

    /// Writes this many documents, new or existing ones.
    async fn replace(&mut self, count: usize, new: bool) -> Option<JoinHandle<bool>> {
        let ids: Vec<String> = if new || self.ids.is_empty() {
            (0..count).map(|_| self.new_id()).collect()
        } else {
            self.pick(count, |_| true)
        };
        let documents_of: Vec<_> = ids.iter().map(|id| whole(id, self.next())).collect();
        let body: Value = documents_of.iter().map(with_vector).collect();
        let changes = ids
            .iter()
            .zip(documents_of)
            .map(|(id, fields)| (id.clone(), Change::Replace(fields)))
            .collect();
        self.send(changes, (Method::POST, documents(), Some(body)))
            .await
    }

    /// Updates a part of a document that certainly exists (one that doesn't exist would lack its vector).
    async fn update(&mut self) -> Option<JoinHandle<bool>> {
        let id = self.pick(1, super::history::Life::exists).pop()?;
        let fields = part(&id, self.next());
        let body = json!([fields.clone()]);
        let changes = vec![(id, Change::Update(fields))];
        self.send(changes, (Method::PUT, documents(), Some(body)))
            .await
    }

    async fn delete(&mut self) -> Option<JoinHandle<bool>> {
        let id = self.pick(1, |_| true).pop()?;
        let path = format!("{}/{id}", documents());
        self.send(vec![(id, Change::Delete)], (Method::DELETE, path, None))
            .await
    }

    async fn delete_batch(&mut self) -> Option<JoinHandle<bool>> {
        let ids = self.pick(self.few(), |_| true);
        let path = format!("{}/delete-batch", documents());
        let body = json!(ids);
        let changes = ids.into_iter().map(|id| (id, Change::Delete)).collect();
        self.send(changes, (Method::POST, path, Some(body))).await
    }

    async fn send(
        &mut self,
        changes: Vec<(String, Change)>,
        request: (Method, String, Option<Value>),
    ) -> Option<JoinHandle<bool>> {
        if changes.is_empty() {
            return None;
        }
        let now = self.world.now();
        let tickets: Vec<Ticket> = {
            let mut history = self.world.history();
            changes
                .into_iter()
                .map(|(id, change)| history.send(&id, change, now))
                .collect()
        };
        self.world.write(tickets, request).await
    }

    /// Up to this many different documents that may be written. Documents that may never be written again are dropped.
    fn pick(&mut self, count: usize, fits: impl Fn(&super::history::Life) -> bool) -> Vec<String> {
        let history = self.world.history();
        self.ids
            .retain(|id| history.life(id).is_some_and(super::history::Life::writable));
        let fitting: Vec<&String> = self
            .ids
            .iter()
            .filter(|id| history.life(id).is_some_and(&fits))
            .collect();
        let mut picked: Vec<String> = self
            .random
            .choose_multiple(fitting, count)
            .into_iter()
            .cloned()
            .collect();
        // The order of choice depends only on the number of candidates.
        picked.sort_unstable();
        picked
    }

    fn new_id(&mut self) -> String {
        let version = self.next();
        let id = format!("w{}-{version}", self.number);
        self.ids.push(id.clone());
        id
    }

    fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }
}

fn documents() -> String {
    format!("/indexes/{INDEX}/documents")
}
