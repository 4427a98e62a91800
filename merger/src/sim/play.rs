//! Plays a sequence of steps.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::check;
use super::mesh::id;
use super::model::{DocumentKey, Effect, Outcome, content_of};
use super::nodes::{Event, Mishap, Power, new_disk};
use super::played::Played;
use super::steps::{Kind, Meanwhile, Plan, Step};
use super::world::{Merger, World};

/// How often a client checks its task.
const CLIENT_LOOKS: Duration = Duration::from_millis(100);

/// How a life of the merger ends.
enum End {
    Restart { down_ms: u32, meanwhile: Meanwhile },
    Over,
}

/// Plays a plan from its start.
pub(super) fn play(plan: &Plan) -> Played {
    play_in(&World::new(plan), plan)
}

/// The same in a world of the caller's.
pub(super) fn play_in(world: &World, plan: &Plan) -> Played {
    let mut copies = std::collections::BTreeMap::new();
    let mut steps = plan.steps.iter();
    let mut played = Played::default();
    loop {
        played.lives += 1;
        let (end, taken_out) = world.life(async |merger| {
            let ctx = std::sync::Arc::clone(&merger.ctx);
            let end = async {
                merger.follow_open();
                for step in steps.by_ref() {
                    if !world.model().violations.is_empty() {
                        return End::Over;
                    }
                    if let Step::Restart {
                        gently,
                        down_ms,
                        meanwhile,
                    } = step
                    {
                        if *gently {
                            merger.stop().await;
                        }
                        return End::Restart {
                            down_ms: *down_ms,
                            meanwhile: allowed(&merger, *meanwhile),
                        };
                    }
                    step_of(&merger, step, &mut copies, &mut played).await;
                }
                check::compare(&merger).await;
                End::Over
            }
            .await;
            (end, ctx.metrics.taken_out.get())
        });
        played.taken_out += taken_out;
        match end {
            End::Over => break,
            End::Restart { down_ms, meanwhile } => {
                happens(world, meanwhile, &copies);
                world.mesh.lock().pass(u64::from(down_ms));
            }
        }
    }
    let model = world.model();
    played.violations.clone_from(&model.violations);
    played.acknowledged = model.acknowledged;
    played.compared = model.compared;
    played.confirmed = model.confirmed;
    played.longest_ms = model.longest;
    played.simulated_ms = world.mesh.now();
    played.exchanges = world.mesh.lock().exchanges;
    played
}

type Copies = std::collections::BTreeMap<String, super::disk::Disk>;

/// True if a disk may be lost: another replica in the in-sync set is healthy, and holds every acknowledged write. While the store
/// fails, that can't be told: the set may still hold replicas whose removal waits.
fn may_lose(merger: &Merger, name: &str) -> bool {
    let state = merger.world.mesh.lock();
    if merger.world.store.lags(state.now()) {
        return false;
    }
    let Some(shard) = state.nodes.get(name).map(|node| node.shard) else {
        return false;
    };
    let well = |(other, node): (&String, &super::nodes::Node)| {
        other != name
            && node.shard == shard
            && node.power == Power::Up
            && node.slow_ms == 0
            && node.mishaps.is_empty()
            && !node.has_lost
            && merger.ctx.cluster.in_sync.holds(&id(other))
    };
    state.nodes.iter().any(well)
}

fn allowed(merger: &Merger, meanwhile: Meanwhile) -> Meanwhile {
    match meanwhile {
        Meanwhile::ReplaceDisk { node, .. } if !may_lose(merger, &merger.world.node(node)) => {
            Meanwhile::Nothing
        }
        other => other,
    }
}

fn happens(world: &World, meanwhile: Meanwhile, copies: &Copies) {
    match meanwhile {
        Meanwhile::Nothing => {}
        Meanwhile::Kill { node, ms } => {
            let name = world.node(node);
            let mut state = world.mesh.lock();
            state.kill(&name);
            state.plan(u64::from(ms), &name, Event::Starts);
        }
        Meanwhile::ReplaceDisk { node, older } => {
            replace(world, &world.node(node), 0, older, copies)
        }
    }
}

fn replace(world: &World, name: &str, ms: u32, older: bool, copies: &Copies) {
    let copy = copies.get(name).filter(|_| older).cloned();
    let disk = copy.unwrap_or_else(|| new_disk(world.mesh.now()));
    let mut state = world.mesh.lock();
    state.kill(name);
    state.plan(u64::from(ms), name, Event::StartsWith(Box::new(disk)));
}

