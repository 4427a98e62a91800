//! Slots that move while a fault happens: in one round a shard is emptied, in the next it gets its share back. So slots go there and
//! back, the index leaves a shard and comes again, and each shard gives and takes in its turn.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Deadline, Reply, until};
use weft_routing::placement::SlotMap;
use weft_routing::table::RoutingTable;

use super::documents::INDEX;
use super::world::World;

/// How many documents change their owner at once: few, so that there are many handovers for a fault to meet.
pub(super) const BATCH: &str = "100";
/// The same when the fault is over, and clients have stopped.
const LARGE_BATCH: usize = 5_000;
/// About as many bytes as a document has with its vector, when it is copied.
const DOCUMENT_BYTES: u64 = 250;
/// How long moves take until the fault, at least.
const PACE: Duration = Duration::from_secs(12);
/// How long it may take until moves begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(60);
/// How long the fault waits until enough is moved. On a slow machine it happens earlier in the move.
const ENOUGH_WITHIN: Duration = Duration::from_secs(20);
/// How long moves may go on under load after the cluster has recovered, without a throttle. Then writers stop.
const UNDER_LOAD: Duration = Duration::from_secs(20);
/// How long they may take then.
const ENDS_WITHIN: Duration = Duration::from_secs(180);
/// How long it may take until some merger answers.
const LEADS_WITHIN: Duration = Duration::from_secs(20);
/// The latest moment for a fault, as a share of the documents to be moved.
const LATEST: f64 = 0.7;

/// What moves in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Way {
    /// Everything leaves a shard.
    Empty(u16),
    /// The shard gets its share again.
    Fill(u16),
}

impl Way {
    /// What follows: a shard that is empty is filled, and otherwise any shard is emptied.
    pub(super) fn after(last: Option<Self>, shards: u16, random: &mut fastrand::Rng) -> Self {
        match last {
            Some(Self::Empty(shard)) => Self::Fill(shard),
            Some(Self::Fill(_)) | None => Self::Empty(random.u16(0..shards)),
        }
    }
}

/// How a round's moves went.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Moved {
    way: Way,
    /// The share of the documents that was moved when the fault began; `None` if nothing was moving then.
    at_fault: Option<f64>,
    /// Whether something was still moving when the fault was over.
    after_fault: bool,
}

impl Moved {
    /// True if the fault happened while slots moved.
    pub(super) fn met(&self) -> bool {
        self.at_fault.is_some()
    }
}

/// The moves of one round.
pub(super) struct Moving<'a> {
    cluster: &'a Cluster,
    world: &'a World,
    way: Way,
    /// The highest number of an earlier move.
    before: u64,
}

impl<'a> Moving<'a> {
    /// Begins moves, slowly.
    pub(super) async fn begin(cluster: &'a Cluster, world: &'a World, way: Way) -> Result<Self> {
        let mut moving = Self {
            cluster,
            world,
            way,
            before: 0,
        };
        let before = moving.moves().await?;
        moving.before = before.iter().filter_map(number).max().unwrap_or(0);
        let share = world.history().len() as u64 / u64::from(cluster.layout().shards());
        let rate = share * DOCUMENT_BYTES / PACE.as_secs();
        moving.throttle(Some(rate.max(1))).await?;
        let api = world.api();
        let none = json!({});
        let begun = match way {
            Way::Empty(shard) => {
                let path = format!("/_cluster/shards/shard-{shard}/drain");
                api.post(&path, &none).await?
            }
            Way::Fill(shard) => {
                let path = format!("/_cluster/shards/shard-{shard}/drain");
                let resumed = api.delete(&path).await?;
                ensure!(resumed.status == 200, "{path}: {}", resumed.text);
                api.post("/_cluster/rebalance", &none).await?
            }
        };
        ensure!(begun.status == 202, "{way:?}: {}", begun.text);
        Ok(moving)
    }

    /// Waits until moves have begun, and a random share of the documents is moved.
    pub(super) async fn wait_for_some(&self, random: &mut fastrand::Rng) -> Result<()> {
        let wanted = random.f64() * LATEST;
        let enough = Deadline::after(ENOUGH_WITHIN);
        until("moves begin", Deadline::after(BEGINS_WITHIN), || async {
            let moves = self.moves().await.map_err(|error| format!("{error:#}"))?;
            let began = moves.iter().any(|one| !is_waiting(one));
            match began && (share(&moves) >= wanted || enough.passed()) {
                true => Ok(()),
                false => Err(format!("{moves:?}")),
            }
        })
        .await?;
        Ok(())
    }

