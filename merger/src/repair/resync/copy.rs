//! Copies documents to a node in batches, at the allowed rate, and checks that each batch succeeds.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::remote::Remote;
use super::source::SourceGuard;
use super::{Progress, ResyncError};

/// A batch is sent once it has this many bytes or documents.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_DOCUMENTS: usize = 10_000;
/// How many batches the node may have in its queue before the copy waits.
const AHEAD: usize = 3;

/// A stream of documents to one index of a node.
pub(crate) struct Copy<'a> {
    target: &'a Remote<'a>,
    path: String,
    batch: Vec<u8>,
    documents: usize,
    sent: VecDeque<u32>,
    bytes_per_second: u64,
    progress: &'a Progress,
    source: &'a SourceGuard<'a>,
}

impl<'a> Copy<'a> {
    pub(crate) fn new(
        target: &'a Remote<'a>,
        index: &str,
        primary_key: &str,
        bytes_per_second: u64,
        progress: &'a Progress,
        source: &'a SourceGuard<'a>,
    ) -> Self {
        let key: String = form_urlencoded::byte_serialize(primary_key.as_bytes()).collect();
        Self {
            target,
            path: format!("/indexes/{index}/documents?primaryKey={key}"),
            batch: Vec::new(),
            documents: 0,
            sent: VecDeque::new(),
            bytes_per_second,
            progress,
            source,
        }
    }

    /// Adds one document.
    pub(crate) async fn push(&mut self, document: &RawValue) -> Result<(), ResyncError> {
        // One line for each document. Line ends are removed: they can only be between the fields, as JSON strings escape them.
        self.batch.extend(
            document
                .get()
                .bytes()
                .filter(|byte| *byte != b'\n' && *byte != b'\r'),
        );
        self.batch.push(b'\n');
        self.documents += 1;
        if self.batch.len() >= BATCH_BYTES || self.documents >= BATCH_DOCUMENTS {
            self.send().await?;
        }
        Ok(())
    }

    /// Sends the last batch, and waits until all tasks are done.
    pub(crate) async fn finish(mut self) -> Result<(), ResyncError> {
        self.send().await?;
        while let Some(uid) = self.sent.pop_front() {
            self.target.done(uid).await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), ResyncError> {
        if self.documents == 0 {
            return Ok(());
        }
        let begun = Instant::now();
        let body = Bytes::from(std::mem::take(&mut self.batch));
        let bytes = body.len() as u64;
        let documents = std::mem::take(&mut self.documents) as u64;
        let body = Some((body, "application/x-ndjson"));
        self.source.check().await?;
        let uid = self.target.enqueue(Method::POST, &self.path, body).await?;
        self.sent.push_back(uid);
        self.progress.copied.fetch_add(documents, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.sent.len() > AHEAD
            && let Some(oldest) = self.sent.pop_front()
        {
            self.target.done(oldest).await?;
        }
        if let Some(millis) = (bytes * 1000).checked_div(self.bytes_per_second) {
            let pause = Duration::from_millis(millis).saturating_sub(begun.elapsed());
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }
}
