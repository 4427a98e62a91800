//! The simulated nodes: their disks, whether they are running, and the faults that are planned for them.
//!
//! They outlive the merger. Their clock counts milliseconds over all of the merger's lives.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weft_routing::placement::ShardId;

use super::api::{self, Asked, Said};
use super::disk::Disk;
use super::rules::Rules;
use crate::cluster::Readiness;

/// How long Envoy may take to hear from the merger which nodes serve no reads.
const ENVOY_HEARS: u64 = 700;
/// How long the merger may take to probe a node that starts.
const PROBED_WITHIN: u64 = 3_000;

/// The state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    Up,
    /// The process isn't running.
    Down,
    /// The node accepts requests and answers none.
    Hanging,
    /// The node works, but can't be reached.
    Apart,
}

/// A fault that affects the next change requests to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    /// The change is made, and the answer is lost.
    AnswerLost,
    /// The request is lost before the change is made.
    RequestLost,
    /// The request is refused with this status.
    Refused(u16),
}

/// What happens to a node at a planned time.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Starts,
    StartsWith(Box<Disk>),
    WakesUp { takes_up: bool },
    IsReached,
    IsQuick,
}

/// A node.
pub(super) struct Node {
    pub(super) shard: ShardId,
    pub(super) address: SocketAddr,
    pub(super) disk: Disk,
    pub(super) power: Power,
    /// Counts how often the process has ended.
    pub(super) lives: u32,
    pub(super) slow_ms: u64,
    pub(super) mishaps: Vec<Mishap>,
    stuck: Vec<(Asked, oneshot::Sender<Said>)>,
    /// True if Envoy sends reads to it, according to what the merger last told Envoy.
    pub(super) gets_reads: bool,
    /// True if its disk isn't the one on which it was last seen in sync.
    pub(super) has_lost: bool,
    /// When it started with that disk.
    started: u64,
    /// When a merger first saw its newest task after that.
    seen: Option<u64>,
}

/// What becomes of a request at which a test acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on as ever: no test acts at it.
    GoesOn,
    /// The merger dies before the node gets it.
    NotDelivered,
    /// The node gets it, and the merger dies before the answer comes.
    NotAnswered,
}

/// A request to a node at which a test wants to act.
pub(super) struct Stop {
    /// How many requests were sent before it.
    pub(super) at: u64,
    /// What becomes of it.
    pub(super) fate: Fate,
    /// Tells the test.
    pub(super) reached: Option<oneshot::Sender<()>>,
}

/// All nodes, the clock, and the planned faults.
pub(super) struct State {
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) random: fastrand::Rng,
    /// Until when the egress listener is down.
    egress_down_until: u64,
    events: Vec<(u64, String, Event)>,
    /// The longest time that a task takes on a node, in milliseconds.
    pace: u64,
    before: u64,
    since: Option<Instant>,
    pub(super) exchanges: u64,
    /// The request at which a test wants to act.
    pub(super) stop: Option<Stop>,
    /// The test's rules for some requests, and its record of all requests.
    pub(super) rules: Rules,
}

impl State {
    pub(super) fn new(seed: u64, shards: u16, replicas: u16) -> Self {
        let mut nodes = BTreeMap::new();
        for (number, shard) in (0..shards * replicas).zip((0..shards).cycle()) {
            let replica = char::from(b'a' + u8::try_from(number / shards).unwrap_or(0));
            let node = Node {
                shard: ShardId(shard),
                address: SocketAddr::from(([10, 0, 0, 1], 7_000 + number)),
                disk: new_disk(u64::from(number)),
                power: Power::Up,
                lives: 0,
                slow_ms: 0,
                mishaps: Vec::new(),
                stuck: Vec::new(),
                gets_reads: false,
                has_lost: false,
                started: 0,
                seen: None,
            };
            nodes.insert(format!("{replica}{shard}"), node);
        }
        let mut random = fastrand::Rng::with_seed(seed);
        let pace = random.u64(1..40);
        Self {
            nodes,
            random,
            egress_down_until: 0,
            events: Vec::new(),
            pace,
            before: 1_000,
            since: None,
            exchanges: 0,
            stop: None,
            rules: Rules::default(),
        }
    }

