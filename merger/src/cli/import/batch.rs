//! Documents in batches: how many are asked for at once, and how they are put into bodies. Pure.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::error::ImportError;

/// How many documents the first page of an index has, before their size is known.
const FIRST_PAGE: u64 = 500;
/// The most documents on a page. Small documents gain nothing from more.
const MOST_DOCUMENTS: u64 = 50_000;
/// The largest document that is sent, in bytes: below the nodes' own limit of a body.
pub(super) const LARGEST_DOCUMENT: usize = 90 << 20;

/// Documents that are sent together, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// The body.
    pub(super) body: Bytes,
    /// How many documents it has.
    pub(super) documents: u64,
    /// How many documents of the index come before its end.
    pub(super) end: u64,
}

/// How many documents to ask for, so that a page is as large as a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageSize {
    batch_bytes: u64,
    limit: u64,
}

impl PageSize {
    /// The size of the first page.
    pub(super) fn new(batch_bytes: u64) -> Self {
        Self {
            batch_bytes,
            limit: FIRST_PAGE,
        }
    }

    /// The size of the next page.
    pub(super) fn limit(self) -> u64 {
        self.limit
    }

    /// Learns from a page. The next one has at most four times as many documents, since the next documents may be larger.
    pub(super) fn learn(&mut self, documents: usize, bytes: usize) {
        let (documents, bytes) = (documents as u64, bytes as u64);
        if let Some(each) = bytes.checked_div(documents) {
            let fitting = self.batch_bytes / each.max(1);
            self.limit = fitting.clamp(1, (self.limit * 4).min(MOST_DOCUMENTS));
        }
    }
}

/// Puts documents into batches.
#[derive(Debug)]
pub(super) struct Batcher {
    index: String,
    batch_bytes: usize,
    body: Vec<u8>,
    documents: u64,
    /// How many documents of the index were taken so far.
    taken: u64,
}

impl Batcher {
    /// For an index of which so many documents are there already.
    pub(super) fn new(index: &str, batch_bytes: u64, taken: u64) -> Self {
        Self {
            index: index.to_owned(),
            batch_bytes: usize::try_from(batch_bytes).unwrap_or(LARGEST_DOCUMENT),
            body: Vec::new(),
            documents: 0,
            taken,
        }
    }

    /// Adds a document; returns the batch that is full, if one is. A document that alone is larger than a batch is one.
    ///
    /// # Errors
    /// [`ImportError::TooLarge`].
    pub(super) fn push(&mut self, document: &[u8]) -> Result<Option<Batch>, ImportError> {
        if document.len() > LARGEST_DOCUMENT {
            return Err(ImportError::TooLarge {
                index: self.index.clone(),
                bytes: document.len(),
                limit: LARGEST_DOCUMENT,
            });
        }
        let full = !self.body.is_empty() && self.body.len() + document.len() >= self.batch_bytes;
        let batch = full.then(|| self.cut());
        // Line ends are removed: they can only be between the fields, as JSON strings escape them.
        let mut from = 0;
        for end in memchr::memchr2_iter(b'\n', b'\r', document) {
            self.body
                .extend_from_slice(document.get(from..end).unwrap_or_default());
            from = end + 1;
        }
        self.body
            .extend_from_slice(document.get(from..).unwrap_or_default());
        self.body.push(b'\n');
        self.documents += 1;
        self.taken += 1;
        Ok(batch)
    }

    /// The documents that are left.
    pub(super) fn rest(&mut self) -> Option<Batch> {
        (self.documents > 0).then(|| self.cut())
    }

    fn cut(&mut self) -> Batch {
        Batch {
            body: Bytes::from(std::mem::take(&mut self.body)),
            documents: std::mem::take(&mut self.documents),
            end: self.taken,
        }
    }
}

/// A page as batches: as a rule it is one.
///
/// # Errors
/// [`ImportError::TooLarge`].
pub(super) fn of_page(
    index: &str,
    batch_bytes: u64,
    offset: u64,
    page: &[Box<RawValue>],
) -> Result<Vec<Batch>, ImportError> {
    // Pages are only about as large as a batch. A little more is no reason for a second one.
    let mut batcher = Batcher::new(index, batch_bytes + batch_bytes / 2, offset);
    let mut batches = Vec::new();
    for document in page {
        batches.extend(batcher.push(document.get().as_bytes())?);
    }
    batches.extend(batcher.rest());
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_is_as_large_as_a_batch_once_the_size_of_documents_is_known() {
        let mut size = PageSize::new(1 << 20);
        assert_eq!(size.limit(), 500);
        size.learn(500, 500 * 1024);
        assert_eq!(size.limit(), 1024);
        size.learn(1024, 1024 * 100 * 1024);
        assert_eq!(size.limit(), 10);
        size.learn(10, 10);
        assert_eq!(size.limit(), 40, "it grows in steps");
        size.learn(1, 5 << 20);
        assert_eq!(size.limit(), 1);
        size.learn(0, 0);
        assert_eq!(size.limit(), 1);
    }

    #[test]
    fn a_document_over_several_lines_becomes_one_line() {
        let mut batcher = Batcher::new("x", 1024, 0);
        assert_eq!(batcher.push(b"{\"a\":\r\n 1}").unwrap(), None);
        let batch = batcher.rest().unwrap();
        assert_eq!(&batch.body[..], b"{\"a\": 1}\n");
        assert_eq!(batcher.rest(), None);
    }

    #[test]
    fn a_document_that_no_node_takes_is_refused() {
        let mut batcher = Batcher::new("x", 1024, 0);
        let error = batcher.push(&vec![b' '; LARGEST_DOCUMENT + 1]).unwrap_err();
        assert!(matches!(error, ImportError::TooLarge { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn batches_hold_all_documents_in_order_and_know_where_they_end(
            sizes in prop::collection::vec(0_usize..300, 0..60),
            limit in 1_u64..500,
            taken in 0_u64..10,
        ) {
            let documents: Vec<Vec<u8>> = sizes.iter().enumerate()
                .map(|(n, size)| format!("{{\"id\":{n},\"x\":\"{}\"}}", "y".repeat(*size)).into_bytes())
                .collect();
            let mut batcher = Batcher::new("x", limit, taken);
            let mut batches = Vec::new();
            for document in &documents {
                batches.extend(batcher.push(document).unwrap());
            }
            batches.extend(batcher.rest());
            let mut end = taken;
            let mut lines = Vec::new();
            for batch in &batches {
                end += batch.documents;
                prop_assert_eq!(batch.end, end);
                prop_assert!(batch.documents == 1 || batch.body.len() as u64 <= limit + batch.documents);
                let text = batch.body.strip_suffix(b"\n").unwrap();
                lines.extend(text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
            }
            prop_assert_eq!(lines, documents);
        }
    }
}
