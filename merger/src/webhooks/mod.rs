//! Webhooks: sends Weft's own tasks to registered URLs when they have ended.
//!
//! `registered → (a task ends) → announced`: [`hook`] defines a webhook, [`mod@announce`] sends ended tasks in batches, [`send`]
//! makes one call.
//!
//! Promise: a task that ends while webhooks exist is sent at least once to each of them that answers within the retries. A crash
//! loses none, because the mark to announce a task is stored in the same commit as its end. Nodes don't know the webhooks, so no
//! webhook gets a shard's part of a task.
//!
//! Invariant: this module calls clients' servers and never a node; `upstream` calls nodes and nothing else.

mod announce;
mod hook;
mod networks;
mod send;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;
use weft_routing::operation::Operation;

pub use announce::announce;
pub use hook::Webhook;
pub use networks::Networks;

use crate::answer::Answer;
use crate::base::stands_on;
use crate::call::{Call, ReadError, read_whole};
use crate::cluster::ClusterError;
use crate::store::{Change, Store, StoreError};
use crate::tasks;
use crate::upstream::{NodeRequest, Target, UpstreamError};
use send::Sender;

const KEY: &str = "webhooks";
/// How many webhooks there may be, as on a node.
const MAX_WEBHOOKS: usize = 20;
/// How many headers a webhook may have, as on a node.
const MAX_HEADERS: usize = 200;

/// The webhooks, and the tasks that are sent to them.
pub struct Context {
    /// The task registry.
    pub base: Arc<tasks::Context>,
    /// The webhooks to which ended tasks are sent.
    pub webhooks: Webhooks,
}

stands_on!(Context, base, tasks::Context);

