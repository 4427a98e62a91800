//! Clients of several mergers: each request goes through any of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{INDEX, World, lock};

impl World {
    pub(super) fn goes_on(&self) -> bool {
        !self.ends.load(Ordering::SeqCst)
    }

    pub(super) async fn write(self, mut random: fastrand::Rng, writer: u32) {
        let mut count = 0;
        while self.goes_on() {
            count += 1;
            let document = writer * 100_000 + count;
            let pair = self.any(&mut random);
            let path = format!("/indexes/{INDEX}/documents?primaryKey=id");
            let body = json!([{"id": document, "title": "x", "tenant": document % 7, "group": document % 5}]);
            let began = Instant::now();
            let answer = self.ask(&pair, Method::POST, &path, Some(&body)).await;
            let Some((202, said)) = answer else {
                sleep(Duration::from_millis(random.u64(20..300))).await;
                continue;
            };
            let uid = said["taskUid"].as_u64().unwrap();
            {
                let mut told = lock(&self.told);
                told.acknowledged.insert(document);
                told.writes.push((began, Instant::now(), uid));
                if !told.uids.insert(uid) {
                    told.wrong.push(format!("task {uid} was given twice"));
                }
            }
            if self.succeeds(uid, &mut random).await {
                lock(&self.told).succeeded.push(document);
            }
            sleep(Duration::from_millis(random.u64(1..120))).await;
        }
    }

    /// Whether the task is seen to succeed within a while.
    pub(super) async fn succeeds(&self, uid: u64, random: &mut fastrand::Rng) -> bool {
        for _ in 0..600 {
            let pair = self.any(random);
            let path = format!("/tasks/{uid}");
            match self.ask(&pair, Method::GET, &path, None).await {
                Some((200, task)) if task["status"] == "succeeded" => return true,
                Some((200, task)) if task["status"] == "failed" => {
                    lock(&self.told)
                        .wrong
                        .push(format!("a task failed: {task}"));
                    return false;
                }
                Some((404, _)) => {
                    lock(&self.told).wrong.push(format!("task {uid} is gone"));
                    return false;
                }
                _ => sleep(Duration::from_millis(random.u64(5..100))).await,
            }
        }
        false
    }

    pub(super) async fn read(self, mut random: fastrand::Rng) {
        while self.goes_on() {
            sleep(Duration::from_millis(random.u64(1..60))).await;
            let document = {
                let told = lock(&self.told);
                let count = told.succeeded.len();
                // Mostly one of the latest.
                let from = count.saturating_sub(if random.bool() { 3 } else { count });
                match count {
                    0 => continue,
                    count => told.succeeded[random.usize(from..count)],
                }
            };
            let pair = self.any(&mut random);
            let path = format!("/indexes/{INDEX}/documents/{document}");
            let at = self.mesh.now();
            let answer = self.ask(&pair, Method::GET, &path, None).await;
            let mut told = lock(&self.told);
            told.reads += 1;
            match answer {
                Some((200, _)) => {}
                Some((404, _)) if told.is_doomed(document) => {}
                Some((404, said)) => {
                    let merger = pair.merger.id();
                    told.wrong.push(format!(
                        "{document} was missing at {at} through {merger}: {said}"
                    ));
                }
                _ => told.failed += 1,
            }
        }
    }
}
