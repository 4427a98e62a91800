//! What an API key may allow.

use deserr::Deserr;
use serde::{Deserialize, Serialize};

macro_rules! actions {
    ($($name:literal $action:ident,)+) => {
        /// One permission; a name that ends in `*` includes several.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Deserr)]
        #[allow(missing_docs, reason = "the names on the wire say it")]
        pub(crate) enum Action {
            $(#[serde(rename = $name)] #[deserr(rename = $name)] $action,)+
        }

        impl Action {
            /// The name in the API.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Action::$action => $name,)+ }
            }
        }
    };
}

actions! {
    "*" All,
    "search" Search,
    "documents.*" DocumentsAll,
    "documents.add" DocumentsAdd,
    "documents.get" DocumentsGet,
    "documents.delete" DocumentsDelete,
    "indexes.*" IndexesAll,
    "indexes.create" IndexesCreate,
    "indexes.get" IndexesGet,
    "indexes.update" IndexesUpdate,
    "indexes.delete" IndexesDelete,
    "indexes.swap" IndexesSwap,
    "tasks.*" TasksAll,
    "tasks.cancel" TasksCancel,
    "tasks.delete" TasksDelete,
    "tasks.get" TasksGet,
    "settings.*" SettingsAll,
    "settings.get" SettingsGet,
    "settings.update" SettingsUpdate,
    "stats.*" StatsAll,
    "stats.get" StatsGet,
    "metrics.*" MetricsAll,
    "metrics.get" MetricsGet,
    "dumps.*" DumpsAll,
    "dumps.create" DumpsCreate,
    "snapshots.*" SnapshotsAll,
    "snapshots.create" SnapshotsCreate,
    "version" Version,
    "keys.create" KeysCreate,
    "keys.get" KeysGet,
    "keys.update" KeysUpdate,
    "keys.delete" KeysDelete,
    "experimental.get" ExperimentalGet,
    "experimental.update" ExperimentalUpdate,
    "export" Export,
    "network.get" NetworkGet,
    "network.update" NetworkUpdate,
    "chatCompletions" ChatCompletions,
    "chats.*" ChatsAll,
    "chats.get" ChatsGet,
    "chats.delete" ChatsDelete,
    "chatsSettings.*" ChatsSettingsAll,
    "chatsSettings.get" ChatsSettingsGet,
    "chatsSettings.update" ChatsSettingsUpdate,
    "*.get" AllGet,
    "webhooks.get" WebhooksGet,
    "webhooks.update" WebhooksUpdate,
    "webhooks.delete" WebhooksDelete,
    "webhooks.create" WebhooksCreate,
    "webhooks.*" WebhooksAll,
    "indexes.compact" IndexesCompact,
    "fields.post" FieldsPost,
    "tasks.compact" TasksCompact,
    "dynamicSearchRules.get" DynamicSearchRulesGet,
    "dynamicSearchRules.create" DynamicSearchRulesCreate,
    "dynamicSearchRules.update" DynamicSearchRulesUpdate,
    "dynamicSearchRules.delete" DynamicSearchRulesDelete,
    "dynamicSearchRules.*" DynamicSearchRulesAll,
}

impl Action {
    /// True if a key with this permission allows `wanted`.
    pub(crate) fn allows(self, wanted: Action) -> bool {
        let manages_keys = matches!(
            wanted,
            Action::KeysCreate | Action::KeysGet | Action::KeysUpdate | Action::KeysDelete
        );
        match self {
            Action::All => true,
            Action::AllGet => wanted.name().ends_with(".get") && !manages_keys,
            _ if self == wanted => true,
            _ => match self.name().strip_suffix(".*") {
                Some(family) => wanted
                    .name()
                    .strip_prefix(family)
                    .is_some_and(|rest| rest.starts_with('.')),
                None => false,
            },
        }
    }

    /// True if the permission concerns the whole node, so that a key for some indexes can't have it.
    pub(crate) fn is_global(self) -> bool {
        const FAMILIES: [&str; 11] = [
            "metrics.",
            "dumps.",
            "snapshots.",
            "version",
            "keys.",
            "experimental.",
            "export",
            "network.",
            "chats.",
            "chatsSettings.",
            "webhooks.",
        ];
        self == Action::TasksCompact
            || self.name().starts_with("dynamicSearchRules.")
            || FAMILIES
                .iter()
                .any(|family| self.name().starts_with(family))
    }

    /// True if a key for some indexes may be used for a request that names no index, because its handler looks only at those indexes.
    pub(crate) fn is_checked_by_handler(self) -> bool {
        matches!(
            self,
            Action::Search
                | Action::IndexesCreate
                | Action::IndexesGet
                | Action::IndexesSwap
                | Action::TasksCancel
                | Action::TasksDelete
                | Action::TasksGet
                | Action::SettingsGet
                | Action::StatsGet
        )
    }
}
