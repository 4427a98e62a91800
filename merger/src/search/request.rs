//! A search as the client asked for it, and the same search as a shard is asked for it.
//!
//! Parameters that a merge doesn't need are passed on unchanged, valid or not: a node judges them and words the error. A
//! request with unreadable parameters that the merge needs is sent to one shard only, and that shard's answer goes to the client.

mod carrier;
mod query_string;

pub use carrier::{Carrier, ShardRequest};
pub use query_string::{body_of_query, sort_of_query};

use super::merge::Window;

/// How a client asked for a part of the hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paging {
    /// `offset` and `limit`: totals are estimates.
    Offset {
        /// Hits to skip.
        offset: usize,
        /// Hits to take.
        limit: usize,
    },
    /// `page` and `hitsPerPage`: totals are exhaustive.
    Page {
        /// From 1; 0 gives no hits.
        page: usize,
        /// Hits on a page.
        per_page: usize,
    },
}

/// `limit` and `hitsPerPage` if the client gives neither.
pub const DEFAULT_LIMIT: usize = 20;

impl Paging {
    /// Reads the paging from the parameters; `page` or `hitsPerPage` makes it exhaustive.
    pub fn new(
        offset: Option<usize>,
        limit: Option<usize>,
        page: Option<usize>,
        per_page: Option<usize>,
    ) -> Self {
        if page.is_some() || per_page.is_some() {
            return Self::Page {
                page: page.unwrap_or(1),
                per_page: per_page.unwrap_or(DEFAULT_LIMIT),
            };
        }
        Self::Offset {
            offset: offset.unwrap_or(0),
            limit: limit.unwrap_or(DEFAULT_LIMIT),
        }
    }

    /// The part of all hits that this asks for, with no hit beyond `max_total_hits`.
    pub fn window(self, max_total_hits: usize) -> Window {
        let (skip, take) = match self {
            Self::Offset { offset, limit } => (offset, limit),
            Self::Page { page: 0, .. } => (0, 0),
            Self::Page { page, per_page } => ((page - 1).saturating_mul(per_page), per_page),
        };
        let skip = skip.min(max_total_hits);
        Window {
            skip,
            take: take.min(max_total_hits - skip),
        }
    }
}

/// A search, as far as a merge must understand it.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// The parameters as they came; they go to the shards in the same form.
    pub carrier: Carrier,
    /// The part that is wanted.
    pub paging: Paging,
    /// True if there are words to search for.
    pub has_words: bool,
    /// True with `sort`.
    pub sorts: bool,
    /// `distinct`.
    pub distinct: Option<String>,
    /// `attributesToRetrieve`; `None` means all.
    pub retrieve: Option<Vec<String>>,
    /// `showRankingScore`.
    pub show_score: bool,
    /// `showRankingScoreDetails`.
    pub show_details: bool,
    /// `rankingScoreThreshold`.
    pub threshold: Option<f64>,
    /// `hybrid.semanticRatio` if the search is semantic: 1 means by meaning only.
    pub semantic: Option<f64>,
}

/// What a shard is asked for in addition to what the client asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Needs {
    /// The part of the shard's hits.
    pub window: Window,
    /// `_rankingScoreDetails`.
    pub details: bool,
    /// `_rankingScore`.
    pub score: bool,
    /// Attributes to retrieve although the client didn't ask for them.
    pub attributes: Vec<String>,
    /// False if the facets are already known.
    pub facets: bool,
}

impl Search {
    /// Reads a search; `None` if a parameter that a merge needs can't be read.
    pub fn read(carrier: Carrier) -> Option<Self> {
        let paging = Paging::new(
            carrier.count("offset")?,
            carrier.count("limit")?,
            carrier.count("page")?,
            carrier.count("hitsPerPage")?,
        );
        let words = carrier.text("q")?;
        Some(Self {
            paging,
            has_words: words.is_some_and(|words| !words.trim().is_empty()),
            sorts: carrier.list("sort")?.is_some_and(|sort| !sort.is_empty()),
            distinct: carrier.text("distinct")?.map(str::to_owned),
            retrieve: carrier.list("attributesToRetrieve")?,
            show_score: carrier.truth("showRankingScore")?.unwrap_or(false),
            show_details: carrier.truth("showRankingScoreDetails")?.unwrap_or(false),
            threshold: carrier.decimal("rankingScoreThreshold")?,
            semantic: carrier.semantic_ratio()?,
            carrier,
        })
    }

    /// The top-level members that the client has formatted by name, `*` for all. If there are any, hits bring `_formatted`.
    pub fn formatted(&self) -> Vec<String> {
        Self::formatted_in(&self.carrier)
    }

