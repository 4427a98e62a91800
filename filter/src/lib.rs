//! Weft's proxy-wasm filter: a thin skin over `weft-routing`.
