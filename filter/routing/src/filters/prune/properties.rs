//! Random filters on random documents: every document that a node would find lies on a shard that is asked.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What a node knows of a document: its id as a number or as a text, and one other field.
#[derive(Debug, Clone)]
struct Document {
    id: String,
    is_number: bool,
    group: u8,
}

/// A filter as a test knows it.
#[derive(Debug, Clone)]
enum Tree {
    Compare(bool, &'static str, String),
    Between(String, String),
    In(Vec<String>, bool),
    Exists,
    Group(u8),
    Not(Box<Tree>),
    And(Vec<Tree>),
    Or(Vec<Tree>),
}

fn quoted(value: &str) -> String {
    format!("'{value}'")
}

impl Tree {
    fn text(&self) -> String {
        let list = |trees: &[Tree], word: &str| {
            let texts: Vec<String> = trees
                .iter()
                .map(|tree| format!("({})", tree.text()))
                .collect();
            texts.join(word)
        };
        match self {
            Self::Compare(bare, operator, value) => {
                let is_word = value
                    .chars()
                    .all(|c| c.is_alphanumeric() || "_-.".contains(c));
                let value = match *bare && is_word {
                    true => value.clone(),
                    false => quoted(value),
                };
                format!("id {operator} {value}")
            }
            Self::Between(from, to) => format!("id {} TO {}", quoted(from), quoted(to)),
            Self::In(values, not) => {
                let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                let not = if *not { "NOT " } else { "" };
                format!("id {not}IN [{}]", values.join(", "))
            }
            Self::Exists => "id EXISTS".to_owned(),
            Self::Group(group) => format!("g = {group}"),
            Self::Not(inner) => format!("NOT ({})", inner.text()),
            Self::And(inner) => list(inner, " AND "),
            Self::Or(inner) => list(inner, " OR "),
        }
    }

    /// Whether a node finds the document; `newer` nodes compare normal forms.
    fn finds(&self, document: &Document, newer: bool) -> bool {
        let bound = |value: &str| match newer {
            true => normal(value),
            false => value.to_owned(),
        };
        let id = normal(&document.id);
        let number = document
            .is_number
            .then(|| document.id.parse::<f64>().unwrap());
        let compares = |value: &str, holds: &dyn Fn(std::cmp::Ordering) -> bool| {
            let by_number = number.zip(number_of(value));
            let by_number = by_number.and_then(|(id, value)| id.partial_cmp(&value));
            by_number.is_some_and(holds)
                || (!document.is_number && holds(id.as_str().cmp(bound(value).as_str())))
        };
        let equals = |value: &str| {
            number.is_some_and(|id| number_of(value) == Some(id))
                || (!document.is_number && id == normal(value))
        };
        match self {
            Self::Compare(_, "=", value) => equals(value),
            Self::Compare(_, "!=", value) => !equals(value),
            Self::Compare(_, ">", value) => compares(value, &|order| order.is_gt()),
            Self::Compare(_, ">=", value) => compares(value, &|order| order.is_ge()),
            Self::Compare(_, "<", value) => compares(value, &|order| order.is_lt()),
            Self::Compare(_, _, value) => compares(value, &|order| order.is_le()),
            Self::Between(from, to) => {
                compares(from, &|order| order.is_ge())
                    && compares(to, &|order| order.is_le())
                    && (!document.is_number || number_of(from).zip(number_of(to)).is_some())
            }
            Self::In(values, not) => values.iter().any(|value| equals(value)) != *not,
            Self::Exists => true,
            Self::Group(group) => document.group == *group,
            Self::Not(inner) => !inner.finds(document, newer),
            Self::And(inner) => inner.iter().all(|tree| tree.finds(document, newer)),
            Self::Or(inner) => inner.iter().any(|tree| tree.finds(document, newer)),
        }
    }
}

/// The engine's normal form of a text. The values of these tests have one compatible letter outside of ASCII.
fn normal(text: &str) -> String {
    text.trim().replace('４', "4").to_lowercase()
}

fn number_of(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn id_text() -> impl Strategy<Value = String> {
    prop_oneof![
        (-30_i64..3000).prop_map(|id| id.to_string()),
        any::<u64>().prop_map(|id| id.to_string()),
        "[0-9]{1,4}",
        "[aAbBzZ_0-9-]{1,4}",
        "-?[1-9][0-9]{0,3}",
    ]
}

use proptest::strategy::Strategy;

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => id_text(),
        1 => id_text().prop_map(|text| format!(" {text}")),
        1 => (-30_i64..3000).prop_map(|id| format!("{id}.0")),
        1 => "[1-9]e[0-3]",
        1 => Just("４2".to_owned()),
        1 => Just(String::new()),
        1 => "[a-zA-Z.:+~]{1,3}",
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    let operator = prop::sample::select(vec!["=", "=", "=", "!=", ">", ">=", "<", "<="]);
    let leaf = prop_oneof![
        6 => (any::<bool>(), operator, value())
            .prop_map(|(bare, operator, value)| Tree::Compare(bare && !value.is_empty(), operator, value)),
        2 => (value(), value()).prop_map(|(from, to)| Tree::Between(from, to)),
        2 => (prop::collection::vec(value(), 0..4), prop::bool::weighted(0.2))
            .prop_map(|(values, not)| Tree::In(values, not)),
        1 => Just(Tree::Exists),
        2 => (0_u8..3).prop_map(Tree::Group),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            1 => inner.clone().prop_map(|tree| Tree::Not(Box::new(tree))),
            3 => prop::collection::vec(inner.clone(), 2..4).prop_map(Tree::And),
            3 => prop::collection::vec(inner, 2..4).prop_map(Tree::Or),
        ]
    })
}

