//! `weft store`: what is done with a cluster's state while no merger runs.

use clap::Subcommand;

use crate::runtime::{self, CopyOptions, CopyStoreError};
use crate::telemetry;

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Copy the state from a merger's file to etcd, or back, and compare the two afterwards.
    Copy(Box<CopyOptions>),
}

/// Why the state was not copied.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreCommandError {
    /// The copy failed.
    #[error(transparent)]
    Copy(#[from] CopyStoreError),
    /// No threads could be set up.
    #[error("the runtime can't be set up: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Does it, and says what was done.
pub(super) fn run(command: &StoreCommand) -> Result<String, StoreCommandError> {
    let StoreCommand::Copy(options) = command;
    telemetry::init_logs("warn", "text");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let copied = runtime.block_on(runtime::copy_store(options))?;
    Ok(format!(
        "{} entries were copied and compared; SHA-256 {}\n",
        copied.entries, copied.digest
    ))
}
