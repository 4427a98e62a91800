//! What playing a sequence of steps came to.

/// The result of a sequence.
#[derive(Debug, Default)]
pub(super) struct Played {
    pub(super) violations: Vec<String>,
    pub(super) acknowledged: u64,
    pub(super) compared: u64,
    pub(super) longest_ms: u64,
    pub(super) simulated_ms: u64,
    pub(super) exchanges: u64,
    pub(super) lives: u32,
    /// How many steps were skipped because they would have destroyed the last copy.
    pub(super) spared: u32,
    pub(super) confirmed: u32,
    /// How often a replica was removed from the in-sync set.
    pub(super) taken_out: u64,
}

impl Played {
    pub(super) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.compared += other.compared;
        self.simulated_ms += other.simulated_ms;
        self.exchanges += other.exchanges;
        self.lives += other.lives;
        self.spared += other.spared;
        self.confirmed += other.confirmed;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }
}

impl std::fmt::Display for Played {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} s simulated, {} lives of mergers, {} writes acknowledged, {} documents compared, {} exchanges, \
             a client waited {} ms at the most, {} disks spared, \
             {} deletions confirmed",
            self.simulated_ms / 1_000,
            self.lives,
            self.acknowledged,
            self.compared,
            self.exchanges,
            self.longest_ms,
            self.spared,
            self.confirmed
        )
    }
}
