//! The work that a task does.

use milli_core::Object;
use milli_core::update::IndexDocumentsMethod;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::task::Kind;

/// Documents to add, staged in a file of the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Addition {
    /// The index; it is created if it doesn't exist.
    pub(crate) index: String,
    /// The primary key that the request named.
    pub(crate) primary_key: Option<String>,
    /// Whether a document replaces an older one, or is merged into it.
    pub(crate) method: IndexDocumentsMethod,
    /// The name of its file among the payloads.
    pub(crate) payload: Uuid,
    /// The number of documents in it.
    pub(crate) documents: u64,
    /// True if the client may create indexes.
    pub(crate) may_create: bool,
}

/// Two indexes whose names are swapped, or one index that gets an unused name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Swap {
    /// Both names.
    pub(crate) indexes: (String, String),
    /// True if the second name must be unused.
    pub(crate) rename: bool,
}

/// The work that a task does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Creates an empty index.
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
    /// Swaps the names of indexes, all pairs or none.
    SwapIndexes { swaps: Vec<Swap> },
    /// Adds, replaces or updates documents.
    AddDocuments(Addition),
    /// Removes documents by their ids.
    DeleteDocuments { index: String, ids: Vec<String> },
    /// Removes the documents that match a filter.
    DeleteByFilter { index: String, filter: Value },
    /// Removes all documents.
    ClearDocuments { index: String },
    /// Changes documents with a function.
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
    /// Cancels unfinished tasks.
    CancelTasks { uids: Vec<u32> },
    /// Deletes finished tasks.
    DeleteTasks { uids: Vec<u32> },
}

impl Work {
    /// The kind of the task that does this work.
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

    /// The index that it concerns, if there is exactly one.
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

    /// Every index that it concerns.
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

    /// Changes its index's name to the new one.
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
