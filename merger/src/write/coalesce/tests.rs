use weft_routing::placement::SlotMap;

use super::*;
use crate::cluster::NodeId;
use crate::write::spool::Framing;

fn small(index: &str, ids: &[&str]) -> Small {
    let kind = Kind {
        placement: Arc::new(Placement {
            uid: index.to_owned(),
            slots: Arc::new(SlotMap::deal(&[ShardId(0)]).unwrap()),
            primary_key: Some("id".to_owned()),
            deleted_by: None,
            write_mode: None,
            shard_count: None,
            unsettled: std::collections::BTreeSet::new(),
        }),
        operation: Operation::ReplaceDocuments,
        method: Method::POST,
        path_and_query: format!("/indexes/{index}/documents"),
        format: Format::Json,
        authority: None,
        mode: WriteMode::Sync,
    };
    let documents = Bytes::from_static(b"{}");
    let piece = Piece::of(Framing::default(), &[b"{}"]);
    let ids = ids.iter().collect();
    Small {
        kind,
        forwarded: ForwardedHeaders::default(),
        documents,
        piece,
        ids,
        task: NewTask::default(),
    }
}

fn wait(coalescer: &Coalescer, shard: ShardId, small: Small) {
    let (sent, _) = oneshot::channel();
    coalescer
        .lines()
        .entry(shard)
        .or_default()
        .waiting
        .push_back(Waiting { small, sent });
}

#[test]
fn neighbours_of_one_kind_go_together_and_keep_their_order() {
    let coalescer = Coalescer::default();
    let shard = ShardId(0);
    for (index, id) in [("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")] {
        wait(&coalescer, shard, small(index, &[id]));
    }
    let mut groups = Vec::new();
    loop {
        let group = coalescer.next_group(shard);
        if group.is_empty() {
            break;
        }
        groups.push(
            group
                .iter()
                .flat_map(|waiting| waiting.small.ids.iter().map(str::to_owned))
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(groups, [vec!["1", "2"], vec!["3"], vec!["4"]]);
    assert!(coalescer.lines().is_empty());
}

#[test]
fn a_merged_write_is_overtaken_by_a_later_one_of_its_ids_or_of_unknown_ids() {
    let coalescer = Coalescer::default();
    let node = NodeId::from("n".to_owned());
    let keep = |local, smalls| {
        coalescer
            .held()
            .keep((node.clone(), local), ShardId(0), smalls)
    };
    let overtaken = |local, place| {
        let mut held = coalescer.held();
        let taken = held.take(&(node.clone(), local), place)?;
        let overtaken = held.is_overtaken(&taken);
        held.done(&taken);
        Some(overtaken)
    };
    keep(
        1,
        vec![small("a", &["1"]), small("a", &["1"]), small("a", &["2"])],
    );
    keep(2, vec![small("a", &["2"]), small("a", &["3"])]);
    assert_eq!(
        overtaken(1, 0),
        Some(false),
        "one's own group does not count"
    );
    assert_eq!(overtaken(1, 2), Some(true));
    assert_eq!(overtaken(2, 1), Some(false));
    assert_eq!(overtaken(2, 1), None, "taken once");
    coalescer.note_other("b");
    assert_eq!(overtaken(1, 1), Some(false));
    coalescer.note_other("a");
    assert_eq!(overtaken(2, 0), Some(true));
    assert_eq!(coalescer.held().bytes, 0);
    assert!(coalescer.held().groups.is_empty() && coalescer.held().indexes.is_empty());
}

#[test]
fn ids_that_overtake_no_held_write_are_forgotten() {
    let coalescer = Coalescer::default();
    let node = NodeId::from("n".to_owned());
    let mut most = 0;
    for local in 0..20_000_u32 {
        let mut held = coalescer.held();
        let smalls = vec![small("a", &[&local.to_string()]), small("a", &["same"])];
        held.keep((node.clone(), local), ShardId(0), smalls);
        most = most.max(held.indexes["a"].ids.len());
        // Ten groups are always under way.
        let Some(ended) = local.checked_sub(10) else {
            continue;
        };
        for place in 0..2 {
            let taken = held.take(&(node.clone(), ended), place).unwrap();
            let overtaken = held.is_overtaken(&taken);
            assert_eq!(overtaken, place == 1, "`same` was written since");
            held.done(&taken);
        }
    }
    assert!(most < 4_000, "{most} ids were kept");
}

#[test]
fn a_lone_write_between_an_end_and_the_repetition_counts_as_newer() {
    let coalescer = Coalescer::default();
    let mut held = coalescer.held();
    let task = (NodeId::from("n".to_owned()), 1);
    let ids = |list: &[&str]| list.iter().collect::<Ids>();
    let smalls = ["1", "2", "3"].map(|id| small("a", &[id]));
    held.keep(task.clone(), ShardId(0), smalls.to_vec());
    let [one, two, three] = [0, 1, 2].map(|place| held.take(&task, place).unwrap());
    held.note("a", Some(&ids(&["2", "7"])));
    held.note("b", Some(&ids(&["1"])));
    assert!(!held.is_overtaken(&one), "another document, another index");
    assert!(held.is_overtaken(&two));
    held.done(&one);
    held.done(&two);
    // The name may belong to another index now.
    held.note_all();
    assert!(held.is_overtaken(&three));
    held.done(&three);
    assert!(held.indexes.is_empty() && held.groups.is_empty());
    assert_eq!(held.bytes, 0);
}