    /// The same of a search that wasn't read.
    pub fn formatted_in(carrier: &Carrier) -> Vec<String> {
        ["attributesToHighlight", "attributesToCrop"]
            .iter()
            .filter_map(|name| carrier.list(name).flatten())
            .flatten()
            .map(|name| {
                let whole = name.split(':').next().unwrap_or_default();
                whole.split('.').next().unwrap_or_default().to_owned()
            })
            .collect()
    }

    /// The search as sent to a shard.
    pub fn for_shard(&self, needs: &Needs) -> Carrier {
        let mut carrier = self.carrier.clone();
        let Window { skip, take } = needs.window;
        match self.paging {
            Paging::Offset { .. } => {
                carrier.set_count("offset", skip);
                carrier.set_count("limit", take);
            }
            Paging::Page { page: 0, .. } => {}
            Paging::Page { .. } => {
                // Every later window is as long as all windows before it together, so it is a whole page.
                carrier.set_count("page", skip.checked_div(take).unwrap_or(0) + 1);
                carrier.set_count("hitsPerPage", take);
            }
        }
        if needs.details {
            carrier.set_true("showRankingScoreDetails");
        }
        if needs.score {
            carrier.set_true("showRankingScore");
        }
        for attribute in &needs.attributes {
            carrier.push("attributesToRetrieve", attribute);
        }
        if !needs.facets {
            carrier.remove("facets");
        }
        carrier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Option<Search> {
        Search::read(Carrier::from_body(text.as_bytes())?)
    }

    fn needs(skip: usize, take: usize) -> Needs {
        Needs {
            window: Window { skip, take },
            details: true,
            score: false,
            attributes: Vec::new(),
            facets: true,
        }
    }

    fn text(carrier: &Carrier) -> String {
        String::from_utf8(carrier.to_body().unwrap()).unwrap()
    }

    #[test]
    fn a_shard_is_asked_for_everything_up_to_the_end_of_the_window() {
        let search = body(r#"{"q":"a","offset":5,"limit":10,"filter":"x = 1"}"#).unwrap();
        assert_eq!(search.paging.window(1000), Window { skip: 5, take: 10 });
        let asked = text(&search.for_shard(&needs(0, 15)));
        assert_eq!(
            asked,
            r#"{"q":"a","offset":0,"limit":15,"filter":"x = 1","showRankingScoreDetails":true}"#
        );
        let paged = body(r#"{"page":3,"hitsPerPage":4}"#).unwrap();
        assert_eq!(paged.paging.window(1000), Window { skip: 8, take: 4 });
        let asked = text(&paged.for_shard(&needs(0, 12)));
        assert_eq!(
            asked,
            r#"{"page":1,"hitsPerPage":12,"showRankingScoreDetails":true}"#
        );
    }

    #[test]
    fn nothing_is_shown_behind_max_total_hits() {
        let window = |text: &str| body(text).unwrap().paging.window(100);
        assert_eq!(
            window(r#"{"offset":95,"limit":10}"#),
            Window { skip: 95, take: 5 }
        );
        assert_eq!(
            window(r#"{"offset":200,"limit":10}"#),
            Window { skip: 100, take: 0 }
        );
        assert_eq!(window(r#"{"page":0}"#), Window { skip: 0, take: 0 });
        assert_eq!(
            window(r#"{"page":11,"hitsPerPage":10}"#),
            Window { skip: 100, take: 0 }
        );
    }

    #[test]
    fn what_a_node_would_refuse_is_not_read() {
        for text in [
            r#"{"limit":-1}"#,
            r#"{"q":3}"#,
            r#"{"limit":null}"#,
            r#"{"sort":"a"}"#,
            "{",
            "[]",
            r#"{"page":1.5}"#,
        ] {
            assert_eq!(body(text), None, "{text}");
        }
        assert!(body(r#"{"q":null,"filter":{"any":"thing"}}"#).is_some());
    }

    #[test]
    fn a_query_string_is_read_and_changed_like_a_body() {
        let carrier = Carrier::from_query([
            ("q", "a b"),
            ("sort", "x:asc,y:desc"),
            ("attributesToRetrieve", "a"),
        ]);
        let search = Search::read(carrier).unwrap();
        assert!(search.has_words && search.sorts);
        let mut needs = needs(0, 20);
        needs.attributes = vec!["c&d".to_owned()];
        let asked = search.for_shard(&needs).to_query().unwrap();
        assert_eq!(
            asked,
            "q=a+b&sort=x%3Aasc%2Cy%3Adesc&attributesToRetrieve=a%2Cc%26d&offset=0&limit=20&showRankingScoreDetails=true"
        );
    }
}
