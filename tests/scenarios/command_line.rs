//! The operator's commands of `weft`, as an operator and a script run them: the real program against a real cluster.

use std::process::{Output, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use weft_cluster::{Api, Binaries, Cluster, Deadline, until};

use crate::support::{MASTER_KEY, documents, start};

/// What a run left behind.
#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The lines of a table, without its heading, that begin with a word.
    fn row(&self, first: &str) -> Vec<String> {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        let rows = self.out.lines().map(words);
        let mut found =
            rows.filter(|words: &Vec<String>| words.first().is_some_and(|word| word == first));
        found
            .next()
            .unwrap_or_else(|| panic!("no line of {first}: {self:?}"))
    }
}

/// The program, with nothing in its environment but what a test says.
fn weft(url: &str, key: Option<&str>) -> Command {
    let mut command = Command::new(Binaries::find().unwrap().weft);
    command.env_clear().env("WEFT_URL", url);
    if let Some(key) = key {
        command.env("WEFT_MASTER_KEY", key);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command line, whose words have no spaces, to its end.
async fn run_at(url: &str, key: Option<&str>, line: &str) -> Run {
    let output = weft(url, key).args(line.split_whitespace()).output();
    let output = tokio::time::timeout(Duration::from_secs(120), output);
    let Output {
        status,
        stdout,
        stderr,
    } = output.await.unwrap().unwrap();
    Run {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

async fn run(cluster: &Cluster, line: &str) -> Run {
    run_at(&cluster.url(), Some(MASTER_KEY), line).await
}

/// Runs a command line until it ends with this code.
async fn run_until(cluster: &Cluster, line: &str, code: i32) -> Run {
    let deadline = Deadline::after(Duration::from_secs(60));
    until("the command ends as expected", deadline, || async {
        let run = run(cluster, line).await;
        match run.code == code {
            true => Ok(run),
            false => Err(format!("{run:?}")),
        }
    })
    .await
    .unwrap()
}

/// An index `things` with 600 documents, `group` filterable and `id` sortable.
async fn fill(api: &Api) {
    let settings = json!({"filterableAttributes": ["group"], "sortableAttributes": ["id"]});
    let index = json!({"uid": "things", "primaryKey": "id"});
    let made = api.post("/indexes", &index).await.unwrap();
    api.succeed(&made).await.unwrap();
    let set = api.json(Method::PATCH, "/indexes/things/settings", &settings);
    api.succeed(&set.await.unwrap()).await.unwrap();
    let all = documents(0..600);
    let added = api.post("/indexes/things/documents", &all).await.unwrap();
    api.succeed(&added).await.unwrap();
}

#[tokio::test]
async fn a_cluster_is_shown_to_people_and_to_scripts() {
    let (cluster, api) = start(Cluster::builder().shards(2).replicas(2)).await;
    fill(&api).await;
    let status = run_until(&cluster, "status", 0).await;
    let first = status.out.lines().next().unwrap();
    assert!(
        first.ends_with("is green: 2 shards, 4 of 4 nodes active, 1 index, 600 documents"),
        "{first}"
    );
    assert!(
        !status.out.contains('\u{1b}'),
        "no colours in a pipe: {status:?}"
    );
    assert_eq!(status.row("0")[1], "green");
    let status = run(&cluster, "status --json").await.json();
    assert_eq!(status["health"]["status"], "green");
    assert_eq!(status["nodes"].as_array().unwrap().len(), 4);

    for (line, path) in [
        ("nodes --json", "/_cluster/nodes"),
        ("shards --json", "/_cluster/shards"),
        ("mergers --json", "/_cluster/mergers"),
        ("moves --json", "/_cluster/moves"),
    ] {
        let told = api.get(path).await.unwrap();
        let members =
            |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(
            members(&run(&cluster, line).await.json()),
            members(&told.body),
            "{line}"
        );
    }
    let nodes = run(&cluster, "nodes").await;
    assert_eq!((nodes.code, nodes.out.lines().count()), (0, 5), "{nodes:?}");
    assert_eq!(nodes.row("shard-1-node-0")[3..6], ["up", "yes", "yes"]);
    let shards = run(&cluster, "shards").await;
    assert_eq!((shards.code, &shards.row("1")[1]), (0, &"green".to_owned()));
    let mergers = run(&cluster, "mergers").await;
    assert_eq!(mergers.code, 0);
    assert!(mergers.out.contains("leader"), "{mergers:?}");
    let indexes = run(&cluster, "indexes").await;
    assert_eq!(
        indexes.row("things")[1..6],
        ["600", "green", "2", "2", "sync"]
    );
    let one = run(&cluster, "indexes things").await;
    assert_eq!(one.row("1")[1..5], ["green", "2,048", "50.0", "%"]);
    assert_eq!(
        run(&cluster, "indexes --json").await.json()["indexes"][0]["documents"],
        600
    );
    let verify = run(&cluster, "verify").await;
    assert_eq!(
        (verify.code, &verify.row("0")[1]),
        (0, &"same".to_owned()),
        "{verify:?}"
    );
    assert_eq!(
        run(&cluster, "verify --last --json").await.json()["differences"],
        0
    );
}

#[tokio::test]
async fn tasks_and_searches_are_shown_and_explained() {
    let (cluster, api) = start(Cluster::builder().shards(2)).await;
    fill(&api).await;
    let without_id = json!([{"name": "no id"}]);
    let failed = api
        .post("/indexes/things/documents", &without_id)
        .await
        .unwrap();
    api.settle(&failed).await.unwrap();
    let tasks = run(&cluster, "tasks").await;
    assert_eq!((tasks.code, tasks.out.lines().count()), (0, 5), "{tasks:?}");
    let tasks = run(&cluster, "tasks --status failed --index things --limit 3").await;
    assert_eq!(tasks.row("3")[1], "failed");
    assert!(tasks.out.contains("`id` attribute"), "{tasks:?}");
    let tasks = run(&cluster, "tasks --type settingsUpdate --json")
        .await
        .json();
    assert_eq!(tasks["total"], 1);
    let wrong = run(&cluster, "tasks --status done").await;
    assert_eq!(wrong.code, 3, "{wrong:?}");
    assert!(wrong.err.contains("invalid_task_statuses"), "{wrong:?}");

    let search = [
        "search",
        "things",
        "amber",
        "--filter",
        "group = 5",
        "--sort",
        "id:desc",
        "--limit",
        "2",
        "--explain",
    ];
    let found = weft(&cluster.url(), Some(MASTER_KEY))
        .args(search)
        .output()
        .await
        .unwrap();
    let out = String::from_utf8(found.stdout).unwrap();
    assert_eq!(found.status.code(), Some(0), "{out}");
    assert!(
        out.contains(r#"{"id":595,"name":"amber number 595","group":5}"#),
        "{out}"
    );
    assert!(out.contains("2 of about 60 hits"), "{out}");
    let shard = out.lines().find(|line| line.contains("shard-1-node-0"));
    assert!(
        shard.is_some_and(|line| line.contains("hits 1 to 2")),
        "{out}"
    );
    let plain = run(&cluster, "search things --limit 3 --json").await.json();
    assert_eq!(plain["hits"].as_array().unwrap().len(), 3);
    assert!(plain.get("explain").is_none());
    let unknown = run(&cluster, "search nothing").await;
    assert_eq!(unknown.code, 3);
    assert!(unknown.err.contains("index_not_found"), "{unknown:?}");
}

#[tokio::test]
async fn what_is_wrong_ends_in_its_own_exit_code() {
    let (cluster, _api) = start(Cluster::builder().shards(1).replicas(2)).await;
    let url = cluster.url();
    run_until(&cluster, "status", 0).await;
    // Nobody listens on port 1.
    let nobody = run_at("http://127.0.0.1:1", Some(MASTER_KEY), "status").await;
    assert_eq!(nobody.code, 3);
    assert!(
        nobody.err.contains("http://127.0.0.1:1/ doesn't answer"),
        "{nobody:?}"
    );
    for key in [None, Some("not-the-master-key")] {
        let refused = run_at(&url, key, "nodes").await;
        assert_eq!((refused.code, refused.out.as_str()), (3, ""));
        assert!(refused.err.contains("WEFT_MASTER_KEY"), "{refused:?}");
    }
    for line in [
        "status --nope",
        "nope",
        "rebalance --dry-run --yes",
        "moves throttle",
        "moves cancel",
        "drain node",
        "search",
        "status --url ftp://there",
        "status --master-key-file /nowhere/key",
        "completions tcsh",
    ] {
        let wrong = run(&cluster, line).await;
        assert_eq!(
            (wrong.code, wrong.out.as_str()),
            (2, ""),
            "{line}: {wrong:?}"
        );
        assert!(!wrong.err.is_empty(), "{line}");
    }
    let unknown = run(&cluster, "drain node nobody").await;
    assert_eq!(unknown.code, 3, "{unknown:?}");
    // The key in a file does as well.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, format!("{MASTER_KEY}\n")).unwrap();
    let line = format!("status --master-key-file {}", file.display());
    assert_eq!(run_at(&url, None, &line).await.code, 0);

    cluster.node(0, 1).kill().unwrap();
    let yellow = run_until(&cluster, "status", 1).await;
    assert!(yellow.out.contains(" is yellow: "), "{yellow:?}");
    let lines = yellow.out.lines();
    let mut trouble = lines.filter(|line| line.starts_with("shard-0-node-1 is "));
    assert!(trouble.next().is_some(), "{yellow:?}");
    assert_eq!(run(&cluster, "shards").await.code, 1);
    assert_eq!(run(&cluster, "nodes").await.code, 1);
}

#[tokio::test]
async fn nodes_and_shards_are_drained_and_resumed_and_slots_moved() {
    let (cluster, api) = start(Cluster::builder().shards(2).replicas(2)).await;
    fill(&api).await;
    run_until(&cluster, "status", 0).await;
    let drained = run(&cluster, "drain node shard-0-node-1").await;
    assert_eq!(drained.code, 0, "{drained:?}");
    assert!(
        drained.out.starts_with("shard-0-node-1 is drained"),
        "{drained:?}"
    );
    assert_eq!(
        run(&cluster, "nodes").await.row("shard-0-node-1")[3],
        "drained"
    );
    let last = run(&cluster, "drain node shard-0-node-0").await;
    assert_eq!(last.code, 3, "{last:?}");
    assert_eq!(run(&cluster, "resume node shard-0-node-1").await.code, 0);
    run_until(&cluster, "status", 0).await;

    let even = run(&cluster, "rebalance --dry-run").await;
    assert_eq!((even.code, even.out.as_str()), (0, "nothing to move\n"));
    let throttled = run(
        &cluster,
        "moves throttle --bytes-per-second 16MiB --max-concurrent 3",
    )
    .await;
    assert!(
        throttled.out.starts_with("3 at once, 16.0 MiB/s each"),
        "{throttled:?}"
    );
    assert_eq!(
        run(&cluster, "moves pause --json").await.json()["paused"],
        true
    );

    // Without a terminal nobody can be asked.
    let unasked = run(&cluster, "rebalance --exclude shard-1").await;
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(unasked.err.contains("--yes"), "{unasked:?}");
    let begun = run(&cluster, "rebalance --exclude 1 --yes").await;
    assert_eq!(begun.row("things")[1..4], ["1", "0", "2,048"]);
    assert!(
        begun.out.ends_with("move 1 has begun: weft moves\n"),
        "{begun:?}"
    );
    let listed = run(&cluster, "moves").await;
    assert!(listed.out.starts_with("paused"), "{listed:?}");
    assert_eq!(listed.row("1")[1..5], ["things", "1", "0", "2,048"]);
    assert_eq!(run(&cluster, "moves cancel 99").await.code, 3);
    assert_eq!(run(&cluster, "moves cancel 1").await.code, 0);
    assert_eq!(
        run(&cluster, "moves resume --json").await.json()["paused"],
        false
    );
    until(
        "the move has ended",
        Deadline::after(Duration::from_secs(60)),
        || async {
            let listed = run(&cluster, "moves list --json").await.json();
            match listed["moves"][0]["state"] == "cancelled" {
                true => Ok(()),
                false => Err(listed.to_string()),
            }
        },
    )
    .await
    .unwrap();

    let emptied = run(&cluster, "drain shard shard-1 --wait").await;
    assert_eq!(
        (emptied.code, emptied.out.as_str()),
        (0, "1 of 1 move done\n"),
        "{emptied:?}"
    );
    let shards = run(&cluster, "shards").await;
    assert!(shards.out.contains("drained, removable"), "{shards:?}");
    assert_eq!(run(&cluster, "resume shard 1").await.code, 0);
    let back = run(&cluster, "rebalance --yes --wait --json").await;
    assert_eq!(back.json()["moves"][0]["state"], "done", "{back:?}");
    assert_eq!(run(&cluster, "indexes things").await.row("1")[2], "2,048");
    assert_eq!(run(&cluster, "search things --limit 1").await.code, 0);
}

#[tokio::test]
async fn the_key_is_in_no_list_of_processes_and_a_closed_pipe_is_no_error() {
    let (cluster, api) = start(Cluster::builder().shards(1)).await;
    fill(&api).await;
    let mut watch = weft(&cluster.url(), Some(MASTER_KEY))
        .args(["tasks", "--watch", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(watch.stdout.take().unwrap());
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line)
        .await
        .unwrap();
    let task: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(task["uid"], 0, "the oldest comes first");
    let words = std::fs::read(format!("/proc/{}/cmdline", watch.id().unwrap())).unwrap();
    let words = String::from_utf8(words).unwrap();
    assert!(
        words.contains("--watch") && !words.contains(MASTER_KEY),
        "{words}"
    );
    // Nobody reads any more, and there is something to write.
    drop(lines);
    let one = documents(0..1);
    let added = api.post("/indexes/things/documents", &one).await.unwrap();
    api.succeed(&added).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), watch.wait_with_output());
    let ended = ended.await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    run_until(&cluster, "status", 0).await;
    for line in [
        "completions zsh",
        "man",
        "config envoy --shards 40",
        "tasks",
        "status --json",
    ] {
        let mut closed = weft(&cluster.url(), Some(MASTER_KEY));
        closed
            .args(line.split(' '))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut closed = closed.spawn().unwrap();
        drop(closed.stdout.take());
        let ended = closed.wait_with_output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{line}");
        assert_eq!(ended.status.code(), Some(0), "{line}");
    }
}

#[tokio::test]
async fn a_file_for_envoy_is_checked_with_its_lines() {
    let nobody = "http://127.0.0.1:1";
    let printed = run_at(nobody, None, "config envoy --shards 2 --replicas 2").await;
    assert_eq!(printed.code, 0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("envoy.yaml");
    std::fs::write(&path, &printed.out).unwrap();
    let line = format!("config check {}", path.display());
    let sound = run_at(nobody, None, &line).await;
    assert_eq!(sound.code, 0, "{sound:?}");
    assert!(sound.out.ends_with("nothing is wrong\n"), "{sound:?}");
    let broken = printed
        .out
        .replace("- name: shard-1\n", "- name: shard_1\n");
    let number = broken
        .lines()
        .position(|line| line.ends_with("- name: shard_1"))
        .unwrap()
        + 1;
    std::fs::write(&path, &broken).unwrap();
    let wrong = run_at(nobody, None, &line).await;
    assert_eq!(wrong.code, 1, "{wrong:?}");
    let expected = format!(
        "{}:{number}: mistake: `shard_1` isn't taken for a shard",
        path.display()
    );
    assert!(wrong.out.contains(&expected), "{wrong:?}");
    let told = run_at(nobody, None, &format!("{line} --json")).await.json();
    assert_eq!(told["findings"][0]["line"], number);
    assert_eq!(
        run_at(nobody, None, "config check /nowhere/envoy.yaml")
            .await
            .code,
        2
    );
}
