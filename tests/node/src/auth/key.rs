//! An API key, and the requests that create and change one.

use deserr::{DeserializeError, Deserr, ErrorKind, ValuePointerRef, take_cf_content};
use milli_core::update::Setting;
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::macros::{format_description, time};
use time::{Date, OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

use super::action::Action;
use super::rules::IndexPattern;
use crate::errors::{Code, of};
use crate::validate::{InBody, Wrong, missing};

/// A key as it is stored; its value is derived from the uid.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Key {
    /// A name for people.
    pub(crate) name: Option<String>,
    /// A description for people.
    pub(crate) description: Option<String>,
    /// What identifies it.
    pub(crate) uid: Uuid,
    /// The permissions of the key.
    pub(crate) actions: Vec<Action>,
    /// The indexes to which its permissions apply.
    pub(crate) indexes: Vec<IndexPattern>,
    /// When it expires; `None` for never.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) expires_at: Option<OffsetDateTime>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    /// When its name or description last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) updated_at: OffsetDateTime,
}

/// `POST /keys`.
#[derive(Debug, Deserr)]
#[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields)]
pub(crate) struct CreateKey {
    #[deserr(default, error = InBody<of::InvalidApiKeyDescription>)]
    description: Option<String>,
    #[deserr(default, error = InBody<of::InvalidApiKeyName>)]
    name: Option<String>,
    #[deserr(default = Uuid::new_v4(), error = InBody<of::InvalidApiKeyUid>, try_from(&String) = parse_uid -> Wrong)]
    uid: Uuid,
    #[deserr(error = InBody<of::InvalidApiKeyActions>, missing_field_error = missing::<of::MissingApiKeyActions>)]
    actions: Vec<Action>,
    #[deserr(error = InBody<of::InvalidApiKeyIndexes>, missing_field_error = missing::<of::MissingApiKeyIndexes>)]
    indexes: Vec<Pattern>,
    #[deserr(error = InBody<of::InvalidApiKeyExpiresAt>, missing_field_error = missing::<of::MissingApiKeyExpiresAt>,
        try_from(Option<String>) = parse_end -> Wrong)]
    expires_at: Option<OffsetDateTime>,
}

#[derive(Debug, Deserr)]
#[deserr(try_from(String) = parse_pattern -> Wrong)]
struct Pattern(IndexPattern);

fn parse_pattern(text: String) -> Result<Pattern, Wrong> {
    IndexPattern::parse(text).map(Pattern).map_err(Wrong)
}

fn parse_uid(text: &str) -> Result<Uuid, Wrong> {
    Uuid::parse_str(text).map_err(|error| Wrong(error.to_string()))
}

impl CreateKey {
    /// The key to be created.
    pub(super) fn into_key(self) -> Key {
        let now = OffsetDateTime::now_utc();
        Key {
            name: self.name,
            description: self.description,
            uid: self.uid,
            actions: self.actions,
            indexes: self.indexes.into_iter().map(|pattern| pattern.0).collect(),
            expires_at: self.expires_at,
            created_at: now,
            updated_at: now,
        }
    }
}

fn parse_end(text: Option<String>) -> Result<Option<OffsetDateTime>, Wrong> {
    let Some(text) = text else { return Ok(None) };
    match parse_date(&text) {
        Some(end) if end > OffsetDateTime::now_utc() => Ok(Some(end)),
        _ => Err(Wrong(format!(
            "`{text}` is not a valid date. It should follow the RFC 3339 format to represents a date or datetime \
             in the future or specified as a null value. e.g. 'YYYY-MM-DD' or 'YYYY-MM-DD HH:MM:SS'.\n"
        ))),
    }
}

fn parse_date(text: &str) -> Option<OffsetDateTime> {
    let with_t = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let with_space = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let day = format_description!("[year]-[month]-[day]");
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| PrimitiveDateTime::parse(text, with_t).map(PrimitiveDateTime::assume_utc))
        .or_else(|_| PrimitiveDateTime::parse(text, with_space).map(PrimitiveDateTime::assume_utc))
        .or_else(|_| {
            Date::parse(text, day).map(|day| PrimitiveDateTime::new(day, time!(00:00)).assume_utc())
        })
        .ok()
}

/// `PATCH /keys/{uid}`: only name and description can be changed.
#[derive(Debug, Deserr)]
#[deserr(error = InBody, rename_all = camelCase, deny_unknown_fields = refuse_immutable)]
pub(crate) struct PatchKey {
    #[deserr(default, error = InBody<of::InvalidApiKeyDescription>)]
    description: Setting<String>,
    #[deserr(default, error = InBody<of::InvalidApiKeyName>)]
    name: Setting<String>,
}

impl PatchKey {
    /// Changes a key.
    pub(super) fn apply(self, key: &mut Key) {
        if !matches!(self.description, Setting::NotSet) {
            key.description = self.description.set();
        }
        if !matches!(self.name, Setting::NotSet) {
            key.name = self.name.set();
        }
    }
}

fn refuse_immutable(field: &str, accepted: &[&str], location: ValuePointerRef) -> InBody {
    let code = match field {
        "uid" => Code::ImmutableApiKeyUid,
        "actions" => Code::ImmutableApiKeyActions,
        "indexes" => Code::ImmutableApiKeyIndexes,
        "expiresAt" => Code::ImmutableApiKeyExpiresAt,
        "createdAt" => Code::ImmutableApiKeyCreatedAt,
        "updatedAt" => Code::ImmutableApiKeyUpdatedAt,
        _ => {
            let error: ErrorKind<std::convert::Infallible> = ErrorKind::UnknownKey {
                key: field,
                accepted,
            };
            return take_cf_content(InBody::error(None, error, location));
        }
    };
    let accepted: Vec<String> = accepted.iter().map(|name| format!("`{name}`")).collect();
    InBody::with(
        format!(
            "Immutable field `{field}`: expected one of {}",
            accepted.join(", ")
        ),
        code,
    )
}

/// The keys of a new node, in the order in which they are created.
pub(super) fn default_keys() -> Vec<Key> {
    let key = |name: &str, description: &str, actions: &[Action]| {
        let now = OffsetDateTime::now_utc();
        Key {
            name: Some(name.to_owned()),
            description: Some(description.to_owned()),
            uid: Uuid::new_v4(),
            actions: actions.to_vec(),
            indexes: vec![IndexPattern("*".to_owned())],
            expires_at: None,
            created_at: now,
            updated_at: now,
        }
    };
    vec![
        key(
            "Default Chat API Key",
            "Use it to chat and search from the frontend",
            &[Action::ChatCompletions, Action::Search],
        ),
        key(
            "Default Read-Only Admin API Key",
            "Use it to read information across the whole database. Caution! Do not expose this key on a public \
             frontend",
            &[Action::AllGet, Action::KeysGet],
        ),
        key(
            "Default Admin API Key",
            "Use it for anything that is not a search operation. Caution! Do not expose it on a public frontend",
            &[Action::All],
        ),
        key(
            "Default Search API Key",
            "Use it to search from the frontend",
            &[Action::Search],
        ),
    ]
}
