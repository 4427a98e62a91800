//! The order of hits of different queries, as one node compares them: step by step, scores with scores and sort values with
//! sort values, and by the whole weighted score if the steps can't be compared.
//!
//! Pure: functions of values.

use std::cmp::Ordering;

use super::admit::Verdict;
use crate::search::merge::Window;
use crate::search::rank::{Rank, Ranks, SortValue, same_scale, typo_place};

/// What a hit is ordered by among the hits of all queries.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Weighed {
    steps: Vec<Step>,
    whole: f64,
    ranks: Ranks,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Score(f64),
    Sort {
        ascending: bool,
        value: SortValue,
    },
    Geo {
        ascending: bool,
        distance: Option<f64>,
    },
}

impl Weighed {
    /// Builds the order from a hit's ranks, its score and its query's weight.
    ///
    /// Neighbouring rules that give a score form one step. A node gives the first such step its own part of the score. Here
    /// the whole score is used for it, which is the same unless a sort stands between rules that give a score.
    pub(super) fn new(ranks: &Ranks, score: f64, weight: f64) -> Self {
        let whole = score * weight;
        let mut steps: Vec<Step> = Vec::new();
        let mut scored = false;
        for rank in ranks.iter() {
            match rank {
                Rank::Sort { ascending, value } => {
                    steps.push(Step::Sort {
                        ascending: *ascending,
                        value: value.clone(),
                    });
                }
                Rank::Geo {
                    ascending,
                    distance,
                } => {
                    steps.push(Step::Geo {
                        ascending: *ascending,
                        distance: *distance,
                    });
                }
                Rank::Pin { .. } => {}
                _ if matches!(steps.last(), Some(Step::Score(_))) => {}
                _ => {
                    steps.push(Step::Score(if scored { 0.0 } else { whole }));
                    scored = true;
                }
            }
        }
        Self {
            steps,
            whole,
            ranks: ranks.clone(),
        }
    }

    /// `Less` if `self` comes first.
    fn compare(&self, other: &Self, same_query: bool) -> Ordering {
        if same_query {
            return crate::search::rank::compare(&self.ranks, &other.ranks);
        }
        let mut steps = self.steps.iter().zip(&other.steps).enumerate();
        let apart = steps.find_map(|(at, (a, b))| match a.compare(b) {
            Some(Ordering::Equal) => None,
            order => Some((at, order)),
        });
        match apart {
            Some((_, Some(order))) => order,
            Some((at, None)) => {
                let left = |steps: &[Step]| steps.len().saturating_sub(at);
                let by_length = left(&other.steps).cmp(&left(&self.steps));
                by_length.then_with(|| other.whole.total_cmp(&self.whole))
            }
            None => other.steps.len().cmp(&self.steps.len()),
        }
    }
}

impl Step {
    /// `Less` if `self` comes first; `None` if the two can't be compared.
    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Score(a), Self::Score(b)) if (a - b).abs() <= f64::EPSILON => {
                Some(Ordering::Equal)
            }
            (Self::Score(a), Self::Score(b)) => Some(b.total_cmp(a)),
            (
                Self::Sort {
                    ascending: a,
                    value: x,
                },
                Self::Sort {
                    ascending: b,
                    value: y,
                },
            ) if a == b => Some(x.compare(y, *a)),
            (
                Self::Geo {
                    ascending: a,
                    distance: x,
                },
                Self::Geo {
                    ascending: b,
                    distance: y,
                },
            ) if a == b => {
                let rank = |distance| Rank::Geo {
                    ascending: *a,
                    distance,
                };
                Some(rank(*x).compare(&rank(*y)))
            }
            _ => None,
        }
    }
}

/// The scale of the `typo` rule, for each query and each set of verdicts of the rules before `typo`.
pub(super) struct Scales(Vec<Vec<(Ranks, usize, u32)>>);

impl Scales {
    pub(super) fn new(queries: usize) -> Self {
        Self((0..queries).map(|_| Vec::new()).collect())
    }

    /// Takes a hit into account.
    pub(super) fn see(&mut self, query: usize, ranks: &Ranks) {
        let Some(place) = typo_place(ranks) else {
            return;
        };
        let (Some(Rank::Typo { max, .. }), Some(known)) = (ranks.get(place), self.0.get_mut(query))
        else {
            return;
        };
        match known
            .iter_mut()
            .find(|(other, at, _)| *at == place && same_scale(other, ranks, place))
        {
            Some((_, _, scale)) => *scale = (*scale).max(*max),
            None => known.push((ranks.clone(), place, *max)),
        }
    }

    /// The scale on which one node would have measured the hit's typos.
    pub(super) fn scale(&self, query: usize, ranks: &Ranks) -> Option<u32> {
        let place = typo_place(ranks)?;
        let known = self.0.get(query)?.iter();
        known
            .into_iter()
            .find(|(other, at, _)| *at == place && same_scale(other, ranks, place))
            .map(|(_, _, s)| *s)
    }
}

/// A list that is being merged: its query, its hits, and how many hits equal to its head were taken before it.
struct List<T> {
    query: usize,
    hits: std::vec::IntoIter<(Weighed, T)>,
    head: Option<(Weighed, T)>,
    run: usize,
}