    /// A merger starts: its clock is that of the current runtime.
    pub(super) fn merger_begins(&mut self) {
        self.since = Some(Instant::now());
        self.nodes.values_mut().for_each(|node| node.seen = None);
    }

    /// The merger ended at `now`. Until the next one starts, the clock stands still.
    pub(super) fn merger_ended(&mut self, now: u64) {
        self.since = None;
        self.before = now;
    }

    /// Lets time pass without a merger.
    pub(super) fn pass(&mut self, ms: u64) {
        self.before += ms;
        self.advance();
    }

    pub(super) fn now(&self) -> u64 {
        let since = self.since.map_or(0, |since| since.elapsed().as_millis());
        self.before + u64::try_from(since).unwrap_or(0)
    }

    /// True while Envoy can't know yet that a node has another disk: a probe finds it, and Envoy hears of it at its next check. A
    /// new merger, an egress listener that is down and a slow node delay the probe; none of them may delay it for long.
    pub(super) fn may_be_misled(&self) -> bool {
        let now = self.now();
        let may_mislead = |node: &Node| {
            let until = match node.seen {
                Some(seen) => seen + ENVOY_HEARS,
                None => node.started.max(self.before).max(self.egress_down_until) + PROBED_WITHIN,
            };
            node.has_lost && now < until
        };
        now < self.before + ENVOY_HEARS && self.nodes.values().any(|node| node.has_lost)
            || self.nodes.values().any(may_mislead)
    }

    /// Plans an event for a node.
    pub(super) fn plan(&mut self, after: u64, node: &str, event: Event) {
        let at = self.now() + after;
        self.events.push((at, node.to_owned(), event));
    }

    pub(super) fn cut_egress(&mut self, ms: u64) {
        self.egress_down_until = self.now() + ms;
    }

    pub(super) fn egress_is_down(&self) -> bool {
        self.now() < self.egress_down_until
    }

    /// True if a fault is active or planned.
    pub(super) fn is_troubled(&self) -> bool {
        !self.events.is_empty() || self.egress_is_down()
    }

    /// Ends a node's process. Planned returns are cancelled: the caller must plan a new one.
    pub(super) fn kill(&mut self, name: &str) {
        self.events.retain(|(_, node, event)| {
            node != name || !matches!(event, Event::Starts | Event::StartsWith(_))
        });
        if let Some(node) = self.nodes.get_mut(name) {
            node.power = Power::Down;
            node.lives += 1;
            node.stuck.clear();
        }
    }

    /// Executes all events that are due, and lets all nodes work.
    pub(super) fn advance(&mut self) {
        let now = self.now();
        let (mut due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.events)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.events = later;
        due.sort_by_key(|(at, ..)| *at);
        for (at, name, event) in due {
            self.happen(at, &name, event);
        }
        for node in self.nodes.values_mut() {
            if matches!(node.power, Power::Up | Power::Apart) {
                node.disk.advance(now);
            }
        }
    }

    fn happen(&mut self, at: u64, name: &str, event: Event) {
        let takes = self.takes();
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        match (event, node.power) {
            (Event::Starts, Power::Down) => {
                node.power = Power::Up;
                node.disk.wake(at);
            }
            (Event::StartsWith(disk), Power::Down) => {
                node.disk = *disk;
                node.power = Power::Up;
                node.has_lost = true;
                (node.started, node.seen) = (at, None);
                node.disk.wake(at);
            }
            (Event::WakesUp { takes_up }, Power::Hanging) => {
                node.power = Power::Up;
                node.disk.wake(at);
                for (asked, reply) in std::mem::take(&mut node.stuck) {
                    // The node may have processed a request even if its sender no longer waits for the answer.
                    if takes_up || !reply.is_closed() {
                        let _ = reply.send(api::answer(&mut node.disk, at, takes, &asked));
                    }
                }
            }
            (Event::IsReached, Power::Apart) => node.power = Power::Up,
            (Event::IsQuick, _) => node.slow_ms = 0,
            _ => {}
        }
    }

