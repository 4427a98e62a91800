//! Free ports for clusters that tests start beside each other, in one process or in several.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::HarnessError;

/// Blocks lie below the range from which the kernel takes ports for outgoing connections.
const FIRST: u32 = 12_000;
const END: u32 = 32_000;

/// A run of free ports, claimed until it is dropped.
///
/// A listener on one port of the block that nobody else uses is the claim: whoever looks for ports meets it.
#[derive(Debug)]
pub struct PortBlock {
    base: u16,
    _claim: TcpListener,
}

/// The port of a block that no layout gives to anyone (see [`crate::Layout`]).
const CLAIM: u32 = 9;

impl PortBlock {
    /// Claims so many ports in a row, at least the ten that come before a layout's first node.
    pub fn claim(width: u32) -> Result<Self, HarnessError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let width = width.max(CLAIM + 1);
        let blocks = (END - FIRST) / width;
        // Processes begin in different places, and go on from there.
        let start = std::process::id().wrapping_mul(2_654_435_761);
        for _ in 0..blocks {
            let block = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % blocks;
            let base = FIRST + block * width;
            let Some(claim) = bind(base + CLAIM) else {
                continue;
            };
            let free = (base..base + width)
                .filter(|port| *port != base + CLAIM)
                .all(|port| bind(port).is_some());
            if let (true, Ok(base)) = (free, u16::try_from(base)) {
                return Ok(Self {
                    base,
                    _claim: claim,
                });
            }
        }
        Err(HarnessError::NoPorts(
            u16::try_from(width).unwrap_or(u16::MAX),
        ))
    }

    /// The first port.
    pub fn base(&self) -> u16 {
        self.base
    }
}

fn bind(port: u32) -> Option<TcpListener> {
    TcpListener::bind(("127.0.0.1", u16::try_from(port).ok()?)).ok()
}
