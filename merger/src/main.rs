//! The `weft` command: see `weft_merger::cli`.

use std::process::ExitCode;

/// Tasks are created on one thread and freed on another, in small pieces. With the system's allocator, that takes a quarter of a
/// small write's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weft_merger::cli::run()
}