async fn step_of(merger: &Merger, step: &Step, copies: &mut Copies, played: &mut Played) {
    let world = &merger.world;
    match *step {
        Step::Write {
            index,
            writer,
            kind,
            documents,
        } => {
            merger.write(index, writer, kind, documents);
        }
        Step::Clear { index } => merger.remove_all(index, "/documents"),
        Step::DropIndex { index } => merger.remove_all(index, ""),
        Step::Set { index, value } => merger.set(index, value),
        Step::Read { index, times } => merger.read(index, times),
        Step::Wait { ms } => tokio::time::sleep(Duration::from_millis(u64::from(ms))).await,
        Step::CleanTasks => {
            merger.task(Method::DELETE, "/tasks?statuses=succeeded,failed,canceled");
        }
        Step::CancelTasks => {
            merger.task(Method::POST, "/tasks/cancel?statuses=enqueued,processing")
        }
        Step::Verify => merger
            .clone()
            .spawn_ask(Method::POST, "/_cluster/verify".to_owned()),
        Step::Drain { node, ms } => merger.drain(node, ms),
        Step::EmptyShard { shard } => merger.empty_shard(shard),
        Step::FillShard { shard } => merger.fill_shard(shard),
        Step::PauseMoves { ms } => merger.pause_moves(ms),
        Step::Place { index, by } => merger.place_by(index, by),
        Step::CancelMoves => merger
            .clone()
            .spawn_ask(Method::DELETE, "/_cluster/moves".to_owned()),
        Step::CutEgress { ms } => world.mesh.lock().cut_egress(u64::from(ms)),
        // A cluster without data doesn't depend on its store yet.
        Step::StoreFails { .. } if world.model().acknowledged == 0 => {}
        Step::StoreFails { ms } => world.store.fail_until(world.mesh.now() + u64::from(ms)),
        Step::Compare => check::compare(merger).await,
        Step::CopyDisk { node } => {
            let name = world.node(node);
            let state = world.mesh.lock();
            copies.extend(
                state
                    .nodes
                    .get(&name)
                    .map(|node| (name.clone(), node.disk.clone())),
            );
        }
        Step::ReplaceDisk { node, ms, older } => {
            let name = world.node(node);
            match may_lose(merger, &name) {
                true => replace(world, &name, ms, older, copies),
                false => played.spared += 1,
            }
        }
        Step::Restart { .. } => {}
        _ => trouble(world, step),
    }
}

/// Causes a fault on one node for a while.
fn trouble(world: &World, step: &Step) {
    let (number, ms, power, event) = match *step {
        Step::Kill { node, ms } => (node, ms, Power::Down, Event::Starts),
        Step::Hang { node, ms, takes_up } => {
            (node, ms, Power::Hanging, Event::WakesUp { takes_up })
        }
        Step::Part { node, ms } => (node, ms, Power::Apart, Event::IsReached),
        Step::Slow { node, ms, .. } => (node, ms, Power::Up, Event::IsQuick),
        Step::LoseAnswers { node, .. }
        | Step::LoseRequests { node, .. }
        | Step::Refuse { node, .. } => (node, 0, Power::Up, Event::IsQuick),
        _ => return,
    };
    let name = world.node(number);
    let mut state = world.mesh.lock();
    let Some(node) = state
        .nodes
        .get_mut(&name)
        .filter(|node| node.power == Power::Up)
    else {
        return;
    };
    let mishap = |mishap, count| std::iter::repeat_n(mishap, usize::from(count));
    match *step {
        Step::LoseAnswers { count, .. } => node.mishaps.extend(mishap(Mishap::AnswerLost, count)),
        Step::LoseRequests { count, .. } => node.mishaps.extend(mishap(Mishap::RequestLost, count)),
        Step::Refuse { count, .. } => node.mishaps.extend(mishap(Mishap::Refused(507), count)),
        Step::Slow { by, .. } => node.slow_ms = u64::from(by),
        _ if power == Power::Down => state.kill(&name),
        _ => node.power = power,
    }
    state.plan(u64::from(ms), &name, event);
}

impl Merger {
    fn name(&self, index: u8) -> String {
        format!("i{}", index % self.world.indexes)
    }

    fn spawn_ask(self, method: Method, path: String) {
        self.clone().client(async move {
            self.ask(method, &path, None).await;
        });
    }

