//! In the place of the crate that cuts texts into a model's tokens: without models, none are needed.

use std::path::Path;

/// Why there is no tokenizer.
#[derive(Debug, thiserror::Error)]
#[error("the embedded node runs no models")]
pub struct NoModels;

/// Any error.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A tokenizer: no value has this type.
#[derive(Debug)]
pub enum Tokenizer {}

impl Tokenizer {
    /// Can't be done.
    pub fn from_file<P: AsRef<Path>>(_file: P) -> Result<Self, Error> {
        Err(NoModels.into())
    }

    /// Never called.
    pub fn get_padding_mut(&mut self) -> Option<&mut PaddingParams> {
        match *self {}
    }

    /// Never called.
    pub fn with_padding(&mut self, _padding: Option<PaddingParams>) {
        match *self {}
    }

    /// Never called.
    pub fn encode(&self, _text: &str, _special_tokens: bool) -> Result<Encoding, Error> {
        match *self {}
    }
}

/// The tokens of a text: no value has this type.
#[derive(Debug)]
pub enum Encoding {}

impl Encoding {
    /// Never called.
    pub fn get_ids(&self) -> &[u32] {
        match *self {}
    }
}

/// How texts would be brought to one length.
#[derive(Debug, Default)]
pub struct PaddingParams {
    /// Which length.
    pub strategy: PaddingStrategy,
}

/// Which length that is.
#[derive(Debug, Default)]
pub enum PaddingStrategy {
    /// That of the longest.
    #[default]
    BatchLongest,
}
