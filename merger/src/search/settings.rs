//! The settings of an index that a merge must know.

use hashbrown::HashMap;
use serde::Deserialize;

use super::rank::Scheme;

/// The settings that decide how shards' answers are merged.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeSettings {
    /// `pagination.maxTotalHits`.
    pub max_total_hits: usize,
    /// `faceting`.
    pub facets: FacetSettings,
    /// `distinctAttribute`.
    pub distinct: Option<String>,
    /// True if the ranking rules contain a custom rule (`release:desc`): then even a search without words is ranked.
    pub custom_rules: bool,
    /// `displayedAttributes`; `None` if all are displayed.
    pub displayed: Option<Vec<String>>,
    /// What scores depend on, beside the verdicts.
    pub scheme: Scheme,
    /// `stopWords`: these words don't count as part of a query.
    pub stop_words: Vec<String>,
}

/// How facets' values are ordered and cut.
#[derive(Debug, Clone, PartialEq)]
pub struct FacetSettings {
    /// `maxValuesPerFacet`.
    pub max_values: usize,
    /// `sortFacetValuesBy`.
    pub sort_by: HashMap<String, FacetOrder>,
}

/// The order of a facet's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FacetOrder {
    /// By value.
    Alpha,
    /// By count, the greatest first.
    Count,
}

impl FacetSettings {
    /// The order of one facet's values.
    pub fn order(&self, facet: &str) -> FacetOrder {
        let by_name = self.sort_by.get(facet).or_else(|| self.sort_by.get("*"));
        by_name.copied().unwrap_or(FacetOrder::Alpha)
    }
}

impl Default for FacetSettings {
    fn default() -> Self {
        Self {
            max_values: 100,
            sort_by: HashMap::new(),
        }
    }
}

impl Default for MergeSettings {
    fn default() -> Self {
        Self {
            max_total_hits: 1000,
            facets: FacetSettings::default(),
            distinct: None,
            custom_rules: false,
            displayed: None,
            scheme: Scheme::default(),
            stop_words: Vec::new(),
        }
    }
}

/// The part of `GET /indexes/{uid}/settings` that the merger reads.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    pagination: Option<Pagination>,
    faceting: Option<Faceting>,
    distinct_attribute: Option<String>,
    ranking_rules: Option<Vec<String>>,
    displayed_attributes: Option<Vec<String>>,
    searchable_attributes: Option<Vec<String>>,
    stop_words: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pagination {
    max_total_hits: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Faceting {
    max_values_per_facet: Option<usize>,
    sort_facet_values_by: Option<HashMap<String, FacetOrder>>,
}

impl MergeSettings {
    /// True if hits don't show the attribute at `path`.
    pub fn hides(&self, path: &str) -> bool {
        let shows = |name: &String| {
            let rest = path.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.displayed
            .as_ref()
            .is_some_and(|names| !names.iter().any(shows))
    }

    /// From a node's answer to `GET /indexes/{uid}/settings`; a missing setting has the engine's default.
    ///
    /// # Errors
    /// The text isn't such an answer.
    pub fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        let wire: Wire = serde_json::from_slice(text)?;
        let default = Self::default();
        let custom = |rule: &String| rule.ends_with(":asc") || rule.ends_with(":desc");
        let faceting = wire.faceting;
        let max_values = faceting
            .as_ref()
            .and_then(|faceting| faceting.max_values_per_facet);
        Ok(Self {
            max_total_hits: wire
                .pagination
                .and_then(|p| p.max_total_hits)
                .unwrap_or(default.max_total_hits),
            facets: FacetSettings {
                max_values: max_values.unwrap_or(default.facets.max_values),
                sort_by: faceting
                    .and_then(|faceting| faceting.sort_facet_values_by)
                    .unwrap_or_default(),
            },
            distinct: wire.distinct_attribute,
            custom_rules: wire
                .ranking_rules
                .is_some_and(|rules| rules.iter().any(custom)),
            displayed: wire
                .displayed_attributes
                .filter(|names| names.iter().all(|name| name != "*")),
            scheme: Scheme {
                words: 0,
                any_words: false,
                top_weight: wire
                    .searchable_attributes
                    .filter(|names| names.iter().all(|name| name != "*"))
                    .map_or(0, |names| {
                        u32::try_from(names.len().saturating_sub(1)).unwrap_or(u32::MAX)
                    }),
            },
            stop_words: wire.stop_words.unwrap_or_default(),
        })
    }
}
