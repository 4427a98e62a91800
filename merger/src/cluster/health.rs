//! What the merger knows of each node right now: whether it answers, whether its disk is still the same, whether it is busy, and
//! what Envoy was last told about it. Nothing here is stored.
//!
//! Invariant: a node that was away is trusted again only after the merger has seen that its task counter has not gone back. So a
//! node with an empty or older disk serves reads only until it answers the next probe and Envoy makes its next check.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;

use super::{Changes, NodeId};
use crate::sockets::Peer;

/// How long a node must have had tasks to count as busy. Small writes finish sooner.
const BUSY: Duration = Duration::from_millis(300);
/// The longest time until reads follow a change of a node's readiness: by then every running Envoy has asked again and has acted
/// on the answer.
pub(crate) const READS_FOLLOW: Duration = Duration::from_millis(500);
/// How long a replica that has left the in-sync set may go on serving reads while no other one of its shard does yet. What it missed
/// isn't acknowledged before reads have left it.
pub(super) const READS_STAY: Duration = Duration::from_millis(400);
/// The longest time until reads have left a replica that is out of sync.
pub(crate) const READS_LEAVE: Duration = READS_FOLLOW.saturating_add(READS_STAY);
/// An Envoy asks five times a second. One that hasn't asked for this long is gone.
const FORGOTTEN: Duration = Duration::from_secs(2);
/// Failed probes in a row until a node counts as slow. A single one may only mean that the machine is busy.
const SLOW: u32 = 2;
/// How many of a node's latest probes are compared with those of its shard's other replicas.
const COMPARED: usize = 3;
/// A node lags if even the fastest of its compared probes took this many times as long as the slowest of another replica, and
/// [`LAG`] more. Both replicas are probed on the same path, so a busy machine makes both slow.
const TIMES_SLOWER: u32 = 2;
const LAG: Duration = Duration::from_millis(50);

/// The outcome of a probe of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The node answered, with the uid of its newest task, if it has any.
    Answer(Option<u32>),
    /// Nothing listens there, or the connection was cut. When the node comes back, its disk may be a different one.
    ConnectionFailed,
    /// No answer in time, or an invalid one; the text says which.
    Invalid(String),
    /// Envoy itself can't be reached, which says nothing about the node.
    ProxyDown,
}

#[derive(Debug, Clone, Default)]
struct Vital {
    watched: Option<Instant>,
    answered: Option<Instant>,
    /// The node's task counter has been checked since it was last away.
    trusted: bool,
    /// Failed probes in a row.
    misses: u32,
    /// The node lost data that no other replica holds.
    lost: bool,
    /// How often the node was away, or its tasks didn't continue where they were.
    doubts: u64,
    busy_since: Option<Instant>,
    /// How long the latest probes took that the node answered, the newest last.
    probe_times: VecDeque<Duration>,
    /// What each Envoy was last told about the node.
    told: HashMap<Listener, Told>,
}

/// An Envoy that asks whether nodes may serve reads. Its connection identifies it, because several Envoys may run on one machine.
pub type Listener = Peer;

/// What an Envoy was last told about a node.
#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    /// Since when the Envoy has been told on every check that the node may serve reads.
    ready_since: Option<Instant>,
}

impl Told {
    /// Whether the Envoy asked within the last [`FORGOTTEN`]. Otherwise it is gone, or asks on another connection.
    fn is_current(&self) -> bool {
        self.at.elapsed() < FORGOTTEN
    }
}

/// The state of all nodes.
#[derive(Debug, Default)]
pub struct HealthMonitor {
    nodes: RwLock<HashMap<NodeId, Vital>>,
    /// Tells when a node's status changes, or what Envoys are told about a node.
    pub(crate) changes: Changes,
}

/// What the merger knows of a node right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStatus {
    /// The merger has not probed it yet.
    Unknown,
    /// It answers, and its disk is still the same.
    Up,
    /// It is there, but its answers come too late or are invalid.
    Slow,
    /// It is not there, or the merger doesn't know yet whether its disk is still the same.
    Silent,
    /// It lost its data, and no other replica has it.
    Lost,
}

impl HealthMonitor {
    /// The node's current status.
    pub fn status(&self, node: &NodeId) -> NodeStatus {
        match self.read().get(node) {
            Some(vital) if vital.lost => NodeStatus::Lost,
            Some(vital) if vital.trusted && vital.misses >= SLOW => NodeStatus::Slow,
            Some(vital) if vital.trusted => NodeStatus::Up,
            Some(vital) if vital.watched.is_some() && vital.misses > 0 => NodeStatus::Silent,
            _ => NodeStatus::Unknown,
        }
    }

