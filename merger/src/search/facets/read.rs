//! `facetDistribution` and `facetStats` as an answer gives them, in the answer's order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// A facet's values and how often each was counted, in the order of the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(pub Vec<(String, u64)>);

/// Facets with their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution(pub Vec<(String, Counts)>);

/// Facets with the least and greatest of their numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats(pub Vec<(String, FacetStats)>);

/// A facet's least and greatest number.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FacetStats {
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Distribution {
    /// A facet's values.
    pub fn get(&self, name: &str) -> Option<&Counts> {
        self.0
            .iter()
            .find(|(facet, _)| facet == name)
            .map(|(_, counts)| counts)
    }
}

/// An object's members, in their order.
struct Pairs<V>(std::marker::PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Pairs<V> {
    type Value = Vec<(String, V)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(0));
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

macro_rules! as_object {
    ($name:ident) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer
                    .deserialize_map(Pairs(std::marker::PhantomData))
                    .map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(self.0.len()))?;
                for (key, value) in &self.0 {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    };
}

as_object!(Counts);
as_object!(Distribution);
as_object!(Stats);