/// Why an operation on webhooks failed. The texts are the same as a node's.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The webhook has no URL.
    #[error("The URL for the webhook `{0}` is missing.")]
    MissingUrl(Uuid),
    /// There are already `MAX_WEBHOOKS` webhooks.
    #[error(
        "Defining too many webhooks would crush the server. Please limit the number of webhooks to 20. You may use a third-party proxy server to dispatch events to more than 20 endpoints."
    )]
    TooMany,
    /// The webhook would have more than `MAX_HEADERS` headers.
    #[error(
        "Too many headers for the webhook `{0}`. Please limit the number of headers to 200. Hint: To remove an already defined header set its value to `null`"
    )]
    TooManyHeaders(Uuid),
    /// The nil UUID stands for the webhook of a node's command line, which can't be changed. Weft has none.
    #[error(
        "Webhook `{0}` is immutable. The webhook defined from the command line cannot be modified using the API."
    )]
    Immutable(Uuid),
    /// There is no such webhook.
    #[error("Webhook `{0}` not found.")]
    NotFound(Uuid),
    /// A header's name is not valid in HTTP.
    #[error("Invalid header name `{0}`: {1}")]
    InvalidHeaderName(String, #[source] http::header::InvalidHeaderName),
    /// A header's value is not valid in HTTP.
    #[error("Invalid header value `{0}`: {1}")]
    InvalidHeaderValue(String, #[source] http::header::InvalidHeaderValue),
    /// The URL can't be parsed.
    #[error("Invalid URL `{0}`: {1}")]
    InvalidUrl(String, #[source] url::ParseError),
    /// The path names no UUID.
    #[error("Invalid UUID: {0}")]
    InvalidUuid(#[source] uuid::Error),
    /// The body isn't a valid webhook, although the node that was asked didn't refuse it.
    #[error("Invalid value at `.{field}`: expected {expected}")]
    InvalidBody {
        /// The field that is wrong.
        field: String,
        /// What the field should be.
        expected: &'static str,
    },
    /// The client's body couldn't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no shard to ask.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The node that was asked gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All webhooks.
pub struct Webhooks {
    store: Arc<dyn Store>,
    hooks: RwLock<Arc<Hooks>>,
    changing: tokio::sync::Mutex<()>,
    sender: Sender,
}

type Hooks = BTreeMap<Uuid, Webhook>;

impl Webhooks {
    /// Reads the webhooks from the store. Calls may go to public addresses and to those in `allowed`.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn open(store: Arc<dyn Store>, allowed: Networks) -> Result<Self, StoreError> {
        let stored = store.get(KEY).await?;
        let hooks = stored.and_then(|stored| serde_json::from_slice(&stored.value).ok());
        Ok(Self {
            store,
            hooks: RwLock::new(Arc::new(hooks.unwrap_or_default())),
            changing: tokio::sync::Mutex::default(),
            sender: Sender::new(allowed),
        })
    }

    /// Whether there are no webhooks.
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// All webhooks, with the secrets in their headers, for a backup.
    pub(crate) fn unmasked(&self) -> Value {
        let all = self.all();
        let hooks = all.iter();
        let hooks = hooks
            .map(|(uuid, hook)| json!({"uuid": uuid, "url": hook.url, "headers": hook.headers}));
        Value::Array(hooks.collect())
    }

    fn all(&self) -> Arc<Hooks> {
        let hooks = self.hooks.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&hooks)
    }

    async fn replace(&self, hooks: Hooks) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(&hooks).unwrap_or_default();
        self.store.commit(vec![Change::put(KEY, bytes)]).await?;
        *self.hooks.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(hooks);
        Ok(())
    }
}

/// Answers an operation on webhooks.
///
/// # Errors
/// [`WebhookError`].
pub async fn handle(ctx: &Arc<Context>, call: Call) -> Result<Answer, WebhookError> {
    match call.operation {
        Operation::ListWebhooks => {
            let all = ctx.webhooks.all();
            let results: Vec<Value> = all.iter().map(|(uuid, hook)| hook.show(*uuid)).collect();
            Ok(Answer::json(StatusCode::OK, &json!({"results": results})))
        }
        Operation::GetWebhook => {
            let uuid = uuid(&call)?;
            let all = ctx.webhooks.all();
            let hook = all.get(&uuid).ok_or(WebhookError::NotFound(uuid))?;
            Ok(Answer::json(StatusCode::OK, &hook.show(uuid)))
        }
        Operation::CreateWebhook => create(ctx, call).await,
        Operation::UpdateWebhook => update(ctx, call).await,
        _ => delete(ctx, &call).await,
    }
}

async fn create(ctx: &Arc<Context>, call: Call) -> Result<Answer, WebhookError> {
    let asked = match settings(ctx, call).await? {
        Ok(asked) => asked,
        Err(refusal) => return Ok(refusal),
    };
    let uuid = Uuid::new_v4();
    let _changing = ctx.webhooks.changing.lock().await;
    let mut hooks = Hooks::clone(&ctx.webhooks.all());
    if hooks.len() >= MAX_WEBHOOKS {
        return Err(WebhookError::TooMany);
    }
    let hook = Webhook::default().patched(uuid, &asked)?;
    let shown = hook.show(uuid);
    hooks.insert(uuid, hook);
    ctx.webhooks.replace(hooks).await?;
    ctx.tasks.announce(true);
    Ok(Answer::json(StatusCode::CREATED, &shown))
}

async fn update(ctx: &Arc<Context>, call: Call) -> Result<Answer, WebhookError> {
    let uuid = editable(&call)?;
    let asked = match settings(ctx, call).await? {
        Ok(asked) => asked,
        Err(refusal) => return Ok(refusal),
    };
    let _changing = ctx.webhooks.changing.lock().await;
    let mut hooks = Hooks::clone(&ctx.webhooks.all());
    let old = hooks.remove(&uuid).ok_or(WebhookError::NotFound(uuid))?;
    let hook = old.patched(uuid, &asked)?;
    let shown = hook.show(uuid);
    hooks.insert(uuid, hook);
    ctx.webhooks.replace(hooks).await?;
    Ok(Answer::json(StatusCode::OK, &shown))
}

async fn delete(ctx: &Arc<Context>, call: &Call) -> Result<Answer, WebhookError> {
    let uuid = editable(call)?;
    let _changing = ctx.webhooks.changing.lock().await;
    let mut hooks = Hooks::clone(&ctx.webhooks.all());
    hooks.remove(&uuid).ok_or(WebhookError::NotFound(uuid))?;
    let last = hooks.is_empty();
    ctx.webhooks.replace(hooks).await?;
    ctx.tasks.announce(!last);
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

fn uuid(call: &Call) -> Result<Uuid, WebhookError> {
    let text = call.item.as_deref().unwrap_or_default();
    text.parse().map_err(WebhookError::InvalidUuid)
}

fn editable(call: &Call) -> Result<Uuid, WebhookError> {
    let uuid = uuid(call)?;
    if uuid.is_nil() {
        return Err(WebhookError::Immutable(uuid));
    }
    Ok(uuid)
}

/// The client's body as a JSON object, or the answer that refuses it.
///
/// A node knows best what is wrong with a body. The node is asked to change a webhook with a random UUID, which it can't have, so
/// that it checks the body but changes nothing.
async fn settings(
    ctx: &Context,
    call: Call,
) -> Result<Result<Map<String, Value>, Answer>, WebhookError> {
    let idle = ctx.pace.idle;
    let shards = ctx.cluster.shards();
    let shard = shards.first().ok_or(ClusterError::NoShards)?;
    let content_type = call.headers.get(http::header::CONTENT_TYPE).cloned();
    let body = read_whole(call.body, ctx.max_body_bytes, idle).await?;
    let mut request = NodeRequest::new(
        Target::Shard(*shard),
        Method::PATCH,
        format!("/webhooks/{}", Uuid::new_v4()),
        &call.forwarded.with_key(ctx.master_key.as_deref()),
        ctx.search_timeout,
    )
    .body(crate::call::full(body.clone()));
    if let Some(content_type) = content_type {
        request = request.header(http::header::CONTENT_TYPE, content_type);
    }
    let said = ctx.upstream.send(request).await?;
    let its_own = [StatusCode::NOT_FOUND, StatusCode::NOT_IMPLEMENTED];
    if !said.status.is_success() && !its_own.contains(&said.status) {
        return Ok(Err(said.pass_on()));
    }
    let asked = serde_json::from_slice(&body).map_err(|_| WebhookError::InvalidBody {
        field: String::new(),
        expected: "an object",
    })?;
    Ok(Ok(asked))
}
