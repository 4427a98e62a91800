//! Several mergers on one etcd: the way to it, as a trait.
//!
//! ```text
//! EtcdClient (one connection an endpoint, deadlines) ─┐         ┌─► leadership: lease and leader's key ─► Fence ─► upstream
//! Simulated (tests: lost, late and missing answers) ──┴─► Etcd ─┤                                     └─► Term ──┐
//!                                                               └─► store::etcd: get, range; commits queue        ▼
//!                          queue ─► group ─► one transaction, if: Term holds, last commit's id, expected versions
//!                          larger ─► bundle: parts stored ─► marked as committed ─► applied in steps by whoever opens the store
//! ```
//!
//! Below the prefix of a cluster stand ([`Prefix`]): `leader` (who leads, with a lease), `cluster` and `format` (whose state it is,
//! and how it is written), `commit` (the id of the last commit), `bundle…` (a large commit under way), `copying` (a copy that
//! isn't finished), `journal` (what changed last of what followers read), `merger/…` (who is there, each with a lease), and
//! `state/…`, the entries themselves. Versions of entries are etcd's own.
//!
//! A request that got no answer may have been done, or may still be done later: [`EtcdError::NoAnswer`]. All that changes something
//! is therefore a transaction whose conditions let it happen once, and is sent again until there is an answer.

mod client;
mod options;
#[cfg(test)]
pub(crate) mod simulated;

use std::str::FromStr;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use self::client::EtcdClient;
pub(crate) use self::options::read_file;
pub use self::options::{EtcdOptions, OptionsError, Secret};

/// How many operations, and how many conditions, a transaction may have: etcd's default.
pub const MOST_OPERATIONS: usize = 128;

/// How long a read or a transaction may take before it goes to another endpoint.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The pause between attempts.
pub const AGAIN: Duration = Duration::from_millis(100);

/// The keys of one cluster: a text that they begin with, which ends with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

/// A prefix is empty, or has letters that it may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a prefix is a text without spaces such as `/weft/`, and not `/` alone")]
pub struct BadPrefix;

impl FromStr for Prefix {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        let bare = text.trim_end_matches('/');
        if bare.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(BadPrefix);
        }
        Ok(Self(format!("{bare}/")))
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Prefix {
    /// Names the leader.
    pub fn leader(&self) -> String {
        format!("{}leader", self.0)
    }

    /// The cluster's id.
    pub fn cluster(&self) -> String {
        format!("{}cluster", self.0)
    }

    /// The format of the state.
    pub fn format(&self) -> String {
        format!("{}format", self.0)
    }

    /// The id of the last commit.
    pub fn commit(&self) -> String {
        format!("{}commit", self.0)
    }

    /// Says that a large commit is decided, and how much of it is applied.
    pub fn bundle(&self) -> String {
        format!("{}bundle", self.0)
    }

    /// The parts of a large commit begin with this.
    pub fn bundle_parts(&self) -> String {
        format!("{}bundle/", self.0)
    }

    /// One part of a large commit.
    pub fn bundle_part(&self, number: usize) -> String {
        format!("{}bundle/{number:08}", self.0)
    }

    /// Says that the state is being copied in from elsewhere.
    pub fn copying(&self) -> String {
        format!("{}copying", self.0)
    }

    /// The names of the entries that changed last, of those that followers read.
    pub fn journal(&self) -> String {
        format!("{}journal", self.0)
    }

    /// A merger's registration, or the prefix of all of them.
    pub fn merger(&self, id: &str) -> String {
        format!("{}merger/{id}", self.0)
    }

    /// An entry of the store, or a prefix of such.
    pub fn state(&self, key: &str) -> String {
        format!("{}state/{key}", self.0)
    }
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The bytes; empty where only keys were asked for.
    pub value: Vec<u8>,
    /// Counts the changes of the key from 1; it starts again after a deletion.
    pub version: u64,
    /// The revision in which the key was made.
    pub created: i64,
    /// The lease that the key ends with, or 0.
    pub lease: i64,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key was made in this revision; 0 means that there is no such key.
    Created(String, i64),
    /// The key has this version; 0 means that there is no such key.
    Version(String, u64),
    /// The key holds these bytes.
    Value(String, Vec<u8>),
}

/// What a transaction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sets a key; it goes with the lease, if there is one.
    Put {
        /// The key.
        key: String,
        /// The bytes.
        value: Vec<u8>,
        /// The lease, or 0.
        lease: i64,
    },
    /// Deletes a key.
    Delete(String),
    /// Deletes all keys that begin with this.
    DeleteAll(String),
    /// Reads a key.
    Get(String),
    /// Reads all of a key but its value.
    GetVersion(String),
}

