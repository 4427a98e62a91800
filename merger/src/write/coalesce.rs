//! Coalesce: small writes that wait for the same shard's turn go to it together, as one node task.
//!
//! A node makes each task durable on its own and so takes only so many a second, however many clients send them. While one
//! group is on its way, the next gathers; a write that finds the shard idle waits for nobody. Only neighbours of the same
//! kind are merged, so the order of writes to a shard stays what it was.
//!
//! Each client has its own task and its own verdict. Writes with fields that the engine checks in ways of its own
//! (`_vectors`, `_geo`, `_geojson`) or with values that only its indexer refuses are sent alone. If a merged task fails
//! all the same, each of its writes is sent again, alone, and fails or succeeds by itself. What was merged is kept in
//! memory until then; after a restart of the merger the writes of a failed group fail with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use http::{HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use weft_routing::placement::ShardId;

use super::WriteError;
use super::deliver::{Delivered, Delivery, Load, deliver, deliver_now};
use super::format::Format;
use super::spool::Piece;
use crate::answer::Answer;
use crate::app::App;
use crate::call::Along;
use crate::cluster::NodeId;
use crate::tasks::{Copy, LocalState, Part, Share, SharedEnd};
use crate::upstream::{Target, UpstreamError};

/// A write of more bytes or documents than this is no small write.
pub(super) const SMALL_BYTES: usize = 64 << 10;
pub(super) const SMALL_DOCUMENTS: usize = 32;
/// How many writes, and how many bytes, one node task may be merged from.
const GROUP_WRITES: usize = 512;
const GROUP_BYTES: usize = 4 << 20;
/// How many bytes of merged writes are kept until their tasks end; beyond that, writes go alone.
const HELD_BYTES: usize = 64 << 20;

/// What the writes of a group have in common.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kind {
    pub(super) index_uid: String,
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) format: Format,
    pub(super) authority: Option<HeaderValue>,
}

/// A small write to one shard.
#[derive(Debug)]
pub(super) struct Small {
    pub(super) kind: Kind,
    pub(super) along: Along,
    /// The documents, with what stands between them.
    pub(super) documents: Bytes,
    pub(super) piece: Piece,
    /// The documents' ids, each once.
    pub(super) ids: Vec<String>,
}

/// What became of a small write.
#[derive(Debug)]
pub(super) enum Sent {
    Taken {
        copies: Vec<Copy>,
        share: Option<Share>,
    },
    Refused(Answer),
}

/// Small writes on their way.
#[derive(Debug, Default)]
pub(super) struct Coalescer {
    lines: Mutex<HashMap<ShardId, Line>>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    /// Whether somebody sends what waits.
    served: bool,
}

#[derive(Debug)]
struct Waiting {
    small: Small,
    sent: oneshot::Sender<Result<Sent, UpstreamError>>,
}

/// Merged writes whose tasks haven't ended.
#[derive(Debug, Default)]
struct Held {
    groups: HashMap<(NodeId, u32), Group>,
    bytes: usize,
    /// Counts writes, to tell what came after what.
    clock: u64,
    /// What was written to an index of which something is held.
    indexes: HashMap<String, Written>,
}

#[derive(Debug)]
struct Group {
    shard: ShardId,
    members: Vec<Option<Small>>,
    /// The clock when it was sent.
    at: u64,
}

#[derive(Debug, Default)]
struct Written {
    groups: usize,
    /// The last write that was not merged: its ids aren't known.
    other: u64,
    /// The last merged write of each id.
    ids: HashMap<String, u64>,
}

/// Sends a small write, together with its neighbours.
pub(super) async fn send(app: &Arc<App>, shard: ShardId, small: Small) -> Result<Sent, WriteError> {
    let (sent, outcome) = oneshot::channel();
    let served = {
        let mut lines = app.writes.coalescer.lines();
        let line = lines.entry(shard).or_default();
        line.waiting.push_back(Waiting { small, sent });
        std::mem::replace(&mut line.served, true)
    };
    if !served {
        tokio::spawn(serve(Arc::clone(app), shard));
    }
    let outcome = outcome.await.map_err(|_| WriteError::Stopping)?;
    outcome.map_err(|source| WriteError::Unreachable { shard, source })
}

/// Sends what waits for a shard, group by group, until nothing does.
async fn serve(app: Arc<App>, shard: ShardId) {
    let wait = Duration::from_millis(app.options.coalesce_wait_ms);
    loop {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let _turn = app.sequencer.turn(&[shard]).await;
        let group = app.writes.coalescer.next_group(shard);
        if group.is_empty() {
            return;
        }
        send_group(&app, shard, group).await;
    }
}

