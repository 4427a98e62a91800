//! A merger that shares an etcd with others.
//!
//! ```text
//! let in by etcd ─► whose state is it ─► follow: answer reads, pass on the rest ─► win the key ─► read the state ─► lead
//!                                           ▲                                                                         │
//!                                           └──── the lease is over, an operator says so, no node is reached ◄────────┘
//! ```
//!
//! A merger changes its role without restarting. What it did as a leader ends with the [`Phase`] in which it did it; then it registers
//! and reads the state anew, as after a start. While it begins to lead, it goes on answering reads as a follower, until it knows as
//! a leader what it needs for that.

mod following;
mod identity;
mod opening;
mod reach;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use self::following::Following;
use self::identity::be_let_in;
use self::opening::Opening;
use self::reach::reaches_no_node;
use super::phase::{Phase, Threads};
use super::timed::Timed;
use super::traces::Traces;
use super::{StartError, directory, nodes, reports};
use crate::cluster::{self, Directory, Mergers};
use crate::edge::{self, Context, Follower, Peers, Role};
use crate::etcd::{Etcd, EtcdClient, EtcdOptions};
use crate::leadership::{
    ANYBODY_AFTER, Candidate, Election, Leadership, Membership, OnLostStore, Registration, Roll,
};
use crate::options::ServeOptions;
use crate::sockets::Listeners;
use crate::spans::Spans;
use crate::telemetry::Metrics;
use crate::upstream::{NodeApi, PassOn};

/// The pause between attempts to reach etcd.
const AGAIN: Duration = Duration::from_millis(500);

/// How long a merger that stepped down leaves the lead to others.
const RESTS: Duration = ANYBODY_AFTER;

/// How long a change of roles waits: for Envoy's list of nodes, and for requests that are under way.
const CHANGES_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn run(
    options: ServeOptions,
    etcd: EtcdOptions,
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    if options.direct_writes {
        return Err(StartError::DirectWrites);
    }
    let listeners = Listeners::bind(&options.listen, options.socket_mode).await?;
    let door = edge::Door::new(listeners, options.tls.certificates());
    let client = EtcdClient::new(etcd);
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        () = &mut stop => return Ok(()),
        outcome = be_let_in(&client, &options) => outcome?,
    }
    let outside = Outside {
        nodes: nodes(&options),
        directory: directory(&options),
        threads: Threads::Own,
    };
    let mut merger = Merger::new(options, Arc::new(client), outside)?;
    let traces = Traces::begin(&merger.options, &merger.metrics)?;
    merger.spans = traces.spans();
    let me = &merger.candidate.id;
    tracing::info!(
        listen = merger.options.listens_on(),
        id = me,
        "the merger begins to follow"
    );
    let following = tokio::select! {
        () = &mut stop => return Ok(()),
        following = merger.follow() => following?,
    };
    let (role, roles) = watch::channel(merger.role(&following));
    reports::begin(merger.options.reports(), roles.clone())?;
    let stopping = CancellationToken::new();
    let stopped = stopping.clone().cancelled_owned();
    let serving = tokio::spawn(edge::serve(roles, door, stopped));
    let mut life = std::pin::pin!(merger.live(following, role, stopping.clone(), serving));
    let outcome = tokio::select! {
        outcome = &mut life => outcome,
        () = stop => {
            stopping.cancel();
            life.await
        }
    };
    traces.finish().await;
    outcome
}

/// What a merger reaches nodes by, and where it works.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) nodes: Arc<dyn NodeApi>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) threads: Threads,
}

/// What stays as long as the process.
pub(crate) struct Merger {
    options: ServeOptions,
    etcd: Arc<dyn Etcd>,
    candidate: Candidate,
    election: Election,
    peers: Arc<Peers>,
    shared: cluster::Shared,
    metrics: Metrics,
    spans: Spans,
    outside: Outside,
}

/// Why a merger doesn't lead any more.
enum End {
    /// The lease is over.
    Lost,
    /// An operator wants another merger to lead.
    Asked,
    /// It reaches no node, and another merger does.
    NoNode,
    /// The process ends.
    Stopping,
}

