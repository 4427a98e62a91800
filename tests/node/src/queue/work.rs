//! What a task has to do.

use milli_core::Object;
use milli_core::update::IndexDocumentsMethod;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::task::Kind;

/// Documents to add, staged in a file of the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Addition {
    /// The index; it is made if it isn't there.
    pub(crate) index: String,
    /// The primary key that the request named.
    pub(crate) primary_key: Option<String>,
    /// Whether a document takes the place of an older one, or completes it.
    pub(crate) method: IndexDocumentsMethod,
    /// The file's name among the payloads.
    pub(crate) payload: Uuid,
    /// How many documents it holds.
    pub(crate) documents: u64,
    /// Whether the client may create indexes.
    pub(crate) may_create: bool,
}

/// Two indexes that change places, or one that takes a free name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Swap {
    /// Both names.
    pub(crate) indexes: (String, String),
    /// Whether the second must be free.
    pub(crate) rename: bool,
}

/// What a task has to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Makes an empty index.
    CreateIndex {
        index: String,
        primary_key: Option<String>,
    },
    /// Sets the primary key of an index, or its name.
    UpdateIndex {
        index: String,
        primary_key: Option<String>,
        new_uid: Option<String>,
    },
    /// Removes an index.
    DeleteIndex { index: String },
    /// Changes the names of indexes, all or none.
    SwapIndexes { swaps: Vec<Swap> },
    /// Adds, replaces or completes documents.
    AddDocuments(Addition),
    /// Removes documents by their ids.
    DeleteDocuments { index: String, ids: Vec<String> },
    /// Removes the documents that match a filter.
    DeleteByFilter { index: String, filter: Value },
    /// Removes all documents.
    ClearDocuments { index: String },
    /// Changes documents by a function.
    EditDocuments {
        index: String,
        filter: Option<Value>,
        context: Option<Object>,
        function: String,
    },
    /// Changes settings; a `null` resets one.
    UpdateSettings {
        index: String,
        settings: Map<String, Value>,
        may_create: bool,
    },
    /// Cancels tasks that aren't done.
    CancelTasks { uids: Vec<u32> },
    /// Forgets tasks that are done.
    DeleteTasks { uids: Vec<u32> },
}

impl Work {
    /// The kind of task that does it.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Work::CreateIndex { .. } => Kind::IndexCreation,
            Work::UpdateIndex { .. } => Kind::IndexUpdate,
            Work::DeleteIndex { .. } => Kind::IndexDeletion,
            Work::SwapIndexes { .. } => Kind::IndexSwap,
            Work::AddDocuments(_) => Kind::DocumentAdditionOrUpdate,
            Work::DeleteDocuments { .. }
            | Work::DeleteByFilter { .. }
            | Work::ClearDocuments { .. } => Kind::DocumentDeletion,
            Work::EditDocuments { .. } => Kind::DocumentEdition,
            Work::UpdateSettings { .. } => Kind::SettingsUpdate,
            Work::CancelTasks { .. } => Kind::TaskCancelation,
            Work::DeleteTasks { .. } => Kind::TaskDeletion,
        }
    }

    /// The index it is about, if it is about one.
    pub(crate) fn index(&self) -> Option<&str> {
        match self {
            Work::CreateIndex { index, .. }
            | Work::UpdateIndex { index, .. }
            | Work::DeleteIndex { index }
            | Work::DeleteDocuments { index, .. }
            | Work::DeleteByFilter { index, .. }
            | Work::ClearDocuments { index }
            | Work::EditDocuments { index, .. }
            | Work::UpdateSettings { index, .. } => Some(index),
            Work::AddDocuments(addition) => Some(&addition.index),
            Work::SwapIndexes { .. } | Work::CancelTasks { .. } | Work::DeleteTasks { .. } => None,
        }
    }

    /// Every index that it touches.
    pub(crate) fn indexes(&self) -> Vec<&str> {
        match self {
            Work::SwapIndexes { swaps } => swaps
                .iter()
                .flat_map(|swap| [swap.indexes.0.as_str(), swap.indexes.1.as_str()])
                .collect(),
            Work::UpdateIndex {
                index,
                new_uid: Some(new_uid),
                ..
            } => vec![index, new_uid],
            _ => self.index().into_iter().collect(),
        }
    }

    /// Follows an index to its new name.
    pub(super) fn rename(&mut self, rename: &dyn Fn(&str) -> Option<String>) {
        let index = match self {
            Work::CreateIndex { index, .. }
            | Work::UpdateIndex { index, .. }
            | Work::DeleteIndex { index }
            | Work::DeleteDocuments { index, .. }
            | Work::DeleteByFilter { index, .. }
            | Work::ClearDocuments { index }
            | Work::EditDocuments { index, .. }
            | Work::UpdateSettings { index, .. } => index,
            Work::AddDocuments(addition) => &mut addition.index,
            Work::SwapIndexes { .. } | Work::CancelTasks { .. } | Work::DeleteTasks { .. } => {
                return;
            }
        };
        if let Some(name) = rename(index) {
            *index = name;
        }
    }

    /// The staged file that it needs.
    pub(crate) fn payload(&self) -> Option<Uuid> {
        match self {
            Work::AddDocuments(addition) => Some(addition.payload),
            _ => None,
        }
    }
}
