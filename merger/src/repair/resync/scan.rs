//! Reads all documents of an index from a node while clients write to it.
//!
//! Pages are counted from the front, and a deletion moves every later document one place forward. Simple paging would miss one
//! document for each deletion. So each page begins a little before the end of the last one, and continues after the last known
//! document in it. Documents inserted meanwhile may be missed, but they are noted as written.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ResyncError;
use super::digest::Print;
use super::remote::Remote;

/// How many documents each page overlaps the one before.
const OVERLAP: usize = 16;
/// The wanted size of a page in bytes, and the limits of its number of documents.
const PAGE_BYTES: usize = 4 << 20;
const PAGE_DOCUMENTS: std::ops::RangeInclusive<usize> = 64..=10_000;
const FIRST_PAGE: usize = 256;

/// A scan of one index.
pub(crate) struct Scan<'a> {
    remote: &'a Remote<'a>,
    index: &'a str,
    primary_key: &'a str,
    /// The fields that are read; all if there are none. The digests mean nothing if only some are.
    fields: &'a [&'a str],
    place: Place,
    limit: usize,
    ended: bool,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(remote: &'a Remote<'a>, index: &'a str, primary_key: &'a str) -> Self {
        Self {
            remote,
            index,
            primary_key,
            fields: &[],
            place: Place::default(),
            limit: FIRST_PAGE,
            ended: false,
        }
    }

    /// Goes on with a scan of the same index on the same node.
    pub(crate) fn resume(
        remote: &'a Remote<'a>,
        index: &'a str,
        primary_key: &'a str,
        position: Position,
    ) -> Self {
        Self {
            place: position.place,
            limit: position
                .limit
                .clamp(*PAGE_DOCUMENTS.start(), *PAGE_DOCUMENTS.end()),
            ..Self::new(remote, index, primary_key)
        }
    }

    /// Where the scan is, to [go on](Self::resume) later; `None` at the end.
    pub(crate) fn position(self) -> Option<Position> {
        (!self.ended).then_some(Position {
            place: self.place,
            limit: self.limit,
        })
    }

    /// A scan that reads these fields only, the first of which is the primary key.
    pub(crate) fn of_fields(remote: &'a Remote<'a>, index: &'a str, fields: &'a [&'a str]) -> Self {
        Self {
            fields,
            limit: *PAGE_DOCUMENTS.end(),
            ..Self::new(remote, index, fields.first().copied().unwrap_or_default())
        }
    }

    /// The next documents; `None` at the end. Every document that exists during the whole scan is among them. A document may come
    /// twice if many were deleted meanwhile.
    pub(crate) async fn next(
        &mut self,
    ) -> Result<Option<Vec<(Print, Box<RawValue>)>>, ResyncError> {
        while !self.ended {
            let from = self.place.next_from();
            let limit = self.limit + OVERLAP;
            let (remote, index) = (self.remote, self.index);
            let page = match self.fields {
                [] => remote.documents(index, from, limit).await?,
                fields => remote.fields(index, fields, from, limit).await?,
            };
            let bytes: usize = page.iter().map(|document| document.get().len()).sum();
            let mut prints: Vec<(Print, Box<RawValue>)> = page
                .into_iter()
                .filter_map(|document| Some((Print::of(&document, self.primary_key)?, document)))
                .collect();
            let ids: Vec<&str> = prints.iter().map(|(print, _)| print.id.as_str()).collect();
            let (count, full) = (ids.len(), ids.len() >= limit);
            let Some(known) = self.place.go_on(from, &ids) else {
                continue;
            };
            prints.drain(..known.min(count));
            self.ended = prints.is_empty() && !full;
            if let Some(each) = bytes.checked_div(count).filter(|each| *each > 0) {
                self.limit =
                    (PAGE_BYTES / each).clamp(*PAGE_DOCUMENTS.start(), *PAGE_DOCUMENTS.end());
            }
            if !prints.is_empty() {
                return Ok(Some(prints));
            }
        }
        Ok(None)
    }
}

/// How far a scan has come, for the one that goes on with it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Position {
    place: Place,
    limit: usize,
}

/// How far a scan has come. Pure.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Place {
    /// The offset of the end of the last page.
    end: usize,
    /// The ids of the last documents seen, oldest first.
    last: VecDeque<String>,
    /// How far the next page goes back. It grows when more was deleted.
    back: usize,
}

impl Place {
    fn next_from(&self) -> usize {
        self.end.saturating_sub(self.back.max(OVERLAP))
    }

    /// Takes a page that began at `from`. Returns how many of its documents come before the new ones, or `None` if the page lies
    /// after a gap and the next one must begin earlier.
    fn go_on(&mut self, from: usize, ids: &[&str]) -> Option<usize> {
        let known = ids
            .iter()
            .rposition(|id| self.last.iter().any(|last| last == id))
            .map(|place| place + 1);
        let known = match known {
            Some(known) => known,
            None if self.last.is_empty() || from == 0 => 0,
            None => {
                self.back = self.back.max(OVERLAP) * 4;
                return None;
            }
        };
        self.back = OVERLAP;
        self.end = from + ids.len();
        for id in ids.iter().skip(known) {
            self.last.push_back((*id).to_owned());
        }
        while self.last.len() > OVERLAP {
            self.last.pop_front();
        }
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans a list from which documents are deleted between pages.
    fn scanned(
        mut list: Vec<u32>,
        limit: usize,
        delete: impl Fn(usize, &mut Vec<u32>),
    ) -> Vec<u32> {
        let (mut place, mut seen) = (Place::default(), Vec::new());
        for round in 0..10_000 {
            let from = place.next_from();
            let page: Vec<String> = list
                .iter()
                .skip(from)
                .take(limit + OVERLAP)
                .map(u32::to_string)
                .collect();
            let ids: Vec<&str> = page.iter().map(String::as_str).collect();
            if let Some(known) = place.go_on(from, &ids) {
                seen.extend(list.iter().skip(from + known).take(limit + OVERLAP - known));
                if known == ids.len() && ids.len() < limit + OVERLAP {
                    return seen;
                }
            }
            delete(round, &mut list);
        }
        panic!("no end");
    }

    #[test]
    fn a_scan_of_what_stands_still_sees_each_document_once() {
        for count in [0, 1, 15, 16, 17, 99, 100, 101, 1000] {
            let list: Vec<u32> = (0..count).collect();
            assert_eq!(scanned(list.clone(), 100, |_, _| {}), list, "{count}");
        }
    }

    #[test]
    fn no_document_that_stays_is_missed_however_many_are_deleted() {
        for (limit, deletes) in [(10, 1), (10, 7), (10, 40), (50, 30), (100, 400)] {
            let list: Vec<u32> = (0..2000).collect();
            let seen = scanned(list, limit, |round, list| {
                for n in 0..deletes {
                    if list.len() > 200 {
                        // Deletes documents all over the list, but never a multiple of 100.
                        let place = (round * 7919 + n * 104_729) % list.len();
                        if !list[place].is_multiple_of(100) {
                            list.remove(place);
                        }
                    }
                }
            });
            for stays in (0..2000).step_by(100) {
                let times = seen.iter().filter(|id| **id == stays).count();
                assert!(
                    times >= 1,
                    "{stays} was missed: limit {limit}, {deletes} deletes a page"
                );
            }
        }
    }
}
