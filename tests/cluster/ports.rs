//! Free ports for clusters that tests start beside each other, in one process or in several.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
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
/// Whoever holds the listeners on its cells' claims has them.
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

/// Whether nobody listens on the port.
///
/// To listen there oneself for a moment would be in the way of who comes next: a process that another thread starts in that moment
/// holds the listener until it has become another program.
pub(crate) fn is_free(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
}

fn bind(port: u32) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, u16::try_from(port).ok()?)).ok()
}
