//! Weft's pure routing logic: knows no proxy-wasm, no I/O and no clock.
