//! `weft config envoy`: makes an `envoy.yaml` from a topology. `weft config guard`: makes one for a node's own Envoy.
//!
//! [`arguments`] defines the options, [`topology`] checks them, and [`mod@render`] is a pure function from a topology to the
//! file's text. The text itself, with the reason for each setting, is in `envoy.yaml.jinja`, and for the clusters of the shards in
//! `shards.yaml.jinja`. [`shards`] writes those into the folder that Envoy watches. [`guard`] does all of that for the small file
//! of `weft config guard`.

mod address;
mod arguments;
mod guard;
mod past_filter;
mod render;
mod shards;
mod tls;
mod topology;

#[cfg(test)]
mod tests;

pub use address::{Address, AddressError};
pub use arguments::EnvoyArgs;
pub use guard::{GuardArgs, run as run_guard};
pub use render::{RenderError, render};
pub use shards::{ShardsArgs, run as run_shards};
pub use tls::{SecretError, Tls, TlsArgs};
pub use topology::{
    AccessLog, Dynamic, Filter, Node, Shard, Sockets, Topology, TopologyError, Tracing,
};

use std::path::PathBuf;

/// Why no file could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigEnvoyError {
    /// The options contradict each other.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The template could not be filled in.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The files that name certificates could not be written.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Nobody said which folder Envoy watches.
    #[error("--dynamic DIR is needed: the folder that Envoy watches")]
    NoFolder,
    /// A file can't be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The text of the file that these arguments ask for. With TLS, writes the files that Envoy reads beside it.
pub fn run(arguments: &EnvoyArgs) -> Result<String, ConfigEnvoyError> {
    let topology = Topology::try_from(arguments)?;
    let text = render(&topology)?;
    if let Some(tls) = &topology.tls {
        tls.write()?;
    }
    Ok(text)
}
