//! Finds out whether a node has the right disk if it has no mark: on its first contact, or with the store of an older merger.
//!
//! The evidence is what the nodes report, the newest tasks that records show them to have had, and which indexes lie on their
//! shard. Invariant: a node whose mark isn't known is never a model for others while another has documents. It is trusted if it
//! has documents too, or if no replica has any.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use weft_routing::placement::ShardId;

use super::reasons::went_back;
use super::seen::dated;
use super::{Context, remove_replica};
use crate::cluster::{Mark, NodeId, NodeRef, Probe, Removal};
use crate::probe::probe;
use crate::store::StoreError;
use crate::upstream::{NodeRequest, Target};

/// A replica in sync, with the evidence about its disk.
#[derive(Debug, Clone)]
struct Candidate {
    node: NodeId,
    mark: Mark,
    /// Only mergers that keep marks have known it: what it lacks, it never had.
    first_contact: bool,
    /// What the node reports; `None` if it doesn't answer.
    facts: Option<Facts>,
}

/// What a node reports about its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    newest: Option<u32>,
    documents: u64,
    indexes: usize,
}

/// What to do with a node whose mark isn't known.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Trust it, with this as its newest task.
    Trust(Option<u32>),
    /// Remove it from the in-sync set for this reason: it lacks data that it or another replica had.
    Remove(String),
    /// Wait: other replicas may have documents but don't answer yet.
    Wait,
}

/// How long a node may take for each of these answers. Writers wait meanwhile.
const FACTS_TIMEOUT: Duration = Duration::from_secs(2);

/// The result of establishing a shard's marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Established {
    Nothing,
    /// There is nothing to compare: no documents, or no other replica.
    Alone,
    BesideOthers,
}

/// Establishes the marks of a shard's replicas that answer. The caller has the shard's lock.
pub(crate) async fn establish_locked(
    ctx: &Context,
    shard: ShardId,
) -> Result<Established, StoreError> {
    let topology = ctx.cluster.topology();
    let in_sync = |node: &&NodeRef| ctx.cluster.in_sync.holds(&node.id);
    let nodes: Vec<&NodeRef> = topology.nodes(shard).iter().filter(in_sync).collect();
    let candidates = join_all(nodes.into_iter().map(async |node| Candidate {
        node: node.id.clone(),
        mark: ctx.cluster.marks.mark(&node.id),
        first_contact: ctx.cluster.marks.is_first_contact(&node.id),
        facts: facts(ctx, node).await,
    }));
    let candidates = candidates.await;
    let expects_indexes = ctx
        .cluster
        .placements
        .all()
        .iter()
        .any(|placement| placement.deleted_by.is_none() && placement.shards().contains(&shard));
    let mut trusted = 0;
    for (node, verdict) in judge(&candidates, expects_indexes) {
        match verdict {
            Verdict::Trust(newest) => {
                let shown = match (newest, topology.find(&node)) {
                    (Some(uid), Some(found)) => Some(dated(ctx, found, uid).await),
                    _ => None,
                };
                ctx.cluster.marks.establish(&node, shown).await?;
                trusted += 1;
            }
            Verdict::Remove(reason) => {
                if remove_replica(ctx, &node, &reason).await? == Removal::RefusedLast {
                    ctx.cluster.health.mark_data_lost(&node);
                }
            }
            Verdict::Wait => {
                tracing::debug!(%node, "it has no documents; others that may have some are waited for");
                ctx.cluster.marks.wait(&node);
            }
        }
    }
    if trusted == 0 {
        return Ok(Established::Nothing);
    }
    tracing::info!(
        shard = shard.0,
        trusted,
        "the disks of a shard's nodes are known"
    );
    let with_documents = candidates.iter().filter(|other| other.has_documents());
    Ok(match with_documents.count() {
        0 | 1 => Established::Alone,
        _ => Established::BesideOthers,
    })
}

/// What to do with each node that answers and whose mark isn't known. Pure.
fn judge(candidates: &[Candidate], expects_indexes: bool) -> Vec<(NodeId, Verdict)> {
    let unknown = candidates.iter().filter_map(|candidate| {
        let Mark::Unknown { at_least } = candidate.mark else {
            return None;
        };
        Some((candidate, candidate.facts?, at_least))
    });
    unknown
        .map(|(candidate, facts, at_least)| {
            let others = || {
                candidates
                    .iter()
                    .filter(|other| other.node != candidate.node)
            };
            let another_has = others().any(|other| other.is_sound() && other.has_documents());
            let another_is_silent = others().any(|other| other.facts.is_none());
            let verdict = if facts.newest < at_least {
                Verdict::Remove(went_back(facts.newest, at_least))
            } else if facts.documents == 0 && another_has {
                Verdict::Remove("it has no documents, and another replica has some".to_owned())
            } else if facts.is_bare()
                && expects_indexes
                && at_least.is_none()
                && !candidate.first_contact
            {
                match another_is_silent {
                    true => Verdict::Wait,
                    false => Verdict::Remove("its disk is empty, and indexes lie on it".to_owned()),
                }
            } else {
                Verdict::Trust(facts.newest)
            };
            (candidate.node.clone(), verdict)
        })
        .collect()
}

impl Candidate {
    /// Whether it answers and has lost nothing, as far as is known.
    fn is_sound(&self) -> bool {
        let mark = match self.mark {
            Mark::At(mark) => mark,
            Mark::Unknown { at_least } => at_least,
        };
        self.facts.is_some_and(|facts| facts.newest >= mark)
    }

