//! What clients meet: the listener, authorisation, dispatch, and the one place that knows Meilisearch's error codes.
//!
//! `listen → classify → authorise → dispatch → (search | write | tasks | broadcast) → answer`

mod authorise;
mod dispatch;
mod errors;
mod internal;
mod keys;
mod listen;
mod token;

#[cfg(test)]
pub(crate) use dispatch::dispatch;
pub use errors::ApiError;
pub use keys::Keys;
pub use listen::serve;
