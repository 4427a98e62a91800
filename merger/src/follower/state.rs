//! Keeps up with what the leader has stored.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Context;
use crate::cluster::READS_LEAVE;
use crate::etcd::EtcdError;
use crate::search::{Stale, forget};
use crate::store::{News, Read};

/// How often the journal is looked at.
const LOOKED_EVERY: Duration = Duration::from_millis(50);

/// The same while Envoys are being told that a replica is out of sync: a write waits for that.
const LOOKED_EVERY_WHILE_WAITED_FOR: Duration = Duration::from_millis(10);

/// The entries by which the leader tells what searches must no longer remember. Only their names say something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangedKey {
    /// What searches remember.
    Stale(Stale),
    /// API keys.
    Keys,
}

impl ChangedKey {
    const PREFIX: &'static str = "changed/";

    /// The entry's key.
    pub fn name(&self) -> String {
        let rest = match self {
            Self::Stale(Stale::Documents(uid)) => format!("documents/{uid}"),
            Self::Stale(Stale::Index(uid)) => format!("index/{uid}"),
            Self::Stale(Stale::Everything) => "everything".to_owned(),
            Self::Keys => "keys".to_owned(),
        };
        format!("{}{rest}", Self::PREFIX)
    }

    fn of(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(Self::PREFIX)?;
        Some(match rest.split_once('/') {
            Some(("documents", uid)) => Self::Stale(Stale::Documents(uid.to_owned())),
            Some(("index", uid)) => Self::Stale(Stale::Index(uid.to_owned())),
            _ if rest == "keys" => Self::Keys,
            // A word of a newer leader.
            _ => Self::Stale(Stale::Everything),
        })
    }
}

/// Keeps up from a state with `count` changes on, until the registration is lost.
pub async fn follow(ctx: &Context, count: u64) {
    let mut following = Following {
        ctx,
        count,
        keeps_to: 0,
        changing: Some((ctx.cluster.in_sync.epoch(), Instant::now())),
        renewed: Instant::now(),
        newest: Instant::now(),
        silent: false,
    };
    while ctx.membership.fence().is_open() {
        let began = Instant::now();
        match following.look().await {
            Ok(()) => {
                ctx.search.remembered.heard.looked(began);
                following.silent = false;
                following.newest = Instant::now();
            }
            Err(error) if !std::mem::replace(&mut following.silent, true) => {
                tracing::warn!(%error, "the leader's changes can't be read from etcd");
            }
            Err(_) => {}
        }
        let age = following.newest.elapsed().as_millis();
        ctx.metrics
            .state_age
            .set(i64::try_from(age).unwrap_or(i64::MAX));
        let left = ctx.membership.fence().left().unwrap_or_default();
        let left = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
        ctx.metrics.lease_left.set(left);
        let pause = match following.changing {
            Some(_) => LOOKED_EVERY_WHILE_WAITED_FOR,
            None => LOOKED_EVERY,
        };
        sleep(pause).await;
    }
}

struct Following<'a> {
    ctx: &'a Context,
    /// How many changes are applied.
    count: u64,
    /// The epoch of the in-sync set that all reads through this merger's Envoys keep to.
    keeps_to: u64,
    /// An epoch that Envoys are being told of, and since when.
    changing: Option<(u64, Instant)>,
    renewed: Instant,
    /// When this merger last had the newest state.
    newest: Instant,
    silent: bool,
}

impl Following<'_> {
    async fn look(&mut self) -> Result<(), EtcdError> {
        let Read { count, news, .. } = self.ctx.reader.read_since(self.count).await?;
        self.apply(news)?;
        self.count = count;
        self.settle();
        self.tell().await
    }

    fn apply(&self, news: News) -> Result<(), EtcdError> {
        let cluster = &self.ctx.cluster;
        let applied = match news {
            News::Nothing => return Ok(()),
            News::Changed(changed) => {
                // Nodes have changed already, so what is asked of them from here on is remembered rightly. The other way around, a
                // read could go by the new state and by what was remembered under the old one.
                let names = changed.iter().map(|(name, _)| name);
                for changed in names.filter_map(|name| ChangedKey::of(name)) {
                    match changed {
                        ChangedKey::Stale(stale) => forget(&self.ctx.search, &stale),
                        ChangedKey::Keys => self.ctx.keys.forget(),
                    }
                }
                cluster.apply(&changed)
            }
            News::All(all) => {
                forget(&self.ctx.search, &Stale::Everything);
                self.ctx.keys.forget();
                cluster.apply_all(all)
            }
        };
        // It is read again and again, and the registration ends: this merger stops answering rather than to go on half right.
        applied.map_err(|key| EtcdError::Refused(format!("`{key}` can't be read")))
    }

    /// Notes when Envoys have heard of the newest in-sync set.
    fn settle(&mut self) {
        let cluster = &self.ctx.cluster;
        let epoch = cluster.in_sync.epoch();
        if epoch == self.keeps_to {
            return;
        }
        let since = match self.changing {
            Some((telling, since)) if telling == epoch => since,
            _ => Instant::now(),
        };
        let heard = cluster.reads_have_left_all() || since.elapsed() >= READS_LEAVE;
        match heard {
            true => (self.keeps_to, self.changing) = (epoch, None),
            false => self.changing = Some((epoch, since)),
        }
    }

    /// Tells the leader what is applied, and renews the lease.
    async fn tell(&mut self) -> Result<(), EtcdError> {
        let membership = &self.ctx.membership;
        let due = self.renewed.elapsed() >= membership.renewed_every();
        // First: it is quick in etcd, where what is told is written to the disks of most members.
        if due {
            let asked = Instant::now();
            if membership.renew().await? {
                self.renewed = asked;
            }
        }
        let (keeps_to, table) = (self.keeps_to, self.ctx.cluster.epochs().table);
        let said = membership.registration();
        if due || said.in_sync_epoch != keeps_to || said.table_epoch != table {
            let (count, reaches_nodes) = (self.count, self.ctx.reaches_nodes());
            let hears = self.ctx.hears();
            let told = membership.tell(|registration| {
                registration.hears = hears;
                registration.applied = count;
                registration.reaches_nodes = reaches_nodes;
                registration.in_sync_epoch = keeps_to;
                registration.table_epoch = table;
            });
            told.await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_leader_says_is_understood() {
        for changed in [
            ChangedKey::Stale(Stale::Documents("films".to_owned())),
            ChangedKey::Stale(Stale::Index("a".to_owned())),
            ChangedKey::Stale(Stale::Everything),
            ChangedKey::Keys,
        ] {
            assert_eq!(ChangedKey::of(&changed.name()), Some(changed));
        }
        assert_eq!(ChangedKey::of("placement/films"), None);
        let everything = ChangedKey::Stale(Stale::Everything);
        assert_eq!(ChangedKey::of("changed/something-new"), Some(everything));
    }
}
