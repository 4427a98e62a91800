//! Score details as the protocol names them: the protocol has two rules for the engine's one rule `attribute`.

use milli_core::score_details::ScoreDetails;
use serde_json::{Map, Value, json};

/// The details of one hit: each rule with its position in the order and its score.
///
/// `attributeRank` and `wordPosition` are the two halves of the engine's `attribute`.
pub(crate) fn details(scores: &[ScoreDetails]) -> Map<String, Value> {
    let mut details = Map::new();
    for score in scores {
        let order = details.len();
        match score {
            ScoreDetails::Fid(rank) => {
                details.insert(
                    "attributeRank".to_owned(),
                    json!({ "order": order, "score": rank.local_score() }),
                );
            }
            ScoreDetails::Position(rank) => {
                details.insert(
                    "wordPosition".to_owned(),
                    json!({ "order": order, "score": rank.local_score() }),
                );
            }
            ScoreDetails::ExactWords(_) => complete_exactness(&mut details, scores),
            score => {
                for (name, mut value) in ScoreDetails::to_json_map(std::iter::once(score)) {
                    if let Some(place) = value.get_mut("order") {
                        *place = Value::from(order);
                    }
                    details.insert(name, value);
                }
            }
        }
    }
    details
}

/// The second half of `exactness` belongs to the first. The engine combines them itself.
fn complete_exactness(details: &mut Map<String, Value>, scores: &[ScoreDetails]) {
    let halves = scores.iter().filter(|score| {
        matches!(
            score,
            ScoreDetails::ExactAttribute(_) | ScoreDetails::ExactWords(_)
        )
    });
    let whole = ScoreDetails::to_json_map(halves).remove("exactness");
    if let (Some(Value::Object(whole)), Some(Value::Object(exactness))) =
        (whole, details.get_mut("exactness"))
    {
        let order = exactness.get("order").cloned();
        *exactness = whole;
        if let (Some(order), Some(place)) = (order, exactness.get_mut("order")) {
            *place = order;
        }
    }
}
