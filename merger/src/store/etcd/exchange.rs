//! One transaction after the other, each of them done once or not at all, whatever becomes of requests and answers.
//!
//! Each transaction writes its own id to one key, and has the id of the one before as a condition. So it can be sent any number of
//! times: it is done once, by whichever copy comes first. If a copy is refused and the key holds the transaction's own id, an
//! earlier copy was done. And copies that are still on their way can do no harm once the next transaction is done.

use std::sync::Arc;
use std::time::Duration;

use super::journal::{Journal, is_read_by_followers};
use super::patiently;
use crate::etcd::{
    AGAIN, ANSWER_WITHIN, Action, Condition, Entry, Etcd, EtcdError, Outcome, Prefix, Transaction,
    get,
};
use crate::leadership::Term;
use crate::store::{Expect, StoreError};

/// How long the first copy of a transaction may take; each further one has twice the time. A member of etcd that doesn't know yet
/// that its leader is gone gives no answer at all, and another copy does no harm.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// The leader's way to change something.
pub(super) struct Exchange {
    pub(super) etcd: Arc<dyn Etcd>,
    pub(super) prefix: Prefix,
    term: Term,
    /// What the key of the last commit holds.
    last: Option<Vec<u8>>,
    /// What the journal holds.
    journal: Journal,
    /// A text that no other exchange has, so that no two transactions ever have the same id.
    own: String,
    count: u64,
}

/// What became of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Exchanged {
    /// It was done.
    Done,
    /// It was not done: some key isn't as expected. These are their versions, in order.
    Differs(Vec<Option<u64>>),
}

impl Exchange {
    pub(super) async fn begin(
        etcd: Arc<dyn Etcd>,
        prefix: Prefix,
        term: Term,
    ) -> Result<Self, StoreError> {
        // What an earlier leader has sent can't be done any more, since the leader's key has another revision.
        let last = patiently(|| get(&*etcd, prefix.commit())).await?;
        let journal = patiently(|| get(&*etcd, prefix.journal())).await?;
        let journal = match journal {
            None => Journal::default(),
            Some(entry) => Journal::read(&entry.value)
                .ok_or_else(|| StoreError::Failed("the journal can't be read".into()))?,
        };
        Ok(Self {
            etcd,
            prefix,
            term,
            last: last.map(|entry| entry.value),
            journal,
            own: uuid::Uuid::new_v4().simple().to_string(),
            count: 0,
        })
    }

    /// Whether this merger still leads, as far as it knows.
    pub(super) fn leads(&self) -> bool {
        self.term.fence().is_open()
    }

    /// A change of the state as an action.
    pub(super) fn change(&self, key: &str, value: Option<&Vec<u8>>) -> Action {
        let key = self.prefix.state(key);
        match value {
            Some(value) => Action::put(key, value.clone()),
            None => Action::Delete(key),
        }
    }

    /// Does all actions, or none of them if a key of the state isn't as expected.
    ///
    /// # Errors
    /// Nothing was done; but after [`StoreError::Unsettled`] nobody knows.
    pub(super) async fn send(
        &mut self,
        expected: &[(String, Expect)],
        mut actions: Vec<Action>,
    ) -> Result<Exchanged, StoreError> {
        self.count += 1;
        let id = format!("{}-{}", self.own, self.count).into_bytes();
        let journal = self.journal_after(&actions);
        if let Some(journal) = &journal {
            actions.push(Action::put(self.prefix.journal(), journal.write()));
        }
        let transaction = self.transaction(&id, expected, actions);
        let mut unanswered = 0_u32;
        let mut within = FIRST_ANSWER_WITHIN;
        loop {
            let copy = transaction.clone();
            match self.etcd.transact(copy, within).await {
                Ok(outcome) => {
                    let exchanged = self.judge(id, outcome, unanswered > 0)?;
                    if let (Exchanged::Done, Some(journal)) = (&exchanged, journal) {
                        self.journal = journal;
                    }
                    return Ok(exchanged);
                }
                Err(error) if !error.may_have_been_done() && unanswered == 0 => {
                    return Err(error.into());
                }
                Err(error) => self.go_on(&error, &mut unanswered)?,
            }
            within = (within * 2).min(ANSWER_WITHIN);
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The journal after these actions; `None` if followers read nothing that they change.
    fn journal_after(&self, actions: &[Action]) -> Option<Journal> {
        let root = self.prefix.state("");
        let changed = actions.iter().filter_map(|action| match action {
            Action::Put { key, .. } | Action::Delete(key) => key.strip_prefix(&root),
            _ => None,
        });
        let mut changed = changed.filter(|key| is_read_by_followers(key)).peekable();
        changed.peek()?;
        Some(self.journal.with(changed))
    }

    /// After a copy without a clear answer: whether it is worth sending another one.
    fn go_on(&self, error: &EtcdError, unanswered: &mut u32) -> Result<(), StoreError> {
        if *unanswered == 0 {
            tracing::warn!(%error, "a commit is not settled yet: it is sent again");
        }
        *unanswered += 1;
        // By then somebody else may lead, and what this merger does no longer matters.
        match self.leads() {
            true => Ok(()),
            false => Err(StoreError::Unsettled),
        }
    }

    fn transaction(
        &self,
        id: &[u8],
        expected: &[(String, Expect)],
        actions: Vec<Action>,
    ) -> Transaction {
        let (leader, commit) = (self.prefix.leader(), self.prefix.commit());
        let mut when = vec![
            Condition::Created(leader.clone(), self.term.created()),
            match &self.last {
                Some(last) => Condition::Value(commit.clone(), last.clone()),
                None => Condition::Version(commit.clone(), 0),
            },
        ];
        let mut otherwise = vec![Action::Get(leader), Action::Get(commit.clone())];
        for (key, expect) in expected {
            let key = self.prefix.state(key);
            otherwise.push(Action::GetVersion(key.clone()));
            match expect {
                Expect::Anything => {}
                Expect::Absent => when.push(Condition::Version(key, 0)),
                Expect::Version(version) => when.push(Condition::Version(key, *version)),
            }
        }
        let mut then = actions;
        then.push(Action::put(commit, id.to_vec()));
        Transaction {
            when,
            then,
            otherwise,
        }
    }

    fn judge(
        &mut self,
        id: Vec<u8>,
        outcome: Outcome,
        unanswered: bool,
    ) -> Result<Exchanged, StoreError> {
        let mut found = outcome.found.into_iter();
        let (leader, commit) = match outcome.held {
            true => (None, None),
            false => (found.next().flatten(), found.next().flatten()),
        };
        let commit = commit.map(|entry: Entry| entry.value);
        if outcome.held || commit.as_ref() == Some(&id) {
            self.last = Some(id);
            return Ok(Exchanged::Done);
        }
        let leads = leader.is_some_and(|entry| entry.created == self.term.created());
        if leads && commit == self.last {
            let version = |entry: Option<Entry>| entry.map(|entry| entry.version);
            return Ok(Exchanged::Differs(found.map(version).collect()));
        }
        self.term.fence().close();
        // If the key holds what it held before, no copy was done, and none can be any more.
        match unanswered && commit != self.last {
            true => Err(StoreError::Unsettled),
            false => Err(StoreError::NotLeader),
        }
    }
}