    /// How long ago the node last answered or, if it never has, how long ago the first probe was.
    pub fn silence(&self, node: &NodeId) -> Duration {
        let nodes = self.read();
        let last = nodes
            .get(node)
            .and_then(|vital| vital.answered.max(vital.watched));
        last.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// The node begins a new incarnation: it no longer counts as lost.
    pub(crate) fn begins_anew(&self, node: &NodeId) {
        self.write().entry(node.clone()).or_default().lost = false;
        self.changes.tell();
    }

    /// Whether the node's task counter was seen to continue since the node was last away.
    pub(crate) fn is_trusted(&self, node: &NodeId) -> bool {
        self.read().get(node).is_some_and(|vital| vital.trusted)
    }

    /// How often the node was away or its tasks didn't continue. A long read compares this number before and after.
    pub(crate) fn doubts(&self, node: &NodeId) -> u64 {
        self.read().get(node).map_or(0, |vital| vital.doubts)
    }

    /// Notes the outcome of a probe. `goes_on` says whether the node's tasks continue where they were.
    pub(crate) fn note(&self, node: &NodeId, heard: &Probe, goes_on: bool) {
        let before = self.status(node);
        self.note_heard(node, heard, goes_on);
        if self.status(node) != before {
            self.changes.tell();
        }
    }

    fn note_heard(&self, node: &NodeId, heard: &Probe, goes_on: bool) {
        let mut nodes = self.write();
        let vital = nodes.entry(node.clone()).or_default();
        let now = Instant::now();
        vital.watched.get_or_insert(now);
        match heard {
            Probe::Answer(_) => {
                vital.answered = Some(now);
                vital.misses = 0;
                vital.trusted = goes_on;
                vital.doubts += u64::from(!goes_on);
            }
            Probe::ConnectionFailed => {
                vital.misses += 1;
                vital.trusted = false;
                vital.doubts += 1;
                vital.probe_times.clear();
            }
            Probe::Invalid(_) => vital.misses += 1,
            Probe::ProxyDown => {}
        }
    }

    /// Notes how long the node took to answer a probe.
    pub(crate) fn note_probe_time(&self, node: &NodeId, took: Duration) {
        let mut nodes = self.write();
        let times = &mut nodes.entry(node.clone()).or_default().probe_times;
        if times.len() == COMPARED {
            times.pop_front();
        }
        times.push_back(took);
    }

    /// Whether the node answers its probes much later than one of `others`, which hold the same documents.
    pub(crate) fn lags_behind<'a>(
        &self,
        node: &NodeId,
        others: impl IntoIterator<Item = &'a NodeId>,
    ) -> bool {
        // The caller's iterator may ask this monitor: a lock that is taken twice for reading hangs as soon as somebody writes.
        let others: Vec<&NodeId> = others.into_iter().collect();
        let nodes = self.read();
        let compared = |node: &NodeId| {
            let times = nodes.get(node).map(|vital| &vital.probe_times);
            times.filter(|times| times.len() == COMPARED)
        };
        let Some(fastest) = compared(node).and_then(|times| times.iter().min()) else {
            return false;
        };
        others.into_iter().filter_map(compared).any(|times| {
            let slowest = times.iter().max();
            slowest.is_some_and(|slowest| *fastest > *slowest * TIMES_SLOWER + LAG)
        })
    }

    /// Whether the node answered the last probe, even if its disk is a different one.
    pub(crate) fn answers(&self, node: &NodeId) -> bool {
        self.read()
            .get(node)
            .is_some_and(|vital| vital.answered.is_some() && vital.misses == 0)
    }

    /// Notes that the node lost data that no other replica holds.
    pub(crate) fn mark_data_lost(&self, node: &NodeId) {
        self.write().entry(node.clone()).or_default().lost = true;
        self.changes.tell();
    }

    /// Notes whether the node has tasks to work on.
    pub(crate) fn note_work(&self, node: &NodeId, has_work: bool) {
        let mut nodes = self.write();
        let vital = nodes.entry(node.clone()).or_default();
        match has_work {
            true => {
                vital.busy_since.get_or_insert_with(Instant::now);
            }
            false => vital.busy_since = None,
        }
    }

    /// Whether the node has been busy with tasks for a while.
    pub fn is_busy(&self, node: &NodeId) -> bool {
        let nodes = self.read();
        let since = nodes.get(node).and_then(|vital| vital.busy_since);
        since.is_some_and(|since| since.elapsed() >= BUSY)
    }

