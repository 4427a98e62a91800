//! The real etcd: one connection to each endpoint, used one at a time.
//!
//! An endpoint that gives no answer in time, or doesn't let this merger in, is left for the next one, and its connection is thrown
//! away. Members that have lost their leader refuse at once. Nothing is sent again here: only the caller knows whether it may be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, ConnectOptions, DeleteOptions, Error,
    GetOptions, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse,
};
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::options::{EtcdOptions, Secret};
use super::{
    ANSWER_WITHIN, Action, Ask, Condition, Entry, Etcd, EtcdError, Granted, Outcome, Page,
    Transaction,
};

/// HTTP/2 pings on a connection in use: not more often than etcd likes (5 s), or it hangs up.
const PING_EVERY: Duration = Duration::from_secs(6);
const PING_WITHIN: Duration = Duration::from_secs(2);

/// How often each endpoint is asked at the start, where it may not like a certificate.
const ROUNDS_WITH_TLS: usize = 5;

/// The largest answer that is read, in bytes.
const MOST_ANSWER_BYTES: usize = 32 << 20;

impl EtcdOptions {
    fn connect(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .with_keep_alive(PING_EVERY, PING_WITHIN)
            .with_keep_alive_while_idle(false)
            .with_connect_timeout(ANSWER_WITHIN)
            .with_require_leader(true);
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.clone());
        }
        if let Some((user, Secret(password))) = &self.user {
            options = options.with_user(user, password);
        }
        options
    }
}

/// The way to a real etcd.
pub struct EtcdClient {
    options: EtcdOptions,
    /// A connection to each endpoint, once it was needed.
    connections: Vec<Mutex<Option<Client>>>,
    current: AtomicUsize,
    /// Connections belong to these threads, whoever needs one first: those of a role end with it.
    home: Option<Handle>,
}

impl EtcdClient {
    /// A client that connects when it is used.
    pub fn new(options: EtcdOptions) -> Self {
        let connections = options.endpoints.iter().map(|_| Mutex::new(None)).collect();
        Self {
            options,
            connections,
            current: AtomicUsize::new(0),
            home: Handle::try_current().ok(),
        }
    }

    async fn connect(&self, endpoint: &str) -> Result<Client, EtcdError> {
        let (endpoints, options) = ([endpoint.to_owned()], self.options.connect());
        let connecting = Client::connect(endpoints, Some(options));
        let connected = match &self.home {
            None => connecting.await,
            Some(home) => home
                .spawn(connecting)
                .await
                .map_err(|_| EtcdError::NoAnswer("the merger ends".into()))?,
        };
        connected.map_err(|error| translate(endpoint, error))
    }

    /// Asks one endpoint after the other for `key` until one answers.
    ///
    /// # Errors
    /// None does: [`EtcdError::Denied`] if one has refused this merger.
    pub async fn check(&self, key: &str) -> Result<(), EtcdError> {
        // Where etcd refuses a certificate, it may have hung up before its reason is read.
        let rounds = match self.options.tls {
            Some(_) => ROUNDS_WITH_TLS,
            None => 1,
        };
        let mut worst = EtcdError::NoAnswer("there are no endpoints".into());
        for _ in 0..rounds * self.connections.len() {
            match super::get(self, key.to_owned()).await {
                Ok(_) => return Ok(()),
                Err(error @ EtcdError::Denied(_)) => worst = error,
                Err(error) if matches!(worst, EtcdError::Denied(_)) => drop(error),
                Err(error) => worst = error,
            }
        }
        Err(worst)
    }

