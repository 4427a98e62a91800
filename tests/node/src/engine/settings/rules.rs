//! Ranking rules: the protocol has two rules for the engine's one rule `attribute`.

use std::str::FromStr;

use deserr::Deserr;
use milli_core::Criterion;
use serde::{Deserialize, Serialize};

use crate::validate::Wrong;

/// The rules of a new index, under the protocol's names.
pub(crate) const DEFAULT: [&str; 7] = [
    "words",
    "typo",
    "proximity",
    "attributeRank",
    "sort",
    "wordPosition",
    "exactness",
];

/// A rule, under the name that the client used.
#[derive(Debug, Clone, Serialize, Deserialize, Deserr)]
#[serde(transparent)]
#[deserr(try_from(String) = Rule::parse -> Wrong)]
pub(crate) struct Rule(pub(crate) String);

impl Rule {
    fn parse(name: String) -> Result<Rule, Wrong> {
        match criterion(&name) {
            Ok(_) => Ok(Rule(name)),
            Err(error) => Err(Wrong(error.to_string())),
        }
    }
}

fn criterion(name: &str) -> Result<Criterion, milli_core::CriterionError> {
    match name {
        "attributeRank" | "wordPosition" => Ok(Criterion::Attribute),
        _ => Criterion::from_str(name),
    }
}

/// Converts the client's rules to the engine's. `attributeRank` and `wordPosition` become one rule, at the position of the
/// first of them: the engine can't put a rule between the two.
pub(crate) fn criteria(rules: &[String]) -> Vec<Criterion> {
    let mut criteria = Vec::new();
    for criterion in rules.iter().filter_map(|name| criterion(name).ok()) {
        if criterion != Criterion::Attribute || !criteria.contains(&criterion) {
            criteria.push(criterion);
        }
    }
    criteria
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_halves_of_attribute_become_one_where_the_first_stands() {
        let rules = DEFAULT.map(str::to_owned);
        assert_eq!(criteria(&rules), milli_core::default_criteria());
    }

    #[test]
    fn an_unknown_rule_is_refused_in_the_protocols_words() {
        let refused = Rule::parse("bogus".to_owned()).unwrap_err().0;
        assert!(
            refused.starts_with("`bogus` ranking rule is invalid."),
            "{refused}"
        );
    }
}
