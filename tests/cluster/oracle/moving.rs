//! The oracle while slots of the index move: hits must be one node's all along; totals and facets' counts may be too high, by no more
//! documents than a batch of the move has, and only if the answer says so.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{EXAMPLES, Row, Variant, Verdict, compare, member, request};
use crate::data::DataSet;
use crate::{Api, HarnessError};

/// How often the cluster is asked.
const EVERY: Duration = Duration::from_millis(100);

/// What is counted, and what one node counts.
const TOTALS: [&str; 2] = ["estimatedTotalHits", "totalHits"];

/// Sends searches of all kinds to `one` and `many` every 100 ms, until no slot moves: one kind after the other, each with the next
/// query. `batch` is the most documents that two shards may hold at the same time.
///
/// # Errors
/// There is no answer.
pub async fn ask_while_moving(
    (one, many): (&Api, &Api),
    set: &DataSet,
    (variants, queries): (&[Variant], &[String]),
    batch: u64,
) -> Result<Vec<Row>, HarnessError> {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut kinds = variants.iter().cycle();
    let mut wrong = Vec::new();
    for query in queries.iter().cycle() {
        tick.tick().await;
        if have_ended(many).await? {
            break;
        }
        let Some(variant) = kinds.next() else { break };
        let row = rows.entry(variant.name).or_insert_with(|| Row {
            variant: variant.name.to_owned(),
            ..Row::default()
        });
        let parts = ask_once((one, many), set, (variant, query), batch, row).await?;
        if !parts.is_empty() {
            wrong.push((variant, query, parts));
        }
    }
    for (variant, query, parts) in wrong {
        let at_rest = compared((one, many), set, (variant, query)).await?.0;
        let differs = |part: &&'static str| at_rest.compared.contains(&(*part, false));
        if parts.iter().all(differs)
            && let Some(row) = rows.get_mut(variant.name)
        {
            *row.same.entry(RIGHT_OR_AT_REST).or_default() += 1;
        }
    }
    Ok(rows.into_values().collect())
}

/// Whether all moves are over.
async fn have_ended(many: &Api) -> Result<bool, HarnessError> {
    let listed = many.get("/_cluster/moves").await?;
    let moves = listed.at("/moves").as_array();
    let has_ended = |one: &Value| {
        let state = member(one, "state").as_str().unwrap_or_default();
        ["done", "cancelled"].contains(&state)
    };
    Ok(moves.is_some_and(|moves| moves.iter().all(has_ended)))
}

/// Asks both the same, and compares the answers, which follow.
async fn compared(
    (one, many): (&Api, &Api),
    set: &DataSet,
    (variant, query): (&Variant, &str),
) -> Result<(Verdict, Value, Value), HarnessError> {
    let (path, body) = request(set, variant, query);
    let headers = [
        ("content-type", "application/json"),
        ("x-weft-explain", "true"),
    ];
    let sent = many.send(reqwest::Method::POST, &path, &headers, body.to_string());
    let (alone, merged) = tokio::try_join!(one.post(&path, &body), sent)?;
    let verdict = compare(
        (alone.status, &alone.body),
        (merged.status, &merged.body),
        &variant.parameters,
        set.primary_key,
    );
    Ok((verdict, alone.body, merged.body))
}

/// Asks once; returns which parts of the answer aren't right.
async fn ask_once(
    apis: (&Api, &Api),
    set: &DataSet,
    (variant, query): (&Variant, &str),
    batch: u64,
    row: &mut Row,
) -> Result<Vec<&'static str>, HarnessError> {
    let (verdict, alone, merged) = compared(apis, set, (variant, query)).await?;
    row.asked += 1;
    let mut wrong = Vec::new();
    for (what, same) in &verdict.compared {
        *row.same.entry(what).or_default() += usize::from(*same);
        let counts = matches!(*what, "totals" | "facetDistribution");
        let is_right = *same || counts && is_within(&alone, &merged, batch);
        if !is_right {
            wrong.push(*what);
        }
    }
    for what in [RIGHT, RIGHT_OR_AT_REST] {
        *row.same.entry(what).or_default() += usize::from(wrong.is_empty());
    }
    if let Some(difference) = verdict.difference.filter(|_| !wrong.is_empty())
        && row.examples.len() < EXAMPLES
    {
        row.examples.push((query.to_owned(), difference));
    }
    Ok(wrong)
}

/// What a row calls answers that are one node's, apart from counts that are too high by what moves.
pub const RIGHT: &str = "but for what moves";

/// What a row calls those, and others of which the same parts differ when nothing moves any more.
pub const RIGHT_OR_AT_REST: &str = "or as at rest";

/// Whether an answer counts as one node does, or as many documents of a batch more, and says so.
fn is_within(one: &Value, many: &Value, batch: u64) -> bool {
    let told = many.pointer("/explain/countedTwice");
    if told.and_then(Value::as_array).is_none_or(Vec::is_empty) {
        return false;
    }
    let near = |one: &Value, many: &Value| match (one.as_u64(), many.as_u64()) {
        (Some(one), Some(many)) => (one..=one + batch).contains(&many),
        (None, None) => true,
        _ => false,
    };
    let totals = TOTALS
        .iter()
        .all(|name| near(member(one, name), member(many, name)));
    let none = Map::new();
    let facets = |body| member(body, "facetDistribution").as_object();
    let mut counts = facets(one).unwrap_or(&none).iter();
    totals
        && counts.all(|(facet, values)| {
            let (values, others) = (values.as_object(), member(many, "facetDistribution"));
            let others = member(others, facet);
            let mut values = values.unwrap_or(&none).iter();
            // A list by count may be cut elsewhere if counts differ.
            values.all(|(value, count)| match others.get(value) {
                Some(other) => near(count, other),
                None => values_are_cut(others),
            })
        })
}

/// Whether a facet's list is as long as lists may be.
fn values_are_cut(values: &Value) -> bool {
    values
        .as_object()
        .is_some_and(|values| values.len() >= super::compare::CUT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(total: u64, red: u64, twice: &[u64]) -> Value {
        json!({"estimatedTotalHits": total, "facetDistribution": {"colour": {"red": red, "blue": 2}},
            "explain": {"countedTwice": twice}})
    }

    #[test]
    fn counts_may_be_too_high_by_a_batch_if_the_answer_says_so() {
        let one = json!({"estimatedTotalHits": 10, "facetDistribution": {"colour": {"red": 8, "blue": 2}}});
        assert!(is_within(&one, &answer(10, 8, &[1]), 5));
        assert!(is_within(&one, &answer(15, 13, &[1]), 5));
        for wrong in [
            answer(16, 8, &[1]),
            answer(10, 14, &[1]),
            answer(9, 8, &[1]),
            answer(12, 10, &[]),
            json!({"estimatedTotalHits": 10, "facetDistribution": {"colour": {"red": 8}}, "explain": {"countedTwice": [1]}}),
        ] {
            assert!(!is_within(&one, &wrong, 5), "{wrong}");
        }
    }
}
