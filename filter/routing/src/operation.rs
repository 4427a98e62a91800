//! Maps method and path to one of the API's operations, as a node does.
//!
//! A node removes slashes at the end, merges neighbouring slashes, decodes the path except `%25 %2F %2B`, matches it
//! literally (fixed names before parameters, so `documents/fetch` is never a document), and then decodes each parameter
//! completely. A known path with a method that it doesn't have gives 405, an unknown path 404.

mod named;
mod path;
mod setting;

use std::borrow::Cow;

pub use named::NamedOperation;
pub use setting::Setting;

use path::Segments;

/// An operation of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(
    missing_docs,
    reason = "each variant is named for what it does; `name` and the path table say the rest"
)]
pub enum Operation {
    ListBatches,
    GetBatch,
    ListChats,
    GetChat,
    DeleteChat,
    CompleteChat,
    GetChatSettings,
    UpdateChatSettings,
    ResetChatSettings,
    CreateDump,
    ListSearchRules,
    ClearSearchRules,
    GetSearchRule,
    UpdateSearchRule,
    DeleteSearchRule,
    GetFeatures,
    UpdateFeatures,
    Export,
    Health,
    ListIndexes,
    CreateIndex,
    GetIndex,
    UpdateIndex,
    DeleteIndex,
    CompactIndex,
    ListDocuments,
    /// `POST …/documents`: add or replace.
    ReplaceDocuments,
    /// `PUT …/documents`: add or update, field by field.
    UpdateDocuments,
    ClearDocuments,
    DeleteDocumentsByFilter,
    DeleteDocumentsBatch,
    EditDocuments,
    FetchDocuments,
    GetDocument,
    DeleteDocument,
    FacetSearch,
    ListFields,
    SearchGet,
    SearchPost,
    GetSettings,
    UpdateSettings,
    ResetSettings,
    GetSetting(Setting),
    UpdateSetting(Setting),
    ResetSetting(Setting),
    SimilarGet,
    SimilarPost,
    IndexStats,
    ListKeys,
    CreateKey,
    GetKey,
    UpdateKey,
    DeleteKey,
    UpdateLogTarget,
    StreamLogs,
    CancelLogStream,
    Metrics,
    MultiSearch,
    GetNetwork,
    UpdateNetwork,
    ControlNetwork,
    RenderTemplate,
    CreateSnapshot,
    Stats,
    SwapIndexes,
    ListTasks,
    DeleteTasks,
    CancelTasks,
    CompactTasks,
    GetTask,
    GetTaskDocuments,
    Version,
    ListWebhooks,
    CreateWebhook,
    GetWebhook,
    UpdateWebhook,
    DeleteWebhook,
    /// Weft's own: `GET /indexes/{uid}/_shards`.
    IndexShards,
    /// Weft's own: anything below `/_cluster`; [`Classified::item`] holds the rest of the path.
    Cluster,
    /// Between the filter and the merger: anything below `/_weft`, never allowed for clients. [`Classified::item`] as for
    /// [`Operation::Cluster`].
    Internal,
}

/// A classified request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified<'a> {
    /// The requested operation.
    pub operation: Operation,
    /// The uid of the index in the path, decoded but not validated.
    pub index: Option<Cow<'a, str>>,
    /// The document id in the path, decoded but not validated.
    pub document: Option<Cow<'a, str>>,
    /// Any other item that the path names: a task, batch, key, webhook, chat workspace or search rule; for
    /// [`Operation::Cluster`] and [`Operation::Internal`] the rest of the path, without a slash at either end.
    pub item: Option<Cow<'a, str>>,
    /// The text after the `?`, as it was sent; empty if there is none.
    pub query: &'a str,
}

/// Why a request isn't one of the API's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassifyError {
    /// A node answers 404 with an empty body.
    #[error("no operation has this path")]
    UnknownPath,
    /// A node answers 405 with an empty body.
    #[error("the path has no such method")]
    MethodNotAllowed,
}

