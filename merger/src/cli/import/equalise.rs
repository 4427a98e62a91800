//! Makes an index of the cluster equal to the source's: compares all documents by their digests, writes those that differ, and
//! deletes those that the source doesn't have.
//!
//! One pass over the cluster, one over the source, and a third over the cluster's ids if some of its documents were not seen at the
//! source. Of each document in the cluster some 40 bytes are kept meanwhile.
//!
//! Documents may move from page to page while the source is written to, so that a pass misses one. Before anything is deleted, the
//! source is asked for it by its id. What was written after the pass began has a task that is seen later.

use hashbrown::HashMap;
use serde_json::value::RawValue;

use super::batch::{Batcher, PageSize};
use super::digest::{Print, key_of};
use super::error::ImportError;
use super::pipeline::{Pipeline, Work};
use super::source::{IDS, Server};

/// How many ids are asked for at once.
const PAGE_OF_IDS: u64 = 10_000;
/// How many documents are deleted at once.
const DELETED_AT_ONCE: usize = 10_000;
/// How many ids of documents that differed are kept for the person.
const EXAMPLES: usize = 5;

/// What was done to an index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Equalised {
    /// Documents that were written.
    pub(super) written: u64,
    /// Documents that were deleted.
    pub(super) deleted: u64,
    /// Some of their ids.
    pub(super) examples: Vec<String>,
}

impl Equalised {
    /// How many documents differed.
    pub(super) fn differing(&self) -> u64 {
        self.written + self.deleted
    }

    fn example(&mut self, id: &str) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(id.to_owned());
        }
    }
}

/// The documents of the cluster, by the digests of their ids.
#[derive(Debug, Default)]
struct Known(HashMap<u64, Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    content: u64,
    at_source: bool,
}

impl Known {
    fn add(&mut self, print: &Print) {
        let seen = Seen {
            content: print.content,
            at_source: false,
        };
        self.0.insert(print.key, seen);
    }

    /// Notes that the source has a document; true if the cluster's is another one, or missing. A document that comes twice is
    /// compared with what was sent the first time.
    fn differs(&mut self, print: &Print) -> bool {
        let seen = self.0.get(&print.key).map(|seen| seen.content);
        let now = Seen {
            content: print.content,
            at_source: true,
        };
        self.0.insert(print.key, now);
        seen != Some(print.content)
    }

    fn some_unseen(&self) -> bool {
        self.0.values().any(|seen| !seen.at_source)
    }

    fn is_unseen(&self, id: &str) -> bool {
        self.0.get(&key_of(id)).is_some_and(|seen| !seen.at_source)
    }
}

/// Documents on their way to the cluster.
struct Sending {
    pipeline: Pipeline,
    batcher: Batcher,
    primary_key: String,
    done: Equalised,
}

impl Sending {
    async fn send(
        &mut self,
        work: &mut Work<'_>,
        print: &Print,
        document: &RawValue,
    ) -> Result<(), ImportError> {
        self.done.written += 1;
        self.done.example(&print.id);
        let full = self.batcher.push(document.get().as_bytes())?;
        self.pipeline.send(work, full.into_iter().collect()).await
    }
}

/// Does it. The index is there on both sides and has this primary key.
pub(super) async fn equalise(
    work: &mut Work<'_>,
    source: &Server,
    index: &str,
    primary_key: &str,
) -> Result<Equalised, ImportError> {
    let target = work.target.server.clone();
    let mut known = Known::default();
    let mut pages = Pages::new(&target, index, work.batch_bytes);
    while let Some(page) = pages.next().await? {
        for document in &page {
            if let Some(print) = Print::of(document, primary_key) {
                known.add(&print);
            }
        }
    }
    let mut sending = Sending {
        pipeline: Pipeline::of_changes(index, Some(primary_key)),
        batcher: Batcher::new(index, work.batch_bytes, 0),
        primary_key: primary_key.to_owned(),
        done: Equalised::default(),
    };
    let mut pages = Pages::new(source, index, work.batch_bytes);
    while let Some(page) = pages.next().await? {
        compare(work, &mut known, &mut sending, &page).await?;
    }
    if known.some_unseen() {
        remove_unseen(work, source, &mut known, &mut sending).await?;
    }
    let rest = sending.batcher.rest();
    sending
        .pipeline
        .send(work, rest.into_iter().collect())
        .await?;
    sending.pipeline.finish(work).await?;
    Ok(sending.done)
}

