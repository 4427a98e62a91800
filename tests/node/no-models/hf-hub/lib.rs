//! In the place of the crate that fetches models from the network: this is where an embedder that wants one is told no.

/// A model's name.
#[derive(Debug)]
pub struct Repo;

impl Repo {
    /// In the newest revision.
    pub fn model(_name: String) -> Self {
        Self
    }

    /// In another one.
    pub fn with_revision(_name: String, _kind: RepoType, _revision: String) -> Self {
        Self
    }
}

/// What there is to fetch.
#[derive(Debug)]
pub enum RepoType {
    /// A model.
    Model,
}

/// Ways to fetch.
pub mod api {
    /// The one that waits.
    pub mod sync {
        use std::path::PathBuf;

        use crate::Repo;

        /// Why nothing was fetched.
        #[derive(Debug, thiserror::Error)]
        pub enum ApiError {
            /// Always this.
            #[error(
                "the embedded node runs no models: send vectors, or name a service that makes them"
            )]
            NoModels,
            /// A server's refusal, which the engine tells from other errors.
            #[error(transparent)]
            RequestError(Box<ureq::Error>),
        }

        /// A way to the models: no value has this type.
        #[derive(Debug)]
        pub enum Api {}

        impl Api {
            /// Says no.
            pub fn new() -> Result<Self, ApiError> {
                Err(ApiError::NoModels)
            }

            /// Never called.
            pub fn repo(&self, _repo: Repo) -> ApiRepo {
                match *self {}
            }
        }

        /// The files of a model: no value has this type.
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