/// Classifies a request by its method (upper case, as sent) and its path with the query.
///
/// # Errors
/// The same as a node: [`ClassifyError`].
pub fn classify<'a>(
    method: &str,
    path_and_query: &'a str,
) -> Result<Classified<'a>, ClassifyError> {
    let without_fragment = path_and_query.split('#').next().unwrap_or_default();
    let (path, query) = without_fragment
        .split_once('?')
        .unwrap_or((without_fragment, ""));
    if !path.starts_with('/') {
        return Err(ClassifyError::UnknownPath);
    }
    if path.contains('%') {
        let decoded = path::decode_but_separators(path);
        let matched = Segments::split(&decoded).ok_or(ClassifyError::UnknownPath)?;
        let Matched {
            operation,
            index,
            document,
            item,
        } = match_path(method, &matched)?;
        let decode = |part: Option<Cow<'_, str>>| part.map(|part| Cow::Owned(path::decode(&part)));
        let (index, document, item) = (decode(index), decode(document), decode(item));
        return Ok(Classified {
            operation,
            index,
            document,
            item,
            query,
        });
    }
    let segments = Segments::split(path).ok_or(ClassifyError::UnknownPath)?;
    let Matched {
        operation,
        index,
        document,
        item,
    } = match_path(method, &segments)?;
    Ok(Classified {
        operation,
        index,
        document,
        item,
        query,
    })
}

struct Matched<'p> {
    operation: Operation,
    index: Option<Cow<'p, str>>,
    document: Option<Cow<'p, str>>,
    item: Option<Cow<'p, str>>,
}

/// The methods of one path.
type Methods = [(&'static str, Operation)];

/// The whole API: every path with its methods.
fn match_path<'p>(method: &str, path: &Segments<'p>) -> Result<Matched<'p>, ClassifyError> {
    use Operation as Op;
    let of_item = |item: &'p str, methods: &Methods| {
        let operation = choose(method, methods)?;
        Ok(Matched {
            operation,
            index: None,
            document: None,
            item: Some(Cow::Borrowed(item)),
        })
    };
    let plain = |methods: &Methods| {
        let operation = choose(method, methods)?;
        Ok(Matched {
            operation,
            index: None,
            document: None,
            item: None,
        })
    };
    match path.as_slice() {
        ["indexes", index, rest @ ..] => {
            let (operation, document) = match_index_path(method, rest)?;
            let (index, document) = (Some(Cow::Borrowed(*index)), document.map(Cow::Borrowed));
            Ok(Matched {
                operation,
                index,
                document,
                item: None,
            })
        }
        ["indexes"] => plain(&[("GET", Op::ListIndexes), ("POST", Op::CreateIndex)]),
        ["multi-search"] => plain(&[("POST", Op::MultiSearch)]),
        ["tasks"] => plain(&[("GET", Op::ListTasks), ("DELETE", Op::DeleteTasks)]),
        ["tasks", "cancel"] => plain(&[("POST", Op::CancelTasks)]),
        ["tasks", "compact"] => plain(&[("POST", Op::CompactTasks)]),
        ["tasks", task] => of_item(task, &[("GET", Op::GetTask)]),
        ["tasks", task, "documents"] => of_item(task, &[("GET", Op::GetTaskDocuments)]),
        ["batches"] => plain(&[("GET", Op::ListBatches)]),
        ["batches", batch] => of_item(batch, &[("GET", Op::GetBatch)]),
        ["health"] => plain(&[("GET", Op::Health)]),
        ["version"] => plain(&[("GET", Op::Version)]),
        ["stats"] => plain(&[("GET", Op::Stats)]),
        ["metrics"] => plain(&[("GET", Op::Metrics)]),
        ["keys"] => plain(&[("GET", Op::ListKeys), ("POST", Op::CreateKey)]),
        ["keys", key] => of_item(
            key,
            &[
                ("GET", Op::GetKey),
                ("PATCH", Op::UpdateKey),
                ("DELETE", Op::DeleteKey),
            ],
        ),
        ["swap-indexes"] => plain(&[("POST", Op::SwapIndexes)]),
        ["dumps"] => plain(&[("POST", Op::CreateDump)]),
        ["snapshots"] => plain(&[("POST", Op::CreateSnapshot)]),
        ["experimental-features"] => {
            plain(&[("GET", Op::GetFeatures), ("PATCH", Op::UpdateFeatures)])
        }
        ["export"] => plain(&[("POST", Op::Export)]),
        ["network"] => plain(&[("GET", Op::GetNetwork), ("PATCH", Op::UpdateNetwork)]),
        ["network", "control"] => plain(&[("POST", Op::ControlNetwork)]),
        ["logs", "stderr"] => plain(&[("POST", Op::UpdateLogTarget)]),
        ["logs", "stream"] => plain(&[("POST", Op::StreamLogs), ("DELETE", Op::CancelLogStream)]),
        ["webhooks"] => plain(&[("GET", Op::ListWebhooks), ("POST", Op::CreateWebhook)]),
        ["webhooks", webhook] => of_item(
            webhook,
            &[
                ("GET", Op::GetWebhook),
                ("PATCH", Op::UpdateWebhook),
                ("DELETE", Op::DeleteWebhook),
            ],
        ),
        ["dynamic-search-rules"] => plain(&[
            ("POST", Op::ListSearchRules),
            ("DELETE", Op::ClearSearchRules),
        ]),
        ["dynamic-search-rules", rule] => of_item(
            rule,
            &[
                ("GET", Op::GetSearchRule),
                ("PATCH", Op::UpdateSearchRule),
                ("DELETE", Op::DeleteSearchRule),
            ],
        ),
        ["render-template"] => plain(&[("POST", Op::RenderTemplate)]),
        ["chats"] => plain(&[("GET", Op::ListChats)]),
        ["chats", chat] => of_item(chat, &[("GET", Op::GetChat), ("DELETE", Op::DeleteChat)]),
        ["chats", chat, "settings"] => of_item(
            chat,
            &[
                ("GET", Op::GetChatSettings),
                ("PATCH", Op::UpdateChatSettings),
                ("DELETE", Op::ResetChatSettings),
            ],
        ),
        ["chats", chat, "chat", "completions"] => of_item(chat, &[("POST", Op::CompleteChat)]),
        ["_cluster", rest @ ..] => Ok(weft_own(Op::Cluster, rest)),
        ["_weft", rest @ ..] => Ok(weft_own(Op::Internal, rest)),
        _ => Err(ClassifyError::UnknownPath),
    }
}

