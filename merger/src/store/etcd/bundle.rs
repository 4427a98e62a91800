//! Commits that are too large for one transaction.
//!
//! ```text
//! judge what is expected ─► store the parts ─► mark the bundle (from here on it is committed) ─► apply part by part ─► unmark
//! ```
//!
//! Each part is one transaction when it is stored and one when it is applied. Nobody else writes meanwhile, so what is expected may
//! be judged before. Readers of this merger wait from the mark on. If the merger dies after the mark, whoever opens the store next
//! goes on where it stopped; parts without a mark are thrown away.

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::exchange::Exchange;
use super::group::Normal;
use super::{MOST_BYTES, MOST_CHANGES, Whole, patiently, range};
use crate::etcd::{AGAIN, ANSWER_WITHIN, Action, Etcd, Transaction, get};
use crate::store::StoreError;

/// How many versions are read at once.
const JUDGED_AT_ONCE: usize = MOST_CHANGES;

/// The changes of a part, each a key with its new bytes.
type Part = Vec<(String, Option<Vec<u8>>)>;

/// Says that a bundle is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// How many parts there are.
    parts: usize,
    /// How many of them are applied.
    applied: usize,
}

/// Commits it as a bundle.
pub(super) async fn commit(
    exchange: &mut Exchange,
    whole: &Whole,
    commit: Normal,
) -> Result<(), StoreError> {
    if let Some(key) = judge(exchange, &commit).await? {
        return Err(StoreError::Conflict { key });
    }
    let parts = split(commit.changes);
    for (number, part) in parts.iter().enumerate() {
        let put = Action::put(exchange.prefix.bundle_part(number), encode(part));
        match exchange.send(&[], vec![put]).await {
            Ok(_) => {}
            // Without the mark, parts mean nothing.
            Err(StoreError::Unsettled) => return Err(StoreError::NotLeader),
            Err(error) => return Err(error),
        }
    }
    let mut alone = whole.write().await;
    let mark = Mark {
        parts: parts.len(),
        applied: 0,
    };
    exchange.send(&[], vec![put_mark(exchange, mark)]).await?;
    // It is committed, even if this merger doesn't get to the end of it.
    *alone = apply(exchange, parts, mark).await.is_ok();
    Ok(())
}

/// Completes the bundle that an earlier leader has committed, and removes the parts of one that it hasn't.
pub(super) async fn complete(exchange: &mut Exchange) -> Result<(), StoreError> {
    let mark = patiently(|| get(&*exchange.etcd, exchange.prefix.bundle())).await?;
    let stored = range(&*exchange.etcd, &exchange.prefix.bundle_parts()).await?;
    let Some(mark) = mark else {
        if !stored.is_empty() {
            let parts = exchange.prefix.bundle_parts();
            exchange.send(&[], vec![Action::DeleteAll(parts)]).await?;
        }
        return Ok(());
    };
    let mark: Mark = serde_json::from_slice(&mark.value).map_err(|_| damaged())?;
    tracing::info!(
        parts = mark.parts,
        applied = mark.applied,
        "a large commit of the last leader is completed"
    );
    if stored.len() != mark.parts.saturating_sub(mark.applied) {
        return Err(damaged());
    }
    let parts = stored.iter().map(|entry| decode(&entry.value));
    let parts: Vec<Part> = parts.collect::<Option<_>>().ok_or_else(damaged)?;
    apply(exchange, parts, mark).await
}

fn damaged() -> StoreError {
    StoreError::Failed("a large commit below the prefix is damaged".into())
}

