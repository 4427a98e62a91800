//! Settings: the shapes that clients may send, what the engine makes of them, and what it tells of itself.
//!
//! A change of settings is a JSON object with the protocol's names, checked and put in order when it is
//! accepted ([`fields`]); a `null` resets a setting. It is stored in the task as it is shown there.

mod apply;
mod fields;
mod rules;
mod shapes;

pub(crate) mod read;

pub(crate) use apply::apply;
pub(crate) use fields::{FIELDS, Field, Verb, check_all, check_one, reset_all};
