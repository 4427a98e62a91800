//! Tests of the routing crate's public API. They run natively and, with the same golden constants, compiled to wasm (where
//! `usize` has 32 bits), so they touch no files and read no clock.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail, and that is how"
)]

#[cfg(not(target_arch = "wasm32"))]
use core::prelude::v1::test;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

mod bodies;
mod changes;
mod decisions;
mod hashes;
mod operations;
mod placements;
mod searches;
mod strategies;
mod tables;
mod values;

/// A seeded generator (SplitMix64): it gives the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
