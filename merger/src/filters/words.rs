//! Turns a node's error about a rewritten filter into the error about the client's own filter.
//!
//! An error about a filter ends with the filter's text, preceded by the position in it: `7:11 NOT rare = 1`.
//!
//! Pure: functions of values.

use bytes::Bytes;
use serde_json::Value;

use super::unequal::{Step, aligned};

/// The message as one node would have written it for `filter`; `None` if it isn't about a rewritten text.
pub fn in_clients_words(message: &str, filter: &Value) -> Option<String> {
    match filter {
        Value::String(text) => about(message, text),
        Value::Array(elements) => elements
            .iter()
            .find_map(|element| in_clients_words(message, element)),
        _ => None,
    }
}

/// The same for the body of a node's refusal of a rewritten `filter`.
pub fn of_refusal(body: &[u8], filter: &Value) -> Option<Bytes> {
    let mut error: Value = serde_json::from_slice(body).ok()?;
    let said = in_clients_words(error.get("message")?.as_str()?, filter)?;
    error
        .as_object_mut()?
        .insert("message".to_owned(), said.into());
    Some(error.to_string().into())
}

fn about(message: &str, text: &str) -> Option<String> {
    let (head, place) = message.rsplit_once('\n')?;
    let (place, said) = place.split_once(' ')?;
    let (start, end) = place.split_once(':')?;
    let steps = aligned(text, said)?;
    let there = |column: &str| {
        let column: usize = column.parse().ok()?;
        // Columns count letters from one.
        let letters = said.char_indices().map(|(at, _)| at).chain([said.len()]);
        let at = letters.into_iter().nth(column.checked_sub(1)?)?;
        let Step { new, old } = steps.iter().rev().find(|step| step.new <= at)?;
        let at = old + (at - new);
        Some(text.get(..at)?.chars().count() + 1)
    };
    let (start, end) = (there(start)?, there(end)?);
    Some(format!("{head}\n{start}:{end} {text}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEAD: &str = "Index `x`: Attribute `b` is not filterable.";

    #[test]
    fn an_error_names_the_place_in_the_clients_filter() {
        let said = |place: &str, text: &str| format!("{HEAD}\n{place} {text}");
        let client = "é != 1 AND b != 2 AND c = 3";
        let filter = json!(["d = 1", [client]]);
        let new = |message: String| in_clients_words(&message, &filter);
        assert_eq!(
            new(said("21:22", " NOT é = 1 AND NOT  b = 2 AND c = 3")),
            Some(said("12:13", client))
        );
        // Only one of the fields was rewritten.
        assert_eq!(
            new(said("16:17", " NOT é = 1 AND b != 2 AND c = 3")),
            Some(said("12:13", client))
        );
        assert_eq!(
            new(said("31:32", " NOT é = 1 AND NOT  b = 2 AND c = 3")),
            Some(said("23:24", client))
        );
    }

    #[test]
    fn other_errors_stay_as_they_are() {
        let filter = json!("b != 1");
        for message in [
            "Index `x` not found.",
            "Attribute `b` is not filterable.\n1:2 c = 1",
            "a\nb\nc",
            "Attribute `b` is not filterable.\n1:2 b = 1 OR b != 2",
            "Attribute\n99:100  NOT b = 1",
        ] {
            assert_eq!(in_clients_words(message, &filter), None, "{message}");
        }
    }
}
