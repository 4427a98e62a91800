//! Everything that depends on the engine: opening, reading and writing indexes, and searching.

pub(crate) mod documents;
pub(crate) mod embedders;
pub(crate) mod indexes;
pub(crate) mod locales;
pub(crate) mod search;
pub(crate) mod select;
pub(crate) mod settings;
pub(crate) mod write;

pub(crate) use indexes::Indexes;