    /// Lets the moves go on without a throttle, while clients write, until they are over or it takes long. Returns whether
    /// something still moved at first.
    pub(super) async fn go_on(&self) -> Result<bool> {
        let was_live = self.progress().await?.is_some();
        self.throttle(None).await?;
        let deadline = Deadline::after(UNDER_LOAD);
        until("the moves end or take long", deadline, || async {
            match self.progress().await {
                Ok(Some(share)) if !deadline.passed() => Err(share.to_string()),
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
        Ok(was_live)
    }

    /// How far the moves are; `None` if they are over.
    pub(super) async fn progress(&self) -> Result<Option<f64>> {
        let moves = self.moves().await?;
        let is_live = moves.iter().any(|one| !has_ended(one));
        Ok(is_live.then(|| share(&moves)))
    }

    /// Waits until the moves end, and notes where documents belong then.
    pub(super) async fn end(&self, at_fault: Option<f64>, after_fault: bool) -> Result<Moved> {
        // An index that was imported in bulk may be moved, too, and nothing more happens that could meet a handover.
        self.set(&json!({"batchDocuments": LARGE_BATCH})).await?;
        until("the moves end", Deadline::after(ENDS_WITHIN), || async {
            let ended = self.unfinished().await;
            ended
                .map_err(|error| format!("{error:#}"))?
                .map_or(Ok(()), Err)
        })
        .await?;
        self.set(&json!({"batchDocuments": null})).await?;
        self.world.set_slots(self.slots().await?);
        Ok(Moved {
            way: self.way,
            at_fault,
            after_fault,
        })
    }

    /// What isn't done yet, if anything.
    async fn unfinished(&self) -> Result<Option<String>> {
        let moves = self.all_moves().await?;
        if !moves.iter().all(has_ended) {
            return Ok(Some(format!("{moves:?}")));
        }
        let lies = self.get(&format!("/indexes/{INDEX}/_shards")).await?;
        let shards = lies.at("/shards").as_array().into_iter().flatten();
        let (mut owners, mut counts) = (Vec::new(), Vec::new());
        for shard in shards {
            owners.extend(shard.get("shardId").and_then(Value::as_u64));
            counts.extend(shard.get("slots").and_then(Value::as_u64));
        }
        let is_settled = lies.at("/unsettled").as_array().is_some_and(Vec::is_empty);
        let most = counts.iter().max().copied().unwrap_or(0);
        let is_level = counts.iter().all(|count| count + 1 >= most);
        let all = usize::from(self.cluster.layout().shards());
        let fits = match self.way {
            Way::Empty(shard) => owners.len() == all - 1 && !owners.contains(&u64::from(shard)),
            Way::Fill(_) => owners.len() == all,
        };
        Ok((!(is_settled && is_level && fits)).then_some(lies.text))
    }

    /// The owners of all slots, as the merger that leads tells the filters.
    async fn slots(&self) -> Result<SlotMap> {
        let leader = self.cluster.wait_leader(None).await?;
        let merger = Api::new(self.cluster.pair(leader).merger_url(), None);
        let table = merger.get("/_weft/table").await?;
        let table = RoutingTable::from_json(table.text.as_bytes())?;
        let route = table.get(INDEX).context("the index has no route")?;
        Ok((*route.slots).clone())
    }

    async fn throttle(&self, bytes_per_second: Option<u64>) -> Result<()> {
        self.set(&json!({"bytesPerSecond": bytes_per_second})).await
    }

    /// Changes how moves are carried out.
    async fn set(&self, pace: &Value) -> Result<()> {
        let set = until(
            "the throttle is set",
            Deadline::after(LEADS_WITHIN),
            || async {
                let api = self.world.api();
                match api.json(Method::PATCH, "/_cluster/moves", pace).await {
                    Ok(set) if set.status == 200 => Ok(()),
                    Ok(set) => Err(format!("{}: {}", set.status, set.text)),
                    Err(error) => Err(format!("{error:#}")),
                }
            },
        );
        Ok(set.await?)
    }

    /// This round's moves of the index that is written and read.
    async fn moves(&self) -> Result<Vec<Value>> {
        let mut moves = self.all_moves().await?;
        moves.retain(|one| {
            one.get("index").is_some_and(|index| index == INDEX) && number(one) > Some(self.before)
        });
        Ok(moves)
    }

    async fn all_moves(&self) -> Result<Vec<Value>> {
        let listed = self.get("/_cluster/moves").await?;
        let moves = listed.at("/moves").as_array();
        Ok(moves.context("no list of moves")?.clone())
    }

    /// Asks until there is an answer: the mergers may just have another leader.
    async fn get(&self, path: &str) -> Result<Reply> {
        let what = format!("{path} is answered");
        let reply = until(&what, Deadline::after(LEADS_WITHIN), || async {
            match self.world.api().get(path).await {
                Ok(reply) if reply.status == 200 => Ok(reply),
                Ok(reply) => Err(format!("{}: {}", reply.status, reply.text)),
                Err(error) => Err(format!("{error:#}")),
            }
        });
        Ok(reply.await?)
    }
}

fn number(one: &Value) -> Option<u64> {
    one.get("id").and_then(Value::as_u64)
}

fn state(one: &Value) -> &str {
    one.get("state").and_then(Value::as_str).unwrap_or_default()
}

fn is_waiting(one: &Value) -> bool {
    state(one) == "waiting"
}

fn has_ended(one: &Value) -> bool {
    matches!(state(one), "done" | "cancelled")
}

/// The share of the documents that was moved.
fn share(moves: &[Value]) -> f64 {
    let sum = |name: &str| -> u64 {
        let counts = moves.iter().filter_map(|one| one.get(name)?.as_u64());
        counts.sum()
    };
    match sum("documents") {
        0 => 0.0,
        all => sum("documentsMoved") as f64 / all as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_is_filled_again_before_another_one_is_emptied() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut last = None;
        let mut emptied = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let Way::Empty(shard) = Way::after(last, 3, &mut random) else {
                panic!("nothing is empty");
            };
            emptied.insert(shard);
            let back = Way::after(Some(Way::Empty(shard)), 3, &mut random);
            assert_eq!(back, Way::Fill(shard));
            last = Some(back);
        }
        assert_eq!(emptied.len(), 3);
    }

    #[test]
    fn the_share_that_is_moved_counts_all_moves() {
        let one = |documents, moved| json!({"documents": documents, "documentsMoved": moved});
        assert_eq!(share(&[]), 0.0);
        assert_eq!(share(&[one(0, 0)]), 0.0);
        assert_eq!(share(&[one(30, 30), one(70, 20)]), 0.5);
    }
}
