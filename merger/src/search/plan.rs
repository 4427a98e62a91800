//! How a search is sent to the shards, and how their answers are merged.
//!
//! Pure: functions of values.

use serde_json::value::RawValue;

use super::distinct::Values;
use super::facets::by_count::{quoted, quoted_or_odd};
use super::frequency::{Share, Words};
use super::hit::{Added, Interest, strippable};
use super::merge::{Merging, Order, Window};
use super::rank::Scheme;
use super::request::{Carrier, Needs, Paging, Search};
use super::settings::MergeSettings;

/// A search, planned.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The search.
    pub search: Search,
    /// The part of all hits that is wanted.
    pub window: Window,
    /// What orders hits.
    pub order: Order,
    /// Which members of a hit the merge looks at.
    pub interest: Interest,
    /// The attribute whose values may not repeat.
    pub distinct: Option<String>,
    details: bool,
    score: bool,
    /// Attributes that are fetched although the client didn't ask for them.
    attributes: Vec<String>,
    /// The attribute that holds the ids.
    pub primary_key: Option<String>,
    /// True if hits don't show the distinct attribute.
    pub hides_distinct: bool,
    /// What scores depend on, beside the verdicts.
    pub scheme: Scheme,
    /// The query's words, if they can be split as the engine splits them: see [`super::rank::suspects`].
    pub words: Option<Vec<String>>,
    /// True if a shard's totals or hits depend on how many hits were asked for.
    whole: bool,
}

impl Plan {
    /// Plans a search on an index with `settings`, whose documents have their ids in `primary_key`.
    pub fn new(search: Search, settings: &MergeSettings, primary_key: Option<&str>) -> Self {
        let window = search.paging.window(settings.max_total_hits);
        let ranked =
            search.has_words || search.sorts || settings.custom_rules || search.semantic.is_some();
        let distinct = search
            .distinct
            .clone()
            .or_else(|| settings.distinct.clone());
        let words = words(&search, settings);
        let mut attributes: Vec<String> = distinct.iter().cloned().collect();
        attributes.extend(primary_key.map(str::to_owned));
        attributes.dedup();
        attributes.retain(|path| !retrieves(&search, path));
        let strip = strippable(&attributes, search.retrieve.as_deref().unwrap_or_default());
        let details = ranked || search.show_details;
        let score = search.show_score || search.semantic.is_some() || search.has_words;
        let formats = search.formatted();
        Self {
            window,
            order: search
                .semantic
                .map_or(Order::Rules, |ratio| Order::Hybrid { ratio }),
            interest: Interest {
                pick: distinct.as_deref().map(|path| first_part(path).to_owned()),
                strip,
                id: primary_key.map(str::to_owned),
                added: Added {
                    score,
                    details,
                    formatted: !formats.is_empty(),
                },
                formats,
                ..Interest::default()
            },
            details,
            score,
            scheme: Scheme {
                words: u32::try_from(words.as_ref().map_or(0, Vec::len)).unwrap_or(u32::MAX),
                any_words: by_frequency(&search),
                ..settings.scheme
            },
            words,
            attributes,
            primary_key: primary_key.map(str::to_owned),
            hides_distinct: distinct.as_deref().is_some_and(|path| settings.hides(path)),
            whole: distinct.is_some() || search.threshold.is_some() || search.semantic.is_some(),
            distinct,
            search,
        }
    }

    /// How many hits each of `shards` shards is asked for in the first round.
    ///
    /// The window's end would always be enough, but is far more than a shard is likely to contribute, and most of a node's
    /// work for a search is its work per hit. So each shard is asked for its likely share. If that was too little, it is asked again.
    pub fn first_step(&self, shards: usize) -> usize {
        let end = self.window.end();
        if self.whole {
            return end;
        }
        likely_share(end, shards)
    }

    /// The request to a shard for `take` hits from `skip` on.
    pub fn ask(&self, skip: usize, take: usize) -> Carrier {
        self.search.for_shard(&Needs {
            window: Window { skip, take },
            details: self.details,
            score: self.score,
            attributes: self.attributes.clone(),
            facets: skip == 0,
        })
    }

