//! A task: one write as its client sees it, from `enqueued` until its end.

use deserr::Deserr;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::work::Work;
use crate::errors::ApiError;
use crate::validate::{FromText, Wrong};

macro_rules! names {
    ($(#[$doc:meta])* $type:ident, $what:literal, $all:literal: $($variant:ident $name:literal,)+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Deserr)]
        #[allow(missing_docs, reason = "the names are the protocol's own")]
        pub(crate) enum $type {
            $(#[serde(rename = $name)] #[deserr(rename = $name)] $variant,)+
        }

        impl $type {
            /// The name in the API.
            pub(crate) fn name(self) -> &'static str {
                match self { $($type::$variant => $name,)+ }
            }
        }

        impl FromText for $type {
            fn from_text(text: &str) -> Result<Self, Wrong> {
                $(if text.eq_ignore_ascii_case($name) { return Ok($type::$variant); })+
                let known = [$(concat!("`", $name, "`")),+].join(", ");
                Err(Wrong(format!("`{text}` is not a valid task {}. Available {} are {known}.", $what, $all)))
            }
        }
    };
}

names! {
    /// The status of a task.
    Status, "status", "statuses":
    Enqueued "enqueued",
    Processing "processing",
    Succeeded "succeeded",
    Failed "failed",
    Canceled "canceled",
}

names! {
    /// The kind of a task. Some kinds exist only so that a filter may name them.
    Kind, "type", "types":
    DocumentAdditionOrUpdate "documentAdditionOrUpdate",
    DocumentEdition "documentEdition",
    DocumentDeletion "documentDeletion",
    SettingsUpdate "settingsUpdate",
    IndexCreation "indexCreation",
    IndexDeletion "indexDeletion",
    IndexUpdate "indexUpdate",
    IndexSwap "indexSwap",
    TaskCancelation "taskCancelation",
    TaskDeletion "taskDeletion",
    DumpCreation "dumpCreation",
    SnapshotCreation "snapshotCreation",
    Export "export",
    UpgradeDatabase "upgradeDatabase",
    IndexCompaction "indexCompaction",
    NetworkTopologyChange "networkTopologyChange",
    DsrUpdate "dsrUpdate",
    DsrClear "dsrClear",
}

/// A task, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The task's number on this node.
    pub(crate) uid: u32,
    /// The batch that executed it.
    pub(crate) batch: Option<u32>,
    /// The task's status.
    pub(crate) status: Status,
    /// The work that the task does.
    pub(crate) work: Work,
    /// The task that canceled it.
    pub(crate) canceled_by: Option<u32>,
    /// The details that are shown: numbers known from the start, and `null` for those that aren't known yet.
    pub(crate) details: Map<String, Value>,
    /// Why it failed.
    pub(crate) error: Option<ApiError>,
    /// The client's own text, shown with the task.
    pub(crate) custom_metadata: Option<String>,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) enqueued_at: OffsetDateTime,
    /// When its batch began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) finished_at: Option<OffsetDateTime>,
}

impl Task {
    /// True if the task has ended.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(
            self.status,
            Status::Succeeded | Status::Failed | Status::Canceled
        )
    }

    /// The answer to the client that has just sent the write.
    pub(crate) fn summary(&self) -> Value {
        let mut view = json!({
            "taskUid": self.uid,
            "indexUid": self.work.index(),
            "status": self.status,
            "type": self.work.kind(),
            "enqueuedAt": date(self.enqueued_at),
        });
        self.show_metadata(&mut view);
        view
    }

    /// The whole task in the form of the API.
    pub(crate) fn view(&self) -> Value {
        let duration = self
            .started_at
            .zip(self.finished_at)
            .map(|(start, end)| duration(end - start));
        let mut view = json!({
            "uid": self.uid,
            "batchUid": self.batch,
            "indexUid": self.work.index(),
            "status": self.status,
            "type": self.work.kind(),
            "canceledBy": self.canceled_by,
            "details": self.details,
            "error": self.error,
            "duration": duration,
            "enqueuedAt": date(self.enqueued_at),
            "startedAt": self.started_at.map(date),
            "finishedAt": self.finished_at.map(date),
        });
        self.show_metadata(&mut view);
        view
    }

    fn show_metadata(&self, view: &mut Value) {
        if let (Some(metadata), Value::Object(view)) = (&self.custom_metadata, view) {
            view.insert("customMetadata".to_owned(), Value::from(metadata.as_str()));
        }
    }

    /// Changes the task to its index's new name; true if the task concerned that index.
    pub(crate) fn rename(&mut self, rename: &dyn Fn(&str) -> Option<String>) -> bool {
        let concerned = self
            .work
            .index()
            .is_some_and(|index| rename(index).is_some());
        self.work.rename(rename);
        concerned
    }

    /// Sets all counts that aren't known yet to zero, for a task that did nothing.
    pub(crate) fn zero_counts(&mut self) {
        const COUNTS: [&str; 5] = [
            "indexedDocuments",
            "editedDocuments",
            "deletedDocuments",
            "canceledTasks",
            "deletedTasks",
        ];
        // For a failed edition, `deletedDocuments` stays `null`.
        let is_edition = self.details.contains_key("editedDocuments");
        for count in COUNTS {
            if is_edition && count == "deletedDocuments" {
                continue;
            }
            if let Some(value) = self.details.get_mut(count) {
                *value = Value::from(0);
            }
        }
    }
}

/// A date in Meilisearch's format.
pub(crate) fn date(date: OffsetDateTime) -> String {
    date.format(&Rfc3339).unwrap_or_default()
}

/// A duration in ISO 8601 format, in seconds.
pub(crate) fn duration(span: Duration) -> String {
    format!(
        "PT{}.{:09}S",
        span.whole_seconds(),
        span.subsec_nanoseconds()
    )
}
