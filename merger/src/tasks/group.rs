//! Writes that went to their shard together have one record between them: the same parts, and a few words of each write's own.
//!
//! Their uids follow one another from the record's own. If their local task fails, each gets a record of its own
//! ([`Tasks::split`](super::Tasks::split)), since from then on they differ. So all writes of a shared record are always in the same
//! state.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::record::TaskRecord;

/// How many writes may share a record.
pub const MOST_MEMBERS: u32 = 512;

/// One of the writes that share a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// How many documents the write indexes if the local task succeeds.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub documents: u64,
    /// How many of the documents that were sent are the write's own; one that it names twice is sent twice.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub sent: u64,
    /// The client's `customMetadata`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<String>,
}

/// A task's share in a local task that several small writes were merged into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// How many documents the task indexes if the local task succeeds.
    pub documents: u64,
    /// Its position among the writes that were merged, from 0.
    pub place: u32,
    /// Which of the documents sent to the node belong to this write; a document that it names twice is sent twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Sent>,
}

/// A range of the documents that were sent to a node in one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// How many documents come before the range.
    pub before: u64,
    /// How many documents the range has.
    pub count: u64,
}

const fn one() -> u64 {
    1
}

fn is_one(count: &u64) -> bool {
    *count == 1
}

impl TaskRecord {
    /// The last uid of its tasks.
    pub fn last_uid(&self) -> u32 {
        let more = self.members.len().saturating_sub(1);
        self.uid
            .saturating_add(u32::try_from(more).unwrap_or(u32::MAX))
    }

    /// The uids of its tasks.
    pub fn uids(&self) -> impl DoubleEndedIterator<Item = u32> {
        (self.uid..=self.last_uid()).filter(|uid| self.holds(*uid))
    }

    /// How many tasks it is the record of.
    pub fn count(&self) -> usize {
        match self.members.is_empty() {
            true => 1,
            false => self.members.iter().flatten().count(),
        }
    }

    /// Whether it is the record of this task.
    pub fn holds(&self, uid: u32) -> bool {
        match self.members.is_empty() {
            true => uid == self.uid,
            false => self.member(uid).is_some(),
        }
    }

    /// Whether several writes share its local task.
    pub fn is_shared(&self) -> bool {
        self.share.is_some() || !self.members.is_empty()
    }

    /// A task's place in the record, counted from 1; 0 for a task with a record of its own.
    pub(super) fn place(&self, uid: u32) -> u16 {
        match self.members.is_empty() {
            true => 0,
            false => u16::try_from(uid.saturating_sub(self.uid) + 1).unwrap_or(u16::MAX),
        }
    }

