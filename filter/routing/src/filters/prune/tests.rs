use serde_json::json;

use super::*;

const FOUR: [ShardId; 4] = [ShardId(0), ShardId(1), ShardId(2), ShardId(3)];

fn by_hash() -> SlotMap {
    SlotMap::deal(&FOUR).unwrap()
}

/// Up to 1000, to 2000, to `m`, and beyond: a shard each.
fn by_range() -> SlotMap {
    SlotMap::deal_by(&"range:1000,2000,m".parse().unwrap(), &FOUR).unwrap()
}

fn owners(ids: &[&str]) -> Option<Vec<ShardId>> {
    let owner = |id: &&str| {
        by_hash()
            .shard_of(&DocumentId::from_text(id).unwrap())
            .unwrap()
    };
    let owners: BTreeSet<ShardId> = ids.iter().map(owner).collect();
    Some(owners.into_iter().collect())
}

#[test]
fn documents_asked_for_by_id_are_looked_for_where_they_are() {
    let found = |filter: Value| shards_of(&filter, "id", &by_hash());
    assert_eq!(found(json!("id = 7")), owners(&["7"]));
    assert_eq!(found(json!("id=7")), owners(&["7"]));
    assert_eq!(found(json!("id = 7.0")), owners(&["7"]));
    assert_eq!(found(json!("\"id\" = ' 7 '")), owners(&["7"]));
    assert_eq!(found(json!("id = 07")), owners(&["7", "07"]));
    assert_eq!(found(json!("id = -7")), owners(&["-7"]));
    assert_eq!(
        found(json!("id = aB-1")),
        owners(&["ab-1", "aB-1", "Ab-1", "AB-1"])
    );
    assert_eq!(
        found(json!(" id IN [7, 8,'9',] ")),
        owners(&["7", "8", "9"])
    );
    assert_eq!(found(json!(["genre = Drama", "id = 7"])), owners(&["7"]));
    assert_eq!(found(json!([["id = 7", "id = 8"]])), owners(&["7", "8"]));
    assert_eq!(found(json!("id = 7 OR id = 8")), owners(&["7", "8"]));
    assert_eq!(
        found(json!("(g = 1 OR g = 2) AND (id = 7)")),
        owners(&["7"])
    );
    assert_eq!(
        found(json!("id IN [7, 8] AND id IN [8, 9]")),
        owners(&["8"])
    );
    assert_eq!(
        found(json!("_geoRadius(1, 2, 3) AND id = 7")),
        owners(&["7"])
    );
    assert_eq!(found(json!("NOT g = 1 AND id = 7")), owners(&["7"]));
    assert_eq!(
        found(json!("g IS NOT NULL AND h EXISTS AND id = 7")),
        owners(&["7"])
    );
}

#[test]
fn a_value_is_looked_for_by_its_normal_form() {
    let owner = by_hash().shard_of(&DocumentId::from_text("42").unwrap());
    let found = shards_of(&json!("id = '４２'"), "id", &by_hash());
    assert_eq!(found, owner.map(|owner| vec![owner]));
}

