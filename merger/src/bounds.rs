//! Limits for all requests together: slots for work, bodies being read, and bytes of bodies, spools and answers.
//!
//! Each request also has limits of its own (see [`crate::call`], [`crate::write`] and [`crate::upstream`]); this module limits
//! their sum. [`crate::upstream`] itself has the budget for nodes' answers. No request ever waits for room, because two requests
//! that hold some while they wait for more would wait for ever. A request that finds no room is refused with 503 and may be tried
//! again. The merger's own requests (readiness, the table, probes, tasks) are never refused here: internal requests take no slot,
//! and the first [`FREE_ANSWER_BYTES`] of each node's answer don't count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many bytes of each node's answer don't count, so that probes and tasks go on when large answers use up the budget.
pub const FREE_ANSWER_BYTES: u64 = 256 << 10;

/// There is no room; the client may try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Too many requests: {what} are at their limit of {limit}. Please retry after 1s.")]
pub struct NoRoom {
    /// What has reached its limit.
    pub what: &'static str,
    /// The limit.
    pub limit: u64,
}

/// The limits for all requests together, and what is used.
#[derive(Debug)]
pub struct Bounds {
    /// Requests that are being handled.
    requests: Slots,
    /// Requests whose body is being read.
    reading: Slots,
    /// Clients' bodies in memory, in bytes.
    pub bodies: Budget,
    /// Writes' parts on disk, in bytes.
    pub spools: Budget,
}

/// The values of the limits for all requests together.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that are being handled.
    pub requests: usize,
    /// Requests whose body is being read.
    pub reading: usize,
    /// Clients' bodies in memory, in bytes.
    pub bodies: u64,
    /// Writes' parts on disk, in bytes.
    pub spools: u64,
}

impl Bounds {
    /// The limits with nothing used; the gauge `under_way` shows how many requests are being handled.
    pub fn new(limits: Limits, under_way: IntGauge) -> Self {
        Self {
            requests: Slots::new("requests", limits.requests, Some(under_way)),
            reading: Slots::new("requests with a body on its way", limits.reading, None),
            bodies: Budget::new("bytes of request bodies", limits.bodies),
            spools: Budget::new("bytes of writes on disk", limits.spools),
        }
    }

    /// A slot for work that begins now.
    ///
    /// # Errors
    /// The limit of requests that are being handled is reached.
    pub fn begin(&self) -> Result<Slot, NoRoom> {
        self.requests.take()
    }

    /// A slot for reading a body. It is separate from the slots for work, so that slow clients don't keep others from working.
    ///
    /// # Errors
    /// The limit of bodies that are being read is reached.
    pub fn read(&self) -> Result<Slot, NoRoom> {
        self.reading.take()
    }
}

#[derive(Debug)]
struct Slots {
    what: &'static str,
    limit: usize,
    free: Arc<Semaphore>,
    gauge: Option<IntGauge>,
}

impl Slots {
    fn new(what: &'static str, limit: usize, gauge: Option<IntGauge>) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self {
            what,
            limit,
            free: Arc::new(Semaphore::new(limit)),
            gauge,
        }
    }

    fn take(&self) -> Result<Slot, NoRoom> {
        let permit = Arc::clone(&self.free).try_acquire_owned();
        let permit = permit.map_err(|_| NoRoom {
            what: self.what,
            limit: self.limit as u64,
        })?;
        if let Some(gauge) = &self.gauge {
            gauge.inc();
        }
        Ok(Slot {
            _permit: permit,
            gauge: self.gauge.clone(),
        })
    }
}

/// One of a limited number of slots; dropping it frees the slot.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    gauge: Option<IntGauge>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(gauge) = &self.gauge {
            gauge.dec();
        }
    }
}

/// A limited number of bytes that many requests share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    what: &'static str,
    limit: u64,
    used: Arc<AtomicU64>,
}

impl Budget {
    /// At most `limit` bytes of `what`.
    pub fn new(what: &'static str, limit: u64) -> Self {
        Self {
            what,
            limit,
            used: Arc::default(),
        }
    }

    /// A budget without a limit, for measurements and tests.
    pub fn unbounded() -> Self {
        Self::new("bytes", u64::MAX)
    }

    /// A share of 0 bytes, which can grow.
    pub fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// How many bytes are used.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A part of a [`Budget`]; dropping it gives the bytes back.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: u64,
}

impl Share {
    /// Takes `bytes` more.
    ///
    /// # Errors
    /// There is no room; the share stays as it was.
    pub fn grow(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let Budget { what, limit, used } = &self.budget;
        let before = used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > *limit {
            used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(NoRoom {
                what,
                limit: *limit,
            });
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Gives `bytes` back.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }

    /// Changes the share to `bytes` in total.
    ///
    /// # Errors
    /// There is no room for more.
    pub fn resize(&mut self, bytes: u64) -> Result<(), NoRoom> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.shrink(self.bytes - bytes);
                Ok(())
            }
        }
    }

    /// The same bytes; they hold the share until their last copy is dropped.
    pub fn held_by(self, bytes: Bytes) -> Bytes {
        if self.bytes == 0 {
            return bytes;
        }
        Bytes::from_owner(Owned {
            bytes,
            _share: self,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

struct Owned {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_hold_their_share_until_the_last_copy_is_gone() {
        let budget = Budget::new("bytes", 10);
        let mut share = budget.share();
        share.grow(4).unwrap();
        let bytes = share.held_by(Bytes::from_static(b"abcd"));
        let part = bytes.slice(1..2);
        drop(bytes);
        assert_eq!(budget.used(), 4);
        assert_eq!(&*part, b"b");
        drop(part);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_share_that_finds_no_room_stays_what_it_was() {
        let budget = Budget::new("bytes of answers", 10);
        let (mut one, mut other) = (budget.share(), budget.share());
        one.grow(7).unwrap();
        let full = other.grow(4).unwrap_err();
        assert_eq!(full.limit, 10);
        assert!(full.to_string().contains("bytes of answers"), "{full}");
        assert_eq!(budget.used(), 7);
        other.grow(3).unwrap();
        one.resize(2).unwrap();
        other.resize(8).unwrap();
        assert!(one.resize(3).is_err());
        drop((one, other));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_slot_is_free_again_when_it_is_dropped_and_the_gauge_shows_it() {
        let gauge = IntGauge::new("under_way", "x").unwrap();
        let slots = Slots::new("requests", 2, Some(gauge.clone()));
        let (one, _other) = (slots.take().unwrap(), slots.take().unwrap());
        assert!(slots.take().is_err());
        assert_eq!(gauge.get(), 2);
        drop(one);
        assert_eq!(gauge.get(), 1);
        assert!(slots.take().is_ok());
    }

    proptest! {
        /// For any order of taking and giving back: the used bytes are the sum of the shares, and never more than the limit.
        #[test]
        fn what_is_used_is_what_is_held(steps in prop::collection::vec((0_usize..4, 0_u64..60), 1..60)) {
            let budget = Budget::new("bytes", 100);
            let mut shares: Vec<(Share, u64)> = (0..4).map(|_| (budget.share(), 0)).collect();
            for (which, bytes) in steps {
                let (share, held) = &mut shares[which];
                if share.resize(bytes).is_ok() {
                    *held = bytes;
                }
                let held: u64 = shares.iter().map(|(_, held)| held).sum();
                prop_assert_eq!(budget.used(), held);
                prop_assert!(held <= 100);
            }
            drop(shares);
            prop_assert_eq!(budget.used(), 0);
        }
    }
}