    /// Sets the longest time that a task takes, in milliseconds.
    pub(super) fn set_pace(&mut self, pace: u64) {
        self.pace = pace;
    }

    fn takes(&mut self) -> u64 {
        let pace = self.pace;
        self.random.u64(0..=pace)
    }

    /// Delivers a request to a node. Returns the receiver of the answer, and the node's life in which the request arrived.
    pub(super) fn deliver(
        &mut self,
        name: &str,
        asked: &Asked,
    ) -> Option<(oneshot::Receiver<Said>, u32)> {
        let (now, takes) = (self.now(), self.takes());
        let node = self.nodes.get_mut(name)?;
        let (reply, answer) = oneshot::channel();
        let life = node.lives;
        let (method, path) = (&asked.method, &asked.path_and_query);
        let (power, mishap) = (node.power, node.mishaps.first());
        tracing::trace!(name, %method, path, ?power, ?mishap, "request");
        if node.power == Power::Up && path == "/tasks?limit=1" {
            // The answer may be on its way for this long.
            node.seen.get_or_insert(now + node.slow_ms + 10);
        }
        match node.power {
            Power::Down | Power::Apart => return None,
            Power::Hanging => node.stuck.push((asked.clone(), reply)),
            Power::Up => {
                let reads = |what| asked.path_and_query.contains(what);
                let changes =
                    asked.method != http::Method::GET && !reads("/fetch") && !reads("/search");
                let mishap = match changes && !node.mishaps.is_empty() {
                    true => Some(node.mishaps.remove(0)),
                    false => None,
                };
                match mishap {
                    Some(Mishap::RequestLost) => return None,
                    Some(Mishap::Refused(status)) => {
                        let error = json!({"message": "No space left on device.", "code": "no_space_left_on_device"});
                        let _ = reply.send((status, error));
                    }
                    Some(Mishap::AnswerLost) => {
                        drop(api::answer(&mut node.disk, now, takes, asked))
                    }
                    None => drop(reply.send(api::answer(&mut node.disk, now, takes, asked))),
                }
            }
        }
        Some((answer, life))
    }

    /// What becomes of the next request.
    pub(super) fn fate(&mut self) -> Fate {
        let exchanges = self.exchanges;
        let stop = self.stop.as_mut().filter(|stop| stop.at == exchanges);
        let Some(stop) = stop else {
            return Fate::GoesOn;
        };
        if let Some(reached) = stop.reached.take() {
            let _ = reached.send(());
        }
        stop.fate
    }

    /// Envoy has asked whether the node may serve reads.
    pub(super) fn envoy_hears(&mut self, name: &str, readiness: Readiness) {
        if let Some(node) = self.nodes.get_mut(name) {
            match readiness {
                Readiness::Ready | Readiness::Degraded(_) => node.gets_reads = true,
                Readiness::NotReady(_) => node.gets_reads = false,
                Readiness::Unknown => {}
            }
        }
    }
}

/// The disk of a node that starts for the first time: its keys have their own uids.
pub(super) fn new_disk(number: u64) -> Disk {
    let mut disk = Disk::default();
    for name in ["search", "admin"] {
        let uid = format!("{name}-{number}");
        let key = json!({
            "uid": uid, "name": name, "description": null, "key": format!("secret-of-{uid}"),
            "actions": ["*"], "indexes": ["*"], "expiresAt": null,
        });
        disk.keys.insert(uid, key);
    }
    disk.features.insert("metrics".to_owned(), false.into());
    disk
}
