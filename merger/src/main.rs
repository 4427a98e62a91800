//! The `weft` command: see `weft_merger::cli`.

use std::process::ExitCode;

/// Tasks are made on one thread and ended on another, in small pieces: the system's allocator takes a quarter of a small
/// write's time for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weft_merger::cli::run()
}
