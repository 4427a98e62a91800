//! Settings: the shapes that clients may send, and the conversion to and from the engine's settings.
//!
//! A change of settings is a JSON object with the protocol's names. It is checked and ordered when it is accepted
//! ([`fields`]); a `null` resets a setting. The task stores it in the form in which it is shown.

mod apply;
mod fields;
mod rules;
mod shapes;

pub(crate) mod read;

pub(crate) use apply::apply;
pub(crate) use fields::{FIELDS, Field, Verb, check_all, check_one, reset_all};
