use weft_routing::placement::SlotMap;
use weft_routing::strategy::Strategy;
use weft_routing::value::RoutingField;

use super::held::Group;
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
            changing: None,
            change_error: None,
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
        custom_metadata: None,
    }
}

fn wait(coalescer: &Coalescer, shard: ShardId, small: Small) {
    let (sent, _) = oneshot::channel();
    coalescer
        .lines()
        .entry(Place::of(shard, &small.kind.placement))
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
    let place = Place {
        shard,
        by_field: None,
    };
    let mut groups = Vec::new();
    while let Some(next) = coalescer.next(&place) {
        assert!(next.ids.is_empty(), "they aren't looked for");
        let group = coalescer.next_group(&place);
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
fn writes_of_an_index_that_lies_by_a_field_wait_apart_and_are_looked_for() {
    let coalescer = Coalescer::default();
    let shard = ShardId(0);
    let by_field = |mut small: Small| {
        let placement = Arc::make_mut(&mut small.kind.placement);
        let slots = SlotMap::deal(&[ShardId(0), ShardId(1)]).unwrap();
        let field = RoutingField::new("tenant").unwrap();
        placement.slots = Arc::new(slots.by(Strategy::Field(field)));
        small
    };
    wait(&coalescer, shard, small("a", &["1"]));
    for (index, id) in [("b", "2"), ("b", "3"), ("c", "4")] {
        wait(&coalescer, shard, by_field(small(index, &[id])));
    }
    let place = |index: Option<&str>| Place {
        shard,
        by_field: index.map(str::to_owned),
    };
    for (index, ids) in [
        (None, vec![]),
        (Some("b"), vec!["2", "3"]),
        (Some("c"), vec!["4"]),
    ] {
        let next = coalescer.next(&place(index)).unwrap();
        let ids = ids.into_iter().map(str::to_owned).collect();
        assert_eq!(next.ids, ids);
        assert!(!coalescer.next_group(&place(index)).is_empty());
        assert!(coalescer.next(&place(index)).is_none());
    }
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
    let overtaken = |group: &Group, place: usize| {
        let held = coalescer.held();
        held.is_overtaken(group, &group.members[place])
    };
    let take = |local| coalescer.held().take(&(node.clone(), local));
    keep(
        1,
        vec![small("a", &["1"]), small("a", &["1"]), small("a", &["2"])],
    );
    keep(2, vec![small("a", &["2"]), small("a", &["3"])]);
    let (one, two) = (take(1).unwrap(), take(2).unwrap());
    assert!(take(2).is_none(), "taken once");
    assert!(!overtaken(&one, 0), "one's own group does not count");
    assert!(overtaken(&one, 2));
    assert!(!overtaken(&two, 1));
    coalescer.note_other("b");
    assert!(!overtaken(&one, 1));
    coalescer.note_other("a");
    assert!(overtaken(&one, 1) && overtaken(&two, 0));
    coalescer.held().done(&one);
    coalescer.held().done(&two);
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
        let group = held.take(&(node.clone(), ended)).unwrap();
        for (place, small) in group.members.iter().enumerate() {
            let overtaken = held.is_overtaken(&group, small);
            assert_eq!(overtaken, place == 1, "`same` was written since");
        }
        held.done(&group);
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
    let group = held.take(&task).unwrap();
    let [one, two, three] = group.members.as_slice() else {
        panic!("{group:?}");
    };
    held.note("a", Some(&ids(&["2", "7"])));
    held.note("b", Some(&ids(&["1"])));
    assert!(
        !held.is_overtaken(&group, one),
        "another document, another index"
    );
    assert!(held.is_overtaken(&group, two));
    // The name may belong to another index now.
    held.note_all();
    assert!(held.is_overtaken(&group, three));
    held.done(&group);
    assert!(held.indexes.is_empty() && held.groups.is_empty());
    assert_eq!(held.bytes, 0);
}
