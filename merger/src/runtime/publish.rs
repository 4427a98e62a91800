//! What a leader tells its followers beside its commits: how it judges nodes, and that API keys or experimental features have changed.
//!
//! All of it is stored together, several times a second if there is anything. Only the answer to such a change waits for that.
//! What searches remembered and no longer holds is told by the commits that store the ends of tasks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::cluster::{LeaderView, VIEW_KEY, until};
use crate::edge::Context;
use crate::follower::ChangedKey;
use crate::leadership::Roll;
use crate::search::Stale;
use crate::store::{Change, Store};

/// How often it is looked whether there is anything to tell.
const EVERY: Duration = Duration::from_millis(25);

/// How often nodes are looked at in between.
const VIEWED_EVERY: u32 = 4;

/// How often the list of mergers is read, as long as nobody waits for them.
const LISTED_EVERY: Duration = Duration::from_millis(300);

/// The same while something waits until all mergers have a change.
const LISTED_EVERY_WHILE_WAITED_FOR: Duration = Duration::from_millis(10);

/// Tells followers; never ends.
pub(super) async fn publish(ctx: Arc<Context>, store: Arc<dyn Store>) {
    let announced = &ctx.cluster.announced;
    let announced = [
        (&announced.keys, ChangedKey::Keys),
        (&announced.features, ChangedKey::Stale(Stale::Everything)),
    ];
    // What an earlier leader has changed may not be told yet.
    let (mut told, mut published) = (None::<LeaderView>, [None::<u64>; 2]);
    let mut round = 0_u32;
    loop {
        let mut changes = Vec::new();
        let made = announced.each_ref().map(|(kind, _)| Some(kind.made()));
        for ((_, key), (made, published)) in announced.iter().zip(made.iter().zip(&published)) {
            if made != published {
                changes.push(Change::put(key.name(), Vec::new()));
            }
        }
        let view = round
            .is_multiple_of(VIEWED_EVERY)
            .then(|| ctx.cluster.leader_view());
        let view = view.filter(|view| told.as_ref() != Some(view));
        if let Some(view) = &view {
            let value = serde_json::to_vec(view).unwrap_or_default();
            changes.push(Change::put(VIEW_KEY, value));
        }
        if !changes.is_empty() {
            match store.commit(changes).await {
                Ok(()) => {
                    (told, published) = (view.or(told), made);
                    for ((kind, _), made) in announced.iter().zip(made) {
                        kind.published(made.unwrap_or(0));
                    }
                }
                // The next round tells it again.
                Err(error) => {
                    tracing::debug!(%error, "followers can't be told what has changed");
                }
            }
        }
        round = round.wrapping_add(1);
        sleep(EVERY).await;
    }
}

/// Keeps the list of mergers up to date; never ends.
pub(super) async fn list_mergers(ctx: Arc<Context>, roll: Roll) {
    let cluster = &ctx.cluster;
    loop {
        // Before the list is read: see `cluster::Mergers`.
        let epochs = cluster.epochs();
        match roll.registrations().await {
            Ok(mergers) => cluster.mergers.note(epochs, mergers),
            Err(error) => tracing::debug!(%error, "the list of mergers can't be read"),
        }
        let have_all = cluster.mergers.have(epochs);
        let pause = match have_all {
            true => LISTED_EVERY,
            false => LISTED_EVERY_WHILE_WAITED_FOR,
        };
        let states = [&cluster.in_sync.changes, &cluster.placements.changes];
        let changed = until(states, || (cluster.epochs() != epochs).then_some(()));
        let _ = tokio::time::timeout(pause, changed).await;
    }
}
