//! Slots as they are stored: the first and the last of each span, since a small index moves with all of its slots.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weft_routing::slot::Slot;

pub(super) fn serialize<S: Serializer>(slots: &[Slot], to: S) -> Result<S::Ok, S::Error> {
    let mut spans: Vec<[u16; 2]> = Vec::new();
    for Slot(slot) in slots {
        match spans.last_mut() {
            Some([_, last]) if last.checked_add(1) == Some(*slot) => *last = *slot,
            _ => spans.push([*slot, *slot]),
        }
    }
    spans.serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Slot>, D::Error> {
    let spans = Vec::<[u16; 2]>::deserialize(from)?;
    let slots = spans.into_iter().flat_map(|[first, last]| first..=last);
    Ok(slots.map(Slot).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_the_same_again_and_all_of_them_are_short() {
        #[derive(Serialize, Deserialize)]
        struct Stored(#[serde(with = "super")] Vec<Slot>);
        let lists: [Vec<u16>; 4] = [
            vec![],
            vec![7],
            vec![1, 2, 3, 9, 11, 12],
            (0..4096).collect(),
        ];
        for list in lists {
            let slots: Vec<Slot> = list.into_iter().map(Slot).collect();
            let json = serde_json::to_string(&Stored(slots.clone())).unwrap();
            assert!(json.len() < 40, "{json}");
            assert_eq!(serde_json::from_str::<Stored>(&json).unwrap().0, slots);
        }
    }
}
