//! Which hits one node would show, given the merged order of all queries.
//!
//! A node searches each query for no more hits than a page needs, and never for more than the index's `maxTotalHits`. It
//! takes at most that many of the hits that an index's queries found, and merges what the indexes gave. `distinct` of a
//! query (or of its index's settings) applies to the query's own hits, the federation's `distinct` to all hits.
//!
//! Pure: functions of values.

use hashbrown::{HashMap, HashSet};

use crate::search::distinct::Seen;

/// What happens to a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is shown.
    Shown,
    /// A better hit has its distinct value, and a node doesn't count this one.
    Duplicate,
    /// A hit of the same document is already in the list.
    Twin,
    /// It lies beyond what a node looks at.
    Beyond,
}

/// Decides hit by hit which ones are shown, and remembers what it has let through.
pub(super) struct Gate {
    /// For each query: its index's position, whether distinct values apply to it, the values seen, and the number of hits looked at.
    queries: Vec<(usize, bool, Seen, usize)>,
    /// For each index: the most hits that a node takes, and how many were taken.
    indexes: Vec<(usize, usize)>,
    /// The federation's distinct values: by index, and of all indexes.
    federation: Option<(HashMap<usize, Seen>, Seen)>,
    documents: HashSet<(usize, Vec<u8>)>,
}

impl Gate {
    /// `queries`: the position of each query's index in `indexes`, and whether distinct values apply to it. `indexes`: the
    /// most hits taken of each index. `across`: whether the federation has `distinct`.
    pub(super) fn new(queries: &[(usize, bool)], indexes: &[usize], across: bool) -> Self {
        let query = |(index, distinct): &(usize, bool)| (*index, *distinct, Seen::default(), 0);
        Self {
            queries: queries.iter().map(query).collect(),
            indexes: indexes.iter().map(|most| (*most, 0)).collect(),
            federation: across.then(|| (HashMap::new(), Seen::default())),
            documents: HashSet::new(),
        }
    }

    /// Judges the next hit of `query`: the document `id` with the distinct `values`.
    pub(super) fn judge(&mut self, query: usize, id: Option<&[u8]>, values: &[String]) -> Verdict {
        let Some((index, distinct, seen, looked_at)) = self.queries.get_mut(query) else {
            return Verdict::Beyond;
        };
        let Some((most, taken)) = self.indexes.get_mut(*index) else {
            return Verdict::Beyond;
        };
        if let Some(id) = id
            && self.documents.contains(&(*index, id.to_vec()))
        {
            return Verdict::Twin;
        }
        if *distinct && !seen.admit(values) {
            return Verdict::Duplicate;
        }
        if *looked_at >= *most || *taken >= *most {
            return Verdict::Beyond;
        }
        *looked_at += 1;
        if let Some(id) = id {
            self.documents.insert((*index, id.to_vec()));
        }
        if let Some((by_index, all)) = &mut self.federation {
            if !by_index.entry(*index).or_default().admit(values) {
                return Verdict::Duplicate;
            }
            *taken += 1;
            if !all.admit(values) {
                return Verdict::Duplicate;
            }
        } else {
            *taken += 1;
        }
        Verdict::Shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(list: &[&str]) -> Vec<String> {
        list.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn no_more_of_an_index_is_looked_at_than_it_lets_through() {
        let mut gate = Gate::new(&[(0, false), (0, false), (1, false)], &[3, 1], false);
        let mut judge = |query, id: &str| gate.judge(query, Some(id.as_bytes()), &[]);
        assert_eq!(judge(0, "a"), Verdict::Shown);
        assert_eq!(judge(1, "a"), Verdict::Twin);
        assert_eq!(judge(1, "b"), Verdict::Shown);
        assert_eq!(judge(2, "a"), Verdict::Shown, "another index's document");
        assert_eq!(judge(2, "b"), Verdict::Beyond);
        assert_eq!(judge(0, "c"), Verdict::Shown);
        assert_eq!(judge(1, "d"), Verdict::Beyond);
    }

    #[test]
    fn a_querys_distinct_holds_in_it_and_the_federations_everywhere() {
        let mut own = Gate::new(&[(0, true), (0, true), (1, false)], &[9, 9], false);
        assert_eq!(own.judge(0, None, &values(&["x"])), Verdict::Shown);
        assert_eq!(own.judge(0, None, &values(&["y", "x"])), Verdict::Duplicate);
        assert_eq!(own.judge(1, None, &values(&["x"])), Verdict::Shown);
        assert_eq!(own.judge(2, None, &values(&["x"])), Verdict::Shown);
        let mut all = Gate::new(&[(0, true), (0, true), (1, true)], &[9, 9], true);
        assert_eq!(all.judge(0, None, &values(&["x"])), Verdict::Shown);
        assert_eq!(all.judge(1, None, &values(&["x"])), Verdict::Duplicate);
        assert_eq!(all.judge(2, None, &values(&["x"])), Verdict::Duplicate);
        assert_eq!(all.judge(2, None, &[]), Verdict::Shown);
    }

    #[test]
    fn values_behind_the_end_are_still_told_apart() {
        let mut gate = Gate::new(&[(0, true)], &[1], false);
        assert_eq!(gate.judge(0, None, &values(&["x"])), Verdict::Shown);
        assert_eq!(gate.judge(0, None, &values(&["x"])), Verdict::Duplicate);
        assert_eq!(gate.judge(0, None, &values(&["y"])), Verdict::Beyond);
        assert_eq!(gate.judge(0, None, &values(&["y"])), Verdict::Duplicate);
    }
}
