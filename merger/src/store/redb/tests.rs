use super::*;

fn store() -> (tempfile::TempDir, RedbStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&folder.path().join("weft.redb")).unwrap();
    (folder, store)
}

#[tokio::test]
async fn a_commit_whose_condition_fails_changes_nothing() {
    let (_folder, store) = store();
    store.commit(vec![Change::put("a", vec![1])]).await.unwrap();
    let refused = store
        .commit(vec![
            Change::put("b", vec![2]),
            Change::put_if("a", vec![3], Expect::Absent),
        ])
        .await;
    assert!(matches!(refused, Err(StoreError::Conflict { key }) if key == "a"));
    assert_eq!(store.get("b").await.unwrap(), None);
    assert_eq!(
        store.get("a").await.unwrap(),
        Some(Versioned {
            version: 1,
            value: vec![1]
        })
    );
}

#[tokio::test]
async fn of_two_writers_that_saw_the_same_version_one_wins() {
    let (_folder, store) = store();
    store.commit(vec![Change::put("a", vec![1])]).await.unwrap();
    let (one, two) = tokio::join!(
        store.commit(vec![Change::put_if("a", vec![2], Expect::Version(1))]),
        store.commit(vec![Change::put_if("a", vec![3], Expect::Version(1))]),
    );
    assert!(one.is_ok() != two.is_ok());
    assert_eq!(store.get("a").await.unwrap().unwrap().version, 2);
}

#[tokio::test]
async fn the_pages_of_a_range_are_the_range() {
    let (_folder, store) = store();
    let keys = (0..PAGE * 2 + 5).map(|number| format!("task/{number:010}"));
    let others = ["task", "tasks", "task0"].map(str::to_owned);
    let changes = keys.chain(others).map(|key| Change::put(key, vec![7]));
    store.commit(changes.collect()).await.unwrap();
    let (mut read, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let after = read.last().map(|(key, _): &(String, _)| key.clone());
        let page = store.page("task/", after.as_deref()).await.unwrap();
        sizes.push(page.entries.len());
        read.extend(page.entries);
        if !page.more {
            break;
        }
    }
    assert_eq!(sizes, [PAGE, PAGE, 5]);
    assert_eq!(read, store.range("task/").await.unwrap());
}

#[tokio::test]
async fn a_range_holds_the_prefix_and_nothing_else_in_order() {
    let (_folder, store) = store();
    let keys = ["task/2", "task/1", "tasks", "task", "placement/x"];
    store
        .commit(
            keys.iter()
                .map(|key| Change::put(*key, Vec::new()))
                .collect(),
        )
        .await
        .unwrap();
    let found: Vec<String> = store
        .range("task/")
        .await
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(found, ["task/1", "task/2"]);
}

#[tokio::test]
async fn compacting_gives_room_back_and_keeps_what_is_there() {
    let (_folder, store) = store();
    let many = |value: Option<Vec<u8>>| {
        let change = |n: u32| match &value {
            Some(value) => Change::put(format!("k/{n}"), value.clone()),
            None => Change::delete(format!("k/{n}")),
        };
        (0..2_000).map(change).collect::<Vec<_>>()
    };
    store.commit(many(Some(vec![7; 2_000]))).await.unwrap();
    store.commit(vec![Change::put("a", vec![7])]).await.unwrap();
    store.commit(many(None)).await.unwrap();
    let unsynced = vec![Change::put("u", vec![9])];
    store.commit_unsynced(unsynced).await.unwrap();
    let (before, after) = store.compact().await.unwrap().unwrap();
    assert!(after < before / 2, "{before} bytes before, {after} after");
    assert_eq!(store.get("a").await.unwrap().unwrap().value, [7]);
    store.commit(vec![Change::put("b", vec![8])]).await.unwrap();
    assert_eq!(store.range("").await.unwrap().len(), 3);
}

/// The keys that a crash at this moment would leave, read from a copy of the file.
async fn after_a_crash(folder: &Path) -> Vec<String> {
    let copy = folder.join("copy.redb");
    std::fs::copy(folder.join("weft.redb"), &copy).unwrap();
    let store = RedbStore::open(&copy).unwrap();
    let entries = store.range("").await.unwrap();
    entries.into_iter().map(|(key, _)| key).collect()
}

#[tokio::test]
async fn what_is_not_synced_is_seen_at_once_and_survives_with_what_comes_after_it() {
    let (folder, store) = store();
    let put = |key: &str| vec![Change::put(key, vec![1])];
    store.commit(put("a")).await.unwrap();
    store.commit_unsynced(put("b")).await.unwrap();
    assert_eq!(store.range("").await.unwrap().len(), 2);
    store.commit(put("c")).await.unwrap();
    assert_eq!(after_a_crash(folder.path()).await, ["a", "b", "c"]);
    store.commit_unsynced(put("d")).await.unwrap();
    tokio::time::sleep(UNSYNCED * 3).await;
    assert_eq!(after_a_crash(folder.path()).await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let store = RedbStore::open(&path).unwrap();
    store.commit(vec![Change::put("a", vec![7])]).await.unwrap();
    let unsynced = vec![Change::put("b", vec![8])];
    store.commit_unsynced(unsynced).await.unwrap();
    drop(store);
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().value, [7]);
    assert_eq!(store.get("b").await.unwrap().unwrap().value, [8]);
}

