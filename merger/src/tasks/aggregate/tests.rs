use serde_json::json;
use time::macros::datetime;
use weft_routing::placement::ShardId;

use super::*;
use crate::cluster::NodeId;
use crate::tasks::LocalState;

fn part(shard: u16, status: Status) -> ShardTask {
    let mut copy = ReplicaTask::acknowledged(NodeId::from(format!("shard-{shard}-node-0")), 7);
    copy.state = LocalState {
        status,
        ..LocalState::default()
    };
    ShardTask::taken(ShardId(shard), vec![copy])
}

fn record(parts: Vec<ShardTask>) -> TaskRecord {
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
        touches: crate::tasks::Touches::All,
        members: Vec::new(),
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
        let parts: Vec<ShardTask> = parts
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
    let lost = ShardTask::undelivered(ShardId(2), "shard-2 can't be reached".to_owned());
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

fn failing(shard: u16, message: &str) -> ShardTask {
    let mut part = part(shard, Status::Failed);
    part.copies[0].state.error = Some(json!({"message": message, "code": "c"}));
    part
}

#[test]
fn a_change_of_settings_that_some_shards_made_ends_when_it_is_undone_there() {
    let mut record = TaskRecord {
        kind: "settingsUpdate".to_owned(),
        read_back: ReadBack::Due,
        ..record(vec![part(0, Status::Succeeded), failing(1, "bad")])
    };
    assert_eq!(status(&record), Status::Processing);
    record.read_back = ReadBack::Undone(vec!["shard-0-node-0".to_owned()]);
    assert_eq!(status(&record), Status::Failed);
    let message = "bad (The change was undone where it had been made: shard-0-node-0.)";
    assert_eq!(error(&record).unwrap()["message"], message);
    record.read_back = ReadBack::Failed(json!({"message": "It could not be undone."}));
    assert_eq!(status(&record), Status::Failed);
    assert_eq!(
        error(&record).unwrap(),
        json!({"message": "bad (It could not be undone.)", "code": "c"})
    );
    // If no node made the change, there is nothing to undo.
    record.read_back = ReadBack::Due;
    record.parts = vec![failing(0, "bad"), failing(1, "bad")];
    assert_eq!(status(&record), Status::Failed);
    assert_eq!(error(&record).unwrap()["message"], "bad");
}

#[test]
fn an_edition_that_failed_somewhere_says_how_many_documents_were_edited() {
    let mut done = part(0, Status::Succeeded);
    done.copies[0].state.details = json!({"editedDocuments": 54, "deletedDocuments": 54})
        .as_object()
        .cloned();
    let mut failed = failing(1, "bad");
    failed.copies[0].state.details = json!({"editedDocuments": 0, "deletedDocuments": null})
        .as_object()
        .cloned();
    let record = TaskRecord {
        kind: "documentEdition".to_owned(),
        ..record(vec![failed, done])
    };
    let view = view(&record);
    assert_eq!(
        Value::Object(view.details.unwrap()),
        json!({"editedDocuments": 54, "deletedDocuments": null})
    );
    assert_eq!(
        view.error.unwrap()["message"],
        "shard-1: bad (The documents of shard-0 were edited: 54. The others were not; the same edition again would edit the \
         former twice.)"
    );
}

#[test]
fn what_is_removed_because_it_lies_elsewhere_now_counts_for_nothing_unless_it_fails() {
    let added = || {
        let mut added = part(0, Status::Succeeded);
        let details = json!({"receivedDocuments": 2, "indexedDocuments": 2});
        added.copies[0].state.details = details.as_object().cloned();
        added
    };
    let removal = |mut part: ShardTask| {
        let details = json!({"providedIds": 2, "deletedDocuments": 1, "originalFilter": null});
        part.copies[0].state.details = details.as_object().cloned();
        part.is_removal = true;
        part
    };
    let removed = || removal(part(1, Status::Succeeded));
    let done = view(&record(vec![added(), removed()]));
    assert_eq!(
        Value::Object(done.details.unwrap()),
        json!({"receivedDocuments": 2, "indexedDocuments": 2})
    );
    // The one document is an old version of the other one, on another shard.
    let mut old = added();
    old.superseded = 1;
    let done = view(&record(vec![old, removed()])).details.unwrap();
    assert_eq!(done["indexedDocuments"], 1);
    // All that was to be added failed alike.
    let failed = record(vec![failing(0, "bad"), removed()]);
    assert_eq!(error(&failed).unwrap()["message"], "bad");
    let failed = record(vec![added(), removal(failing(1, "bad"))]);
    assert_eq!(status(&failed), Status::Failed);
    let said = error(&failed).unwrap();
    assert!(said["message"].as_str().unwrap().contains("shard-1: bad"));
}