    pub(super) fn empty_shard(&self, shard: u8) {
        let path = format!("/_cluster/shards/{}/drain", self.world.shard(shard));
        self.clone().spawn_ask(Method::POST, path);
    }

    pub(super) fn fill_shard(&self, shard: u8) {
        let merger = self.clone();
        let path = format!("/_cluster/shards/{}/drain", self.world.shard(shard));
        self.client(async move {
            merger.ask(Method::DELETE, &path, None).await;
            let path = "/_cluster/rebalance";
            merger.ask(Method::POST, path, Some(&json!({}))).await;
        });
    }

    /// Has an index lie by another strategy. Whether documents have the field depends on how they were written.
    pub(super) fn place_by(&self, index: u8, by: u8) {
        const STRATEGIES: [&str; 6] = [
            r#"{"strategy": "field", "field": "first"}"#,
            r#"{"strategy": "hash"}"#,
            r#"{"strategy": "range", "ranges": ["w1", "w2-3"]}"#,
            r#"{"strategy": "range", "ranges": ["w1", "w2-3", "w3"]}"#,
            r#"{"strategy": "field", "field": "first"}"#,
            r#"{"strategy": "field", "field": "id"}"#,
        ];
        let merger = self.clone();
        self.client(async move {
            let wanted = STRATEGIES.get(usize::from(by) % STRATEGIES.len());
            let wanted: Value = serde_json::from_str(wanted.unwrap()).unwrap();
            let path = format!("/indexes/{}", merger.name(index));
            let body = json!({"sharding": wanted});
            let (_, said) = merger.ask(Method::PATCH, &path, Some(&body)).await;
            merger.note_uid(&said);
        });
    }

    fn pause_moves(&self, ms: u32) {
        let merger = self.clone();
        tokio::spawn(async move {
            for paused in [true, false] {
                let body = json!({"paused": paused});
                let path = "/_cluster/moves";
                merger.ask(Method::PATCH, path, Some(&body)).await;
                tokio::time::sleep(Duration::from_millis(u64::from(ms))).await;
            }
        });
    }

    /// Sends a request that becomes a task, of which the model need not know anything else.
    fn task(&self, method: Method, path: &'static str) {
        let merger = self.clone();
        self.client(async move {
            let (_, said) = merger.ask(method, path, None).await;
            merger.note_uid(&said);
        });
    }

    fn note_uid(&self, said: &Value) -> Option<u32> {
        let uid = said["taskUid"]
            .as_u64()
            .and_then(|uid| u32::try_from(uid).ok())?;
        self.world.model().take_uid(uid);
        Some(uid)
    }

    pub(super) fn write(&self, index: u8, writer: u8, kind: Kind, documents: u8) {
        let merger = self.clone();
        self.client(async move {
            let index = index % merger.world.indexes;
            let writer = writer % 4;
            let _turn = merger.writers[usize::from(index)][usize::from(writer)]
                .lock()
                .await;
            let (number, name) = (merger.world.model().number(), merger.name(index));
            let offset = number % 7;
            let ids: Vec<String> = (0..u64::from(documents))
                .map(|n| format!("w{writer}-{}", offset + n))
                .collect();
            let effect = match kind {
                Kind::Replace => Effect::Replace(number),
                Kind::Update => Effect::Update(number),
                Kind::Delete => Effect::Delete,
            };
            let (method, path, body) = match kind {
                Kind::Replace => (Method::POST, "/documents", documents_of(&ids, number, true)),
                Kind::Update => (Method::PUT, "/documents", documents_of(&ids, number, false)),
                Kind::Delete => (Method::POST, "/documents/delete-batch", json!(ids)),
            };
            let effects = ids
                .into_iter()
                .map(|id| ((name.clone(), id), effect))
                .collect();
            let path = format!("/indexes/{name}{path}");
            merger.perform(effects, method, &path, Some(&body)).await;
        });
    }

    /// Removes documents of all writers while none of them writes.
    fn remove_all(&self, index: u8, what: &'static str) {
        let merger = self.clone();
        self.client(async move {
            let index = index % merger.world.indexes;
            let mut turns = Vec::new();
            for writer in &merger.writers[usize::from(index)] {
                turns.push(writer.lock().await);
            }
            let name = merger.name(index);
            let keys = merger.world.model().keys(&name);
            let effects = keys.into_iter().map(|key| (key, Effect::Delete)).collect();
            let path = format!("/indexes/{name}{what}");
            merger.perform(effects, Method::DELETE, &path, None).await;
        });
    }

