//! Reads every node directly once no write is open, and the cluster through its edge.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use weft_cluster::{Api, Cluster, Deadline, Layout, Reply, until};

use super::check::{self, Breach, Documents, Violation, lost_task};
use super::documents::INDEX;
use super::world::World;

/// More than the number of documents that a run ever writes.
const ALL: usize = 1_000_000;
/// How long open writes may take to end after the cluster has recovered.
const SETTLE: Duration = Duration::from_secs(60);
/// The most examples of a broken promise that are kept.
const KEPT: usize = 100;

/// Waits until no write is open. A task that doesn't end in time counts as lost.
pub(super) async fn wait_for_writes(world: &World) -> Vec<Violation> {
    let deadline = Deadline::after(SETTLE);
    let at_rest = until("the end of all writes", deadline, || async {
        match world.under_way() {
            0 => Ok(()),
            left => Err(format!("{left} are still open")),
        }
    })
    .await;
    if at_rest.is_ok() {
        return Vec::new();
    }
    let history = world.history();
    let endless = history.lives().flat_map(|(id, life)| {
        life.writes
            .iter()
            .filter(|write| write.outcome == super::history::Outcome::Accepted)
            .filter_map(|write| Some((id.to_owned(), write.task?)))
    });
    endless
        .map(|(id, task)| {
            let detail = format!(
                "has not settled {} s after the cluster recovered",
                SETTLE.as_secs()
            );
            lost_task(task, Some(&id), &detail)
        })
        .take(KEPT)
        .collect()
}

/// All violations in the stored data.
pub(super) async fn stored(cluster: &Cluster, world: &World) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    let layout = cluster.layout();
    for shard in 0..layout.shards() {
        let mut replicas = Vec::new();
        for replica in 0..layout.replicas() {
            let name = Layout::node_name(shard, replica);
            let api = Api::new(cluster.node_url(shard, replica), cluster.master_key());
            idle(&api, &name).await?;
            let (documents, twice) = all_documents(&api, &name).await?;
            violations.extend(twice);
            let settings = api.get(&format!("/indexes/{INDEX}/settings")).await?;
            let history = world.history();
            violations.extend(check::documents(&history, &name, &documents, |id| {
                world.shard_of(id) == shard
            }));
            drop(history);
            replicas.push((name, documents, settings.body));
        }
        let mut replicas = replicas.iter();
        let Some((name, documents, settings)) = replicas.next() else {
            continue;
        };
        for (other_name, other_documents, other_settings) in replicas {
            violations.extend(check::differences(
                &format!("shard-{shard}"),
                (name, documents, settings),
                (other_name, other_documents, other_settings),
            ));
        }
    }
    for (number, edge) in world.edges().iter().enumerate() {
        let place = format!("edge {number}");
        // An Envoy whose merger has just begun to follow may need a moment until it knows its nodes again.
        let deadline = Deadline::after(SETTLE);
        let (all, twice) = until(&place, deadline, || async {
            let all = all_documents(edge, &place).await;
            all.map_err(|error| format!("{error:#}"))
        })
        .await?;
        violations.extend(twice);
        violations.extend(check::documents(&world.history(), &place, &all, |_| true));
    }
    Ok(violations)
}

/// What each replica holds of one document, for the person who looks for a cause.
pub(super) async fn held(cluster: &Cluster, shard: u16, id: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for replica in 0..cluster.layout().replicas() {
        let api = Api::new(cluster.node_url(shard, replica), cluster.master_key());
        let path = format!("/indexes/{INDEX}/documents/{id}?retrieveVectors=true");
        let held = match api.get(&path).await {
            Ok(reply) => reply.text,
            Err(error) => error.line(),
        };
        lines.push(format!(
            "{id} on {}: {held}",
            Layout::node_name(shard, replica)
        ));
    }
    lines
}

/// All documents of a node or a cluster, with their vectors; empty if the index doesn't exist. Read as one page: two
/// replicas may have their documents in different orders, so pages from both wouldn't fit together. Also those that are there twice.
async fn all_documents(api: &Api, place: &str) -> Result<(Documents, Vec<Violation>)> {
    let path = format!("/indexes/{INDEX}/documents?retrieveVectors=true&limit={ALL}");
    let reply = api.get(&path).await.with_context(|| place.to_owned())?;
    if reply.status == 404 {
        return Ok((Documents::new(), Vec::new()));
    }
    let Some(results) = list(&reply) else {
        bail!("{place}: {path} answers {}: {}", reply.status, reply.text);
    };
    let id = |document: &Value| Some(document.get("id")?.as_str()?.to_owned());
    let ids = results
        .iter()
        .map(|document| id(document).unwrap_or_default());
    let ids: Vec<String> = ids.collect();
    let twice = check::shown_twice(place, ids.iter().map(String::as_str));
    let by_id = ids.iter().cloned().zip(results.iter().cloned());
    Ok((by_id.collect(), twice))
}

fn list(reply: &Reply) -> Option<&Vec<Value>> {
    (reply.status == 200).then(|| reply.at("/results").as_array())?
}

/// Waits until a node has finished all of its tasks.
async fn idle(api: &Api, name: &str) -> Result<()> {
    let what = format!("the end of {name}'s own tasks");
    until(&what, Deadline::after(SETTLE), || async {
        match api.get("/tasks?statuses=enqueued,processing&limit=1").await {
            Ok(reply) if reply.at("/total") == 0 => Ok(()),
            Ok(reply) => Err(reply.text),
            Err(error) => Err(error.line()),
        }
    })
    .await?;
    Ok(())
}

/// How many violations are of this kind.
pub(super) fn count(violations: &[Violation], breach: Breach) -> usize {
    violations
        .iter()
        .filter(|violation| violation.breach == breach)
        .count()
}
