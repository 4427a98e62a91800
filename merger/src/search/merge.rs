//! Merges several shards' ranked hits into one ranked list.
//!
//! A k-way merge over lazily read lists: a hit is read only when the merge reaches it, and hits beyond the page are never
//! read. Hits that no rule tells apart are taken from the shards in turn (the first of each, then the second of each, …).
//! So the order depends only on the shards' own order: not on which answer came first, nor on the page asked for.
//!
//! Pure: a function of values.

mod pairs;
mod part;
mod source;

use std::cmp::Ordering;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

pub use pairs::Pairs;
pub use part::Part;
pub use source::{Head, Source};

use super::distinct::{Seen, Values, values_of};
use super::hit::Interest;
use super::rank::{Rank, Ranks, Scheme, compare, same_scale, suspects, typo_place};
use super::scan::Malformed;

/// Which part of the merged list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Hits to skip.
    pub skip: usize,
    /// Hits to take.
    pub take: usize,
}

impl Window {
    /// How many hits lie before the window's end.
    pub fn end(self) -> usize {
        self.skip.saturating_add(self.take)
    }
}

/// How hits are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    /// Rule by rule. Hits without details are all equal: they keep their shard's own order, and the shards take turns.
    Rules,
    /// Keyword and semantic hits in one list, weighted by the semantic ratio.
    Hybrid {
        /// 0 = keywords only, 1 = meaning only.
        ratio: f64,
    },
}

/// What is merged, and how.
#[derive(Debug, Clone)]
pub struct Merging<'a> {
    /// The order.
    pub order: Order,
    /// The part that is wanted.
    pub window: Window,
    /// Which members of a hit are looked at.
    pub interest: &'a Interest,
    /// The distinct attribute, as a path into the hit.
    pub distinct: Option<&'a str>,
    /// Distinct values of documents whose hits don't show them.
    pub hidden: Option<&'a Values>,
    /// True if hits beyond the window are looked at, too, so that all duplicates are counted.
    pub to_the_end: bool,
    /// If set, looks for hits whose exactness is doubtful; the value holds what their scores depend on.
    pub doubts: Option<Scheme>,
}

/// A hit that made it into the window.
#[derive(Debug, Clone)]
pub struct Placed<'a> {
    /// The hit.
    pub head: Head<'a>,
    /// Which source it came from.
    pub source: usize,
    /// The scale of its `typo` rule over all shards.
    pub max_typos: Option<u32>,
}

/// The outcome of a merge.
#[derive(Debug)]
pub struct Merged<'a> {
    /// The window's hits, best first.
    pub hits: Vec<Placed<'a>>,
    /// How many hits each source has in the window.
    pub kept: Vec<usize>,
    /// Sources that ran out before the window was full although their shard has more hits: these shards must be asked for more.
    pub dry: Vec<usize>,
    /// Hits left out because another shard had a better one of the same distinct value.
    pub duplicates: usize,
    /// The hits that were left out for this: their source, and their id if the hit shows it.
    pub losers: Vec<(usize, Option<&'a [u8]>)>,
    /// True if every hit of every source was looked at.
    pub at_the_end: bool,
    /// Hits left out because another shard holds the same document: its slot is being moved.
    pub twins: usize,
    /// True if a shard split a part of a search into other words than the merger did: see [`Part`].
    pub unclear: bool,
    /// True if the exactness of a hit up to the window's end is doubtful: see [`suspects`]. Hits before the window count
    /// too; otherwise pages wouldn't fit together.
    pub doubtful: bool,
}

/// Merges the sources' hits.
///
/// # Errors
/// A source isn't a node's answer.
pub fn merge<'a>(
    mut sources: Vec<Source<'a>>,
    merging: &Merging<'_>,
) -> Result<Merged<'a>, Malformed> {
    let mut merged = Merged {
        hits: Vec::new(),
        kept: vec![0; sources.len()],
        dry: Vec::new(),
        duplicates: 0,
        losers: Vec::new(),
        at_the_end: false,
        twins: 0,
        unclear: false,
        doubtful: false,
    };
    // The source from which each document was shown.
    let mut shown: HashMap<&[u8], usize> = HashMap::new();
    let mut scales = Scales::default();
    let mut seen = Seen::default();
    let mut position = 0;
    for source in &mut sources {
        source.advance(merging.interest)?;
    }
    let end = merging.window.end();
    while position < end || merging.to_the_end {
        if position < end {
            merged.dry = sources
                .iter()
                .enumerate()
                .filter(|(_, s)| s.is_dry())
                .map(|(at, _)| at)
                .collect();
            if !merged.dry.is_empty() {
                break;
            }
        }
        let Some(best) = best_of(&sources, merging.order) else {
            break;
        };
        scales.enter(&sources, best);
        let Some(source) = sources.get_mut(best) else {
            break;
        };
        let Some(head) = source.take() else { break };
        source.advance(merging.interest)?;
        scales.look_at(source);
        merged.doubtful |= position < end
            && merging
                .doubts
                .is_some_and(|scheme| suspects(&head.ranks, head.score, scheme));
        if let Some(id) = head.id() {
            match shown.entry(id) {
                Entry::Vacant(place) => {
                    place.insert(best);
                }
                Entry::Occupied(from) if head.again && *from.get() == best => {}
                Entry::Occupied(_) => {
                    merged.twins += usize::from(!head.again);
                    continue;
                }
            }
        }
        if let Some(path) = merging.distinct
            && !seen.admit(&values_of(path, &head, merging.hidden))
        {
            merged.duplicates += 1;
            merged.losers.push((best, head.id()));
            continue;
        }
        if position >= merging.window.skip && position < end {
            if let Some(kept) = merged.kept.get_mut(best) {
                *kept += 1;
            }
            scales.place(merged.hits.len());
            merged.hits.push(Placed {
                head,
                source: best,
                max_typos: None,
            });
        }
        position += 1;
    }
    scales.settle(&mut merged.hits);
    merged.at_the_end = sources.iter().all(|s| s.head().is_none() && !s.is_dry());
    merged.unclear = sources.iter().any(Source::is_unclear);
    Ok(merged)
}

