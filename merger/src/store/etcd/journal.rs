//! What followers read of the state, and how they learn that it has changed.
//!
//! Each transaction that changes something that followers read also writes the *journal*: one small key with the names of the
//! entries that changed last, and how many there ever were. A follower reads this key several times a second. If the number is the
//! one that it knows, it has the newest state; if it isn't, the follower reads the entries that the journal names, in the same
//! transaction as the journal, or everything anew if it has missed more than the journal names.
//!
//! Why not etcd's watch: a watch tells nothing while nothing changes, so one that is half dead looks like a quiet cluster, and its
//! history may be compacted away. A read that was answered proves that the state was the newest when it was sent, which is what a
//! follower must know before it answers a client.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::range;
use crate::etcd::{
    ANSWER_WITHIN, Action, Entry, Etcd, EtcdError, MOST_OPERATIONS, Outcome, Prefix, Transaction,
};

/// The entries that followers read: keys, or what keys begin with.
const READ_BY_FOLLOWERS: [&str; 8] = [
    "changed/",
    "epoch",
    "in-sync-epoch",
    "placement/",
    "replacement/",
    "replica/",
    "undirected",
    "view",
];

/// How many bytes of names the journal keeps. It is written with every change.
const MOST_NAMES_BYTES: usize = 4 << 10;

/// How many entries are read in one transaction, beside the journal and the mark of a large commit.
const READ_AT_ONCE: usize = MOST_OPERATIONS - 8;

/// Whether followers read this entry.
pub(crate) fn is_read_by_followers(key: &str) -> bool {
    READ_BY_FOLLOWERS
        .iter()
        .any(|name| match name.strip_suffix('/') {
            Some(_) => key.starts_with(name),
            None => key == *name,
        })
}

/// The names of the entries that changed last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// How many names were ever written.
    count: u64,
    /// The last of them, the newest at the end.
    names: VecDeque<String>,
}

impl Journal {
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    pub(super) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The journal after these entries have changed.
    pub(super) fn with<'a>(&self, changed: impl IntoIterator<Item = &'a str>) -> Self {
        let mut journal = self.clone();
        for name in changed {
            journal.count += 1;
            journal.names.push_back(name.to_owned());
        }
        let mut bytes: usize = journal.names.iter().map(|name| name.len() + 4).sum();
        while bytes > MOST_NAMES_BYTES
            && let Some(oldest) = journal.names.pop_front()
        {
            bytes -= oldest.len() + 4;
        }
        journal
    }

    /// What has changed since the journal had this count; `None` if it names only a part of that.
    fn since(&self, count: u64) -> Option<BTreeSet<&str>> {
        let missed = usize::try_from(self.count.checked_sub(count)?).ok()?;
        let known = self.names.len().checked_sub(missed)?;
        Some(self.names.range(known..).map(String::as_str).collect())
    }
}

/// The part of the state that followers read, as of one moment.
#[derive(Debug, Clone)]
pub struct Read {
    /// How many changes it holds.
    pub count: u64,
    /// What has changed.
    pub news: News,
}

/// What a follower learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Nothing has changed.
    Nothing,
    /// These entries have changed; `None` for those that are gone.
    Changed(Vec<(String, Option<Vec<u8>>)>),
    /// All entries.
    All(Vec<(String, Vec<u8>)>),
}

/// Reads what followers need.
pub struct StateReader {
    etcd: Arc<dyn Etcd>,
    prefix: Prefix,
}

impl StateReader {
    /// For the cluster below this prefix.
    pub fn new(etcd: Arc<dyn Etcd>, prefix: Prefix) -> Self {
        Self { etcd, prefix }
    }

    /// Reads everything.
    ///
    /// # Errors
    /// There was no answer; or a large commit is half applied ([`EtcdError::Refused`]), which its leader or the next one
    /// completes.
    pub async fn read_all(&self) -> Result<Read, EtcdError> {
        loop {
            let (journal, _) = self.look(&BTreeSet::new()).await?;
            let mut all = Vec::new();
            for name in READ_BY_FOLLOWERS {
                let found = range(&*self.etcd, &self.prefix.state(name)).await?;
                let of_it = found.into_iter().filter_map(|entry| self.named(entry));
                all.extend(of_it.filter(|(key, _)| is_read_by_followers(key)));
            }
            // Not one revision: but if nothing has changed meanwhile, it is what each moment of the reading had.
            let (after, _) = self.look(&BTreeSet::new()).await?;
            if after.count == journal.count {
                all.sort();
                all.dedup();
                return Ok(Read {
                    count: journal.count,
                    news: News::All(all),
                });
            }
        }
    }

    /// Reads what has changed since the state had `count` changes.
    ///
    /// # Errors
    /// As [`read_all`](Self::read_all).
    pub async fn read_since(&self, count: u64) -> Result<Read, EtcdError> {
        let mut wanted = BTreeSet::new();
        loop {
            let (journal, found) = self.look(&wanted).await?;
            if journal.count == count {
                let news = News::Nothing;
                return Ok(Read { count, news });
            }
            let Some(changed) = journal.since(count) else {
                return self.read_all().await;
            };
            if changed.len() > READ_AT_ONCE {
                return self.read_all().await;
            }
            // All that has changed was read together with the journal that names it.
            if changed.iter().all(|name| wanted.contains(*name)) {
                let count = journal.count;
                let news = News::Changed(found);
                return Ok(Read { count, news });
            }
            wanted = changed.into_iter().map(str::to_owned).collect();
        }
    }

    /// The journal and these entries, as of one moment.
    async fn look(
        &self,
        wanted: &BTreeSet<String>,
    ) -> Result<(Journal, Vec<(String, Option<Vec<u8>>)>), EtcdError> {
        let mut then = vec![
            Action::Get(self.prefix.journal()),
            Action::GetVersion(self.prefix.bundle()),
        ];
        let names = wanted.iter();
        then.extend(names.map(|name| Action::Get(self.prefix.state(name))));
        let read = Transaction {
            then,
            ..Transaction::default()
        };
        let Outcome { found, .. } = self.etcd.transact(read, ANSWER_WITHIN).await?;
        let mut found = found.into_iter();
        let journal = found.next().flatten();
        if found.next().flatten().is_some() {
            return Err(EtcdError::Refused("a large commit is being applied".into()));
        }
        let journal = match journal {
            None => Journal::default(),
            Some(entry) => Journal::read(&entry.value)
                .ok_or_else(|| EtcdError::Refused("the journal can't be read".into()))?,
        };
        let values = found.map(|entry| entry.map(|entry| entry.value));
        Ok((journal, wanted.iter().cloned().zip(values).collect()))
    }

    fn named(&self, entry: Entry) -> Option<(String, Vec<u8>)> {
        let root = self.prefix.state("");
        let key = entry.key.strip_prefix(&root)?.to_owned();
        Some((key, entry.value))
    }
}

#[cfg(test)]
mod tests;
