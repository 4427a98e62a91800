//! Judges a `_geojson` field; only where the settings use it.

use std::str::FromStr;

use geojson::GeoJson;

use super::{Finding, Phase};

/// What is wrong with the value, given as raw JSON. It is parsed as the engine parses it, with the same library.
pub(super) fn judge(raw: &str) -> Option<Finding> {
    let read = GeoJson::from_str(raw).and_then(geo_types::Geometry::<f64>::try_from);
    read.err().map(|error| Finding {
        phase: Phase::GeoJson,
        code: "invalid_document_geo_field",
        message: error.to_string(),
    })
}