#[test]
fn a_file_keeps_its_format_if_an_older_merger_shall_be_able_to_open_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let format = || {
        let database = Database::create(&path).unwrap();
        let read = database.begin_read().unwrap();
        let about = read.open_table(ABOUT).unwrap();
        about.get(FORMAT_KEY).unwrap().unwrap().value()
    };
    drop(RedbStore::open_as_it_is(&path).unwrap());
    assert_eq!(format(), OLDER_FORMAT);
    drop(RedbStore::open_as_it_is(&path).unwrap());
    assert_eq!(format(), OLDER_FORMAT);
    drop(RedbStore::open(&path).unwrap());
    assert_eq!(format(), FORMAT);
    // What stands there already isn't changed back.
    drop(RedbStore::open_as_it_is(&path).unwrap());
    assert_eq!(format(), FORMAT);
}

#[tokio::test]
async fn a_file_that_is_opened_again_gets_first_what_was_not_durable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let store = RedbStore::open(&path).unwrap();
    store.commit(vec![Change::put("a", vec![1])]).await.unwrap();
    drop(store);
    let file = Arc::new(File {
        path: path.clone(),
        keeps_format: false,
        database: RwLock::new(None),
    });
    assert!(file.with(|_| Ok(())).is_err(), "it is closed");
    let mut writer = Writer {
        file: Arc::clone(&file),
        unsynced: Unsynced {
            since: Some(Instant::now()),
            commits: vec![
                vec![Change::put_if("b", vec![2], Expect::Absent)],
                vec![
                    Change::put_if("b", vec![3], Expect::Version(1)),
                    Change::delete("a"),
                ],
            ],
        },
        open_again: Some(Instant::now()),
    };
    writer.open_again();
    assert!(writer.open_again.is_none() && writer.unsynced.commits.is_empty());
    drop((writer, file));
    let store = RedbStore::open(&path).unwrap();
    let there = store.range("").await.unwrap();
    let there: Vec<_> = there
        .into_iter()
        .map(|(key, entry)| (key, entry.version, entry.value))
        .collect();
    assert_eq!(there, [("b".to_owned(), 2, vec![3])]);
}

#[test]
fn while_a_compaction_has_the_file_alone_reads_wait_and_no_thread_of_the_runtime_does() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let (_folder, store) = store();
    runtime
        .block_on(store.commit(vec![Change::put("a", vec![7])]))
        .unwrap();
    // Locks the file on another thread, as a compaction does.
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let file = Arc::clone(&store.file);
    let compaction = std::thread::spawn(move || {
        let alone = file.alone();
        tell.send(()).unwrap();
        // The time limit lets the test end even if the runtime is blocked.
        let let_go = ended.recv_timeout(Duration::from_secs(10));
        drop(alone);
        let_go.is_ok()
    });
    told.recv().unwrap();
    runtime.block_on(async {
        let reads = async { tokio::join!(store.get("a"), store.range("")) };
        let mut reads = std::pin::pin!(reads);
        // The only thread of this runtime can do other work meanwhile.
        let waited = tokio::time::timeout(Duration::from_millis(100), reads.as_mut()).await;
        assert!(waited.is_err(), "nobody has the file alone");
        end.send(()).unwrap();
        let (one, all) = reads.await;
        assert_eq!(one.unwrap().unwrap().value, [7]);
        assert_eq!(all.unwrap().len(), 1);
    });
    assert!(
        compaction.join().unwrap(),
        "a thread of the runtime waited for the file"
    );
}

#[test]
fn a_newer_format_is_refused_in_one_line_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    drop(RedbStore::open(&path).unwrap());
    let set = |format: u64| {
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut about = transaction.open_table(ABOUT).unwrap();
        about.insert(FORMAT_KEY, format).unwrap();
        drop(about);
        transaction.commit().unwrap();
    };
    for _ in 0..2 {
        set(FORMAT + 1);
        let refused = RedbStore::open(&path).map(drop).unwrap_err();
        assert!(matches!(refused, StoreError::NewerFormat { found, .. } if found == FORMAT + 1));
        let said = refused.to_string();
        assert!(said.contains("it needs a newer merger") && !said.contains('\n'));
    }
    // That of an older merger is taken over, and older ones can't read it from then on.
    set(FORMAT - 1);
    drop(RedbStore::open(&path).unwrap());
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_read().unwrap();
    let about = transaction.open_table(ABOUT).unwrap();
    assert_eq!(about.get(FORMAT_KEY).unwrap().unwrap().value(), FORMAT);
}

#[test]
fn a_file_that_says_nothing_of_its_format_is_one_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(ENTRIES).unwrap();
    transaction.commit().unwrap();
    drop(database);
    drop(RedbStore::open(&path).unwrap());
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_read().unwrap();
    let about = transaction.open_table(ABOUT).unwrap();
    assert_eq!(about.get(FORMAT_KEY).unwrap().unwrap().value(), FORMAT);
}
