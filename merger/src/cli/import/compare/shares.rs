//! How often answers are equal, for each index and in all.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::Done;
use super::judge::Verdict;
use super::queries::Query;
use crate::cli::output::{self, Mood, Rows};

/// How many queries with other answers are shown.
const SHOWN: usize = 10;

/// Equal answers.
#[derive(Debug, Clone, Default)]
struct Count {
    queries: u64,
    hits: u64,
    scores: u64,
    same: u64,
    totals: u64,
    with_facets: u64,
    facets: u64,
}

impl Count {
    fn add(&mut self, verdict: &Verdict) {
        self.queries += 1;
        self.hits += u64::from(verdict.hits);
        self.scores += u64::from(verdict.scores);
        self.same += u64::from(verdict.same);
        self.totals += u64::from(verdict.totals);
        self.with_facets += u64::from(verdict.facets.is_some());
        self.facets += u64::from(verdict.facets == Some(true));
    }

    fn cells(&self, name: &str) -> Vec<(String, Mood)> {
        let share = |equal: u64, of: u64| match percent(equal, of) {
            Some(percent) => (
                format!("{percent:.1} %"),
                if equal == of {
                    Mood::Good
                } else {
                    Mood::Warning
                },
            ),
            None => ("-".to_owned(), Mood::Plain),
        };
        vec![
            (name.to_owned(), Mood::Plain),
            (self.queries.to_string(), Mood::Plain),
            share(self.hits, self.queries),
            share(self.same, self.queries),
            share(self.scores, self.queries),
            share(self.totals, self.queries),
            share(self.facets, self.with_facets),
        ]
    }

    fn value(&self) -> Value {
        json!({
            "queries": self.queries,
            "hits": percent(self.hits, self.queries),
            "hitsApartFromTies": percent(self.same, self.queries),
            "scores": percent(self.scores, self.queries),
            "totals": percent(self.totals, self.queries),
            "facets": percent(self.facets, self.with_facets),
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "nobody asks so many queries")]
fn percent(equal: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| equal as f64 * 100.0 / of as f64)
}

/// All verdicts.
#[derive(Debug, Default)]
pub(super) struct Shares {
    all: Count,
    indexes: BTreeMap<String, Count>,
    differing: Vec<Value>,
}

impl Shares {
    pub(super) fn add(&mut self, query: &Query, verdict: &Verdict) {
        self.all.add(verdict);
        let index = self.indexes.entry(query.index.clone()).or_default();
        index.add(verdict);
        if !verdict.is_alike() && self.differing.len() < SHOWN {
            let parts = [
                ("hits", verdict.same),
                ("scores", verdict.scores),
                ("totals", verdict.totals),
                ("facets", verdict.facets != Some(false)),
            ];
            let differ = parts.iter().filter(|(_, equal)| !equal);
            let differ: Vec<&str> = differ.map(|(name, _)| *name).collect();
            self.differing
                .push(json!({"index": query.index, "query": query.body, "differ": differ}));
        }
    }

    /// The report. It is well if enough queries have the same hits.
    pub(super) fn done(&self, min_equal: f64, as_json: bool) -> Done {
        let well = percent(self.all.same, self.all.queries).is_some_and(|share| share >= min_equal);
        let text = match as_json {
            true => output::json(&self.value(min_equal, well)),
            false => self.text(min_equal, well),
        };
        Done { text, well }
    }

    fn value(&self, min_equal: f64, well: bool) -> Value {
        let indexes = self.indexes.iter();
        let indexes: serde_json::Map<String, Value> = indexes
            .map(|(uid, count)| (uid.clone(), count.value()))
            .collect();
        json!({
            "all": self.all.value(),
            "indexes": indexes,
            "differing": self.differing,
            "minEqual": min_equal,
            "enough": well,
        })
    }

    fn text(&self, min_equal: f64, well: bool) -> String {
        let mut rows = Rows::new(&[
            "index",
            "queries",
            "hits",
            "but for ties",
            "scores",
            "totals",
            "facets",
        ]);
        for (uid, count) in &self.indexes {
            rows.add(count.cells(uid));
        }
        rows.add(self.all.cells("all"));
        let mut text = rows.text();
        for one in &self.differing {
            let member = |name: &str| one.get(name).map(Value::to_string).unwrap_or_default();
            text.push_str(&format!(
                "differs in {}: {} {}\n",
                member("differ"),
                member("index"),
                member("query")
            ));
        }
        let verdict = match (self.all.queries, well) {
            (0, _) => "No query was asked.".to_owned(),
            (_, true) => {
                format!("Enough queries have the same hits, but for ties (at least {min_equal} %).")
            }
            (_, false) => format!(
                "Too few queries have the same hits, but for ties (less than {min_equal} %)."
            ),
        };
        text.push_str(&verdict);
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(same: bool) -> Verdict {
        Verdict {
            hits: same,
            scores: true,
            same,
            totals: true,
            facets: None,
        }
    }

    fn shares(verdicts: &[bool]) -> Shares {
        let mut shares = Shares::default();
        for same in verdicts {
            let query = Query {
                index: "films".to_owned(),
                body: json!({"q": "alien"}),
            };
            shares.add(&query, &verdict(*same));
        }
        shares
    }

    #[test]
    fn shares_are_counted_and_compared_with_the_least_one() {
        let shares = shares(&[true, true, true, false]);
        assert!(shares.done(75.0, true).well);
        let done = shares.done(75.1, true);
        assert!(!done.well);
        let report: Value = serde_json::from_str(&done.text).unwrap();
        assert_eq!(report["all"]["hitsApartFromTies"], 75.0);
        assert_eq!(report["all"]["scores"], 100.0);
        assert_eq!(report["all"]["facets"], Value::Null);
        assert_eq!(report["indexes"]["films"]["queries"], 4);
        assert_eq!(report["differing"][0]["differ"], json!(["hits"]));
    }

    #[test]
    fn no_query_is_no_good_result() {
        let done = shares(&[]).done(0.0, false);
        assert!(
            !done.well && done.text.contains("No query"),
            "{}",
            done.text
        );
    }

    #[test]
    fn people_see_a_table_and_what_differs() {
        let text = shares(&[true, false]).done(10.0, false).text;
        assert!(
            text.contains("50.0 %") && text.contains("100.0 %"),
            "{text}"
        );
        assert!(
            text.contains(r#"differs in ["hits"]: "films" {"q":"alien"}"#),
            "{text}"
        );
    }
}
