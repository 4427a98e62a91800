//! Whose state stands below a prefix, and in which format.

use std::sync::Arc;

use super::exchange::Exchange;
use super::{patiently, range};
use crate::etcd::{ANSWER_WITHIN, Action, Ask, Etcd, EtcdError, Prefix, get};
use crate::leadership::Term;
use crate::store::StoreError;

/// The format that this merger writes, and the newest that it reads. Since 2, writes that went together have one record.
pub(super) const FORMAT: u32 = 2;
/// The format before.
const OLDER_FORMAT: u32 = 1;

/// Why the state below a prefix can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It is another cluster's.
    #[error(
        "`{prefix}` in etcd belongs to the cluster `{found}`, and this merger to `{expected}`: give another --etcd-prefix, or the right --cluster-id"
    )]
    OtherCluster {
        /// The prefix.
        prefix: Prefix,
        /// Whose it is.
        found: String,
        /// Whose this merger is.
        expected: String,
    },
    /// A newer merger has written it.
    #[error(
        "the state below `{prefix}` in etcd has the format {found}, and this merger knows none newer than {FORMAT}: it needs a newer merger"
    )]
    NewerFormat {
        /// The prefix.
        prefix: Prefix,
        /// Its format.
        found: String,
    },
    /// Something else stands there.
    #[error(
        "`{prefix}` in etcd holds keys that are no merger's (`{key}`): give another --etcd-prefix"
    )]
    Foreign {
        /// The prefix.
        prefix: Prefix,
        /// One of the keys.
        key: String,
    },
    /// There is state, and it shall not be overwritten.
    #[error("there is state below `{prefix}` in etcd already: a copy needs an empty prefix")]
    NotEmpty {
        /// The prefix.
        prefix: Prefix,
    },
    /// A copy into it was not finished.
    #[error("a copy to `{prefix}` in etcd was not finished: run `weft store copy` again")]
    Unfinished {
        /// The prefix.
        prefix: Prefix,
    },
    /// etcd didn't answer, or refused.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// A change failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks that the state is this cluster's, if it is known which one this is, and that this merger can read it. Returns the
/// cluster's id; `None` if there is no state yet.
///
/// # Errors
/// It can't be used, or etcd doesn't answer.
pub async fn check(
    etcd: &dyn Etcd,
    prefix: &Prefix,
    expected: Option<&str>,
) -> Result<Option<String>, IdentityError> {
    let text = |key: String| async move {
        let entry = patiently(|| get(etcd, key.clone())).await?;
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        Ok::<_, EtcdError>(entry.map(|entry| text(entry.value)))
    };
    let found = text(prefix.cluster()).await?;
    let (Some(found), format) = (found, text(prefix.format()).await?) else {
        return match foreign(etcd, prefix).await? {
            Some(key) => Err(IdentityError::Foreign {
                prefix: prefix.clone(),
                key,
            }),
            None => Ok(None),
        };
    };
    let prefix = prefix.clone();
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        let expected = expected.to_owned();
        return Err(IdentityError::OtherCluster {
            prefix,
            found,
            expected,
        });
    }
    let format = format.unwrap_or_default();
    match format.parse::<u32>() {
        Ok(known) if known <= FORMAT => Ok(Some(found)),
        _ => Err(IdentityError::NewerFormat {
            prefix,
            found: format,
        }),
    }
}

/// How many keys there may be before there is state: those of mergers.
const MOST_BEFORE_STATE: usize = 1_000;

/// A key below the prefix that no merger has made, where no cluster has state yet.
async fn foreign(etcd: &dyn Etcd, prefix: &Prefix) -> Result<Option<String>, EtcdError> {
    let ask = Ask {
        from: prefix.to_string(),
        prefix: prefix.to_string(),
        limit: MOST_BEFORE_STATE,
        revision: 0,
    };
    let page = patiently(|| etcd.page(ask.clone(), ANSWER_WITHIN)).await?;
    let (ours, mergers) = ([prefix.leader(), prefix.commit()], prefix.merger(""));
    let mut keys = page.entries.into_iter().map(|entry| entry.key);
    Ok(keys.find(|key| !ours.contains(key) && !key.starts_with(&mergers)))
}

