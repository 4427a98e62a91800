//! The steps that are done to a simulated cluster; random sequences of them; and the search for shorter sequences that fail, too.

use serde::{Deserialize, Serialize};

/// One step. Nodes and indexes are numbers, taken modulo the number of nodes or indexes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Step {
    /// A client writes its own documents.
    Write {
        index: u8,
        writer: u8,
        kind: Kind,
        documents: u8,
    },
    /// A client removes all documents of an index, or the index.
    Clear {
        index: u8,
    },
    DropIndex {
        index: u8,
    },
    /// A client changes a setting.
    Set {
        index: u8,
        value: u8,
    },
    /// Clients read documents.
    Read {
        index: u8,
        times: u8,
    },
    Wait {
        ms: u32,
    },
    /// `DELETE /tasks` of everything that has ended.
    CleanTasks,
    /// `POST /tasks/cancel` of everything that is open.
    CancelTasks,
    /// The merger ends, at once or after the open requests have been answered, and the next one starts.
    Restart {
        gently: bool,
        down_ms: u32,
        meanwhile: Meanwhile,
    },
    Kill {
        node: u8,
        ms: u32,
    },
    Hang {
        node: u8,
        ms: u32,
        takes_up: bool,
    },
    Part {
        node: u8,
        ms: u32,
    },
    Slow {
        node: u8,
        ms: u32,
        by: u16,
    },
    LoseAnswers {
        node: u8,
        count: u8,
    },
    LoseRequests {
        node: u8,
        count: u8,
    },
    Refuse {
        node: u8,
        count: u8,
    },
    /// Envoy restarts.
    CutEgress {
        ms: u32,
    },
    /// The merger's disk is full.
    StoreFails {
        ms: u32,
    },
    /// The node comes back with another disk: an empty one, or the state of its last backup.
    ReplaceDisk {
        node: u8,
        ms: u32,
        older: bool,
    },
    CopyDisk {
        node: u8,
    },
    Verify,
    Drain {
        node: u8,
        ms: u32,
    },
    /// Everything is to leave a shard.
    EmptyShard {
        shard: u8,
    },
    /// A shard may hold something again, and is to get its share.
    FillShard {
        shard: u8,
    },
    /// Moves stop for a while.
    PauseMoves {
        ms: u32,
    },
    CancelMoves,
    /// The index is to lie by another strategy.
    Place {
        index: u8,
        by: u8,
    },
    /// All faults end, and everything is compared.
    Compare,
}

/// How documents are written.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum Kind {
    Replace,
    Update,
    Delete,
}

/// What happens to a node while there is no merger.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum Meanwhile {
    Nothing,
    Kill { node: u8, ms: u32 },
    ReplaceDisk { node: u8, older: bool },
}

/// A sequence, with the seed for random choices within it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) shards: u16,
    pub(super) replicas: u16,
    /// Whether documents lie by a field, which each replacement changes.
    #[serde(default)]
    pub(super) by_field: bool,
    pub(super) steps: Vec<Step>,
}

impl Plan {
    /// The sequence for a seed.
    pub(super) fn random(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (shards, replicas) = (random.u16(1..=2), random.u16(2..=3));
        let mut steps = Vec::new();
        for _ in 0..random.usize(2..5) {
            for _ in 0..random.usize(8..30) {
                let step = step(&mut random);
                let lasts = !matches!(step, Step::Write { .. } | Step::Read { .. });
                steps.push(step);
                if lasts && random.bool() {
                    steps.push(Step::Wait {
                        ms: random.u32(1..1_500),
                    });
                }
            }
            steps.push(Step::Compare);
        }
        Self {
            seed,
            shards,
            replicas,
            by_field: false,
            steps,
        }
    }

    /// The sequence for a seed in which slots move from shard to shard nearly all the time.
    pub(super) fn moving(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let shards = random.u16(2..=3);
        let mut steps = Vec::new();
        for _ in 0..random.usize(2..4) {
            // Something to move.
            steps.extend((0..4).map(|writer| Step::Write {
                index: random.u8(0..2),
                writer,
                kind: Kind::Replace,
                documents: random.u8(10..40),
            }));
            for number in 0..random.usize(12..30) {
                if number % 6 == 3 {
                    steps.push(move_step(&mut random));
                }
                let step = step(&mut random);
                let lasts = !matches!(step, Step::Write { .. } | Step::Read { .. });
                steps.push(step);
                if lasts || random.u8(0..3) == 0 {
                    steps.push(Step::Wait {
                        ms: random.u32(1..900),
                    });
                }
            }
            steps.push(Step::Compare);
        }
        Self {
            seed,
            shards,
            replicas: 2,
            by_field: false,
            steps,
        }
    }