#[test]
fn anything_else_may_be_anywhere() {
    for filter in [
        json!("id = 7 OR genre = a"),
        json!("id != 7"),
        json!("NOT id = 7"),
        json!("NOT (id = 7)"),
        json!("id = package"),
        json!("id > '４２'"),
        json!("id = '\u{e000}'"),
        json!("id > 7"),
        json!("id 7 TO 9"),
        json!("idx = 7"),
        json!("id NOT IN [7]"),
        json!("id IN []"),
        json!("id = 9007199254740993"),
        json!([["id = 7", "genre = a"]]),
        json!([["id = 7", ""]]),
        json!(["", [], " "]),
        json!("id = 7 or id = 8"),
        json!("id = 7 id = 8"),
        json!("id = 'a\\'b' OR id = 7"),
        json!("(id = 7"),
        json!("id = 7)"),
        json!("id = OR"),
        json!("id = f(7)"),
        json!(7),
        json!(null),
    ] {
        assert_eq!(shards_of(&filter, "id", &by_hash()), None, "{filter}");
    }
    assert_eq!(shards_of(&json!("a.b = 7"), "a.b", &by_hash()), None);
    let deep = format!("{}id = 7{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(shards_of(&json!(deep), "id", &by_hash()), None);
    let many: Vec<String> = (0..2000).map(|id| id.to_string()).collect();
    let many = format!("id IN [{}]", many.join(","));
    assert_eq!(shards_of(&json!(many), "id", &by_hash()), None);
}

#[test]
fn a_span_of_ids_is_looked_for_in_its_ranges() {
    let found = |filter: &str| {
        let shards = shards_of(&json!(filter), "id", &by_range());
        shards.map(|shards| shards.iter().map(|shard| shard.0).collect::<Vec<_>>())
    };
    assert_eq!(found("id = 1500"), Some(vec![1]));
    assert_eq!(found("id = n1"), Some(vec![2, 3]), "`N1` comes before `m`");
    assert_eq!(found("id = no-package-of-that-name"), Some(vec![2, 3]));
    assert_eq!(
        found("id 1100 TO 1200"),
        Some(vec![0, 1, 2]),
        "the text `11` and `11000`"
    );
    assert_eq!(
        found("id >= 1100 AND id <= 1999 AND id != 7"),
        Some(vec![0, 1, 2])
    );
    assert_eq!(found("id < 5"), Some(vec![0, 1, 2]));
    assert_eq!(found("id > x"), Some(vec![2, 3]));
    assert_eq!(
        found("id > '~'"),
        Some(vec![2, 3]),
        "only ids with letters could be so large"
    );
    assert_eq!(found("id 1100 TO 1200 OR g = 1"), None);
}

#[test]
fn days_are_looked_for_in_their_months() {
    let strategy = "range:2026-02-01,2026-03-01,2026-04-01".parse().unwrap();
    let months = SlotMap::deal_by(&strategy, &FOUR).unwrap();
    let found = |filter: &str| shards_of(&json!(filter), "id", &months);
    assert_eq!(
        found("id '2026-02-05' TO '2026-02-20'"),
        Some(vec![FOUR[1]])
    );
    assert_eq!(
        found("id '2026-02-20' TO '2026-03-02T'"),
        Some(FOUR[1..3].to_vec())
    );
    assert_eq!(
        found("id > 2026-02-20"),
        Some(FOUR.to_vec()),
        "the text `3` would match"
    );
    assert_eq!(
        found("id >= '2026-03-01' AND id < '2026-03-31T'"),
        Some(vec![FOUR[2]])
    );
}

#[test]
fn integers_are_found_among_texts_as_texts() {
    let hold = |from: &str, to: &str, ends: (i128, i128)| {
        let end = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (from, to) = (end(from), end(to));
        Texts { from, to }.hold_integers(ends)
    };
    for (from, to, ends, expected) in [
        ("", "", (5, 5), true),
        ("15", "16", (150, 159), true),
        ("15", "15", (150, 159), false),
        ("15", "15", (10, 19), true),
        ("16", "16", (100, 159), false),
        ("2026-02", "2026-03", (0, 1 << 60), false),
        ("2026-02", "20260", (0, 1 << 60), true),
        ("a", "", (-1 << 60, 1 << 60), false),
        ("99a", "", (0, 998), false),
        ("99a", "", (0, 1 << 60), false),
        ("98a", "", (0, 98), false),
        ("98a", "", (0, 99), true),
        ("-5", "-5", (-9, -1), true),
        ("-5", "-5", (-4, 9), false),
        ("-5", "-50", (-59, -50), true),
        ("-51", "-6", (-50, -7), false),
        ("-51", "-6", (-60, -51), true),
        ("", "-", (-9, 9), false),
        ("", "-1", (-9, 9), true),
        ("", "+", (-9, 9), false),
        ("0", "0", (0, 0), true),
        ("00", "09", (0, 9), false),
        ("00", "1", (0, 9), true),
    ] {
        assert_eq!(hold(from, to, ends), expected, "{from}..{to} in {ends:?}");
    }
}

#[test]
fn integers_of_a_fixed_length_are_looked_for_in_their_ranges() {
    let strategy = "range:1700000000,1710000000,1720000000".parse().unwrap();
    let times = SlotMap::deal_by(&strategy, &FOUR).unwrap();
    let found = |filter: &str| shards_of(&json!(filter), "id", &times);
    // Shorter ids lie below all boundaries, longer ones above: as texts they may match, too.
    assert_eq!(
        found("id 1705000000 TO 1706000000"),
        Some(vec![FOUR[0], FOUR[1], FOUR[3]])
    );
    assert_eq!(found("id = 1705000000"), Some(vec![FOUR[1]]));
}