    /// Does something at the current endpoint.
    async fn ask<T, F>(&self, within: Duration, work: impl Fn(Client) -> F) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let place = self.current.load(Ordering::Relaxed);
        let (Some(endpoint), Some(connection)) = (
            self.options.endpoints.get(place),
            self.connections.get(place),
        ) else {
            return Err(EtcdError::Refused("there is no such endpoint".into()));
        };
        let attempt = async {
            let outcome = self.attempt(endpoint, connection, &work).await;
            // A token ends after a while, and with the member that gave it.
            match &outcome {
                Err(EtcdError::Denied(text)) if is_about_token(text) => {
                    connection.lock().await.take();
                    self.attempt(endpoint, connection, &work).await
                }
                _ => outcome,
            }
        };
        let outcome = timeout(within, attempt).await.unwrap_or_else(|_| {
            let millis = within.as_millis();
            Err(EtcdError::NoAnswer(format!(
                "{endpoint} took longer than {millis} ms"
            )))
        });
        if matches!(outcome, Err(EtcdError::NoAnswer(_) | EtcdError::Denied(_))) {
            self.leave(place);
        }
        outcome
    }

    async fn attempt<T, F>(
        &self,
        endpoint: &str,
        connection: &Mutex<Option<Client>>,
        work: impl Fn(Client) -> F,
    ) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let client = {
            let mut connection = connection.lock().await;
            match &*connection {
                Some(client) => client.clone(),
                None => {
                    let client = self.connect(endpoint).await?;
                    connection.insert(client).clone()
                }
            }
        };
        work(client)
            .await
            .map_err(|error| translate(endpoint, error))
    }

    /// Leaves the endpoint for the next one, and forgets its connection.
    fn leave(&self, place: usize) {
        let next = (place + 1) % self.connections.len().max(1);
        let left = self
            .current
            .compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
        if left.is_ok()
            && let Some(connection) = self.connections.get(place)
            && let Ok(mut connection) = connection.try_lock()
        {
            connection.take();
        }
    }
}

fn is_about_token(text: &str) -> bool {
    ["invalid auth token", "revision of auth store is old"]
        .iter()
        .any(|said| text.contains(said))
}

fn is_about_user(text: &str) -> bool {
    ["authentication failed", "user name is empty"]
        .iter()
        .any(|said| text.contains(said))
}

/// What an error of the client means.
fn translate(endpoint: &str, error: Error) -> EtcdError {
    let Error::GRpcStatus(status) = &error else {
        return match error {
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
                EtcdError::Refused(format!("{endpoint}: {error}"))
            }
            error => silence_or_denial(endpoint, with_causes(error.to_string(), &error)),
        };
    };
    // The names of gRPC's codes, since the client doesn't pass its type on.
    let code = format!("{:?}", status.code());
    // The status as a text of its own would show everything twice.
    let text = with_causes(status.message().to_owned(), status);
    let said = format!("{endpoint}: {}", status.message());
    match code.as_str() {
        "Unauthenticated" | "PermissionDenied" => EtcdError::Denied(said),
        "InvalidArgument" if is_about_user(&text) || is_about_token(&text) => {
            EtcdError::Denied(said)
        }
        "OutOfRange" if text.contains("compacted") => EtcdError::Compacted,
        "OutOfRange" => EtcdError::TooMuch,
        "InvalidArgument" | "ResourceExhausted" | "FailedPrecondition" | "NotFound"
        | "AlreadyExists" | "Unimplemented" => EtcdError::Refused(said),
        _ => silence_or_denial(endpoint, text),
    }
}

/// A connection that failed: for a reason that stays, as a certificate that has expired, or for one that may pass.
fn silence_or_denial(endpoint: &str, text: String) -> EtcdError {
    let said = format!("{endpoint}: {text}");
    let stays = ["invalid peer certificate", "fatal alert", "private key"];
    match stays.iter().any(|reason| text.contains(reason)) {
        true => EtcdError::Denied(said),
        false => EtcdError::NoAnswer(said),
    }
}

/// A text with those of the error's causes, each once.
fn with_causes(mut text: String, error: &dyn std::error::Error) -> String {
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn entry(pair: &KeyValue) -> Entry {
    Entry {
        key: String::from_utf8_lossy(pair.key()).into_owned(),
        value: pair.value().to_vec(),
        version: u64::try_from(pair.version()).unwrap_or(0),
        created: pair.create_revision(),
        lease: pair.lease(),
    }
}

fn compare(condition: Condition) -> Compare {
    match condition {
        Condition::Created(key, revision) => {
            Compare::create_revision(key, CompareOp::Equal, revision)
        }
        Condition::Version(key, version) => {
            let version = i64::try_from(version).unwrap_or(i64::MAX);
            Compare::version(key, CompareOp::Equal, version)
        }
        Condition::Value(key, value) => Compare::value(key, CompareOp::Equal, value),
    }
}

fn operation(action: Action) -> TxnOp {
    match action {
        Action::Put { key, value, lease } => {
            TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)))
        }
        Action::Delete(key) => TxnOp::delete(key, None),
        Action::DeleteAll(prefix) => {
            TxnOp::delete(prefix, Some(DeleteOptions::new().with_prefix()))
        }
        Action::Get(key) => TxnOp::get(key, None),
        Action::GetVersion(key) => TxnOp::get(key, Some(GetOptions::new().with_keys_only())),
    }
}