    fn has_documents(&self) -> bool {
        self.facts.is_some_and(|facts| facts.documents > 0)
    }
}

impl Facts {
    /// Whether the disk looks new: no task and no index.
    fn is_bare(self) -> bool {
        self.newest.is_none() && self.indexes == 0
    }
}

#[derive(Deserialize)]
struct Stats {
    indexes: BTreeMap<String, IndexStats>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexStats {
    number_of_documents: u64,
}

#[derive(Deserialize)]
struct Listed {
    results: Vec<Index>,
}

#[derive(Deserialize)]
struct Index {
    uid: String,
}

async fn facts(ctx: &Context, node: &NodeRef) -> Option<Facts> {
    let counts = match get::<Stats>(ctx, node, "/stats").await {
        Some(stats) => {
            let counts = stats.indexes.into_values();
            counts.map(|index| index.number_of_documents).collect()
        }
        None => count_each(ctx, node).await?,
    };
    // The newest task is asked last, so that it isn't older than the counts.
    let Probe::Answer(newest) = probe(ctx, node).await else {
        return None;
    };
    Some(Facts {
        newest,
        documents: counts.iter().sum(),
        indexes: counts.len(),
    })
}

/// The number of documents of each index, for a node that doesn't answer `/stats`.
async fn count_each(ctx: &Context, node: &NodeRef) -> Option<Vec<u64>> {
    let listed: Listed = get(ctx, node, "/indexes?limit=1000000").await?;
    let mut counts = Vec::with_capacity(listed.results.len());
    for index in listed.results {
        let path = format!("/indexes/{}/stats", index.uid);
        let stats: IndexStats = get(ctx, node, &path).await?;
        counts.push(stats.number_of_documents);
    }
    Some(counts)
}

async fn get<T: DeserializeOwned>(ctx: &Context, node: &NodeRef, path: &str) -> Option<T> {
    let target = Target::Node(node.address);
    let authority = ctx.own_authority();
    let request = NodeRequest::new(target, Method::GET, path, &authority, FACTS_TIMEOUT);
    let answer = ctx.upstream.send(request).await.ok()?;
    let said = answer.status == StatusCode::OK;
    said.then(|| serde_json::from_slice(&answer.body).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, mark: Mark, facts: Option<(Option<u32>, u64)>) -> Candidate {
        Candidate {
            node: NodeId::from(name.to_owned()),
            mark,
            first_contact: false,
            facts: facts.map(|(newest, documents)| Facts {
                newest,
                documents,
                indexes: usize::from(documents > 0),
            }),
        }
    }

    fn unknown(at_least: Option<u32>) -> Mark {
        Mark::Unknown { at_least }
    }

    fn verdicts(candidates: &[Candidate], expects_indexes: bool) -> Vec<String> {
        judge(candidates, expects_indexes)
            .into_iter()
            .map(|(node, verdict)| match verdict {
                Verdict::Trust(_) => format!("{node} trusted"),
                Verdict::Remove(_) => format!("{node} removed"),
                Verdict::Wait => format!("{node} waits"),
            })
            .collect()
    }

    #[test]
    fn an_empty_disk_is_never_a_model_while_another_replica_has_documents() {
        let (empty, full) = (Some((None, 0)), Some((Some(31), 60)));
        let b = candidate("b", unknown(None), full);
        let a = candidate("a", unknown(None), empty);
        assert_eq!(
            verdicts(&[a.clone(), b.clone()], true),
            ["a removed", "b trusted"]
        );
        // The same if the other's mark is known.
        let known = candidate("b", Mark::At(Some(31)), full);
        assert_eq!(verdicts(&[a.clone(), known], true), ["a removed"]);
        let silent = candidate("b", unknown(Some(31)), None);
        assert_eq!(verdicts(&[a.clone(), silent], true), ["a waits"]);
        assert_eq!(verdicts(std::slice::from_ref(&a), true), ["a removed"]);
        // A new cluster: no replica has anything.
        assert_eq!(verdicts(std::slice::from_ref(&a), false), ["a trusted"]);
        // An index was placed before its first write could be sent.
        let met = Candidate {
            first_contact: true,
            ..a
        };
        assert_eq!(verdicts(&[met], true), ["a trusted"]);
    }

    #[test]
    fn a_node_that_has_less_than_records_show_is_not_trusted() {
        let older = candidate("a", unknown(Some(31)), Some((Some(30), 60)));
        let good = candidate("b", unknown(Some(31)), Some((Some(33), 60)));
        assert_eq!(verdicts(&[older, good], true), ["a removed", "b trusted"]);
    }

    #[test]
    fn an_older_store_throws_nobody_out() {
        // Tasks were deleted, on both nodes or on one: records show fewer tasks than the nodes have.
        let a = candidate("a", unknown(None), Some((Some(31), 60)));
        let b = candidate("b", unknown(Some(12)), Some((Some(40), 60)));
        assert_eq!(verdicts(&[a, b], true), ["a trusted", "b trusted"]);
        // The other replica doesn't answer.
        let a = candidate("a", unknown(Some(3)), Some((Some(3), 60)));
        let b = candidate("b", unknown(Some(500)), None);
        assert_eq!(verdicts(&[a, b], true), ["a trusted"]);
    }
}
