//! Who may do what: the master key, API keys derived from it, and tenant tokens signed with API keys.
//!
//! A key's value is the HMAC-SHA256 of its uid under the master key. So it needs no storage, and every node with the same
//! uid and master key has the same value. Without a master key everything is allowed except the management of keys.

mod action;
mod key;
mod rules;
mod token;

pub(crate) use action::Action;
pub(crate) use key::{CreateKey, Key, PatchKey};
pub(crate) use rules::Grant;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, RwLock};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::errors::{ApiError, ApiResult, Code};
use crate::store::{KEYS, Store};
use rules::TenantRules;
use token::Token;

/// The keys of a node.
pub(crate) struct Keys {
    store: Arc<Store>,
    master: Option<String>,
    known: RwLock<HashMap<Uuid, Key>>,
}

impl Keys {
    /// Loads the keys; a new node creates the default ones.
    pub(crate) fn open(store: Arc<Store>, master: Option<String>) -> ApiResult<Keys> {
        let known: Vec<(String, Key)> = store.all(KEYS)?;
        let known = known.into_iter().map(|(_, key)| (key.uid, key)).collect();
        let keys = Keys {
            store,
            master,
            known: RwLock::new(known),
        };
        if keys.list().is_empty() {
            for key in key::default_keys() {
                keys.write(key)?;
            }
        }
        Ok(keys)
    }

    /// Checks the `Authorization` header for a permission, on an index if the request names one.
    pub(crate) fn authorize(
        &self,
        header: Option<&str>,
        action: Action,
        index: Option<&str>,
    ) -> ApiResult<Grant> {
        let bearer = bearer_of(header)?;
        let Some(master) = &self.master else {
            let manages_keys = action.name().starts_with("keys.");
            return if manages_keys {
                Err(missing_master_key())
            } else {
                Ok(Grant::everything())
            };
        };
        let Some(bearer) = bearer else {
            return Err(missing_header());
        };
        if bearer == master {
            return Ok(Grant::everything());
        }
        let (uid, tenant) = self.identify(bearer, action)?;
        let key = self.key(uid).ok_or_else(invalid_key)?;
        let grant = Grant {
            creates_indexes: self.permits(&key, Action::IndexesCreate, None),
            key: Some(key.indexes.clone()),
            tenant,
        };
        if let Some(index) = index {
            check_index(&grant, index)?;
        }
        if self.permits(&key, action, index) {
            Ok(grant)
        } else {
            Err(invalid_key())
        }
    }

    fn identify(&self, bearer: &str, action: Action) -> ApiResult<(Uuid, Option<TenantRules>)> {
        if action == Action::Search
            && let Some(token) = Token::read(bearer)
        {
            let uid = token.claims.api_key_uid;
            if !self
                .value_of(uid)
                .is_some_and(|key| token.is_signed_with(&key))
            {
                return Err(refused("Could not decode tenant token, InvalidSignature."));
            }
            let now = OffsetDateTime::now_utc().unix_timestamp();
            if let Some(exp) = token.claims.exp
                && now > exp
            {
                return Err(refused(format!(
                    "Tenant token expired. Was valid up to `{exp}` and we're now `{now}`."
                )));
            }
            return Ok((uid, Some(token.claims.search_rules)));
        }
        self.uid_of_value(bearer)
            .map(|uid| (uid, None))
            .ok_or_else(invalid_key)
    }

    fn permits(&self, key: &Key, action: Action, index: Option<&str>) -> bool {
        let in_time = key
            .expires_at
            .is_none_or(|end| OffsetDateTime::now_utc() < end);
        let everywhere = key.indexes.iter().any(|pattern| pattern.0 == "*");
        let in_scope = everywhere
            || match index {
                Some(index) => key.indexes.iter().any(|pattern| pattern.matches(index)),
                None => action.is_checked_by_handler(),
            };
        in_time && in_scope && key.actions.iter().any(|allowed| allowed.allows(action))
    }

    /// The value of a key, if there is a master key to derive it from.
    pub(crate) fn value_of(&self, uid: Uuid) -> Option<String> {
        let mut mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(self.master.as_ref()?.as_bytes()).ok()?;
        mac.update(uid.hyphenated().to_string().as_bytes());
        let mut value = String::new();
        for byte in mac.finalize().into_bytes() {
            write!(value, "{byte:02x}").ok()?;
        }
        Some(value)
    }