async fn send_group(app: &Arc<App>, shard: ShardId, group: Vec<Waiting>) {
    let (smalls, clients): (Vec<Small>, Vec<_>) = group
        .into_iter()
        .map(|waiting| (waiting.small, waiting.sent))
        .unzip();
    let Some(first) = smalls.first() else { return };
    app.metrics.small_writes.inc_by(smalls.len() as u64);
    app.metrics.small_write_groups.inc();
    let documents: Vec<&[u8]> = smalls.iter().map(|small| &*small.documents).collect();
    let piece = Piece::of(first.piece.framing().clone(), &documents);
    let ids = smalls
        .iter()
        .flat_map(|small| small.ids.iter().cloned())
        .collect();
    let delivery = delivery(first, shard, piece, ids);
    let outcome = deliver_now(app, &delivery).await;
    let outcome = match outcome {
        Ok(Delivered::Refused(answer)) => Ok(Sent::Refused(answer)),
        Ok(Delivered::Taken(parts)) => {
            let copies = parts
                .into_iter()
                .next()
                .map(|part| part.copies)
                .unwrap_or_default();
            Ok(Sent::Taken {
                copies,
                share: None,
            })
        }
        Err(WriteError::Unreachable { source, .. }) => Err(source),
        Err(error) => Err(UpstreamError::Unreachable {
            target: Target::Shard(shard),
            detail: error.to_string(),
        }),
    };
    let shares: Vec<u64> = smalls.iter().map(|small| small.ids.len() as u64).collect();
    let merged = smalls.len() > 1;
    if let (true, Ok(Sent::Taken { copies, .. })) = (merged, &outcome)
        && let Some(copy) = copies.first()
    {
        app.writes
            .coalescer
            .held()
            .keep((copy.node.clone(), copy.local_uid), shard, smalls);
    }
    for (place, (client, documents)) in (0_u32..).zip(clients.into_iter().zip(shares)) {
        let own = match &outcome {
            Ok(Sent::Taken { copies, .. }) => {
                let share = merged.then_some(Share { documents, place });
                Ok(Sent::Taken {
                    copies: copies.clone(),
                    share,
                })
            }
            Ok(Sent::Refused(answer)) => Ok(Sent::Refused(answer.clone())),
            Err(error) => Err(error.clone()),
        };
        // A client that is gone has its documents written all the same, without a task to ask for.
        let _ = client.send(own);
    }
}

fn delivery(small: &Small, shard: ShardId, piece: Piece, ids: Vec<String>) -> Delivery {
    let kind = &small.kind;
    Delivery {
        index_uid: None,
        method: kind.method.clone(),
        path_and_query: kind.path_and_query.clone(),
        content_type: Some(HeaderValue::from_static(kind.format.content_type())),
        along: small.along.clone(),
        loads: vec![Load {
            ids: Some(ids),
            shard,
            pieces: vec![piece],
            path_and_query: None,
        }],
    }
}

/// Node tasks have ended that several writes were merged into: those of a failed one are sent again, each alone.
pub(super) fn ended(app: &Arc<App>, mut ends: Vec<SharedEnd>) {
    ends.sort_by(|a, b| {
        (&a.node, a.local_uid, a.share.place).cmp(&(&b.node, b.local_uid, b.share.place))
    });
    let mut failed = Vec::new();
    for end in ends {
        let taken = app
            .writes
            .coalescer
            .held()
            .take(&(end.node.clone(), end.local_uid), end.share.place);
        if let Some(state) = end.failed {
            failed.push((end.uid, state, taken));
        }
    }
    if failed.is_empty() {
        return;
    }
    let app = Arc::clone(app);
    tokio::spawn(async move {
        for (uid, state, taken) in failed {
            send_alone(&app, uid, state, taken).await;
        }
    });
}

