//! The documents of one index of a running server, page by page: while a page is sent, the next one is read.
//!
//! Pages are counted from the front. What is written to the source meanwhile may move documents from page to page, so an index that
//! was written to is compared afterwards.

use super::batch::{PageSize, of_page};
use super::error::ImportError;
use super::pipeline::{Pipeline, Work};
use super::source::{Index, Page, Server};

/// Copies what the journal doesn't know to be there.
pub(super) async fn documents(
    work: &mut Work<'_>,
    source: &Server,
    index: &Index,
) -> Result<(), ImportError> {
    let uid = &index.uid;
    let batch_bytes = work.batch_bytes;
    let mut offset = work.journal.index(uid).documents;
    let mut size = PageSize::new(batch_bytes);
    let mut pipeline = Pipeline::of_copy(uid, index.primary_key.as_deref());
    work.progress.index(uid);
    let mut page = source.page(uid, offset, size.limit()).await?;
    while !page.results.is_empty() {
        let bytes = page.results.iter().map(|one| one.get().len()).sum();
        size.learn(page.results.len(), bytes);
        let batches = of_page(uid, batch_bytes, offset, &page.results)?;
        offset += page.results.len() as u64;
        let total = page.total;
        drop(page);
        let next = next_page(source, uid, offset, size.limit(), total);
        let (next, sent) = tokio::join!(next, pipeline.send(work, batches));
        sent?;
        page = next?;
    }
    pipeline.finish(work).await
}

async fn next_page(
    source: &Server,
    uid: &str,
    offset: u64,
    limit: u64,
    total: u64,
) -> Result<Page, ImportError> {
    match offset < total {
        true => source.page(uid, offset, limit).await,
        false => Ok(Page {
            results: Vec::new(),
            total,
        }),
    }
}