/// As the leader of `term`: checks the state as [`check`] does, or makes the prefix this cluster's if it is nobody's. Returns the
/// cluster's id. With `keeps_format` the state keeps the format that it has, so that an older merger can lead again; nothing may be
/// stored then that only the newest format has.
///
/// # Errors
/// The state can't be used, or this merger leads no more.
pub async fn claim(
    etcd: &Arc<dyn Etcd>,
    prefix: &Prefix,
    term: &Term,
    expected: Option<&str>,
    keeps_format: bool,
) -> Result<String, IdentityError> {
    if let Some(found) = check(&**etcd, prefix, expected).await? {
        if !keeps_format {
            raise_format(etcd, prefix, term).await?;
        }
        return Ok(found);
    }
    let format = if keeps_format { OLDER_FORMAT } else { FORMAT };
    let id = expected.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    let mut exchange = Exchange::begin(Arc::clone(etcd), prefix.clone(), term.clone()).await?;
    let actions = vec![
        Action::put(prefix.cluster(), id.clone().into_bytes()),
        Action::put(prefix.format(), format.to_string().into_bytes()),
    ];
    exchange.send(&[], actions).await?;
    Ok(id)
}

/// Notes that from now on there may be entries that older mergers can't read.
async fn raise_format(
    etcd: &Arc<dyn Etcd>,
    prefix: &Prefix,
    term: &Term,
) -> Result<(), IdentityError> {
    let now = FORMAT.to_string().into_bytes();
    let found = patiently(|| get(&**etcd, prefix.format())).await?;
    if found.is_some_and(|found| found.value == now) {
        return Ok(());
    }
    let mut exchange = Exchange::begin(Arc::clone(etcd), prefix.clone(), term.clone()).await?;
    let raise = vec![Action::put(prefix.format(), now)];
    exchange.send(&[], raise).await?;
    Ok(())
}

/// Refuses state into which a copy was begun and not finished.
///
/// # Errors
/// So it is, or etcd doesn't answer.
pub async fn refuse_unfinished(etcd: &dyn Etcd, prefix: &Prefix) -> Result<(), IdentityError> {
    let mark = patiently(|| get(etcd, prefix.copying())).await?;
    let prefix = prefix.clone();
    mark.map_or(Ok(()), |_| Err(IdentityError::Unfinished { prefix }))
}

/// As the leader of `term`, before state is copied to an empty prefix: marks the copy as begun, and deletes what an unfinished one
/// has left.
///
/// # Errors
/// There is state, or this merger leads no more.
pub async fn begin_copy(
    etcd: &Arc<dyn Etcd>,
    prefix: &Prefix,
    term: &Term,
) -> Result<(), IdentityError> {
    let mut exchange = Exchange::begin(Arc::clone(etcd), prefix.clone(), term.clone()).await?;
    let state = prefix.state("");
    if patiently(|| get(&**etcd, prefix.copying()))
        .await?
        .is_some()
    {
        let leftovers = [state, prefix.bundle()].map(Action::DeleteAll);
        exchange.send(&[], leftovers.to_vec()).await?;
    } else if !range(&**etcd, &state).await?.is_empty() {
        let prefix = prefix.clone();
        return Err(IdentityError::NotEmpty { prefix });
    }
    let mark = Action::put(prefix.copying(), b"begun".to_vec());
    exchange.send(&[], vec![mark]).await?;
    Ok(())
}

/// Afterwards: removes the mark, so that mergers use the state.
///
/// # Errors
/// This merger leads no more.
pub async fn end_copy(
    etcd: &Arc<dyn Etcd>,
    prefix: &Prefix,
    term: &Term,
) -> Result<(), IdentityError> {
    let mut exchange = Exchange::begin(Arc::clone(etcd), prefix.clone(), term.clone()).await?;
    let unmark = Action::Delete(prefix.copying());
    exchange.send(&[], vec![unmark]).await?;
    Ok(())
}