/// The paths below `/indexes/{index_uid}`.
fn match_index_path<'p>(
    method: &str,
    rest: &[&'p str],
) -> Result<(Operation, Option<&'p str>), ClassifyError> {
    use Operation as Op;
    let plain = |methods: &Methods| Ok((choose(method, methods)?, None));
    match rest {
        [] => plain(&[
            ("GET", Op::GetIndex),
            ("PATCH", Op::UpdateIndex),
            ("DELETE", Op::DeleteIndex),
        ]),
        ["search"] => plain(&[("POST", Op::SearchPost), ("GET", Op::SearchGet)]),
        ["documents"] => plain(&[
            ("GET", Op::ListDocuments),
            ("POST", Op::ReplaceDocuments),
            ("PUT", Op::UpdateDocuments),
            ("DELETE", Op::ClearDocuments),
        ]),
        ["documents", "delete-batch"] => plain(&[("POST", Op::DeleteDocumentsBatch)]),
        ["documents", "delete"] => plain(&[("POST", Op::DeleteDocumentsByFilter)]),
        ["documents", "edit"] => plain(&[("POST", Op::EditDocuments)]),
        ["documents", "fetch"] => plain(&[("POST", Op::FetchDocuments)]),
        ["documents", document] => {
            let methods = [("GET", Op::GetDocument), ("DELETE", Op::DeleteDocument)];
            Ok((choose(method, &methods)?, Some(*document)))
        }
        ["facet-search"] => plain(&[("POST", Op::FacetSearch)]),
        ["similar"] => plain(&[("GET", Op::SimilarGet), ("POST", Op::SimilarPost)]),
        ["stats"] => plain(&[("GET", Op::IndexStats)]),
        ["fields"] => plain(&[("POST", Op::ListFields)]),
        ["compact"] => plain(&[("POST", Op::CompactIndex)]),
        ["settings"] => plain(&[
            ("GET", Op::GetSettings),
            ("PATCH", Op::UpdateSettings),
            ("DELETE", Op::ResetSettings),
        ]),
        ["settings", name] => {
            let setting = Setting::from_path(name).ok_or(ClassifyError::UnknownPath)?;
            plain(&[
                ("GET", Op::GetSetting(setting)),
                (setting.update_method(), Op::UpdateSetting(setting)),
                ("DELETE", Op::ResetSetting(setting)),
            ])
        }
        ["_shards"] => plain(&[("GET", Op::IndexShards)]),
        _ => Err(ClassifyError::UnknownPath),
    }
}