/// Applies the parts that aren't applied yet. Goes on however long that takes, as long as this merger leads.
async fn apply(
    exchange: &mut Exchange,
    parts: Vec<Part>,
    mut mark: Mark,
) -> Result<(), StoreError> {
    for part in parts {
        let number = mark.applied;
        mark.applied += 1;
        loop {
            let changes = part.iter();
            let changes = changes.map(|(key, value)| exchange.change(key, value.as_ref()));
            let mut actions: Vec<Action> = changes.collect();
            actions.push(Action::Delete(exchange.prefix.bundle_part(number)));
            actions.push(match mark.applied < mark.parts {
                true => put_mark(exchange, mark),
                false => Action::Delete(exchange.prefix.bundle()),
            });
            match exchange.send(&[], actions).await {
                Ok(_) => break,
                Err(error @ StoreError::Failed(_)) if exchange.leads() => {
                    tracing::error!(%error, "a large commit can't be applied yet");
                    sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn put_mark(exchange: &Exchange, mark: Mark) -> Action {
    let value = serde_json::to_vec(&mark).unwrap_or_default();
    Action::put(exchange.prefix.bundle(), value)
}

/// The first key that isn't as expected.
async fn judge(exchange: &Exchange, commit: &Normal) -> Result<Option<String>, StoreError> {
    let mut versions = Vec::with_capacity(commit.expected.len());
    for some in commit.expected.chunks(JUDGED_AT_ONCE) {
        let keys = some.iter().map(|(key, _)| exchange.prefix.state(key));
        let read = Transaction {
            then: keys.map(Action::GetVersion).collect(),
            ..Transaction::default()
        };
        let etcd: &dyn Etcd = &*exchange.etcd;
        let read = patiently(|| etcd.transact(read.clone(), ANSWER_WITHIN)).await?;
        let found = read.found.into_iter();
        versions.extend(found.map(|entry| entry.map(|entry| entry.version)));
    }
    Ok(commit.conflict(&versions))
}

/// Splits changes into parts that a transaction takes.
fn split(changes: Part) -> Vec<Part> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Part::new(), 0);
    for change in changes {
        let size = change.0.len() + change.1.as_ref().map_or(0, Vec::len);
        let full = part.len() == MOST_CHANGES || bytes + size > MOST_BYTES;
        if full && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += size;
        part.push(change);
    }
    parts.push(part);
    parts
}

/// A part as bytes: for each change the key's length, the key, the value's length plus one (0 for a deletion), the value. Lengths
/// have 4 bytes, big-endian.
fn encode(part: &Part) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = |bytes: &mut Vec<u8>, length: usize| {
        bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    };
    for (key, value) in part {
        length(&mut bytes, key.len());
        bytes.extend_from_slice(key.as_bytes());
        length(
            &mut bytes,
            value.as_ref().map_or(0, |value| value.len() + 1),
        );
        bytes.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Part> {
    fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(taken)
    }
    fn length(bytes: &mut &[u8]) -> Option<usize> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        *bytes = rest;
        usize::try_from(u32::from_be_bytes(*length)).ok()
    }
    let mut part = Part::new();
    while !bytes.is_empty() {
        let key = length(&mut bytes)?;
        let key = take(&mut bytes, key)?;
        let key = String::from_utf8(key.to_vec()).ok()?;
        let value = match length(&mut bytes)?.checked_sub(1) {
            Some(length) => Some(take(&mut bytes, length)?.to_vec()),
            None => None,
        };
        part.push((key, value));
    }
    Some(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_part_that_was_stored_is_read_as_it_was(
            part in prop::collection::vec(("[a-zé/]{0,9}", prop::option::of(prop::collection::vec(any::<u8>(), 0..9))), 0..9)
        ) {
            prop_assert_eq!(decode(&encode(&part)), Some(part));
        }

        #[test]
        fn bytes_that_are_no_part_are_refused_without_a_panic(bytes in prop::collection::vec(0_u8..4, 0..20)) {
            if let Some(part) = decode(&bytes) {
                prop_assert_eq!(encode(&part), bytes);
            }
        }
    }

    #[test]
    fn parts_are_within_what_a_transaction_takes_and_lose_nothing() {
        let change = |n: usize| (format!("{n:04}"), Some(vec![0; n * 1_000]));
        let changes: Part = (0..300).map(change).collect();
        let parts = split(changes.clone());
        for part in &parts {
            let bytes: usize = part
                .iter()
                .map(|(_, value)| value.as_ref().unwrap().len())
                .sum();
            assert!(part.len() <= MOST_CHANGES && bytes <= MOST_BYTES && !part.is_empty());
        }
        assert_eq!(parts.concat(), changes);
    }
}