    fn uid_of_value(&self, value: &str) -> Option<Uuid> {
        self.list()
            .into_iter()
            .map(|key| key.uid)
            .find(|uid| self.value_of(*uid).as_deref() == Some(value))
    }

    /// The uid that a path means: the path holds either a uid or a key's value.
    pub(crate) fn resolve(&self, uid_or_value: &str) -> ApiResult<Uuid> {
        Uuid::parse_str(uid_or_value)
            .ok()
            .or_else(|| self.uid_of_value(uid_or_value))
            .ok_or_else(|| key_not_found(uid_or_value))
    }

    /// All keys, newest first.
    pub(crate) fn list(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.read().values().cloned().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.created_at));
        keys
    }

    /// One key.
    pub(crate) fn get(&self, uid: Uuid) -> ApiResult<Key> {
        self.key(uid).ok_or_else(|| key_not_found(&uid.to_string()))
    }

    /// Creates a key.
    pub(crate) fn create(&self, request: CreateKey) -> ApiResult<Key> {
        let key = request.into_key();
        let everywhere =
            key.indexes.is_empty() || key.indexes.iter().any(|pattern| pattern.0 == "*");
        if !everywhere && let Some(global) = key.actions.iter().find(|action| action.is_global()) {
            let name = format!("\"{}\"", global.name());
            return Err(ApiError::new(
                Code::IndexScopedApiKeyWithGlobalAction,
                format!(
                    "cannot create index-scoped API key with global action `{name}`\n  - Hint: remove action \
                     `{name}` from the action list, or remove `indexes` to make the key global"
                ),
            ));
        }
        if self.key(key.uid).is_some() {
            return Err(ApiError::new(
                Code::ApiKeyAlreadyExists,
                format!(
                    "`uid` field value `{}` is already an existing API key.",
                    key.uid
                ),
            ));
        }
        self.write(key)
    }

    /// Changes a key's name or description.
    pub(crate) fn patch(&self, uid: Uuid, patch: PatchKey) -> ApiResult<Key> {
        let mut key = self.get(uid)?;
        patch.apply(&mut key);
        key.updated_at = OffsetDateTime::now_utc();
        self.write(key)
    }

    /// Removes a key.
    pub(crate) fn delete(&self, uid: Uuid) -> ApiResult<()> {
        self.get(uid)?;
        self.store.remove(KEYS, &uid.to_string())?;
        self.known
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .remove(&uid);
        Ok(())
    }

    fn write(&self, key: Key) -> ApiResult<Key> {
        self.store.put(KEYS, &key.uid.to_string(), &key)?;
        let mut known = self
            .known
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        known.insert(key.uid, key.clone());
        Ok(key)
    }

    fn key(&self, uid: Uuid) -> Option<Key> {
        self.read().get(&uid).cloned()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Uuid, Key>> {
        self.known
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn bearer_of(header: Option<&str>) -> ApiResult<Option<&str>> {
    let Some(header) = header else {
        return Ok(None);
    };
    match header.split_once(' ') {
        Some(("Bearer", token)) => Ok(Some(token)),
        _ if header == "Bearer" => Err(invalid_key()),
        _ => Err(missing_header()),
    }
}

fn check_index(grant: &Grant, index: &str) -> ApiResult<()> {
    if !grant.tenant_reaches(index) {
        return Err(refused(format!(
            "The provided tenant token cannot acces the index `{index}`, allowed indexes are {:?}.",
            grant.tenant_indexes()
        )));
    }
    if grant.key_reaches(index) {
        return Ok(());
    }
    Err(refused(match grant.tenant {
        Some(_) => {
            format!(
                "The API key used to generate this tenant token cannot acces the index `{index}`."
            )
        }
        None => format!(
            "The API key cannot acces the index `{index}`, authorized indexes are {:?}.",
            grant.key_indexes()
        ),
    }))
}

fn refused(message: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidApiKey, message)
}

fn invalid_key() -> ApiError {
    refused("The provided API key is invalid.")
}

fn missing_header() -> ApiError {
    ApiError::new(
        Code::MissingAuthorizationHeader,
        "The Authorization header is missing. It must use the bearer authorization method.",
    )
}

fn missing_master_key() -> ApiError {
    ApiError::new(
        Code::MissingMasterKey,
        "Meilisearch is running without a master key. To access this API endpoint, you must have set a master \
         key at launch.",
    )
}

fn key_not_found(uid: &str) -> ApiError {
    ApiError::new(Code::ApiKeyNotFound, format!("API key `{uid}` not found."))
}