    /// The request to a shard that may have a share of its own.
    pub(super) fn ask_share(&self, skip: usize, take: usize, share: Option<&Share>) -> Carrier {
        let mut carrier = self.ask(skip, take);
        let Some(share) = share else { return carrier };
        if let Some(query) = &share.query {
            carrier.set_value("q", query.as_str().into());
        }
        if let Some(strategy) = share.strategy {
            carrier.set_value("matchingStrategy", strategy.into());
        }
        if !share.counts {
            carrier.remove("facets");
        }
        carrier
    }

    /// True if one node counts distinct values exactly.
    pub(super) fn counts_distinct(&self) -> bool {
        self.distinct.is_some() && matches!(self.search.paging, Paging::Page { .. })
    }

    /// The request for the hits beyond the page of a search with `distinct`: only their id and their value.
    pub(super) fn rest(&self, skip: usize, take: usize) -> Carrier {
        let shown = self.primary_key.iter().chain(&self.distinct);
        let shown: Vec<String> = shown.cloned().collect();
        let mut carrier = self.search.carrier.bare(&shown);
        carrier.set_count("offset", skip);
        carrier.set_count("limit", take);
        if self.details {
            carrier.set_true("showRankingScoreDetails");
        }
        if self.score {
            carrier.set_true("showRankingScore");
        }
        carrier
    }

    /// The same, for documents that have a value and none of `values`; `None` if that can't be expressed.
    pub(super) fn rest_without(&self, values: &[String], take: usize) -> Option<Carrier> {
        /// A query string has a limited length.
        const LONGEST_IN_QUERY: usize = 6000;
        let condition = beyond(self.distinct.as_deref()?, values)?;
        let mut carrier = self.rest(0, take);
        if matches!(carrier, Carrier::Query(_)) && condition.len() > LONGEST_IN_QUERY {
            return None;
        }
        carrier.narrow(&condition)?;
        Some(carrier)
    }

    /// True if words are dropped by how frequent they are: then hits with equally many words may have different words.
    pub(super) fn by_frequency(&self) -> bool {
        by_frequency(&self.search) && self.search.has_words && self.search.semantic.is_none()
    }

    /// The client's query, as an answer repeats it.
    pub(super) fn query(&self) -> Option<Box<RawValue>> {
        let query = self.search.carrier.text("q").flatten()?;
        serde_json::value::to_raw_value(query).ok()
    }

    /// The words of a search that drops the most frequent ones, if shards may be asked for parts of it.
    pub(super) fn frequency_words(&self, settings: &MergeSettings) -> Option<Words> {
        let search = &self.search;
        if !by_frequency(search) || search.semantic.is_some() || search.threshold.is_some() {
            return None;
        }
        Words::read(search.carrier.text("q").flatten()?, &settings.stop_words)
    }

    /// The same search by keywords alone.
    pub fn by_words_alone(&self, settings: &MergeSettings) -> Self {
        const BY_MEANING: [&str; 5] = [
            "hybrid",
            "vector",
            "media",
            "hybridEmbedder",
            "hybridSemanticRatio",
        ];
        let mut search = self.search.clone();
        for name in BY_MEANING {
            search.carrier.remove(name);
        }
        search.semantic = None;
        Self::new(search, settings, self.primary_key.as_deref())
    }

    /// How the answers are merged; `hidden` are distinct values that hits don't show.
    pub fn merging<'a>(&'a self, hidden: Option<&'a Values>) -> Merging<'a> {
        Merging {
            to_the_end: self.counts_distinct(),
            hidden,
            order: self.order,
            window: self.window,
            interest: &self.interest,
            distinct: self.distinct.as_deref(),
            doubts: self.words.is_some().then_some(self.scheme),
        }
    }
}