    /// The record of one of its tasks, as if the task had one of its own; `None` if there is no such task.
    pub fn alone(&self, uid: u32) -> Option<Cow<'_, Self>> {
        if self.members.is_empty() {
            return (uid == self.uid).then_some(Cow::Borrowed(self));
        }
        let member = self.member(uid)?;
        let place = uid - self.uid;
        let earlier = self.members.iter().take(place as usize).flatten();
        let sent = Sent {
            before: earlier.map(|member| member.sent).sum(),
            count: member.sent,
        };
        let details = [
            ("receivedDocuments", Value::from(member.sent)),
            ("indexedDocuments", Value::Null),
        ];
        let details = details.map(|(name, value)| (name.to_owned(), value));
        Some(Cow::Owned(Self {
            uid,
            index_uid: self.index_uid.clone(),
            kind: self.kind.clone(),
            enqueued_at: self.enqueued_at,
            details: Map::from_iter(details),
            custom_metadata: member.custom_metadata.clone(),
            canceled_by: self.canceled_by,
            parts: self.parts.clone(),
            error: self.error.clone(),
            share: Some(Share {
                documents: member.documents,
                place,
                sent: Some(sent),
            }),
            read_back: self.read_back.clone(),
            touches: self.touches.clone(),
            members: Vec::new(),
        }))
    }

    /// The record of each of its tasks, as if it had one of its own.
    pub(super) fn all_alone(&self) -> impl Iterator<Item = Self> {
        let alone = self.uids().filter_map(|uid| self.alone(uid));
        alone.map(Cow::into_owned)
    }

    /// The record of its first task.
    pub(super) fn first_alone(&self) -> Cow<'_, Self> {
        let first = self.uids().next();
        let alone = first.and_then(|first| self.alone(first));
        alone.unwrap_or(Cow::Borrowed(self))
    }

    /// Takes a task out of the record; what is left may be nothing.
    pub(super) fn drop_member(&mut self, uid: u32) {
        let place = uid.checked_sub(self.uid).map(|place| place as usize);
        if let Some(member) = place.and_then(|place| self.members.get_mut(place)) {
            *member = None;
        }
    }

    fn member(&self, uid: u32) -> Option<&Member> {
        let place = uid.checked_sub(self.uid)?;
        self.members.get(place as usize)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_routing::placement::ShardId;

    use super::*;
    use crate::clock::now_utc;
    use crate::cluster::NodeId;
    use crate::tasks::{NewTask, ReplicaTask, ShardTask};

    fn member(documents: u64, sent: u64, metadata: Option<&str>) -> Member {
        Member {
            documents,
            sent,
            custom_metadata: metadata.map(str::to_owned),
        }
    }

    fn group(members: Vec<Member>) -> TaskRecord {
        let copy = ReplicaTask::acknowledged(NodeId::from("a".to_owned()), 3);
        let new = NewTask {
            kind: "documentAdditionOrUpdate".to_owned(),
            index_uid: Some("films".to_owned()),
            parts: vec![ShardTask::taken(ShardId(0), vec![copy])],
            members,
            ..NewTask::default()
        };
        new.into_record(10, now_utc())
    }

    #[test]
    fn each_task_has_its_own_documents_and_the_others_record() {
        let mut record = group(vec![
            member(1, 2, None),
            member(1, 1, Some("mine")),
            member(3, 3, None),
        ]);
        assert_eq!(record.uids().collect::<Vec<_>>(), [10, 11, 12]);
        assert_eq!((record.last_uid(), record.count()), (12, 3));
        let last = record.alone(12).unwrap().into_owned();
        let sent = Sent {
            before: 3,
            count: 3,
        };
        let share = Share {
            documents: 3,
            place: 2,
            sent: Some(sent),
        };
        assert_eq!((last.uid, last.share), (12, Some(share)));
        assert_eq!(last.details["receivedDocuments"], 3);
        assert_eq!(
            record.alone(11).unwrap().custom_metadata.as_deref(),
            Some("mine")
        );
        assert!(record.alone(9).is_none() && record.alone(13).is_none());
        record.drop_member(10);
        assert!(!record.holds(10) && record.alone(10).is_none());
        assert_eq!(record.first_alone().uid, 11);
        assert_eq!(record.alone(12).unwrap().share.unwrap().place, 2);
    }

    #[test]
    fn a_task_with_a_record_of_its_own_is_that_record() {
        let record = group(Vec::new());
        assert_eq!(record.uids().collect::<Vec<_>>(), [10]);
        assert!(matches!(record.alone(10), Some(Cow::Borrowed(_))));
        assert!(record.alone(11).is_none() && !record.is_shared());
        assert_eq!((record.place(10), record.count()), (0, 1));
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_most_writes_take_two_letters() {
        let mut record = group(vec![
            member(1, 1, None),
            member(1, 1, None),
            member(2, 1, Some("x")),
        ]);
        record.drop_member(11);
        let written = serde_json::to_value(&record).unwrap();
        let members = json!([{}, null, {"documents": 2, "customMetadata": "x"}]);
        assert_eq!(written["members"], members);
        let read: TaskRecord = serde_json::from_value(written).unwrap();
        assert_eq!(read.members, record.members);
    }
}
