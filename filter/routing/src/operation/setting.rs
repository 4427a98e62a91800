//! The settings of an index that have their own path.

/// One setting of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each variant is the setting's own name")]
pub enum Setting {
    Chat,
    Dictionary,
    DisplayedAttributes,
    DistinctAttribute,
    Embedders,
    FacetSearch,
    Faceting,
    FilterableAttributes,
    ForeignKeys,
    LocalizedAttributes,
    NonSeparatorTokens,
    Pagination,
    PrefixSearch,
    ProximityPrecision,
    RankingRules,
    SearchCutoffMs,
    SearchableAttributes,
    SeparatorTokens,
    SortableAttributes,
    StopWords,
    Synonyms,
    TypoTolerance,
}

impl Setting {
    /// All settings.
    pub const ALL: [Self; 22] = [
        Self::Chat,
        Self::Dictionary,
        Self::DisplayedAttributes,
        Self::DistinctAttribute,
        Self::Embedders,
        Self::FacetSearch,
        Self::Faceting,
        Self::FilterableAttributes,
        Self::ForeignKeys,
        Self::LocalizedAttributes,
        Self::NonSeparatorTokens,
        Self::Pagination,
        Self::PrefixSearch,
        Self::ProximityPrecision,
        Self::RankingRules,
        Self::SearchCutoffMs,
        Self::SearchableAttributes,
        Self::SeparatorTokens,
        Self::SortableAttributes,
        Self::StopWords,
        Self::Synonyms,
        Self::TypoTolerance,
    ];

    /// The setting whose path ends with this segment.
    #[must_use]
    pub fn from_path(segment: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|setting| setting.path_segment() == segment)
    }

    /// The last segment of its path: `ranking-rules`.
    #[must_use]
    pub fn path_segment(self) -> &'static str {
        self.names().0
    }

    /// Its key in the settings object: `rankingRules`.
    #[must_use]
    pub fn json_key(self) -> &'static str {
        self.names().1
    }

    /// The method that changes the setting: objects use `PATCH`, values use `PUT`.
    #[must_use]
    pub fn update_method(self) -> &'static str {
        match self {
            Self::Chat
            | Self::Embedders
            | Self::Faceting
            | Self::Pagination
            | Self::TypoTolerance => "PATCH",
            _ => "PUT",
        }
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Chat => ("chat", "chat"),
            Self::Dictionary => ("dictionary", "dictionary"),
            Self::DisplayedAttributes => ("displayed-attributes", "displayedAttributes"),
            Self::DistinctAttribute => ("distinct-attribute", "distinctAttribute"),
            Self::Embedders => ("embedders", "embedders"),
            Self::FacetSearch => ("facet-search", "facetSearch"),
            Self::Faceting => ("faceting", "faceting"),
            Self::FilterableAttributes => ("filterable-attributes", "filterableAttributes"),
            Self::ForeignKeys => ("foreign-keys", "foreignKeys"),
            Self::LocalizedAttributes => ("localized-attributes", "localizedAttributes"),
            Self::NonSeparatorTokens => ("non-separator-tokens", "nonSeparatorTokens"),
            Self::Pagination => ("pagination", "pagination"),
            Self::PrefixSearch => ("prefix-search", "prefixSearch"),
            Self::ProximityPrecision => ("proximity-precision", "proximityPrecision"),
            Self::RankingRules => ("ranking-rules", "rankingRules"),
            Self::SearchCutoffMs => ("search-cutoff-ms", "searchCutoffMs"),
            Self::SearchableAttributes => ("searchable-attributes", "searchableAttributes"),
            Self::SeparatorTokens => ("separator-tokens", "separatorTokens"),
            Self::SortableAttributes => ("sortable-attributes", "sortableAttributes"),
            Self::StopWords => ("stop-words", "stopWords"),
            Self::Synonyms => ("synonyms", "synonyms"),
            Self::TypoTolerance => ("typo-tolerance", "typoTolerance"),
        }
    }
}