impl Merger {
    pub(crate) fn new(
        options: ServeOptions,
        etcd: Arc<dyn Etcd>,
        outside: Outside,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::new()?;
        let etcd: Arc<dyn Etcd> = Arc::new(Timed {
            etcd,
            seconds: metrics.store_seconds.clone(),
        });
        let candidate = Candidate {
            id: uuid::Uuid::new_v4().to_string(),
            address: options.advertised().ok_or(StartError::NoAddress)?,
        };
        let prefix = &options.etcd.prefix;
        let peers = Peers {
            me: candidate.id.clone(),
            address: Some(candidate.address),
            roll: Some(Roll::new(Arc::clone(&etcd), prefix.clone())),
            step_down: Arc::default(),
        };
        let lease = options.leader_lease();
        Ok(Self {
            election: Election::new(Arc::clone(&etcd), prefix, candidate.clone(), lease),
            shared: cluster::Shared {
                mergers: Arc::new(Mergers::shared(candidate.id.clone())),
                ..cluster::Shared::default()
            },
            peers: Arc::new(peers),
            options,
            etcd,
            candidate,
            metrics,
            spans: Spans::default(),
            outside,
        })
    }

    /// The lease of a registration: longer than a leader's, since a follower that loses it for a moment answers nothing, and only
    /// a write that takes a replica out waits for one that is gone.
    fn registered_for(&self) -> Duration {
        self.options.leader_lease() * 5 / 3
    }

    /// The id by which others know it.
    #[cfg(test)]
    pub(crate) fn id(&self) -> &str {
        &self.candidate.id
    }

    /// Follows and leads, until the process is to end and has answered all requests.
    pub(crate) async fn live(
        &self,
        mut following: Following,
        role: watch::Sender<Role>,
        stopping: CancellationToken,
        serving: JoinHandle<()>,
    ) -> Result<(), StartError> {
        let mut not_before = Instant::now();
        loop {
            let fit = || Instant::now() >= not_before && following.ctx.reaches_nodes();
            let leadership = tokio::select! {
                () = stopping.cancelled() => {
                    let _ = serving.await;
                    following.ctx.membership.leave().await;
                    return Ok(());
                }
                () = following.lost() => None,
                leadership = self.election.win(fit) => Some(leadership),
            };
            let Some(leadership) = leadership else {
                tracing::error!(
                    "this merger can't hear etcd: it reads the state anew as soon as it does"
                );
                following = match self.follow_unless(&stopping).await? {
                    Some(following) => following,
                    None => {
                        let _ = serving.await;
                        return Ok(());
                    }
                };
                role.send_replace(self.role(&following));
                continue;
            };
            let Some(led) = self.begin_to_lead(&leadership, &stopping).await? else {
                leadership.step_down().await;
                not_before = Instant::now() + AGAIN;
                continue;
            };
            role.send_replace(Role::Leads(Arc::clone(&led.ctx)));
            self.metrics.state_age.set(0);
            let followed = Arc::clone(&following.ctx);
            let why = tokio::select! {
                why = self.until_end(&led.ctx, &leadership, &stopping) => why,
                never = self.stay_registered(following) => match never {},
            };
            self.metrics.leads.set(0);
            let Led { ctx, phase } = led;
            // What a leader does in the background can only fail once its lease is over.
            let phase = Some(phase).filter(|_| !matches!(why, End::Lost));
            match why {
                End::Stopping => {
                    let _ = serving.await;
                    // Before the next one leads, which would wait for this registration.
                    followed.membership.leave().await;
                    leadership.step_down().await;
                    return Ok(());
                }
                End::Lost => {
                    tracing::error!(
                        "the lease is over: this merger leads no more, and reads the state anew"
                    );
                    role.send_replace(self.adrift(&ctx, &leadership));
                }
                End::Asked => tracing::info!("an operator wants another merger to lead"),
                End::NoNode => tracing::error!(
                    "this merger reaches none of the nodes, and another one does: that one shall lead"
                ),
            }
            // Reads go on meanwhile, as the leader answers them, unless its lease is over.
            following = match self.follow_unless(&stopping).await? {
                Some(following) => following,
                None => {
                    let _ = serving.await;
                    followed.membership.leave().await;
                    leadership.step_down().await;
                    return Ok(());
                }
            };
            role.send_replace(self.role(&following));
            if !matches!(why, End::Lost) {
                not_before = Instant::now() + RESTS;
                ctx.begun.close();
                let _ = timeout(CHANGES_WITHIN, ctx.begun.wait()).await;
            }
            leadership.step_down().await;
            drop(phase);
        }
    }

    /// Waits until this merger must lead no more.
    async fn until_end(
        &self,
        ctx: &Context,
        leadership: &Leadership,
        stopping: &CancellationToken,
    ) -> End {
        let reckon = async {
            loop {
                let left = leadership.term().fence().left().unwrap_or_default();
                let left = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
                self.metrics.lease_left.set(left);
                sleep(AGAIN / 5).await;
            }
        };
        tokio::select! {
            biased;
            () = leadership.lost() => End::Lost,
            () = stopping.cancelled() => End::Stopping,
            () = self.peers.step_down.notified() => End::Asked,
            () = reaches_no_node(ctx) => End::NoNode,
            never = reckon => never,
        }
    }

