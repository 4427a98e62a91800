//! The `weft` command: see `weft_merger::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_merger::cli::run()
}
