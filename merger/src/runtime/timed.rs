//! An etcd whose requests are timed, for the metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use prometheus::HistogramVec;

use crate::etcd::{Ask, Etcd, EtcdError, Granted, Outcome, Page, Transaction};

/// Times each request to another etcd.
pub(super) struct Timed {
    pub(super) etcd: Arc<dyn Etcd>,
    pub(super) seconds: HistogramVec,
}

impl Timed {
    fn time<'a, T: 'a>(
        &'a self,
        request: &'static str,
        work: BoxFuture<'a, Result<T, EtcdError>>,
    ) -> BoxFuture<'a, Result<T, EtcdError>> {
        Box::pin(async move {
            let begun = Instant::now();
            let outcome = work.await;
            let word = match &outcome {
                Err(EtcdError::NoAnswer(_)) => "no-answer",
                Err(_) => "refused",
                Ok(_) => "answered",
            };
            let seconds = self.seconds.with_label_values(&[request, word]);
            seconds.observe(begun.elapsed().as_secs_f64());
            outcome
        })
    }
}

impl Etcd for Timed {
    fn transact(
        &self,
        transaction: Transaction,
        within: Duration,
    ) -> BoxFuture<'_, Result<Outcome, EtcdError>> {
        let reads = transaction.then.iter().all(|action| action.reads());
        let request = if reads { "read" } else { "commit" };
        self.time(request, self.etcd.transact(transaction, within))
    }

    fn page(&self, ask: Ask, within: Duration) -> BoxFuture<'_, Result<Page, EtcdError>> {
        self.time("read", self.etcd.page(ask, within))
    }

    fn grant(&self, seconds: u32, within: Duration) -> BoxFuture<'_, Result<Granted, EtcdError>> {
        self.time("lease", self.etcd.grant(seconds, within))
    }

    fn renew(&self, lease: i64, within: Duration) -> BoxFuture<'_, Result<bool, EtcdError>> {
        self.time("lease", self.etcd.renew(lease, within))
    }

    fn time_left(
        &self,
        lease: i64,
        within: Duration,
    ) -> BoxFuture<'_, Result<Option<Duration>, EtcdError>> {
        self.time("lease", self.etcd.time_left(lease, within))
    }

    fn revoke(&self, lease: i64, within: Duration) -> BoxFuture<'_, Result<(), EtcdError>> {
        self.time("lease", self.etcd.revoke(lease, within))
    }

    fn compact(&self, revision: i64, within: Duration) -> BoxFuture<'_, Result<(), EtcdError>> {
        self.time("compaction", self.etcd.compact(revision, within))
    }
}
