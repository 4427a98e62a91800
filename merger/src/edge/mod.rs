//! What clients meet: the listener, authorisation, dispatch, and the one place that knows Meilisearch's error codes.
//!
//! `listen → (preflight |) classify → authorise → dispatch → (search | write | tasks | broadcast) → cors → compress → answer`

mod authorise;
mod compress;
mod cors;
mod dispatch;
mod errors;
mod internal;
mod keys;
mod listen;
mod page;
mod token;
mod unpack;

#[cfg(test)]
pub(crate) use dispatch::dispatch;
pub use errors::ApiError;
pub use keys::Keys;
pub use listen::serve;