/// The most of `end` hits that one of `shards` shards is likely to hold. Documents are spread by a hash of their ids, so a
/// shard's part of them is binomially distributed. Some shard holds more in at most a share of `TOO_FEW` of all searches.
fn likely_share(end: usize, shards: usize) -> usize {
    /// The share of searches in which a page may need a second round.
    const TOO_FEW: f64 = 1.0 / 300.0;
    /// For pages longer than this, the spread is small in comparison and a rough bound is enough.
    const LONG: u32 = 4096;
    let share = end.div_ceil(shards.max(1));
    let rough = end.min(share + 4 * share.isqrt() + 12);
    let (Ok(hits), Ok(shards)) = (u32::try_from(end), u32::try_from(shards)) else {
        return rough;
    };
    if hits > LONG || shards < 2 {
        return rough;
    }
    let (all, here) = (f64::from(hits), 1.0 / f64::from(shards));
    // Sums the chances that a shard holds exactly `least` hits, from all of them downwards, by their logarithms.
    let mut exactly = all * here.ln();
    let mut at_least = 0.0;
    let mut least = hits;
    while least > 0 {
        at_least += exactly.exp();
        if at_least * f64::from(shards) > TOO_FEW {
            break;
        }
        let held = f64::from(least);
        exactly += (held / (all - held + 1.0) * (1.0 - here) / here).ln();
        least -= 1;
    }
    // A shard that gives as many hits as it was asked for may have more, and the page isn't final: so ask for one more.
    usize::try_from(least + 1).unwrap_or(end).min(end)
}

/// The query's words in order; `None` for a query with phrases or excluded words.
fn words(search: &Search, settings: &MergeSettings) -> Option<Vec<String>> {
    const MOST: usize = 10;
    let query = search.carrier.text("q").flatten()?;
    if query.contains('"') || query.split_whitespace().any(|word| word.starts_with('-')) {
        return None;
    }
    let words = query
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty());
    let words: Vec<String> = words
        .map(str::to_lowercase)
        .filter(|word| !settings.stop_words.contains(word))
        .take(MOST)
        .collect();
    (!words.is_empty()).then_some(words)
}

/// A filter condition that matches documents which have a value at `path` and none of `values` (in comparable form); `None`
/// if no filter can name one of the values.
fn beyond(path: &str, values: &[String]) -> Option<String> {
    let value = |value: &String| quoted(value.split_at_checked(1).map_or("", |(_, text)| text));
    let values: Vec<String> = values.iter().map(value).collect::<Option<_>>()?;
    let path = quoted_or_odd(path);
    Some(format!(
        "{path} EXISTS AND {path} IS NOT NULL AND {path} IS NOT EMPTY AND {path} NOT IN [{}]",
        values.join(", ")
    ))
}

fn by_frequency(search: &Search) -> bool {
    search
        .carrier
        .text("matchingStrategy")
        .flatten()
        .is_some_and(|name| name == "frequency")
}

fn first_part(path: &str) -> &str {
    path.split_once('.').map_or(path, |(first, _)| first)
}