    /// Notes what an Envoy is told about the node.
    pub(crate) fn record_readiness(&self, node: &NodeId, listener: Listener, ready: bool) {
        let mut nodes = self.write();
        let vital = nodes.entry(node.clone()).or_default();
        let at = Instant::now();
        let before = vital.told.get(&listener).filter(|told| told.is_current());
        let since = before.and_then(|told| told.ready_since).unwrap_or(at);
        let told = Told {
            at,
            ready_since: ready.then_some(since),
        };
        vital.told.retain(|_, told| told.is_current());
        let before = vital.told.insert(listener, told);
        drop(nodes);
        if before.is_none_or(|before| before.ready_since.is_some() != ready) {
            self.changes.tell();
        }
    }

    /// Whether any Envoy was last told that the node is ready.
    pub(crate) fn is_ready(&self, node: &NodeId) -> bool {
        let nodes = self.read();
        let mut told = current(nodes.get(node));
        told.any(|told| told.ready_since.is_some())
    }

    /// Until when the node [is ready](Self::is_ready) at the most, if no Envoy asks any more; `None` if it isn't.
    pub(crate) fn ready_until(&self, node: &NodeId) -> Option<Instant> {
        let nodes = self.read();
        let told = current(nodes.get(node));
        let ready = told.filter(|told| told.ready_since.is_some());
        ready.map(|told| told.at + FORGOTTEN).max()
    }