fn choose(method: &str, methods: &Methods) -> Result<Operation, ClassifyError> {
    let found = methods.iter().find(|(known, _)| *known == method);
    found
        .map(|(_, operation)| *operation)
        .ok_or(ClassifyError::MethodNotAllowed)
}

fn weft_own<'p>(operation: Operation, rest: &[&str]) -> Matched<'p> {
    let item = Some(Cow::Owned(rest.join("/")));
    Matched {
        operation,
        index: None,
        document: None,
        item,
    }
}

impl Operation {
    /// A stable name in kebab case, for headers, logs and metrics: `search-post`, `get-setting`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ListBatches => "list-batches",
            Self::GetBatch => "get-batch",
            Self::ListChats => "list-chats",
            Self::GetChat => "get-chat",
            Self::DeleteChat => "delete-chat",
            Self::CompleteChat => "complete-chat",
            Self::GetChatSettings => "get-chat-settings",
            Self::UpdateChatSettings => "update-chat-settings",
            Self::ResetChatSettings => "reset-chat-settings",
            Self::CreateDump => "create-dump",
            Self::ListSearchRules => "list-search-rules",
            Self::ClearSearchRules => "clear-search-rules",
            Self::GetSearchRule => "get-search-rule",
            Self::UpdateSearchRule => "update-search-rule",
            Self::DeleteSearchRule => "delete-search-rule",
            Self::GetFeatures => "get-features",
            Self::UpdateFeatures => "update-features",
            Self::Export => "export",
            Self::Health => "health",
            Self::ListIndexes => "list-indexes",
            Self::CreateIndex => "create-index",
            Self::GetIndex => "get-index",
            Self::UpdateIndex => "update-index",
            Self::DeleteIndex => "delete-index",
            Self::CompactIndex => "compact-index",
            Self::ListDocuments => "list-documents",
            Self::ReplaceDocuments => "replace-documents",
            Self::UpdateDocuments => "update-documents",
            Self::ClearDocuments => "clear-documents",
            Self::DeleteDocumentsByFilter => "delete-documents-by-filter",
            Self::DeleteDocumentsBatch => "delete-documents-batch",
            Self::EditDocuments => "edit-documents",
            Self::FetchDocuments => "fetch-documents",
            Self::GetDocument => "get-document",
            Self::DeleteDocument => "delete-document",
            Self::FacetSearch => "facet-search",
            Self::ListFields => "list-fields",
            Self::SearchGet => "search-get",
            Self::SearchPost => "search-post",
            Self::GetSettings => "get-settings",
            Self::UpdateSettings => "update-settings",
            Self::ResetSettings => "reset-settings",
            Self::GetSetting(_) => "get-setting",
            Self::UpdateSetting(_) => "update-setting",
            Self::ResetSetting(_) => "reset-setting",
            Self::SimilarGet => "similar-get",
            Self::SimilarPost => "similar-post",
            Self::IndexStats => "index-stats",
            Self::ListKeys => "list-keys",
            Self::CreateKey => "create-key",
            Self::GetKey => "get-key",
            Self::UpdateKey => "update-key",
            Self::DeleteKey => "delete-key",
            Self::UpdateLogTarget => "update-log-target",
            Self::StreamLogs => "stream-logs",
            Self::CancelLogStream => "cancel-log-stream",
            Self::Metrics => "metrics",
            Self::MultiSearch => "multi-search",
            Self::GetNetwork => "get-network",
            Self::UpdateNetwork => "update-network",
            Self::ControlNetwork => "control-network",
            Self::RenderTemplate => "render-template",
            Self::CreateSnapshot => "create-snapshot",
            Self::Stats => "stats",
            Self::SwapIndexes => "swap-indexes",
            Self::ListTasks => "list-tasks",
            Self::DeleteTasks => "delete-tasks",
            Self::CancelTasks => "cancel-tasks",
            Self::CompactTasks => "compact-tasks",
            Self::GetTask => "get-task",
            Self::GetTaskDocuments => "get-task-documents",
            Self::Version => "version",
            Self::ListWebhooks => "list-webhooks",
            Self::CreateWebhook => "create-webhook",
            Self::GetWebhook => "get-webhook",
            Self::UpdateWebhook => "update-webhook",
            Self::DeleteWebhook => "delete-webhook",
            Self::IndexShards => "index-shards",
            Self::Cluster => "cluster",
            Self::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests;
