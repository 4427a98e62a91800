//! Runs the fuzzing targets on their corpus and on a fixed number of mutations, which are the same in every run.
//!
//! Long runs with coverage use `cargo fuzz` (see tests/fuzz). The inputs that they find are added to the corpus, and so are tried
//! here too.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

/// The number of mutations for each target; `WEFT_FUZZ_ROUNDS=1000000` tries more.
const ROUNDS: u64 = 20_000;
/// `WEFT_FUZZ_SEED=7` tries other mutations.
const SEED: u64 = 0x5eed;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Bytes that mean something to one of the parsers.
const LIKELY: &[u8] = b"{}[]\":,\\ \n\0\xff%/;0-e";

/// Marsaglia's xorshift: a simple generator that gives the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }

    /// One to four small changes.
    fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, LIKELY[self.below(LIKELY.len())]),
                2 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                3 if at < bytes.len() => drop(bytes.remove(at)),
                4 => {
                    let end = at + self.below(bytes.len() - at + 1);
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                5 => {
                    let other = &corpus[self.below(corpus.len())];
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[self.below(other.len() + 1)..]);
                }
                _ if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                _ => {}
            }
        }
        bytes.truncate(16 << 10);
        bytes
    }
}

#[test]
fn the_parsers_keep_their_promises_on_the_corpus_and_on_mutations_of_it() {
    let (seed, rounds) = (
        variable("WEFT_FUZZ_SEED", SEED),
        variable("WEFT_FUZZ_ROUNDS", ROUNDS),
    );
    println!("WEFT_FUZZ_SEED={seed} WEFT_FUZZ_ROUNDS={rounds}");
    for (name, target) in targets::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        assert!(corpus.len() >= 5, "{name} has only {} inputs", corpus.len());
        let mut random = Random(seed | 1);
        let mutations = (0..rounds).map(|_| random.mutate(&corpus));
        for input in corpus.iter().cloned().chain(mutations) {
            let outcome = catch_unwind(AssertUnwindSafe(|| target(&input)));
            assert!(
                outcome.is_ok(),
                "{name} fails on b\"{}\"",
                input.escape_ascii()
            );
        }
    }
}