async fn send_alone(app: &Arc<App>, uid: u32, mut state: LocalState, taken: Option<Taken>) {
    let why_not = match taken {
        None => "what was sent is not kept any more".to_owned(),
        Some(taken) if taken.overtaken => "the index has been written to since".to_owned(),
        Some(Taken { shard, small, .. }) => {
            match deliver(
                app,
                delivery(&small, shard, small.piece.clone(), small.ids.clone()),
            )
            .await
            {
                Ok(Delivered::Taken(parts)) => match parts.into_iter().next() {
                    Some(part) => return resent(app, uid, part).await,
                    None => "no shard took it".to_owned(),
                },
                Ok(Delivered::Refused(answer)) => format!("a node answered {}", answer.status),
                Err(error) => error.to_string(),
            }
        }
    };
    let said = state
        .error
        .as_ref()
        .and_then(|error| error["message"].as_str())
        .unwrap_or_default();
    let message = format!(
        "{said} (The write shared a node's task with others and was not repeated alone: {why_not}. Send it again.)"
    );
    match state.error.as_mut().and_then(Value::as_object_mut) {
        Some(error) => {
            error.insert("message".to_owned(), message.into());
        }
        None => {
            state.error = Some(json!({"message": message, "code": "internal", "type": "internal"}))
        }
    }
    app.tasks.give_up(uid, state).await;
}

async fn resent(app: &App, uid: u32, part: Part) {
    if let Err(error) = app.tasks.resend(uid, part).await {
        tracing::error!(uid, %error, "a write that was sent again alone could not be recorded");
    }
}

/// Whether a write's documents can't spoil their neighbours', as far as can be told before a node has seen them: read
/// whole, so that numbers out of range and values nested too deep show, which only the indexer refuses.
pub(super) fn is_harmless(format: Format, documents: &[u8]) -> bool {
    match format {
        Format::Json => {
            let array = [b"[", documents, b"]"].concat();
            serde_json::from_slice::<Vec<Map<String, Value>>>(&array)
                .is_ok_and(|documents| documents.iter().all(is_plain))
        }
        Format::Ndjson => serde_json::Deserializer::from_slice(documents)
            .into_iter::<Map<String, Value>>()
            .all(|document| document.is_ok_and(|document| is_plain(&document))),
        Format::Csv { .. } => false,
    }
}

/// No field that the engine checks in ways of its own.
fn is_plain(document: &Map<String, Value>) -> bool {
    !document
        .keys()
        .any(|name| name.starts_with("_vectors") || name.starts_with("_geo"))
}

impl Coalescer {
    fn lines(&self) -> MutexGuard<'_, HashMap<ShardId, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room to keep more merged writes.
    pub(super) fn has_room(&self) -> bool {
        self.held().bytes < HELD_BYTES
    }

    /// Notes a write that isn't merged.
    pub(super) fn note_other(&self, index_uid: &str) {
        let mut held = self.held();
        held.clock += 1;
        let now = held.clock;
        if let Some(written) = held.indexes.get_mut(index_uid) {
            written.other = now;
        }
    }

    /// The next writes that go together; with none, the line is left.
    fn next_group(&self, shard: ShardId) -> Vec<Waiting> {
        let mut lines = self.lines();
        let Some(line) = lines.get_mut(&shard) else {
            return Vec::new();
        };
        let Some(first) = line.waiting.pop_front() else {
            lines.remove(&shard);
            return Vec::new();
        };
        let mut bytes = first.small.documents.len();
        let mut group = vec![first];
        while group.len() < GROUP_WRITES
            && let Some(next) = line.waiting.front()
            && group
                .first()
                .is_some_and(|first| first.small.kind == next.small.kind)
            && bytes + next.small.documents.len() <= GROUP_BYTES
            && let Some(next) = line.waiting.pop_front()
        {
            bytes += next.small.documents.len();
            group.push(next);
        }
        group
    }
}

/// A merged write whose task has ended.
struct Taken {
    shard: ShardId,
    small: Small,
    /// Whether something newer was written to its documents, or may have been.
    overtaken: bool,
}

impl Held {
    fn keep(&mut self, task: (NodeId, u32), shard: ShardId, smalls: Vec<Small>) {
        self.clock += 1;
        let at = self.clock;
        self.bytes += smalls
            .iter()
            .map(|small| small.documents.len())
            .sum::<usize>();
        if let Some(first) = smalls.first() {
            let written = self
                .indexes
                .entry(first.kind.index_uid.clone())
                .or_default();
            written.groups += 1;
            for id in smalls.iter().flat_map(|small| &small.ids) {
                written.ids.insert(id.clone(), at);
            }
        }
        self.groups.insert(
            task,
            Group {
                shard,
                members: smalls.into_iter().map(Some).collect(),
                at,
            },
        );
    }