    /// Sends a write, and records what its client is told.
    async fn perform(
        &self,
        effects: Vec<(DocumentKey, Effect)>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) {
        let place = self.world.model().begin(effects);
        let (status, said) = self.ask(method, path, body).await;
        let uid = said["taskUid"]
            .as_u64()
            .and_then(|uid| u32::try_from(uid).ok());
        match uid {
            Some(uid) => {
                self.world.model().accepted(place, uid);
                tokio::spawn(self.clone().follow(place, uid));
            }
            None => {
                let message = said["message"].as_str().unwrap_or_default();
                let nothing = says_nothing_was_done(message);
                let outcome = match status < 500 || nothing {
                    true => Outcome::NotTaken,
                    false => Outcome::Unknown,
                };
                self.world.model().refused(place, outcome, message);
            }
        }
    }

    /// Clients check their tasks again after the merger was away.
    pub(super) fn follow_open(&self) {
        for (place, uid) in self.world.model().open() {
            tokio::spawn(self.clone().follow(place, uid));
        }
    }

    async fn follow(self, place: usize, uid: u32) {
        loop {
            let (status, said) = self.ask(Method::GET, &format!("/tasks/{uid}"), None).await;
            let outcome = match (status, said["status"].as_str()) {
                (200, Some("succeeded")) => Some(Outcome::Succeeded),
                (200, Some("failed" | "canceled")) => Some(Outcome::Failed),
                // The task was deleted after it ended.
                (404, _) => Some(Outcome::Unknown),
                _ => None,
            };
            if let Some(outcome) = outcome {
                return self.world.model().ended(place, outcome);
            }
            tokio::time::sleep(CLIENT_LOOKS).await;
        }
    }

    fn set(&self, index: u8, value: u8) {
        let merger = self.clone();
        self.client(async move {
            let path = format!("/indexes/{}/settings", merger.name(index));
            let body = json!({"stopWords": [format!("word-{value}")]});
            let (_, said) = merger.ask(Method::PATCH, &path, Some(&body)).await;
            merger.note_uid(&said);
        });
    }

    fn drain(&self, node: u8, ms: u32) {
        let merger = self.clone();
        let name = self.world.node(node);
        tokio::spawn(async move {
            merger
                .ask(Method::POST, &format!("/_cluster/nodes/{name}/drain"), None)
                .await;
            tokio::time::sleep(Duration::from_millis(u64::from(ms))).await;
            merger
                .ask(
                    Method::POST,
                    &format!("/_cluster/nodes/{name}/resume"),
                    None,
                )
                .await;
        });
    }

    /// Reads documents that have no open writes: any node that answers must have every write that succeeded.
    pub(super) fn read(&self, index: u8, times: u8) {
        let merger = self.clone();
        self.client(async move {
            let name = merger.name(index);
            for time in 0..usize::from(times) {
                let keys = merger.world.model().keys(&name);
                let Some(key) = keys.get((time * 31) % keys.len().max(1)).cloned() else {
                    return;
                };
                let before = merger.world.model().at_rest(&key);
                let misled = || merger.world.mesh.lock().may_be_misled();
                if misled() {
                    return;
                }
                let (status, said) = match time % 2 {
                    0 => merger.read_by_id(&name, &key.1).await,
                    _ => merger.read_by_search(&name, &key.1).await,
                };
                if misled() {
                    return;
                }
                let mut model = merger.world.model();
                if before.is_none() || before != model.at_rest(&key) {
                    continue;
                }
                let content = match (status, said["code"].as_str()) {
                    (200, _) => said.as_object().map(content_of),
                    (404, Some("document_not_found" | "index_not_found")) => None,
                    _ => continue,
                };
                let possible = model.possible(&key);
                if !possible.contains(&content) {
                    let history = model.history(&key);
                    model.violations.push(format!(
                        "a client read {content:?} of {}/{}, which may be {possible:?}: {history}",
                        key.0, key.1
                    ));
                }
            }
        });
    }
}

fn documents_of(ids: &[String], number: u64, whole: bool) -> Value {
    let document = |id: &String| match whole {
        true => json!({"id": id, "first": number, "last": number}),
        false => json!({"id": id, "last": number}),
    };
    ids.iter().map(document).collect()
}

fn says_nothing_was_done(message: &str) -> bool {
    message.contains("nothing was written") || message.contains("nothing was changed")
}
