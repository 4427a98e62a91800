//! What benchmarks, the lab and fuzzing call: single stages of the merger, without anything around them. This is no part of the
//! library's interface, and it may change at any time.

pub use crate::search::sample::MergeSample;
pub use crate::write::bench::{SplitRun, split};
pub use crate::write::dry_run::{Plan, plan};
pub use crate::write::judge::trial::Trial;
