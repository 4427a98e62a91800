//! `weft store copy`.

use std::path::Path;

use clap::Parser;
use weft_merger::runtime::{CopyOptions, CopyStoreError, copy_store};
use weft_merger::store::{Change, CopyError, IdentityError, RedbStore, Store};

use crate::members::{Members, leader, on_runtime};

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    copy: CopyOptions,
}

fn options(members: &Members, from: &str, to: &str, more: &[&str]) -> CopyOptions {
    let urls = members.urls().join(",");
    let flags = ["copy", "--from", from, "--to", to, "--etcd", &urls];
    Arguments::parse_from(flags.iter().chain(more)).copy
}

async fn fill(file: &Path) {
    let store = RedbStore::open(file).unwrap();
    for n in 0..1_500_u32 {
        let change = Change::put(
            format!("task/{n:05}"),
            n.to_string().repeat(50).into_bytes(),
        );
        store.commit_unsynced(vec![change]).await.unwrap();
    }
    store.commit(vec![Change::put("z", vec![])]).await.unwrap();
}

pub(crate) fn there_and_back_again() {
    let members = Members::one();
    on_runtime(async {
        let etcd = members.client().await;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (first, second) = (path("weft.redb"), path("back.redb"));
        fill(&first).await;
        let (from, to) = (first.to_str().unwrap(), second.to_str().unwrap());
        let copy = async |from: &str, to: &str, more: &[&str]| {
            copy_store(&options(&members, from, to, more)).await
        };
        // Nothing that makes no sense.
        assert!(matches!(
            copy("etcd", "etcd", &[]).await,
            Err(CopyStoreError::NotBoth)
        ));
        let refused = copy(path("none.redb").to_str().unwrap(), "etcd", &[]).await;
        assert!(matches!(refused, Err(CopyStoreError::NoFile(_))));
        assert!(!path("none.redb").exists());
        // Not while a merger runs on either side.
        let (leadership, store) = leader(&etcd).await;
        let refused = copy(from, "etcd", &[]).await;
        assert!(matches!(refused, Err(CopyStoreError::MergerRuns)));
        leadership.step_down().await;
        drop(store);
        let running = RedbStore::open(&first).unwrap();
        let refused = copy(from, "etcd", &[]).await;
        assert!(matches!(refused, Err(CopyStoreError::File(..))));
        drop(running);
        // There.
        let there = copy(from, "etcd", &["--cluster-id", "a"]).await.unwrap();
        assert_eq!(there.entries, 1_501);
        let (leadership, store) = leader(&etcd).await;
        assert_eq!(store.range("").await.unwrap().len(), 1_501);
        leadership.step_down().await;
        drop(store);
        // Not over what is there, and not into another cluster's.
        let refused = copy(from, "etcd", &[]).await;
        assert!(
            matches!(
                refused,
                Err(CopyStoreError::Identity(IdentityError::NotEmpty { .. }))
            ),
            "{refused:?}"
        );
        let refused = copy(from, "etcd", &["--cluster-id", "b"]).await;
        assert!(matches!(
            refused,
            Err(CopyStoreError::Identity(IdentityError::OtherCluster { .. }))
        ));
        // And back.
        let back = copy("etcd", to, &[]).await.unwrap();
        assert_eq!(back, there);
        let refused = copy("etcd", to, &[]).await;
        assert!(matches!(refused, Err(CopyStoreError::FileExists(_))));
        let read = |file: &Path| RedbStore::open(file).unwrap();
        let one = read(&first).range("").await.unwrap();
        let two = read(&second).range("").await.unwrap();
        assert_eq!(one, two);
        // Not a value that etcd would refuse: by name, and the prefix stays usable for another try.
        let large = path("large.redb");
        let store = read(&large);
        let value = vec![0; 2 << 20];
        store
            .commit(vec![Change::put("large", value)])
            .await
            .unwrap();
        drop(store);
        let elsewhere = ["--etcd-prefix", "/elsewhere"];
        let refused = copy(large.to_str().unwrap(), "etcd", &elsewhere).await;
        match refused {
            Err(CopyStoreError::Copy(CopyError::Store(error))) => {
                assert!(error.to_string().contains("`large`"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        let again = copy(from, "etcd", &elsewhere).await.unwrap();
        assert_eq!(again, there);
    });
}