    fn take(&mut self, task: &(NodeId, u32), place: u32) -> Option<Taken> {
        let group = self.groups.get_mut(task)?;
        let small = group.members.get_mut(place as usize)?.take()?;
        let (shard, at) = (group.shard, group.at);
        let over = group.members.iter().all(Option::is_none);
        self.bytes = self.bytes.saturating_sub(small.documents.len());
        let index = &small.kind.index_uid;
        let overtaken = self.indexes.get(index).is_some_and(|written| {
            written.other > at
                || small
                    .ids
                    .iter()
                    .any(|id| written.ids.get(id).is_some_and(|last| *last > at))
        });
        if over {
            self.groups.remove(task);
            if let Some(written) = self.indexes.get_mut(index) {
                written.groups -= 1;
                if written.groups == 0 {
                    self.indexes.remove(index);
                }
            }
        }
        Some(Taken {
            shard,
            small,
            overtaken,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::spool::Framing;

    fn small(index: &str, ids: &[&str]) -> Small {
        let kind = Kind {
            index_uid: index.to_owned(),
            method: Method::POST,
            path_and_query: format!("/indexes/{index}/documents"),
            format: Format::Json,
            authority: None,
        };
        let documents = Bytes::from_static(b"{}");
        let piece = Piece::of(Framing::default(), &[b"{}"]);
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        Small {
            kind,
            along: Along::default(),
            documents,
            piece,
            ids,
        }
    }

    fn wait(coalescer: &Coalescer, shard: ShardId, small: Small) {
        let (sent, _) = oneshot::channel();
        coalescer
            .lines()
            .entry(shard)
            .or_default()
            .waiting
            .push_back(Waiting { small, sent });
    }

    #[test]
    fn neighbours_of_one_kind_go_together_and_keep_their_order() {
        let coalescer = Coalescer::default();
        let shard = ShardId(0);
        for (index, id) in [("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")] {
            wait(&coalescer, shard, small(index, &[id]));
        }
        let mut groups = Vec::new();
        loop {
            let group = coalescer.next_group(shard);
            if group.is_empty() {
                break;
            }
            groups.push(
                group
                    .iter()
                    .flat_map(|waiting| waiting.small.ids.clone())
                    .collect::<Vec<_>>(),
            );
        }
        assert_eq!(groups, [vec!["1", "2"], vec!["3"], vec!["4"]]);
        assert!(coalescer.lines().is_empty());
    }

    #[test]
    fn a_merged_write_is_overtaken_by_a_later_one_of_its_ids_or_of_unknown_ids() {
        let coalescer = Coalescer::default();
        let node = NodeId::from("n".to_owned());
        let keep = |local, smalls| {
            coalescer
                .held()
                .keep((node.clone(), local), ShardId(0), smalls)
        };
        let overtaken = |local, place| {
            coalescer
                .held()
                .take(&(node.clone(), local), place)
                .map(|taken| taken.overtaken)
        };
        keep(
            1,
            vec![small("a", &["1"]), small("a", &["1"]), small("a", &["2"])],
        );
        keep(2, vec![small("a", &["2"]), small("a", &["3"])]);
        assert_eq!(
            overtaken(1, 0),
            Some(false),
            "one's own group does not count"
        );
        assert_eq!(overtaken(1, 2), Some(true));
        assert_eq!(overtaken(2, 1), Some(false));
        assert_eq!(overtaken(2, 1), None, "taken once");
        coalescer.note_other("b");
        assert_eq!(overtaken(1, 1), Some(false));
        coalescer.note_other("a");
        assert_eq!(overtaken(2, 0), Some(true));
        assert_eq!(coalescer.held().bytes, 0);
        assert!(coalescer.held().groups.is_empty() && coalescer.held().indexes.is_empty());
    }

    #[test]
    fn writes_that_only_an_indexer_can_judge_go_alone() {
        let harmless = |text: &str| is_harmless(Format::Json, text.as_bytes());
        assert!(harmless(r#"{"id":1,"t":"a\n\u00e9"},{"id":2}"#));
        for text in [
            r#"{"id":1,"_geo":{"lat":1,"lng":2}}"#,
            r#"{"id":1,"_vectors":{}}"#,
            r#"{"id":1,"\u005fgeo":1}"#,
            r#"{"id":1,"t":"\ud800"}"#,
            r#"{"id":1,"n":1e999}"#,
        ] {
            assert!(!harmless(text), "{text}");
        }
        assert!(!harmless(&format!(
            r#"{{"id":1,"d":{}{}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        )));
        assert!(is_harmless(Format::Ndjson, b"{\"id\":1}\n{\"id\":2}"));
    }
}