    /// The same for documents that lie by a field.
    pub(super) fn moving_by_field(seed: u64) -> Self {
        Self {
            by_field: true,
            ..Self::moving(seed)
        }
    }

    /// The same for indexes that go from one strategy to another all the time.
    pub(super) fn changing(seed: u64) -> Self {
        let mut plan = Self {
            by_field: seed.is_multiple_of(2),
            ..Self::moving(seed)
        };
        let mut random = fastrand::Rng::with_seed(seed ^ 0xC4A6);
        let steps = std::mem::take(&mut plan.steps).into_iter();
        for (number, step) in steps.enumerate() {
            if number % 5 == 4 {
                plan.steps.push(Step::Place {
                    index: random.u8(0..2),
                    by: random.u8(..),
                });
            }
            plan.steps.push(step);
        }
        plan
    }

    /// A shorter sequence that fails, too, found by leaving out steps.
    pub(super) fn shrink(&self, fails: impl Fn(&Self) -> bool, tries: usize) -> Self {
        let (mut best, mut left) = (self.clone(), tries);
        let mut size = best.steps.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < best.steps.len() && left > 0 {
                let mut steps = best.steps.clone();
                steps.drain(at..(at + size).min(steps.len()));
                let candidate = Self {
                    steps,
                    ..best.clone()
                };
                left -= 1;
                match fails(&candidate) {
                    true => best = candidate,
                    false => at += size,
                }
            }
            if size == 1 || left == 0 {
                return best;
            }
            size = size.div_ceil(2);
        }
    }
}

fn move_step(random: &mut fastrand::Rng) -> Step {
    let shard = random.u8(0..3);
    match random.u8(0..20) {
        0..9 => Step::EmptyShard { shard },
        9..17 => Step::FillShard { shard },
        17..19 => Step::PauseMoves {
            ms: random.u32(100..3_000),
        },
        _ => Step::CancelMoves,
    }
}

fn step(random: &mut fastrand::Rng) -> Step {
    let node = random.u8(..);
    let index = random.u8(0..2);
    let ms = match random.u8(0..4) {
        0 => random.u32(20..300),
        3 => random.u32(3_000..8_000),
        _ => random.u32(200..3_000),
    };
    match random.u8(0..100) {
        0..45 => Step::Write {
            index,
            writer: random.u8(0..4),
            kind: match random.u8(0..6) {
                0 => Kind::Delete,
                1 | 2 => Kind::Update,
                _ => Kind::Replace,
            },
            documents: match random.u8(0..4) {
                0 => random.u8(20..60),
                _ => random.u8(1..4),
            },
        },
        45..48 => Step::Clear { index },
        48..50 => Step::DropIndex { index },
        50..54 => Step::Set {
            index,
            value: random.u8(0..5),
        },
        54..58 => Step::Read {
            index,
            times: random.u8(1..20),
        },
        58..64 => Step::CleanTasks,
        64..65 => Step::CancelTasks,
        65..71 => Step::Restart {
            gently: random.bool(),
            down_ms: random.u32(10..4_000),
            meanwhile: match random.u8(0..3) {
                0 => Meanwhile::Nothing,
                1 => Meanwhile::Kill { node, ms },
                _ => Meanwhile::ReplaceDisk {
                    node,
                    older: random.bool(),
                },
            },
        },
        71..75 => Step::Kill { node, ms },
        75..78 => Step::Hang {
            node,
            ms,
            takes_up: random.bool(),
        },
        78..80 => Step::Part { node, ms },
        80..82 => Step::Slow {
            node,
            ms,
            by: random.u16(10..800),
        },
        82..85 => Step::LoseAnswers {
            node,
            count: random.u8(1..4),
        },
        85..87 => Step::LoseRequests {
            node,
            count: random.u8(1..4),
        },
        87..89 => Step::Refuse {
            node,
            count: random.u8(1..4),
        },
        89..90 => Step::CutEgress { ms: ms.min(2_000) },
        90..91 => Step::StoreFails { ms: ms.min(2_000) },
        91..94 => Step::ReplaceDisk {
            node,
            ms,
            older: random.bool(),
        },
        94..96 => Step::CopyDisk { node },
        96..98 => Step::Verify,
        _ => Step::Drain { node, ms },
    }
}
