//! Free ports for clusters that tests start beside each other, in one process or in several.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::HarnessError;

/// The ports that are given away: below the range from which the kernel takes ports for outgoing connections.
const FIRST: u32 = 12_000;
/// They are given away in cells of so many, so that blocks of different widths either are apart or meet at a claim.
const CELL: u32 = 20;
const CELLS: u32 = 900;
/// Here, behind them, each cell has a port that stands for it.
const CLAIMS: u32 = FIRST + CELL * CELLS;

/// A run of free ports, claimed until it is dropped.
///
/// Whoever holds the listeners on its cells' claims has them. Nobody else so much as looks whether their ports are free, which would
/// be in the way of who is about to listen there.
#[derive(Debug)]
pub struct PortBlock {
    base: u16,
    _claims: Vec<TcpListener>,
}

impl PortBlock {
    /// Claims so many ports in a row.
    pub fn claim(width: u32) -> Result<Self, HarnessError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cells = width.div_ceil(CELL).max(1);
        let starts = (CELLS + 1).saturating_sub(cells);
        // Processes begin in different places, and go on from there.
        let start = std::process::id().wrapping_mul(2_654_435_761);
        for _ in 0..starts {
            let first = start.wrapping_add(NEXT.fetch_add(cells, Ordering::Relaxed)) % starts;
            let claims = (first..first + cells).map(|cell| bind(CLAIMS + cell));
            let Some(claims) = claims.collect() else {
                continue;
            };
            let base = FIRST + first * CELL;
            let free = (base..base + width).all(|port| bind(port).is_some());
            if let (true, Ok(base)) = (free, u16::try_from(base)) {
                return Ok(Self {
                    base,
                    _claims: claims,
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
