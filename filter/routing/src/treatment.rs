//! What Weft does with each operation. The table in `filter/README.md` is checked against this one.

use crate::operation::{Operation, Setting};

/// How an operation is served by a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Sent to the shards that own what it names: each document to its owner, or to any shard if all are the same.
    Routed,
    /// Sent to every shard of the index (or to those that can match), and the answers are merged by rank or order.
    FannedOut,
    /// The same change is made on every shard, verified, as one task.
    Broadcast,
    /// Every shard (or node) is asked, and the answers are added up.
    Aggregated,
    /// Answered from Weft's own state.
    Answered,
    /// Refused with 501, for this reason.
    Refused(&'static str),
}

/// Why chat completions are refused.
const CHAT: &str =
    "a chat completion searches from inside one node, which would see only its own shard";
/// Why search rules are refused.
const RULES: &str =
    "a search rule pins documents within one node's ranking, not within the merged one";
/// Why node logs are refused.
const LOGS: &str = "logs belong to a node: ask the node itself";
/// Why Meilisearch's own network is refused.
const NETWORK: &str = "Weft shards the cluster itself; a node's own network would shard it twice";

impl Operation {
    /// What Weft does with the operation.
    #[must_use]
    pub fn treatment(self) -> Treatment {
        use Treatment as T;
        match self {
            Self::ReplaceDocuments
            | Self::UpdateDocuments
            | Self::DeleteDocumentsBatch
            | Self::GetDocument
            | Self::DeleteDocument
            | Self::GetSettings
            | Self::GetSetting(_)
            | Self::ListKeys
            | Self::GetKey
            | Self::GetFeatures
            | Self::GetNetwork
            | Self::RenderTemplate
            | Self::ListChats
            | Self::GetChat
            | Self::GetChatSettings => T::Routed,
            Self::SearchGet
            | Self::SearchPost
            | Self::MultiSearch
            | Self::FacetSearch
            | Self::SimilarGet
            | Self::SimilarPost
            | Self::ListDocuments
            | Self::FetchDocuments => T::FannedOut,
            Self::CreateIndex
            | Self::UpdateIndex
            | Self::DeleteIndex
            | Self::CompactIndex
            | Self::SwapIndexes
            | Self::ClearDocuments
            | Self::DeleteDocumentsByFilter
            | Self::EditDocuments
            | Self::UpdateSettings
            | Self::ResetSettings
            | Self::UpdateSetting(_)
            | Self::ResetSetting(_)
            | Self::CreateKey
            | Self::UpdateKey
            | Self::DeleteKey
            | Self::UpdateFeatures
            | Self::UpdateChatSettings
            | Self::ResetChatSettings
            | Self::DeleteChat
            | Self::CreateDump
            | Self::CreateSnapshot
            | Self::Export => T::Broadcast,
            Self::ListIndexes
            | Self::GetIndex
            | Self::IndexStats
            | Self::ListFields
            | Self::Stats
            | Self::Version
            | Self::GetTaskDocuments => T::Aggregated,
            Self::Health
            | Self::Metrics
            | Self::ListTasks
            | Self::GetTask
            | Self::DeleteTasks
            | Self::CancelTasks
            | Self::CompactTasks
            | Self::ListBatches
            | Self::GetBatch
            | Self::ListWebhooks
            | Self::CreateWebhook
            | Self::GetWebhook
            | Self::UpdateWebhook
            | Self::DeleteWebhook
            | Self::IndexShards
            | Self::Cluster
            | Self::Internal => T::Answered,
            Self::CompleteChat => T::Refused(CHAT),
            Self::ListSearchRules
            | Self::ClearSearchRules
            | Self::GetSearchRule
            | Self::UpdateSearchRule
            | Self::DeleteSearchRule => T::Refused(RULES),
            Self::UpdateLogTarget | Self::StreamLogs | Self::CancelLogStream => T::Refused(LOGS),
            Self::UpdateNetwork | Self::ControlNetwork => T::Refused(NETWORK),
        }
    }

    /// True if the operation only reads one index, and a shard that holds the whole index answers it as the cluster would.
    ///
    /// False for answers with times, sizes or tasks (`GET /indexes/{uid}`, stats), where replicas of one shard may differ,
    /// so the merger asks the primary; and false for operations that read more than one index.
    #[must_use]
    pub fn is_whole_on_one_shard(self) -> bool {
        match self {
            Self::SearchGet
            | Self::SearchPost
            | Self::FacetSearch
            | Self::SimilarGet
            | Self::SimilarPost
            | Self::ListDocuments
            | Self::FetchDocuments
            | Self::GetDocument
            | Self::ListFields
            | Self::GetSettings => true,
            // The chat setting belongs to an experimental feature whose completions Weft refuses.
            Self::GetSetting(setting) => setting != Setting::Chat,
            _ => false,
        }
    }

    /// True for the operations that change nothing on a node although their method is `POST`.
    #[must_use]
    pub fn reads_by_post(self) -> bool {
        matches!(
            self,
            Self::SearchPost
                | Self::MultiSearch
                | Self::FacetSearch
                | Self::SimilarPost
                | Self::FetchDocuments
                | Self::ListFields
                | Self::ListSearchRules
                | Self::RenderTemplate
        )
    }

    /// True for the writes that name their documents by id in a body.
    #[must_use]
    pub fn writes_named_documents(self) -> bool {
        matches!(
            self,
            Self::ReplaceDocuments | Self::UpdateDocuments | Self::DeleteDocumentsBatch
        )
    }

    /// True for every write of documents of one index, however it names them.
    #[must_use]
    pub fn writes_documents(self) -> bool {
        self.writes_named_documents()
            || matches!(
                self,
                Self::DeleteDocument
                    | Self::DeleteDocumentsByFilter
                    | Self::EditDocuments
                    | Self::ClearDocuments
            )
    }

    /// True for the changes of an index's settings.
    #[must_use]
    pub fn changes_settings(self) -> bool {
        matches!(
            self,
            Self::UpdateSettings
                | Self::ResetSettings
                | Self::UpdateSetting(_)
                | Self::ResetSetting(_)
        )
    }

    /// True for what creates, changes, deletes or renames indexes.
    #[must_use]
    pub fn changes_indexes(self) -> bool {
        matches!(
            self,
            Self::CreateIndex | Self::UpdateIndex | Self::DeleteIndex | Self::SwapIndexes
        )
    }
}
