//! Finds the differences of an index between two nodes: first by slots, which needs little memory, then by the documents of the
//! slots that differ.

use hashbrown::HashMap;

use super::ResyncError;
use super::digest::{Print, SlotDigests};
use super::remote::Remote;
use super::scan::Scan;
use crate::cluster::{Documents, Written};

/// How many documents are held in memory at once, as ids and digests. For larger indexes, the slots are taken in several passes.
const DOCUMENTS_A_PASS: u64 = 1_000_000;

/// Something that differs between the two nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Difference {
    pub(crate) index: String,
    /// The document; `None` for the index itself or its settings.
    pub(crate) id: Option<String>,
}

impl Difference {
    /// Whether a write meanwhile may explain the difference.
    pub(crate) fn is_within(&self, written: &Written) -> bool {
        let Written::Indexes(indexes) = written else {
            return true;
        };
        match (indexes.get(&self.index), &self.id) {
            (Some(Documents::All), _) => true,
            (Some(Documents::Ids(ids)), Some(id)) => ids.contains(id),
            _ => false,
        }
    }
}

/// A flag for each slot of an index, true if the two nodes differ in it; `None` if they don't differ.
pub(crate) async fn compare(
    source: &Remote<'_>,
    target: &Remote<'_>,
    index: &str,
    primary_key: &str,
) -> Result<Option<Vec<bool>>, ResyncError> {
    let one = digests(source, index, primary_key).await?;
    let two = digests(target, index, primary_key).await?;
    let differing = one.differing(&two);
    Ok(differing.contains(&true).then_some(differing))
}

async fn digests(
    remote: &Remote<'_>,
    index: &str,
    primary_key: &str,
) -> Result<SlotDigests, ResyncError> {
    let mut digests = SlotDigests::default();
    let mut scan = Scan::new(remote, index, primary_key);
    while let Some(page) = scan.next().await? {
        for (print, _) in &page {
            digests.add(print);
        }
    }
    Ok(digests)
}

/// Splits the differing slots into passes, each with about as many documents as may be held at once.
pub(crate) fn passes(differing: &[bool], documents: u64) -> Vec<Vec<bool>> {
    let count = differing.iter().filter(|differs| **differs).count();
    let all = differing.len().max(1) as u64;
    let expected = documents.saturating_mul(count as u64) / all;
    let passes = usize::try_from(expected.div_ceil(DOCUMENTS_A_PASS).max(1)).unwrap_or(count);
    let size = count.div_ceil(passes).max(1);
    let places: Vec<usize> = differing
        .iter()
        .enumerate()
        .filter_map(|(place, differs)| differs.then_some(place))
        .collect();
    let pass = |places: &[usize]| {
        let mut slots = vec![false; differing.len()];
        for place in places {
            if let Some(slot) = slots.get_mut(*place) {
                *slot = true;
            }
        }
        slots
    };
    places.chunks(size).map(pass).collect()
}

/// Whether a document lies in one of the slots.
pub(crate) fn is_among(slots: &[bool], print: &Print) -> bool {
    slots.get(usize::from(print.slot.0)) == Some(&true)
}

/// The documents that a node holds in some slots: id → digest of the content.
pub(crate) async fn contents(
    remote: &Remote<'_>,
    index: &str,
    primary_key: &str,
    slots: &[bool],
) -> Result<HashMap<String, u64>, ResyncError> {
    let mut held = HashMap::new();
    let mut scan = Scan::new(remote, index, primary_key);
    while let Some(page) = scan.next().await? {
        let here = page
            .into_iter()
            .map(|(print, _)| print)
            .filter(|print| is_among(slots, print));
        held.extend(here.map(|print| (print.id, print.content)));
    }
    Ok(held)
}

/// The ids of the documents that differ in some slots.
pub(crate) async fn differing_ids(
    source: &Remote<'_>,
    target: &Remote<'_>,
    index: &str,
    primary_key: &str,
    slots: &[bool],
) -> Result<Vec<String>, ResyncError> {
    let mut ids = Vec::new();
    for pass in passes(slots, source.count(index).await?) {
        let mut held = contents(target, index, primary_key, &pass).await?;
        let mut scan = Scan::new(source, index, primary_key);
        while let Some(page) = scan.next().await? {
            for (print, _) in page {
                if is_among(&pass, &print) && held.remove(&print.id) != Some(print.content) {
                    ids.push(print.id);
                }
            }
        }
        ids.extend(held.into_keys());
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_index_is_compared_in_several_passes_that_cover_each_slot_once() {
        let differing: Vec<bool> = (0..4096).map(|slot| slot % 2 == 0).collect();
        assert_eq!(passes(&differing, 10).len(), 1);
        let many = passes(&differing, 10_000_000);
        assert_eq!(many.len(), 5);
        let sum = many.iter().fold(vec![0; 4096], |mut sum, pass| {
            for (slot, holds) in pass.iter().enumerate() {
                sum[slot] += usize::from(*holds);
            }
            sum
        });
        let once: Vec<usize> = differing
            .iter()
            .map(|differs| usize::from(*differs))
            .collect();
        assert_eq!(sum, once);
        assert!(passes(&[false; 8], 5).is_empty());
    }
}