impl Action {
    /// Whether it changes nothing.
    pub fn reads(&self) -> bool {
        matches!(self, Self::Get(_) | Self::GetVersion(_))
    }

    /// Sets a key that belongs to no lease.
    pub fn put(key: String, value: Vec<u8>) -> Self {
        let lease = 0;
        Self::Put { key, value, lease }
    }
}

/// A transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold.
    pub when: Vec<Condition>,
    /// What is done if it holds.
    pub then: Vec<Action>,
    /// What is done if it doesn't.
    pub otherwise: Vec<Action>,
}

/// What a transaction found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the conditions held.
    pub held: bool,
    /// The result of each reading action that was done, in order.
    pub found: Vec<Option<Entry>>,
}

/// A part of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries in the order of their keys.
    pub entries: Vec<Entry>,
    /// Whether there are more.
    pub more: bool,
    /// The revision that was read.
    pub revision: i64,
}

/// Which part of a range is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The first key.
    pub from: String,
    /// The keys begin with this.
    pub prefix: String,
    /// How many entries at most.
    pub limit: usize,
    /// As of which revision; 0 means the newest.
    pub revision: i64,
}

/// A lease that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Its id.
    pub id: i64,
    /// How long it lasts without renewal, counted from some moment between request and answer.
    pub lasts: Duration,
}

/// Why etcd did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// There was no answer: it may have been done, may be done yet, or never.
    #[error("etcd gave no answer: {0}")]
    NoAnswer(String),
    /// It was not done.
    #[error("etcd refused: {0}")]
    Refused(String),
    /// The user, the password, or a certificate is not accepted. It was not done.
    #[error("{0}")]
    Denied(String),
    /// The revision that was asked for is no longer known.
    #[error("that revision of etcd's history is gone")]
    Compacted,
    /// The answer is larger than what is read at once.
    #[error("etcd's answer is larger than what is read at once")]
    TooMuch,
}

impl EtcdError {
    /// Whether the request may have been done, or may still be.
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, Self::NoAnswer(_))
    }
}

/// An etcd: the real one, or a simulated one in tests. Each call ends within `within`.
pub trait Etcd: Send + Sync {
    /// Does a transaction.
    fn transact(
        &self,
        transaction: Transaction,
        within: Duration,
    ) -> BoxFuture<'_, Result<Outcome, EtcdError>>;

    /// Reads a part of a range. What was committed before is seen, whoever committed it.
    fn page(&self, ask: Ask, within: Duration) -> BoxFuture<'_, Result<Page, EtcdError>>;

    /// Grants a lease of whole seconds. It may be longer than wanted.
    fn grant(&self, seconds: u32, within: Duration) -> BoxFuture<'_, Result<Granted, EtcdError>>;

    /// Gives a lease all of its time again; `false` if it has ended.
    fn renew(&self, lease: i64, within: Duration) -> BoxFuture<'_, Result<bool, EtcdError>>;

    /// How much of its time a lease has left; `None` if it has ended.
    fn time_left(
        &self,
        lease: i64,
        within: Duration,
    ) -> BoxFuture<'_, Result<Option<Duration>, EtcdError>>;

    /// Ends a lease, and with it all keys that belong to it.
    fn revoke(&self, lease: i64, within: Duration) -> BoxFuture<'_, Result<(), EtcdError>>;

    /// Forgets the history before this revision.
    fn compact(&self, revision: i64, within: Duration) -> BoxFuture<'_, Result<(), EtcdError>>;
}

/// Reads one key, once.
///
/// # Errors
/// There was no answer.
pub async fn get(etcd: &dyn Etcd, key: String) -> Result<Option<Entry>, EtcdError> {
    let then = vec![Action::Get(key)];
    let read = Transaction {
        then,
        ..Transaction::default()
    };
    let outcome = etcd.transact(read, ANSWER_WITHIN).await?;
    Ok(outcome.found.into_iter().next().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_with_one_slash_and_is_never_everything() {
        let prefix = |text: &str| text.parse::<Prefix>();
        assert_eq!(prefix("/weft").unwrap().leader(), "/weft/leader");
        assert_eq!(prefix("/a/b//").unwrap().state("x"), "/a/b/state/x");
        for bad in ["", "/", "//", "/we ft/"] {
            assert_eq!(prefix(bad), Err(BadPrefix), "{bad:?}");
        }
    }
}
