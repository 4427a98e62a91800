use serde_json::json;
use time::macros::datetime;
use weft_routing::placement::ShardId;

use super::*;
use crate::cluster::NodeId;
use crate::tasks::LocalState;

fn part(shard: u16, status: Status) -> Part {
    let mut copy = Copy::acknowledged(NodeId::from(format!("shard-{shard}-node-0")), 7);
    copy.state = LocalState {
        status,
        ..LocalState::default()
    };
    Part::taken(ShardId(shard), vec![copy])
}

fn record(parts: Vec<Part>) -> TaskRecord {
    TaskRecord {
        uid: 3,
        index_uid: Some("movies".to_owned()),
        kind: "documentAdditionOrUpdate".to_owned(),
        enqueued_at: datetime!(2026-01-01 00:00 UTC),
        details: Map::new(),
        custom_metadata: None,
        canceled_by: None,
        parts,
        error: None,
        read_back: ReadBack::NotNeeded,
        share: None,
    }
}

#[test]
fn a_task_is_settled_only_when_every_part_is() {
    use Status::{Canceled, Enqueued, Failed, Processing, Succeeded};
    let cases = [
        (vec![Enqueued, Enqueued], Enqueued),
        (vec![Enqueued, Processing], Processing),
        (vec![Succeeded, Enqueued], Processing),
        (vec![Failed, Enqueued], Processing),
        (vec![Succeeded, Succeeded], Succeeded),
        (vec![Succeeded, Failed], Failed),
        (vec![Succeeded, Canceled], Canceled),
    ];
    for (parts, expected) in cases {
        let parts: Vec<Part> = parts
            .into_iter()
            .zip(0..)
            .map(|(status, shard)| part(shard, status))
            .collect();
        assert_eq!(status(&record(parts.clone())), expected, "{parts:?}");
    }
}

#[test]
fn counts_are_summed_and_what_the_merger_knows_wins() {
    let mut one = part(0, Status::Succeeded);
    let mut two = part(1, Status::Succeeded);
    one.copies[0].state.details = json!({"receivedDocuments": 4, "indexedDocuments": 4})
        .as_object()
        .cloned();
    two.copies[0].state.details = json!({"receivedDocuments": 6, "indexedDocuments": 5})
        .as_object()
        .cloned();
    let mut task = record(vec![one, two]);
    task.details
        .insert("receivedDocuments".to_owned(), json!(11));
    assert_eq!(
        Value::from(view(&task).details.unwrap()),
        json!({"receivedDocuments": 11, "indexedDocuments": 9})
    );
}

#[test]
fn an_export_counts_what_every_shard_has_of_each_pattern() {
    let mut parts = vec![part(0, Status::Succeeded), part(1, Status::Succeeded)];
    for (part, indexes) in parts.iter_mut().zip([
        json!({"a*": {"filter": null, "matched_documents": 8}}),
        json!({"a*": {"filter": null, "matched_documents": 21}, "b": {"matched_documents": 1}}),
    ]) {
        part.copies[0].state.details = json!({"url": "http://x", "indexes": indexes})
            .as_object()
            .cloned();
    }
    let details = view(&record(parts)).details.unwrap();
    assert_eq!(
        details["indexes"],
        json!({"a*": {"filter": null, "matched_documents": 29}, "b": {"matched_documents": 1}})
    );
}

#[test]
fn an_error_that_all_parts_share_is_the_nodes_own() {
    let error = json!({"message": "Index `x` not found.", "code": "index_not_found"});
    let mut parts = vec![part(0, Status::Failed), part(1, Status::Failed)];
    for part in &mut parts {
        part.copies[0].state.error = Some(error.clone());
    }
    assert_eq!(view(&record(parts)).error, Some(error));
}

#[test]
fn a_partial_failure_names_the_shards_that_failed_and_those_that_are_done() {
    let mut failed = part(1, Status::Failed);
    failed.copies[0].state.error =
        Some(json!({"message": "disk full", "code": "no_space_left_on_device"}));
    let error = view(&record(vec![part(0, Status::Succeeded), failed]))
        .error
        .unwrap();
    assert_eq!(error["code"], "no_space_left_on_device");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("shard-1: disk full") && message.contains("done on shard-0"),
        "{message}"
    );
}

#[test]
fn a_part_that_reached_nobody_fails_the_task() {
    let lost = Part::undelivered(ShardId(2), "shard-2 can't be reached".to_owned());
    let task = record(vec![part(0, Status::Succeeded), lost]);
    assert_eq!(status(&task), Status::Failed);
    assert!(
        view(&task).error.unwrap()["message"]
            .as_str()
            .unwrap()
            .contains("shard-2 can't be reached")
    );
}

#[test]
fn durations_are_printed_as_nodes_print_them() {
    assert_eq!(iso8601(Duration::nanoseconds(68_954_660)), "PT0.068954660S");
    assert_eq!(
        iso8601(Duration::nanoseconds(61_000_000_001)),
        "PT61.000000001S"
    );
}