/// The source whose head comes first: by rank, then by its place among equals, then by the sources' order.
fn best_of(sources: &[Source<'_>], order: Order) -> Option<usize> {
    let mut best: Option<(usize, &Source<'_>, &Head<'_>)> = None;
    for (at, source) in sources.iter().enumerate() {
        let Some(head) = source.head() else { continue };
        let better = match best {
            None => true,
            Some((_, other, best)) => {
                compare_heads(head, best, order).then_with(|| source.run().cmp(&other.run()))
                    == Ordering::Less
            }
        };
        if better {
            best = Some((at, source, head));
        }
    }
    best.map(|(at, _, _)| at)
}

fn compare_heads(a: &Head<'_>, b: &Head<'_>, order: Order) -> Ordering {
    match order {
        Order::Rules => compare(&a.ranks, &b.ranks),
        Order::Hybrid { ratio } => compare_hybrid(a, b, ratio),
    }
}

/// Two hits of the same kind are compared rule by rule. A keyword hit and a semantic hit are compared first by the sorts
/// that precede both, then by their weighted scores; the semantic hit wins a tie.
fn compare_hybrid(a: &Head<'_>, b: &Head<'_>, ratio: f64) -> Ordering {
    let (a_semantic, b_semantic) = (is_semantic(&a.ranks), is_semantic(&b.ranks));
    if a_semantic == b_semantic {
        return compare(&a.ranks, &b.ranks);
    }
    let sorts = |rank: &&Rank| matches!(rank, Rank::Sort { .. } | Rank::Geo { .. });
    for (x, y) in a
        .ranks
        .iter()
        .take_while(sorts)
        .zip(b.ranks.iter().take_while(sorts))
    {
        let order = x.compare(y);
        if order != Ordering::Equal {
            return order;
        }
    }
    let weighed = |head: &Head<'_>, semantic: bool| {
        head.score.unwrap_or(0.0) * if semantic { ratio } else { 1.0 - ratio }
    };
    let (x, y) = (weighed(a, a_semantic), weighed(b, b_semantic));
    if (x - y).abs() <= f64::EPSILON {
        return b_semantic.cmp(&a_semantic);
    }
    y.total_cmp(&x)
}

/// True for a hit that was found by its meaning.
pub fn is_semantic(ranks: &[Rank]) -> bool {
    ranks.iter().any(|rank| matches!(rank, Rank::Vector { .. }))
}

/// The scale of the `typo` rule for each run of hits that have the same verdicts before it.
///
/// One node measures all hits of such a run on one scale, but each shard has its own. The greatest of the shards' scales is
/// the node's. The heads beyond the window count too, since their shard may know a greater scale.
#[derive(Default)]
struct Scales {
    run: Option<(Ranks, usize, u32)>,
    /// For each run in the window: its first hit's position, and its scale.
    runs: Vec<(usize, Option<u32>)>,
    fresh: bool,
}

impl Scales {
    /// The hit at the head of `best` comes next: begins its run if that isn't the current one.
    fn enter(&mut self, sources: &[Source<'_>], best: usize) {
        let Some(head) = sources.get(best).and_then(Source::head) else {
            return;
        };
        if let Some((ranks, place, _)) = &self.run
            && (std::sync::Arc::ptr_eq(ranks, &head.ranks)
                || same_scale(ranks, &head.ranks, *place))
        {
            return;
        }
        self.fresh = true;
        self.run = typo_place(&head.ranks).map(|place| (head.ranks.clone(), place, 0));
        for source in sources {
            self.look_at(source);
        }
    }

    /// Takes a head's scale into account if it belongs to the run.
    fn look_at(&mut self, source: &Source<'_>) {
        let (Some((ranks, place, scale)), Some(head)) = (&mut self.run, source.head()) else {
            return;
        };
        if let Some(Rank::Typo { max, .. }) = head.ranks.get(*place)
            && *max > *scale
            && same_scale(ranks, &head.ranks, *place)
        {
            *scale = *max;
            if let Some((_, settled)) = self.runs.last_mut().filter(|_| !self.fresh) {
                *settled = Some(*max);
            }
        }
    }

    /// The hit entered last is at `place` in the window.
    fn place(&mut self, place: usize) {
        if self.fresh {
            self.fresh = false;
            self.runs
                .push((place, self.run.as_ref().map(|(_, _, scale)| *scale)));
        }
    }

    fn settle(&self, hits: &mut [Placed<'_>]) {
        for (at, (start, scale)) in self.runs.iter().enumerate() {
            let end = self.runs.get(at + 1).map_or(hits.len(), |(next, _)| *next);
            for hit in hits.get_mut(*start..end).unwrap_or_default() {
                hit.max_typos = *scale;
            }
        }
    }
}

#[cfg(test)]
mod tests;
