//! Judges a `_geo` field; only where the settings use it.

use serde_json::Value;

use super::{Finding, Phase};

/// What is wrong with the value, given as raw JSON.
pub(super) fn judge(raw: &str, id: &str) -> Option<Finding> {
    let wrong = |message: String| {
        Some(Finding {
            phase: Phase::Place,
            code: "invalid_document_geo_field",
            message,
        })
    };
    let id = Value::from(id);
    let mut place = match serde_json::from_str(raw) {
        Ok(Value::Null) => return None,
        Ok(Value::Object(place)) => place,
        Ok(value) => {
            return wrong(format!(
                "The `_geo` field in the document with the id: `{id}` is not an object. Was expecting an object with the \
                 `_geo.lat` and `_geo.lng` fields but instead got `{value}`."
            ));
        }
        Err(error) => {
            return Some(Finding {
                phase: Phase::Place,
                code: "internal",
                message: format!("internal: {error}."),
            });
        }
    };
    let missing = |what: &str, fields: &str| {
        wrong(format!(
            "Could not find {what} in the document with the id: `{id}`. Was expecting {fields}."
        ))
    };
    let (lat, lng) = match (place.remove("lat"), place.remove("lng")) {
        (Some(lat), Some(lng)) => (lat, lng),
        (Some(_), None) => return missing("longitude", "a `_geo.lng` field"),
        (None, Some(_)) => return missing("latitude", "a `_geo.lat` field"),
        (None, None) => {
            return missing("latitude nor longitude", "`_geo.lat` and `_geo.lng` fields");
        }
    };
    if !place.is_empty() {
        let surplus = Value::Object(place);
        return wrong(format!(
            "The `_geo` field in the document with the id: `{id}` contains the following unexpected fields: `{surplus}`."
        ));
    }
    let unreadable = |what: &str, expected: &str, got: String| {
        wrong(format!(
            "Could not parse {what} in the document with the id: `{id}`. Was expecting {expected} but instead got {got}."
        ))
    };
    match (is_finite(&lat), is_finite(&lng)) {
        (true, true) => None,
        (true, false) => unreadable("longitude", "a finite number", format!("`{lng}`")),
        (false, true) => unreadable("latitude", "a finite number", format!("`{lat}`")),
        (false, false) => unreadable(
            "latitude nor longitude",
            "finite numbers",
            format!("`{lat}` and `{lng}`"),
        ),
    }
}

/// Whether the value is a finite number, or a string with one.
fn is_finite(value: &Value) -> bool {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.is_some_and(f64::is_finite)
}
