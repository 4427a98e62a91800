//! A merger that follows remembers answers, too.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Deadline, Reply, until};

use super::{MASTER_KEY, three, wait_green};
use crate::remembered::{SEARCH, fill, ids, is_remembered, until_remembered};

/// How long an answer from before a write may be given through another merger than the one that has told of the task's end.
const LATE: Duration = Duration::from_secs(2);

fn amber() -> Value {
    json!({"q": "amber", "limit": 1_000})
}

async fn write(api: &Api, id: u64) -> Reply {
    let document = json!([{"id": id, "name": "amber", "group": 1}]);
    let path = "/indexes/films/documents";
    let accepted = api.post(path, &document).await.unwrap();
    api.succeed(&accepted).await.unwrap();
    accepted
}

#[tokio::test]
async fn a_follower_remembers_answers_and_forgets_them_when_it_hears_of_a_write() {
    let cluster = three().master_key(MASTER_KEY).start().await.unwrap();
    let edges = cluster.edges();
    for edge in &edges {
        wait_green(edge).await;
    }
    let leader = cluster.wait_leader(None).await.unwrap();
    let (leader, follower) = (&edges[leader], &edges[(leader + 1) % 3]);
    fill(leader).await;

    // Who hears of the end through the follower sees the write there at once.
    for id in 1_000..1_010 {
        until_remembered(follower, &amber()).await;
        write(follower, id).await;
        let found = follower.post(SEARCH, &amber()).await.unwrap();
        assert!(ids(&found).contains(&id), "{id}: {}", found.text);
    }
    // Who heard of it elsewhere sees it a little later, and at once in a search that names the task.
    let mut latest = Duration::ZERO;
    for id in 2_000..2_010 {
        until_remembered(follower, &amber()).await;
        let accepted = write(leader, id).await;
        let known = Instant::now();
        let task = accepted.at("/taskUid").to_string();
        let headers = [
            ("content-type", "application/json"),
            ("x-weft-after-task", task.as_str()),
            ("x-weft-explain", "true"),
        ];
        let body = amber().to_string();
        let after = follower.send(Method::POST, SEARCH, &headers, body).await;
        let after = after.unwrap();
        assert!(
            ids(&after).contains(&id) && !is_remembered(&after),
            "{id}: {}",
            after.text
        );
        until("the document is found", Deadline::after(LATE), || async {
            let found = follower.post(SEARCH, &amber()).await;
            let found = found.map_err(|error| error.line())?;
            match ids(&found).contains(&id) {
                true => Ok(()),
                false => Err(found.text),
            }
        })
        .await
        .unwrap();
        latest = latest.max(known.elapsed());
    }
    println!("{latest:?} after the end was known elsewhere, at most");
}
