//! Whose state etcd holds, and whether this merger may use it.

use std::path::PathBuf;

use tokio::time::sleep;

use super::AGAIN;
use crate::etcd::{EtcdClient, EtcdError};
use crate::options::ServeOptions;
use crate::runtime::StartError;
use crate::store::{IdentityError, check_identity};

/// The file in the data folder with the id of the cluster that the merger has served.
const CLUSTER_ID: &str = "cluster-id";

/// Waits until etcd answers, and checks whose state it holds.
pub(super) async fn be_let_in(etcd: &EtcdClient, options: &ServeOptions) -> Result<(), StartError> {
    let prefix = &options.etcd.prefix;
    let known = known_id(options)?;
    let mut silent = false;
    loop {
        let error = match etcd.check(&prefix.leader()).await {
            Ok(()) => match check_identity(etcd, prefix, known.as_deref()).await {
                Ok(_) => return Ok(()),
                Err(IdentityError::Etcd(error)) => error,
                Err(error) => return Err(error.into()),
            },
            Err(error) => error,
        };
        match error {
            EtcdError::Denied(_) | EtcdError::Refused(_) => return Err(StartError::Denied(error)),
            _ if !std::mem::replace(&mut silent, true) => {
                tracing::warn!(%error, "the merger waits for etcd");
            }
            _ => {}
        }
        sleep(AGAIN).await;
    }
}

fn id_file(options: &ServeOptions) -> PathBuf {
    options.data_dir.join(CLUSTER_ID)
}

/// The cluster that this merger belongs to, if it is known: from the options, or from an earlier run.
pub(super) fn known_id(options: &ServeOptions) -> Result<Option<String>, StartError> {
    if let Some(id) = &options.etcd.cluster_id {
        return Ok(Some(id.clone()));
    }
    let file = id_file(options);
    match std::fs::read_to_string(&file) {
        Ok(id) => Ok(Some(id.trim().to_owned()).filter(|id| !id.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StartError::ClusterId(file, error)),
    }
}

pub(super) fn remember_id(options: &ServeOptions, id: &str) -> Result<(), StartError> {
    let file = id_file(options);
    let written = std::fs::write(&file, format!("{id}\n"));
    written.map_err(|error| StartError::ClusterId(file, error))
}
