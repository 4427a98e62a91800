//! Replaces the crate that fetches models from the network. An embedder that needs a model gets its error from here.

/// A model's name.
#[derive(Debug)]
pub struct Repo;

impl Repo {
    /// With the newest revision.
    pub fn model(_name: String) -> Self {
        Self
    }

    /// With another revision.
    pub fn with_revision(_name: String, _kind: RepoType, _revision: String) -> Self {
        Self
    }
}

/// The kind of a repository.
#[derive(Debug)]
pub enum RepoType {
    /// A model.
    Model,
}

/// Clients.
pub mod api {
    /// The blocking client.
    pub mod sync {
        use std::path::PathBuf;

        use crate::Repo;

        /// The error of a fetch.
        #[derive(Debug, thiserror::Error)]
        pub enum ApiError {
            /// The only error that occurs here.
            #[error(
                "the embedded node runs no models: send vectors, or name a service that makes them"
            )]
            NoModels,
            /// A server's refusal, which the engine tells from other errors.
            #[error(transparent)]
            RequestError(Box<ureq::Error>),
        }

        /// A client. No value has this type.
        #[derive(Debug)]
        pub enum Api {}

        impl Api {
            /// Always fails.
            pub fn new() -> Result<Self, ApiError> {
                Err(ApiError::NoModels)
            }

            /// Never called.
            pub fn repo(&self, _repo: Repo) -> ApiRepo {
                match *self {}
            }
        }

        /// The files of a model. No value has this type.
        #[derive(Debug)]
        pub enum ApiRepo {}

        impl ApiRepo {
            /// Never called.
            pub fn get(&self, _file: &str) -> Result<PathBuf, ApiError> {
                match *self {}
            }
        }
    }
}