async fn compare(
    work: &mut Work<'_>,
    known: &mut Known,
    sending: &mut Sending,
    documents: &[Box<RawValue>],
) -> Result<(), ImportError> {
    for document in documents {
        let Some(print) = Print::of(document, &sending.primary_key) else {
            continue;
        };
        if known.differs(&print) {
            sending.send(work, &print, document).await?;
        }
    }
    Ok(())
}

/// Goes through the ids of the cluster, and deletes those that the source says not to have.
async fn remove_unseen(
    work: &mut Work<'_>,
    source: &Server,
    known: &mut Known,
    sending: &mut Sending,
) -> Result<(), ImportError> {
    let target = work.target.server.clone();
    let (index, key) = (
        sending.pipeline.index().to_owned(),
        sending.primary_key.clone(),
    );
    let (mut offset, mut unseen) = (0, Vec::new());
    loop {
        let page = target.ids(&index, &key, offset, PAGE_OF_IDS).await?;
        offset += page.len() as u64;
        let last = page.is_empty();
        unseen.extend(page.into_iter().filter(|id| known.is_unseen(id)));
        if last {
            break;
        }
    }
    let mut gone = Vec::new();
    for ids in unseen.chunks(IDS) {
        let found = source.documents_of(&index, ids).await?;
        compare(work, known, sending, &found).await?;
        gone.extend(ids.iter().filter(|id| known.is_unseen(id)).cloned());
    }
    for ids in gone.chunks(DELETED_AT_ONCE) {
        work.target.delete(&index, ids).await?;
        sending.done.deleted += ids.len() as u64;
        ids.iter().for_each(|id| sending.done.example(id));
    }
    Ok(())
}

/// All documents of an index, page by page.
struct Pages<'a> {
    server: &'a Server,
    index: &'a str,
    offset: u64,
    size: PageSize,
    ended: bool,
}

impl<'a> Pages<'a> {
    fn new(server: &'a Server, index: &'a str, batch_bytes: u64) -> Self {
        Self {
            server,
            index,
            offset: 0,
            size: PageSize::new(batch_bytes),
            ended: false,
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<Box<RawValue>>>, ImportError> {
        if self.ended {
            return Ok(None);
        }
        let limit = self.size.limit();
        let page = self.server.page(self.index, self.offset, limit).await?;
        let bytes = page.results.iter().map(|one| one.get().len()).sum();
        self.size.learn(page.results.len(), bytes);
        self.offset += page.results.len() as u64;
        self.ended = page.results.is_empty() || self.offset >= page.total;
        Ok(Some(page.results))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(id: &str, content: u64) -> Print {
        Print {
            id: id.to_owned(),
            key: key_of(id),
            content,
        }
    }

    #[test]
    fn what_differs_is_sent_and_what_the_source_lacks_is_unseen() {
        let mut known = Known::default();
        for (id, content) in [("same", 1), ("other", 2), ("gone", 3)] {
            known.add(&print(id, content));
        }
        assert!(!known.differs(&print("same", 1)));
        assert!(known.differs(&print("other", 7)));
        assert!(known.differs(&print("new", 9)));
        assert!(known.some_unseen());
        assert!(known.is_unseen("gone"));
        for seen in ["same", "other", "new", "never heard of"] {
            assert!(!known.is_unseen(seen), "{seen}");
        }
    }

    #[test]
    fn a_document_that_comes_twice_is_sent_once_unless_it_changed() {
        let mut known = Known::default();
        assert!(known.differs(&print("a", 1)));
        assert!(!known.differs(&print("a", 1)));
        assert!(known.differs(&print("a", 2)));
        assert!(!known.some_unseen());
    }
}