/// True if the client's own `attributesToRetrieve` includes the attribute at `path`.
fn retrieves(search: &Search, path: &str) -> bool {
    let Some(names) = &search.retrieve else {
        return true;
    };
    names.iter().any(|name| {
        name == "*"
            || name == path
            || path
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.starts_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(body: &str, settings: &MergeSettings) -> Plan {
        Plan::new(
            Search::read(Carrier::from_body(body.as_bytes()).unwrap()).unwrap(),
            settings,
            None,
        )
    }

    fn asked(plan: &Plan, take: usize) -> String {
        String::from_utf8(plan.ask(0, take).to_body().unwrap()).unwrap()
    }

    #[test]
    fn details_are_asked_for_only_where_they_order_hits() {
        let settings = MergeSettings::default();
        let custom = MergeSettings {
            custom_rules: true,
            ..MergeSettings::default()
        };
        let has_details =
            |body, settings| asked(&plan(body, settings), 20).contains("showRankingScoreDetails");
        assert!(!has_details(r#"{"q":""}"#, &settings));
        assert!(has_details(r#"{"q":"a"}"#, &settings));
        assert!(has_details(r#"{"q":" ","sort":["a:asc"]}"#, &settings));
        assert!(has_details("{}", &custom));
    }

    #[test]
    fn shards_are_asked_for_the_share_of_a_page_that_they_are_likely_to_hold() {
        let step = |body: &str, shards| plan(body, &MergeSettings::default()).first_step(shards);
        // One of three shards holds 14 of 20 hits or more once in 380 searches, and 13 once in 90.
        assert_eq!(step(r#"{"q":"a"}"#, 3), 14);
        assert_eq!(step(r#"{"q":"a"}"#, 7), 10);
        assert_eq!(step(r#"{"q":"a","limit":100}"#, 3), 49);
        let long = step(r#"{"q":"a","limit":1000}"#, 8);
        assert!((155..165).contains(&long), "{long}");
        assert_eq!(step(r#"{"q":"a","limit":1}"#, 3), 1);
        assert_eq!(step(r#"{"q":"a","limit":0}"#, 3), 0);
        assert_eq!(step(r#"{"q":"a"}"#, 1), 20);
        assert_eq!(step(r#"{"q":"a","limit":1000,"distinct":"b"}"#, 8), 1000);
    }

    #[test]
    fn a_likely_share_is_seldom_exceeded() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut shard = move |shards: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from((random >> 16) % shards).unwrap()
        };
        for (end, shards) in [(20, 3), (20, 7), (100, 3), (300, 7)] {
            let share = likely_share(end, shards);
            let unsettled = |_: &u32| {
                let mut held = vec![0; shards];
                for _ in 0..end {
                    held[shard(shards as u64)] += 1;
                }
                held.iter().any(|held| *held >= share)
            };
            let often = (0..6_000_u32).filter(unsettled).count();
            assert!(often <= 40, "{end} of {shards}: {often} of 6000");
        }
    }

    #[test]
    fn the_distinct_attribute_is_fetched_and_left_out_again() {
        let settings = MergeSettings {
            distinct: Some("sku.code".to_owned()),
            ..MergeSettings::default()
        };
        let asks = plan(r#"{"q":"a","attributesToRetrieve":["title"]}"#, &settings);
        assert!(asked(&asks, 1).contains(r#""attributesToRetrieve":["title","sku.code"]"#));
        assert_eq!(asks.interest.strip, ["sku"]);
        let has = plan(r#"{"q":"a","attributesToRetrieve":["sku"]}"#, &settings);
        assert!(has.interest.strip.is_empty());
        assert_eq!(has.interest.pick.as_deref(), Some("sku"));
    }

    #[test]
    fn what_lies_behind_a_page_is_asked_for_without_what_only_a_page_needs() {
        let settings = MergeSettings::default();
        let search = r#"{"q":"a","page":2,"hitsPerPage":5,"distinct":"sku","filter":["x = 1"],"facets":["y"],"attributesToHighlight":["*"]}"#;
        let plan = plan(search, &settings);
        assert!(plan.counts_distinct());
        let text = |carrier: Carrier| String::from_utf8(carrier.to_body().unwrap()).unwrap();
        assert_eq!(
            text(plan.rest(10, 7)),
            r#"{"q":"a","distinct":"sku","filter":["x = 1"],"attributesToRetrieve":["sku"],"offset":10,"limit":7,"showRankingScoreDetails":true,"showRankingScore":true}"#
        );
        let values = ["sred".to_owned(), "n2.5".to_owned()];
        let condition = r#"\"sku\" EXISTS AND \"sku\" IS NOT NULL AND \"sku\" IS NOT EMPTY AND \"sku\" NOT IN [\"red\", \"2.5\"]"#;
        let without = text(plan.rest_without(&values, 7).unwrap());
        let filter = format!(r#""filter":["x = 1","{condition}"]"#);
        assert!(without.contains(&filter), "{without}");
        let by_name =
            Carrier::from_query([("distinct", "sku"), ("page", "1"), ("filter", "x = 1")]);
        let plan = Plan::new(Search::read(by_name).unwrap(), &settings, None);
        let narrowed = plan.rest_without(&values, 7).unwrap();
        let filter = narrowed.text("filter").flatten().unwrap();
        assert!(
            filter.starts_with("(x = 1) AND (\"sku\" EXISTS"),
            "{filter}"
        );
        let many: Vec<String> = (0..2000).map(|value| format!("s{value}")).collect();
        assert!(plan.rest_without(&many, 7).is_none());
        let estimated = self::plan(r#"{"distinct":"sku"}"#, &settings);
        assert!(!estimated.counts_distinct());
    }
}
