//! The merger: what one node cannot do.
