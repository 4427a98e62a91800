//! Free ports for clusters that tests start at the same time, in one process or in several.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::HarnessError;

/// The first port that is given out. All are below the range that the kernel uses for outgoing connections.
const FIRST: u32 = 12_000;
/// Ports are given out in cells of this size, so that two blocks of different widths either don't overlap or share a claim.
const CELL: u32 = 20;
const CELLS: u32 = 900;
/// After the ports themselves: each cell has one port here that represents it.
const CLAIMS: u32 = FIRST + CELL * CELLS;

/// A block of free ports, claimed until it is dropped.
///
/// The owner of the block holds listeners on the claim ports of its cells.
#[derive(Debug)]
pub struct PortBlock {
    base: u16,
    _claims: Vec<TcpListener>,
}

impl PortBlock {
    /// Claims this many consecutive ports.
    pub fn claim(width: u32) -> Result<Self, HarnessError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cells = width.div_ceil(CELL).max(1);
        let starts = (CELLS + 1).saturating_sub(cells);
        // Each process starts its search at a different position.
        let start = std::process::id().wrapping_mul(2_654_435_761);
        for _ in 0..starts {
            let first = start.wrapping_add(NEXT.fetch_add(cells, Ordering::Relaxed)) % starts;
            let claims = (first..first + cells).map(|cell| bind(CLAIMS + cell));
            let Some(claims) = claims.collect() else {
                continue;
            };
            let base = FIRST + first * CELL;
            let (Ok(base), Ok(end)) = (u16::try_from(base), u16::try_from(base + width)) else {
                continue;
            };
            if (base..end).all(is_free) {
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

/// True if no program listens on the port.
///
/// This doesn't listen on the port itself, even for a moment: a process that another thread starts in that moment inherits
/// the listener and keeps it open until it executes another program.
pub(crate) fn is_free(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
}

fn bind(port: u32) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, u16::try_from(port).ok()?)).ok()
}
