//! Keeps the files of this merger's Envoy as the replacements want them. Every merger does this for its own Envoy, whether it leads
//! or follows.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::apply::{Kind, bring_up_to_date};
use crate::cluster::{Context, Replacement};
use crate::endpoints::{SPARE_FILE, files, shard_file};

/// How often files are looked at without a reason: an operator may have put an older one there.
const LOOKED_EVERY: Duration = Duration::from_secs(5);

/// Keeps the files in a folder up to date; never ends.
pub async fn keep_files(ctx: Arc<Context>, folder: PathBuf) {
    let replacements = &ctx.cluster.replacements;
    let mut last = String::new();
    loop {
        let (all, folder) = (replacements.all(), folder.clone());
        let newest = all.last().map(|one| one.number);
        let written =
            tokio::task::spawn_blocking(move || bring_all_up_to_date(&folder, &all)).await;
        // Said once, and not every few seconds.
        let failed = written.unwrap_or_default().join("; ");
        if !failed.is_empty() && failed != last {
            tracing::error!(error = %failed, "Envoy's files with nodes can't be brought up to date; this is tried again");
        }
        last = failed;
        let changed = crate::cluster::until([&replacements.changes], || {
            let now = replacements.all().last().map(|one| one.number);
            (now != newest).then_some(())
        });
        let _ = tokio::time::timeout(LOOKED_EVERY, changed).await;
    }
}

/// Returns what went wrong.
fn bring_all_up_to_date(folder: &Path, all: &[Replacement]) -> Vec<String> {
    let mut kinds: Vec<Kind> = Vec::new();
    for one in all {
        let kind = Kind::Shard(one.shard);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if !all.is_empty() {
        // Last: a spare is in its shard before it is no spare any more.
        kinds.push(Kind::Spare);
    }
    let outcomes = kinds.into_iter().map(|kind| bring_one(folder, kind, all));
    outcomes.filter_map(Result::err).collect()
}

fn bring_one(folder: &Path, kind: Kind, all: &[Replacement]) -> Result<(), String> {
    let path = path(folder, kind);
    let fault = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut file = files::read(&path).map_err(|error| fault(&error))?;
    if !bring_up_to_date(&mut file, kind, all) {
        return Ok(());
    }
    files::write(&path, &file.text()).map_err(|error| fault(&error))?;
    tracing::info!(file = %path.display(), nodes = ?file.names(), version = file.version(), "Envoy's file with nodes was changed");
    Ok(())
}

/// Whether a node stands in its shard's file: else the file isn't the one that Envoy reads, and nothing can be done by it.
pub(super) async fn lists(folder: &Path, one: &crate::cluster::Choice) -> Result<bool, String> {
    let path = path(folder, Kind::Shard(one.shard));
    let name = one.out.as_str().to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let file = files::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(file.names().contains(&name))
    });
    read.await.unwrap_or_else(|error| Err(error.to_string()))
}

fn path(folder: &Path, kind: Kind) -> PathBuf {
    folder.join(match kind {
        Kind::Shard(shard) => shard_file(shard),
        Kind::Spare => SPARE_FILE.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use weft_routing::placement::ShardId;

    use super::*;
    use crate::clock::now_utc;
    use crate::cluster::NodeId;
    use crate::endpoints::{Assignment, Endpoint};

    fn node(name: &str) -> Endpoint {
        Endpoint {
            name: name.to_owned(),
            address: [127, 0, 0, 1].into(),
            port: 1,
        }
    }

    #[test]
    fn a_missing_file_keeps_no_other_one_back() {
        let folder = tempfile::tempdir().unwrap();
        let replacement = |number: u64, shard: u16, out: &str, spare: &str| Replacement {
            number,
            shard: ShardId(shard),
            names: vec![NodeId::from(out.to_owned())],
            spare: NodeId::from(spare.to_owned()),
            address: ([127, 0, 0, 1], 9).into(),
            since: now_utc(),
            taking: true,
        };
        let all = [replacement(1, 0, "a", "s"), replacement(2, 1, "b", "t")];
        let put = |name: &str, nodes: &[Endpoint]| {
            let file = Assignment::new("x", nodes, None);
            files::write(&folder.path().join(name), &file.text()).unwrap();
        };
        put("shard-1.json", &[node("b")]);
        put("spare.json", &[node("t"), node("s")]);
        let failed = bring_all_up_to_date(folder.path(), &all);
        assert!(
            failed.len() == 1 && failed[0].contains("shard-0.json"),
            "{failed:?}"
        );
        put("shard-0.json", &[node("a")]);
        for _ in 0..2 {
            assert!(bring_all_up_to_date(folder.path(), &all).is_empty());
        }
        let names = |name: &str| files::read(&folder.path().join(name)).unwrap().names();
        assert_eq!(
            (names("shard-0.json"), names("shard-1.json")),
            (vec!["s".to_owned()], vec!["t".to_owned()])
        );
        assert!(names("spare.json").is_empty());
        assert!(bring_all_up_to_date(&folder.path().join("none"), &[]).is_empty());
    }
}
