//! Replaces the crate that cuts texts into the tokens of a model.

use std::path::Path;

/// Why there is no tokenizer.
#[derive(Debug, thiserror::Error)]
#[error("the embedded node runs no models")]
pub struct NoModels;

/// Any error.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A tokenizer. No value has this type.
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

/// The tokens of a text. No value has this type.
#[derive(Debug)]
pub enum Encoding {}

impl Encoding {
    /// Never called.
    pub fn get_ids(&self) -> &[u32] {
        match *self {}
    }
}

/// How texts are padded to one length.
#[derive(Debug, Default)]
pub struct PaddingParams {
    /// The length.
    pub strategy: PaddingStrategy,
}

/// How the length is chosen.
#[derive(Debug, Default)]
pub enum PaddingStrategy {
    /// The length of the longest text.
    #[default]
    BatchLongest,
}