    /// Whether all Envoys have been told that the node is ready for long enough to act on it: reads reach the node.
    pub(crate) fn gets_reads(&self, node: &NodeId) -> bool {
        let nodes = self.read();
        let vital = nodes.get(node);
        let acts = |told: &Told| {
            told.ready_since
                .is_some_and(|since| since.elapsed() >= READS_FOLLOW)
        };
        current(vital).next().is_some() && current(vital).all(acts)
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<NodeId, Vital>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<NodeId, Vital>> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What each Envoy that asked lately was told.
fn current(vital: Option<&Vital>) -> impl Iterator<Item = &Told> {
    let told = vital.into_iter().flat_map(|vital| vital.told.values());
    told.filter(|told| told.is_current())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_away_is_trusted_only_when_its_tasks_go_on() {
        let health = HealthMonitor::default();
        let node = NodeId::from("n".to_owned());
        assert_eq!(health.status(&node), NodeStatus::Unknown);
        health.note(&node, &Probe::Answer(Some(4)), true);
        assert_eq!(health.status(&node), NodeStatus::Up);
        health.note(&node, &Probe::ProxyDown, false);
        assert_eq!(
            health.status(&node),
            NodeStatus::Up,
            "Envoy's trouble is not the node's"
        );
        health.note(&node, &Probe::Invalid("slow".to_owned()), false);
        assert_eq!(health.status(&node), NodeStatus::Up);
        health.note(&node, &Probe::Invalid("slow".to_owned()), false);
        assert_eq!(health.status(&node), NodeStatus::Slow);
        health.note(&node, &Probe::Answer(Some(4)), true);
        assert_eq!(health.status(&node), NodeStatus::Up);
        health.note(&node, &Probe::ConnectionFailed, false);
        assert_eq!(health.status(&node), NodeStatus::Silent);
        health.note(&node, &Probe::Answer(None), false);
        assert_ne!(health.status(&node), NodeStatus::Up);
    }

    fn envoy(port: u16) -> Listener {
        Listener::At(([127, 0, 0, 1], port).into())
    }

    #[tokio::test(start_paused = true)]
    async fn reads_get_to_a_node_when_envoy_has_been_told_for_a_while() {
        let health = HealthMonitor::default();
        let node = NodeId::from("n".to_owned());
        assert!(!health.gets_reads(&node), "nobody has asked");
        health.record_readiness(&node, envoy(1), true);
        assert!(health.is_ready(&node) && !health.gets_reads(&node));
        for _ in 0..2 {
            tokio::time::advance(READS_FOLLOW / 2).await;
            health.record_readiness(&node, envoy(1), true);
        }
        assert!(
            health.gets_reads(&node),
            "told again, from the first time on"
        );
        health.record_readiness(&node, envoy(1), false);
        assert!(!health.is_ready(&node) && !health.gets_reads(&node));
        health.record_readiness(&node, envoy(1), true);
        assert!(!health.gets_reads(&node), "from the beginning");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_ready_as_long_as_any_envoy_was_told_so() {
        let health = HealthMonitor::default();
        let node = NodeId::from("n".to_owned());
        health.record_readiness(&node, envoy(1), true);
        health.record_readiness(&node, envoy(2), true);
        tokio::time::advance(READS_FOLLOW / 4).await;
        health.record_readiness(&node, envoy(1), false);
        assert!(health.is_ready(&node), "the other has not heard");
        assert!(!health.gets_reads(&node));
        health.record_readiness(&node, envoy(2), false);
        assert!(!health.is_ready(&node));
        // An Envoy that stopped asking no longer counts.
        health.record_readiness(&node, envoy(1), true);
        health.record_readiness(&node, envoy(3), true);
        tokio::time::advance(FORGOTTEN / 2).await;
        health.record_readiness(&node, envoy(1), false);
        assert!(health.is_ready(&node));
        tokio::time::advance(FORGOTTEN / 2).await;
        assert!(!health.is_ready(&node));
    }

    #[test]
    fn a_node_lags_when_all_its_probes_take_much_longer_than_those_of_another_replica() {
        let health = HealthMonitor::default();
        let (slow, fast) = (NodeId::from("a".to_owned()), NodeId::from("b".to_owned()));
        let probes = |node: &NodeId, times: [u64; COMPARED]| {
            for millis in times {
                health.note_probe_time(node, Duration::from_millis(millis));
            }
        };
        probes(&slow, [200, 210, 200]);
        assert!(
            !health.lags_behind(&slow, [&fast]),
            "nothing is known of the other"
        );
        probes(&fast, [2, 30, 2]);
        assert!(health.lags_behind(&slow, [&fast]));
        assert!(!health.lags_behind(&fast, [&slow]));
        // One fast answer is enough to be trusted with reads again.
        health.note_probe_time(&slow, Duration::from_millis(90));
        assert!(!health.lags_behind(&slow, [&fast]));
        // A machine that makes both replicas slow says nothing about one of them.
        probes(&slow, [240, 240, 240]);
        probes(&fast, [40, 100, 60]);
        assert!(!health.lags_behind(&slow, [&fast]));
        // Answers that are fast enough aren't late, however much faster another is.
        probes(&slow, [45, 45, 45]);
        probes(&fast, [1, 1, 1]);
        assert!(!health.lags_behind(&slow, [&fast]));
        // A node that was away is compared from the beginning.
        probes(&slow, [200, 200, 200]);
        assert!(health.lags_behind(&slow, [&fast]));
        health.note(&slow, &Probe::ConnectionFailed, false);
        assert!(!health.lags_behind(&slow, [&fast]));
    }

    /// A second lock for reading waits for a writer that waits for the first: the whole merger hung that way.
    #[test]
    fn nothing_is_locked_while_the_callers_iterator_runs() {
        let health = HealthMonitor::default();
        let (slow, fast) = (NodeId::from("a".to_owned()), NodeId::from("b".to_owned()));
        for node in [&slow, &fast] {
            for _ in 0..COMPARED {
                health.note_probe_time(node, Duration::from_millis(1));
            }
        }
        let mut asked = 0;
        let others = [&fast].into_iter().inspect(|_| {
            assert!(health.nodes.try_write().is_ok());
            asked += 1;
        });
        assert!(!health.lags_behind(&slow, others));
        assert_eq!(asked, 1);
    }

    use proptest::prelude::*;

    proptest! {
        /// For any sequence of probes: a node's silence counts from its last answer, or from its first probe. It is up only if
        /// its tasks were seen to continue since it was last away.
        #[test]
        fn silence_is_counted_from_the_last_answer(
            probes in prop::collection::vec((0_u64..4_000, 0_u8..5), 1..60)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let (health, node) = (HealthMonitor::default(), NodeId::from("n".to_owned()));
                let (mut silent_for, mut watched, mut trusted, mut misses) = (0, false, false, 0);
                for (pause, heard) in probes {
                    tokio::time::advance(Duration::from_millis(pause)).await;
                    silent_for += if watched { pause } else { 0 };
                    watched = true;
                    let (heard, goes_on) = match heard {
                        0 => (Probe::Answer(Some(1)), true),
                        1 => (Probe::Answer(None), false),
                        2 => (Probe::ConnectionFailed, false),
                        3 => (Probe::Invalid("late".to_owned()), false),
                        _ => (Probe::ProxyDown, false),
                    };
                    health.note(&node, &heard, goes_on);
                    match heard {
                        Probe::Answer(_) => (silent_for, trusted, misses) = (0, goes_on, 0),
                        Probe::ConnectionFailed => (trusted, misses) = (false, misses + 1),
                        Probe::Invalid(_) => misses += 1,
                        Probe::ProxyDown => {}
                    }
                    prop_assert_eq!(health.silence(&node), Duration::from_millis(silent_for));
                    prop_assert_eq!(health.status(&node) == NodeStatus::Up, trusted && misses < SLOW);
                }
                Ok(())
            })?;
        }
    }
}