    pub(crate) fn role(&self, following: &Following) -> Role {
        let ctx = &following.ctx;
        let reading = edge::Reading {
            search: Arc::clone(&ctx.search),
            keys: Arc::clone(&ctx.keys),
            cors_origins: self.options.cors_origins.clone(),
        };
        Role::Follows(Arc::new(Follower {
            reading: Arc::new(reading),
            knows: ctx.membership.fence().clone(),
            on_lost_store: self.options.on_lost_store,
            leader: self.election.leader(),
            pass_on: PassOn::through(self.options.way_to_egress()),
            peers: Arc::clone(&self.peers),
        }))
    }

    /// The role of a merger that led and knows nothing for certain any more: others answer its requests.
    fn adrift(&self, led: &Context, leadership: &Leadership) -> Role {
        Role::Follows(Arc::new(Follower {
            reading: Arc::clone(&led.reading),
            knows: leadership.term().fence().clone(),
            // What a leader reaches nodes by is closed with its lease, whatever an operator prefers.
            on_lost_store: OnLostStore::Refuse,
            leader: self.election.leader(),
            pass_on: PassOn::through(self.options.way_to_egress()),
            peers: Arc::clone(&self.peers),
        }))
    }

    /// Reads the state as its leader, finishes what the last leader left open, and begins the background work; `None` if that failed
    /// for a reason that may pass.
    async fn begin_to_lead(
        &self,
        leadership: &Leadership,
        stopping: &CancellationToken,
    ) -> Result<Option<Led>, StartError> {
        tracing::info!(term = leadership.term().created(), "this merger leads");
        self.metrics.leads.set(1);
        self.metrics.terms.inc();
        let phase = Phase::begin(self.outside.threads, "lead").map_err(StartError::Threads)?;
        let opening = Opening {
            etcd: Arc::clone(&self.etcd),
            term: leadership.term().clone(),
            options: self.options.clone(),
            shared: self.shared.clone(),
            metrics: self.metrics.clone(),
            spans: self.spans.clone(),
            peers: Arc::clone(&self.peers),
            outside: self.outside.clone(),
        };
        let opened = tokio::select! {
            () = stopping.cancelled() => return Ok(None),
            () = leadership.lost() => return Ok(None),
            opened = phase.run(opening.open()) => opened,
        };
        let ctx = match opened {
            Ok(Ok(ctx)) => ctx,
            Ok(Err(error)) if error.may_pass() => {
                tracing::error!(%error, "the state can't be read by this merger: another one may lead");
                return Ok(None);
            }
            Ok(Err(error)) => return Err(error),
            Err(_panic) => return Ok(None),
        };
        // Until then, this merger answers reads as a follower.
        let mut topology = ctx.cluster.watch_topology();
        let known = topology.wait_for(|topology| !topology.shards().is_empty());
        let _ = timeout(CHANGES_WITHIN, known).await;
        Ok(Some(Led { ctx, phase }))
    }

    /// Keeps a leader's registration, for people and for the next leader. Never ends.
    async fn stay_registered(&self, followed: Following) -> std::convert::Infallible {
        let ctx = Arc::clone(&followed.ctx);
        drop(followed);
        let Candidate { id, address } = self.candidate.clone();
        let registration = Registration {
            leads: true,
            reaches_nodes: true,
            ..Registration::new(id, address)
        };
        let mut again = None::<Membership>;
        loop {
            let membership = again.as_ref().unwrap_or(&ctx.membership);
            // Again and again: what was told as a follower may still be on its way.
            let told = membership.say(registration.clone()).await;
            let renewed = membership.renew().await;
            if matches!(told, Ok(false)) || matches!(renewed, Ok(false)) {
                let registration = registration.clone();
                let (etcd, prefix) = (Arc::clone(&self.etcd), &self.options.etcd.prefix);
                let lease = self.registered_for();
                let joined = Membership::join(etcd, prefix, registration, lease).await;
                again = joined.ok().or(again);
            }
            let pause = again.as_ref().unwrap_or(&ctx.membership).renewed_every();
            sleep(pause).await;
        }
    }
}

/// A merger that leads.
struct Led {
    ctx: Arc<Context>,
    /// Its background work ends with this.
    phase: Phase,
}
