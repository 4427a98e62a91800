//! The merger: what one node cannot do.

pub mod cli;