/// The outcome of a merge.
#[derive(Debug)]
pub(super) struct Merged<T> {
    /// The window's hits.
    pub(super) hits: Vec<T>,
    /// Hits left out because a better hit has the same value.
    pub(super) duplicates: Vec<T>,
    /// How many hits were left out because their document was already in the list.
    pub(super) twins: usize,
    /// True if every hit was looked at.
    pub(super) at_the_end: bool,
}

/// Merges lists, each sorted and of one query and one shard, and cuts out the window; `judge` decides about each hit. With
/// `to_the_end`, hits beyond the window are judged, too.
pub(super) fn merge<T>(
    lists: Vec<(usize, Vec<(Weighed, T)>)>,
    window: Window,
    to_the_end: bool,
    mut judge: impl FnMut(usize, &T) -> Verdict,
) -> Merged<T> {
    let mut lists: Vec<List<T>> = lists
        .into_iter()
        .map(|(query, hits)| {
            let mut hits = hits.into_iter();
            List {
                query,
                head: hits.next(),
                hits,
                run: 0,
            }
        })
        .collect();
    let mut merged = Merged {
        hits: Vec::new(),
        duplicates: Vec::new(),
        twins: 0,
        at_the_end: false,
    };
    let mut position = 0;
    while position < window.end() || to_the_end {
        let Some(best) = best_of(&lists) else { break };
        let Some(list) = lists.get_mut(best) else {
            break;
        };
        let query = list.query;
        let Some((weighed, hit)) = list.head.take() else {
            break;
        };
        list.head = list.hits.next();
        let same = list
            .head
            .as_ref()
            .is_some_and(|(next, _)| next.compare(&weighed, true) == Ordering::Equal);
        list.run = if same { list.run + 1 } else { 0 };
        match judge(query, &hit) {
            Verdict::Shown => {
                if position >= window.skip && position < window.end() {
                    merged.hits.push(hit);
                }
                position += 1;
            }
            Verdict::Duplicate => merged.duplicates.push(hit),
            Verdict::Twin => merged.twins += 1,
            Verdict::Beyond => {}
        }
    }
    merged.at_the_end = lists.iter().all(|list| list.head.is_none());
    merged
}

/// The list whose head comes first. Among equals, the earlier query wins, then the lists take turns.
fn best_of<T>(lists: &[List<T>]) -> Option<usize> {
    let mut best: Option<(usize, &List<T>, &Weighed)> = None;
    for (at, list) in lists.iter().enumerate() {
        let Some((weighed, _)) = &list.head else {
            continue;
        };
        let better = best.is_none_or(|(_, other, first)| {
            let order = weighed.compare(first, list.query == other.query);
            order
                .then(list.query.cmp(&other.query))
                .then(list.run.cmp(&other.run))
                == Ordering::Less
        });
        if better {
            best = Some((at, list, weighed));
        }
    }
    best.map(|(at, _, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::rank::Rule;

    fn proximity(score: f64) -> Rank {
        Rank::Score {
            rule: Rule::Proximity,
            score,
        }
    }

    fn scored(score: f64, weight: f64) -> Weighed {
        Weighed::new(&Ranks::from(vec![proximity(score)]), score, weight)
    }

    fn sorted(value: f64) -> Weighed {
        let rank = Rank::Sort {
            ascending: true,
            value: SortValue::Number(value),
        };
        Weighed::new(&Ranks::from(vec![rank, proximity(0.5)]), 0.5, 1.0)
    }

    #[test]
    fn weights_decide_between_queries() {
        let lists = vec![
            (0, vec![(scored(0.9, 1.0), "a1"), (scored(0.4, 1.0), "a2")]),
            (1, vec![(scored(1.0, 0.5), "b1"), (scored(0.6, 0.5), "b2")]),
            (0, vec![(scored(0.9, 1.0), "c1")]),
        ];
        let shown = |skip, take, lists| {
            merge(lists, Window { skip, take }, false, |_, _| Verdict::Shown).hits
        };
        assert_eq!(shown(0, 9, lists.clone()), ["a1", "c1", "b1", "a2", "b2"]);
        assert_eq!(shown(1, 2, lists), ["c1", "b1"]);
    }

    #[test]
    fn sort_values_are_compared_with_sort_values_and_longer_lists_of_steps_win() {
        let lists = vec![
            (0, vec![(sorted(2.0), "s2")]),
            (1, vec![(sorted(1.0), "s1")]),
            (2, vec![(scored(1.0, 1.0), "x")]),
        ];
        let window = Window { skip: 0, take: 9 };
        let all = merge(lists, window, false, |_, _| Verdict::Shown).hits;
        assert_eq!(all, ["s1", "s2", "x"]);
    }

    #[test]
    fn hits_behind_the_window_are_judged_where_all_count() {
        let lists = vec![
            (0, vec![(scored(0.9, 1.0), "a")]),
            (1, vec![(scored(0.8, 1.0), "a"), (scored(0.7, 1.0), "b")]),
        ];
        let window = Window { skip: 0, take: 1 };
        let judge = |query: usize, hit: &&str| match (query, *hit) {
            (1, "a") => Verdict::Duplicate,
            _ => Verdict::Shown,
        };
        let all = merge(lists.clone(), window, true, judge);
        assert_eq!((all.hits, all.duplicates.len()), (vec!["a"], 1));
        assert!(all.at_the_end);
        let page = merge(lists, window, false, judge);
        assert_eq!((page.hits, page.duplicates.len()), (vec!["a"], 0));
        assert!(!page.at_the_end);
    }
}
