//! A merger that shares an etcd with others.
//!
//! `let in by etcd → whose state is it → stand by → win the key → read the state → serve → step down, or end at once`
//!
//! A merger that stops leading without having stepped down ends its process: all that it knows may be old, and a start is the way
//! that surely reads everything anew. Its supervisor starts it again, and it stands by.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{Opened, StartError, bind, surroundings};
use crate::edge::{self, Context, Standby};
use crate::etcd::{Etcd, EtcdClient, EtcdError, EtcdOptions};
use crate::leadership::{Candidate, Election, Leadership, Term};
use crate::options::ServeOptions;
use crate::store::{
    EtcdStore, IdentityError, check_identity, claim, forget_history, refuse_unfinished,
};
use crate::upstream::PassOn;

/// The pause between attempts to reach etcd at the start.
const AGAIN: Duration = Duration::from_millis(500);

/// The file in the data folder with the id of the cluster that the merger has served.
const CLUSTER_ID: &str = "cluster-id";

pub(super) async fn run(
    options: ServeOptions,
    etcd: EtcdOptions,
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let listener = bind(options.listen).await?;
    let client = Arc::new(EtcdClient::new(etcd));
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        () = &mut stop => return Ok(()),
        outcome = be_let_in(&client, &options) => outcome?,
    }
    let etcd: Arc<dyn Etcd> = client;
    let me = Candidate {
        id: uuid::Uuid::new_v4().to_string(),
        address: options.advertised(),
    };
    tracing::info!(listen = %options.listen, id = me.id, "the merger stands by");
    let (prefix, lease) = (&options.etcd.prefix, options.leader_lease());
    let election = Election::new(Arc::clone(&etcd), prefix, me.clone(), lease);
    let standby = Standby {
        leader: election.leader(),
        me: me.id,
        pass_on: PassOn::through(&options.egress),
    };
    let (end, ended) = oneshot::channel::<()>();
    let standing_by = edge::stand_by(standby, &listener, async {
        let _ = ended.await;
    });
    let becoming = async {
        let outcome = become_leader(&election, &etcd, &options, stop.as_mut()).await;
        drop(end);
        outcome
    };
    let ((), leading) = tokio::join!(standing_by, becoming);
    match leading? {
        Some((leadership, ctx)) => lead(leadership, ctx, listener, stop).await,
        None => Ok(()),
    }
}

/// Waits until etcd answers, and checks whose state it holds.
async fn be_let_in(etcd: &EtcdClient, options: &ServeOptions) -> Result<(), StartError> {
    let prefix = &options.etcd.prefix;
    let known = known_id(options)?;
    let mut silent = false;
    loop {
        let error = match etcd.check(&prefix.leader()).await {
            Ok(()) => match check_identity(etcd, prefix, known.as_deref()).await {
                Ok(_) => return Ok(()),
                Err(IdentityError::Etcd(error)) => error,
                Err(error) => return Err(error.into()),
            },
            Err(error) => error,
        };
        match error {
            EtcdError::Denied(_) | EtcdError::Refused(_) => return Err(StartError::Denied(error)),
            _ if !std::mem::replace(&mut silent, true) => {
                tracing::warn!(%error, "the merger waits for etcd");
            }
            _ => {}
        }
        sleep(AGAIN).await;
    }
}

/// Stands by, and reads the state once this merger leads; `None` if it is stopped before.
async fn become_leader(
    election: &Election,
    etcd: &Arc<dyn Etcd>,
    options: &ServeOptions,
    mut stop: impl Future<Output = ()> + Unpin,
) -> Result<Option<(Leadership, Arc<Context>)>, StartError> {
    let leadership = tokio::select! {
        () = &mut stop => return Ok(None),
        leadership = election.win() => leadership,
    };
    tracing::info!(term = leadership.term().created(), "the merger leads");
    let outcome = tokio::select! {
        () = &mut stop => Ok(None),
        () = leadership.lost() => Err(StartError::LeadershipLost),
        opened = open(etcd, leadership.term(), options) => opened.map(Some),
    };
    match outcome {
        Ok(Some(ctx)) => Ok(Some((leadership, ctx))),
        outcome => {
            // Another merger may fare better.
            leadership.step_down().await;
            outcome.map(|_| None)
        }
    }
}

/// Reads the state, finishes what the last leader left open, and starts the background work.
async fn open(
    etcd: &Arc<dyn Etcd>,
    term: &Term,
    options: &ServeOptions,
) -> Result<Arc<Context>, StartError> {
    let prefix = &options.etcd.prefix;
    let known = known_id(options)?;
    let id = claim(etcd, prefix, term, known.as_deref()).await?;
    refuse_unfinished(&**etcd, prefix).await?;
    remember_id(options, &id)?;
    let store = EtcdStore::open(Arc::clone(etcd), prefix.clone(), term.clone()).await?;
    let surroundings = surroundings(options, Arc::new(store), term.fence().clone());
    let opened = Opened::open(options.clone(), surroundings).await?;
    let ctx = opened.start().await?;
    if options.etcd.compact_interval_s > 0 {
        let interval = Duration::from_secs(options.etcd.compact_interval_s);
        tokio::spawn(forget_history(Arc::clone(etcd), prefix.clone(), interval));
    }
    Ok(ctx)
}

async fn lead(
    leadership: Leadership,
    ctx: Arc<Context>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let listen = listener.local_addr().ok();
    tracing::info!(?listen, "the merger serves");
    tokio::select! {
        biased;
        () = leadership.lost() => Err(StartError::LeadershipLost),
        () = edge::serve(ctx, listener, stop) => {
            leadership.step_down().await;
            Ok(())
        }
    }
}

fn id_file(options: &ServeOptions) -> PathBuf {
    options.data_dir.join(CLUSTER_ID)
}

/// The cluster that this merger belongs to, if it is known: from the options, or from an earlier run.
fn known_id(options: &ServeOptions) -> Result<Option<String>, StartError> {
    if let Some(id) = &options.etcd.cluster_id {
        return Ok(Some(id.clone()));
    }
    let file = id_file(options);
    match std::fs::read_to_string(&file) {
        Ok(id) => Ok(Some(id.trim().to_owned()).filter(|id| !id.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StartError::ClusterId(file, error)),
    }
}

fn remember_id(options: &ServeOptions, id: &str) -> Result<(), StartError> {
    let file = id_file(options);
    let written = std::fs::write(&file, format!("{id}\n"));
    written.map_err(|error| StartError::ClusterId(file, error))
}
