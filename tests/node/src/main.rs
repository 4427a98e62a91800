//! The embedded node.

fn main() {}