fn document() -> impl Strategy<Value = Document> {
    (id_text(), any::<bool>(), 0_u8..3).prop_map(|(id, is_number, group)| {
        // Only a canonical integer can be a number in JSON.
        let is_number = is_number && matches!(key(&id), IdKey::Integer(_));
        Document {
            id,
            is_number,
            group,
        }
    })
}

/// A document whose "id" is the value of a routing field, which may be any text.
fn valued() -> impl Strategy<Value = Document> {
    let text = (value(), 0_u8..3).prop_filter("no document has an empty value", |(id, _)| {
        !id.trim().is_empty()
    });
    let text = text.prop_map(|(id, group)| Document {
        id,
        is_number: false,
        group,
    });
    prop_oneof![document(), text]
}

fn key(id: &str) -> IdKey {
    IdKey::of(&DocumentId::from_text(id).unwrap())
}

fn slots() -> impl Strategy<Value = SlotMap> {
    let boundaries = prop::collection::btree_set(id_text().prop_map(|id| key(&id)), 0..6);
    (boundaries, 1_u16..6).prop_map(|(boundaries, count)| {
        let shards: Vec<ShardId> = (0..count).map(ShardId).collect();
        let ranges = crate::Ranges::new(boundaries.into_iter().collect());
        let strategy = ranges.map_or(crate::Strategy::Hash, crate::Strategy::Range);
        SlotMap::deal_by(&strategy, &shards).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_document_that_a_filter_finds_lies_on_a_shard_that_is_asked(
        tree in tree(),
        more in prop::option::of(tree()),
        documents in prop::collection::vec(document(), 1..40),
        slots in slots(),
    ) {
        let filter = match &more {
            None => json!(tree.text()),
            Some(more) => json!([tree.text(), [more.text(), "g = 0"]]),
        };
        let Some(asked) = shards_of(&filter, "id", &slots) else { return Ok(()) };
        for document in &documents {
            for newer in [false, true] {
                let also = |more: &Tree| more.finds(document, newer) || document.group == 0;
                if tree.finds(document, newer) && more.as_ref().is_none_or(also) {
                    let owner = slots.shard_of(&DocumentId::from_text(&document.id).unwrap());
                    let owner = owner.unwrap();
                    prop_assert!(asked.contains(&owner), "{filter}: {document:?} on {owner}");
                }
            }
        }
    }

    #[test]
    fn every_document_that_a_filter_of_its_routing_field_finds_lies_on_a_shard_that_is_asked(
        tree in tree(),
        more in prop::option::of(tree()),
        documents in prop::collection::vec(valued(), 1..40),
        count in 1_u16..6,
    ) {
        let shards: Vec<ShardId> = (0..count).map(ShardId).collect();
        // The field has the name that the filters of these tests compare.
        let slots = SlotMap::deal_by(&"field:id".parse().unwrap(), &shards).unwrap();
        let filter = match &more {
            None => json!(tree.text()),
            Some(more) => json!([tree.text(), [more.text(), "g = 0"]]),
        };
        let Some(asked) = shards_of(&filter, "id", &slots) else { return Ok(()) };
        for document in &documents {
            let value = match document.is_number {
                true => RoutingValue::from_json(&document.id),
                false => RoutingValue::from_text(&document.id),
            };
            let owner = slots.shard_of_value(&value.unwrap());
            for newer in [false, true] {
                let also = |more: &Tree| more.finds(document, newer) || document.group == 0;
                if tree.finds(document, newer) && more.as_ref().is_none_or(also) {
                    prop_assert!(asked.contains(&owner), "{filter}: {document:?} on {owner}");
                }
            }
        }
    }

    #[test]
    fn integers_among_texts_are_those_whose_text_is_among_them(
        from in prop::option::of("[-0-9a:]{0,4}"),
        to in prop::option::of("[-0-9a:]{0,4}"),
        least in -300_i128..300,
        count in 0_i128..400,
    ) {
        let texts = Texts { from: from.clone(), to: to.clone() };
        let is_among = |number: i128| {
            let text = number.to_string();
            from.as_ref().is_none_or(|from| *from <= text) && to.as_ref().is_none_or(|to| text <= *to)
        };
        let expected = (least..=least + count).any(is_among);
        prop_assert_eq!(texts.hold_integers((least, least + count)), expected);
    }

    /// Whatever is written: it is read or not, and never a fault.
    #[test]
    fn any_text_can_be_a_filter(text in r#"(id|g|[=<>!()\[\],'"\\ 7aé]|!=|>=| TO | AND | OR | NOT | IN ){0,40}"#) {
        let slots = SlotMap::deal(&[ShardId(0), ShardId(1)]).unwrap();
        let _ = shards_of(&json!(text), "id", &slots);
    }
}
