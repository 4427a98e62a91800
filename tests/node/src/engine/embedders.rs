//! The embedders of an index. Vectors that users supply need no model; other vectors are made by a service that the settings name.

use std::collections::HashMap;
use std::sync::Arc;

use milli_core::heed::RoTxn;
use milli_core::prompt::Prompt;
use milli_core::vector::{Embedder, EmbeddingConfigs};
use milli_core::{Index, UserError};

use crate::errors::{ApiError, ApiResult};

/// The number of embeddings that an embedder caches in memory.
const CACHED_EMBEDDINGS: usize = 0;

/// All embedders of an index, ready to use.
pub(crate) fn of_index(index: &Index, rtxn: &RoTxn) -> ApiResult<EmbeddingConfigs> {
    let mut embedders = HashMap::new();
    for config in index.embedding_configs(rtxn)? {
        let prompt: Prompt = config.config.prompt.clone().try_into().map_err(|error| {
            milli_core::Error::from(UserError::InvalidPromptForEmbeddings(
                config.name.clone(),
                error,
            ))
        })?;
        let quantized = config.config.quantized();
        let embedder =
            Embedder::new(config.config.embedder_options, CACHED_EMBEDDINGS).map_err(|error| {
                ApiError::from(milli_core::Error::from(milli_core::vector::Error::from(
                    error,
                )))
            })?;
        embedders.insert(
            config.name,
            (Arc::new(embedder), Arc::new(prompt), quantized),
        );
    }
    Ok(EmbeddingConfigs::new(embedders))
}