fn transaction(transaction: Transaction) -> Txn {
    let Transaction {
        when,
        then,
        otherwise,
    } = transaction;
    let operations = |actions: Vec<Action>| actions.into_iter().map(operation);
    let mut txn = Txn::new();
    if !when.is_empty() {
        txn = txn.when(when.into_iter().map(compare).collect::<Vec<_>>());
    }
    txn = txn.and_then(operations(then).collect::<Vec<_>>());
    if !otherwise.is_empty() {
        txn = txn.or_else(operations(otherwise).collect::<Vec<_>>());
    }
    txn
}

/// The first key that doesn't begin with `prefix` any more.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    // Up to the last of all keys.
    vec![0]
}

impl Etcd for EtcdClient {
    fn transact(
        &self,
        wanted: Transaction,
        within: Duration,
    ) -> BoxFuture<'_, Result<Outcome, EtcdError>> {
        let txn = transaction(wanted);
        Box::pin(self.ask(within, move |client| {
            let txn = txn.clone();
            async move {
                let mut kv = client
                    .kv_client()
                    .max_decoding_message_size(MOST_ANSWER_BYTES);
                let answer = kv.txn(txn).await?;
                let found = answer.op_responses().into_iter();
                let found = found.filter_map(|response| match response {
                    TxnOpResponse::Get(got) => Some(got.kvs().first().map(entry)),
                    _ => None,
                });
                Ok(Outcome {
                    held: answer.succeeded(),
                    found: found.collect(),
                })
            }
        }))
    }

    fn page(&self, ask: Ask, within: Duration) -> BoxFuture<'_, Result<Page, EtcdError>> {
        Box::pin(self.ask(within, move |client| {
            let ask = ask.clone();
            async move {
                let options = GetOptions::new()
                    .with_range(end_of(&ask.prefix))
                    .with_limit(i64::try_from(ask.limit).unwrap_or(i64::MAX))
                    .with_revision(ask.revision);
                let mut kv = client
                    .kv_client()
                    .max_decoding_message_size(MOST_ANSWER_BYTES);
                let answer = kv.get(ask.from, Some(options)).await?;
                let newest = answer.header().map_or(0, |header| header.revision());
                Ok(Page {
                    entries: answer.kvs().iter().map(entry).collect(),
                    more: answer.more(),
                    revision: match ask.revision {
                        0 => newest,
                        revision => revision,
                    },
                })
            }
        }))
    }

    fn grant(&self, seconds: u32, within: Duration) -> BoxFuture<'_, Result<Granted, EtcdError>> {
        Box::pin(self.ask(within, move |mut client| async move {
            let lease = client.lease_grant(i64::from(seconds), None).await?;
            Ok(Granted {
                id: lease.id(),
                lasts: Duration::from_secs(u64::try_from(lease.ttl()).unwrap_or(0)),
            })
        }))
    }

    fn renew(&self, lease: i64, within: Duration) -> BoxFuture<'_, Result<bool, EtcdError>> {
        Box::pin(self.ask(within, move |mut client| async move {
            // A stream for one renewal: one that is kept could hang without anybody noticing.
            match client.lease_keep_alive(lease).await {
                Ok(_) => Ok(true),
                Err(Error::LeaseKeepAliveError(text)) if text.contains("not found") => Ok(false),
                Err(error) => Err(error),
            }
        }))
    }

    fn time_left(
        &self,
        lease: i64,
        within: Duration,
    ) -> BoxFuture<'_, Result<Option<Duration>, EtcdError>> {
        Box::pin(self.ask(within, move |mut client| async move {
            let left = client.lease_time_to_live(lease, None).await?.ttl();
            Ok(u64::try_from(left).ok().map(Duration::from_secs))
        }))
    }

    fn revoke(&self, lease: i64, within: Duration) -> BoxFuture<'_, Result<(), EtcdError>> {
        Box::pin(self.ask(within, move |mut client| async move {
            client.lease_revoke(lease).await.map(drop)
        }))
    }

    fn compact(&self, revision: i64, within: Duration) -> BoxFuture<'_, Result<(), EtcdError>> {
        Box::pin(self.ask(within, move |mut client| async move {
            let options = CompactionOptions::new();
            client.compact(revision, Some(options)).await.map(drop)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_after_the_last_key_of_its_prefix() {
        assert_eq!(end_of("/weft/"), b"/weft0");
        assert_eq!(end_of(""), [0]);
    }
}
