//! Everything that knows the engine: opening indexes, reading and writing them, searching.

pub(crate) mod documents;
pub(crate) mod embedders;
pub(crate) mod indexes;
pub(crate) mod locales;
pub(crate) mod search;
pub(crate) mod select;
pub(crate) mod settings;
pub(crate) mod write;

pub(crate) use indexes::Indexes;
