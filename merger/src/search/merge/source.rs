//! One shard's hits, read one at a time.

use std::sync::Arc;

use hashbrown::HashMap;
use serde_json::Value;

use super::pairs::{Pairs, pairs_in};
use super::part::{Part, Placing};
use crate::search::hit::{HitSpan, Interest};
use crate::search::rank::{Known, Rank, Ranks, Scheme, compare, correct, read_details};
use crate::search::scan::{Elements, Malformed, number};
use crate::search::sort_key::place;

/// A hit with what orders it.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    /// The text that it stands in.
    pub text: &'a [u8],
    /// Where.
    pub span: HitSpan,
    /// The rules' verdicts; empty where the shard wasn't asked for them.
    pub ranks: Ranks,
    /// The shard's own score, where it was asked for.
    pub score: Option<f64>,
    /// True where the verdict on exactness isn't the shard's own any more.
    pub corrected: bool,
    /// True where the verdicts on words or proximity aren't: the shard saw only a part of what one node would have seen.
    pub in_part: bool,
    /// Pairs of neighbours whose distance the shard measured, where that was asked for and can be told.
    pub pairs: Option<u32>,
    /// True in a sorted list of documents that has had this one already: see [`place`].
    pub again: bool,
}

impl<'a> Head<'a> {
    /// The document's id as text, whether the document has it as a number or as a string.
    pub fn id(&self) -> Option<&'a [u8]> {
        id_of(self.text, &self.span)
    }
}

fn id_of<'a>(text: &'a [u8], span: &HitSpan) -> Option<&'a [u8]> {
    let text = text.get(span.id.clone()?)?;
    let inner = text
        .strip_prefix(b"\"")
        .and_then(|text| text.strip_suffix(b"\""));
    Some(inner.unwrap_or(text))
}

/// One shard's hits, best first, in one or more answers.
#[derive(Debug)]
pub struct Source<'a> {
    /// The answers' texts, with where each one's array of hits begins.
    pages: std::vec::IntoIter<(&'a [u8], usize)>,
    page: Option<(&'a [u8], Elements<'a>)>,
    head: Option<Head<'a>>,
    /// How many hits with the head's ranks came before it.
    run: usize,
    /// The details last read, as text and as ranks: ties come in long runs of the same text.
    last: Option<(&'a [u8], Ranks)>,
    /// The ranks of the hit read last, to count the run.
    before: Option<Ranks>,
    unranked: Ranks,
    more: bool,
    /// How many hits were read.
    read: usize,
    /// With fewer hits than this there are none behind them.
    asked: usize,
    /// How often documents were listed that have several places in a sorted list.
    listed: HashMap<&'a [u8], usize>,
    known: Option<(Scheme, Known)>,
    part: Option<(Scheme, Part)>,
    pairs: Option<(Scheme, Pairs)>,
    unclear: bool,
}

impl<'a> Source<'a> {
    /// A source of `pages`, each a text and where its array of hits begins. `more` says that the shard has hits behind them.
    pub fn new(pages: Vec<(&'a [u8], usize)>, more: bool) -> Self {
        Self {
            pages: pages.into_iter(),
            page: None,
            head: None,
            run: 0,
            last: None,
            before: None,
            unranked: Arc::from(Vec::<Rank>::new()),
            more,
            read: 0,
            asked: 0,
            listed: HashMap::new(),
            known: None,
            part: None,
            pairs: None,
            unclear: false,
        }
    }

    /// With how many hits the shard was asked for: one that gave fewer has no more.
    #[must_use]
    pub fn asked_for(mut self, asked: usize) -> Self {
        self.asked = asked;
        self
    }

    /// With what the shard knows of the query's words, by which its verdicts on exactness are corrected.
    #[must_use]
    pub fn knowing(mut self, scheme: Scheme, known: Known) -> Self {
        self.known = Some((scheme, known));
        self
    }

    /// With the part of the search that the shard was asked for.
    #[must_use]
    pub fn in_part(mut self, scheme: Scheme, part: Part) -> Self {
        self.part = Some((scheme, part));
        self
    }

    /// With the scales of the `proximity` rule, where hits of as many words need not have the same ones.
    #[must_use]
    pub fn on_scales(mut self, scheme: Scheme, pairs: Pairs) -> Self {
        self.pairs = Some((scheme, pairs));
        self
    }

    /// True where the shard saw other words than the merger thought: what it gave isn't that part of the search.
    pub fn is_unclear(&self) -> bool {
        self.unclear
    }

    /// The hit whose turn comes next.
    pub fn head(&self) -> Option<&Head<'a>> {
        self.head.as_ref()
    }

    /// How many hits of this source, equal in rank to its head, came before it.
    pub fn run(&self) -> usize {
        self.run
    }

    /// True where all hits were taken and the shard has more.
    pub fn is_dry(&self) -> bool {
        self.head.is_none() && self.more && self.read >= self.asked
    }

    /// Takes the head; [`Source::advance`] brings the next.
    pub fn take(&mut self) -> Option<Head<'a>> {
        self.head.take()
    }

    /// Reads the next hit.
    ///
    /// # Errors
    /// The text isn't an array of objects.
    pub fn advance(&mut self, interest: &Interest) -> Result<(), Malformed> {
        self.head = None;
        loop {
            if self.page.is_none() {
                let Some((text, at)) = self.pages.next() else {
                    return Ok(());
                };
                self.page = Some((text, Elements::new(text, at)));
            }
            let Some((text, elements)) = &mut self.page else {
                return Ok(());
            };
            let text = *text;
            let Some(at) = elements.enter()? else {
                self.page = None;
                continue;
            };
            let span = HitSpan::read(text, at, interest)?;
            elements.resume(span.range.end);
            self.read += 1;
            let score = span
                .score
                .clone()
                .and_then(|range| number(text.get(range)?));
            let (ranks, again) = if interest.sort.is_empty() {
                (self.ranks(text, &span)?, false)
            } else {
                self.sorted(text, &span, interest)
            };
            let mut head = Head {
                text,
                span,
                ranks,
                score,
                corrected: false,
                in_part: false,
                pairs: None,
                again,
            };
            if let Some((scheme, _)) = &self.pairs {
                head.pairs = pairs_in(&head.ranks, head.score, *scheme);
            }
            if let Some((scheme, part)) = &self.part {
                match part.place(&head.ranks, score, *scheme) {
                    Placing::Inside(placed) => {
                        (head.ranks, head.score) = (placed.ranks, placed.score);
                        (head.corrected, head.in_part) = (placed.corrected, true);
                    }
                    Placing::Outside => continue,
                    Placing::Unclear => {
                        self.unclear = true;
                        continue;
                    }
                }
            }
            if let Some((scheme, pairs)) = &self.pairs
                && let (Some(own), Some(score)) = (head.pairs, head.score)
                && let Some((ranks, score)) = pairs.widen(&head.ranks, score, *scheme, own)
            {
                (head.ranks, head.score, head.in_part) = (ranks, Some(score), true);
            }
            if let Some((scheme, known)) = &self.known
                && let Some((ranks, score)) = head
                    .score
                    .and_then(|score| correct(&head.ranks, score, *scheme, known))
            {
                (head.ranks, head.score, head.corrected) = (ranks, Some(score), true);
            }
            let same = self.before.as_ref().is_some_and(|before| {
                Arc::ptr_eq(before, &head.ranks) || compare(before, &head.ranks).is_eq()
            });
            self.run = if same { self.run + 1 } else { 0 };
            self.before = Some(head.ranks.clone());
            self.head = Some(head);
            return Ok(());
        }
    }

    /// The hit's ranks, as the shard reports them.
    fn ranks(&mut self, text: &'a [u8], span: &HitSpan) -> Result<Ranks, Malformed> {
        let details = span.details.clone().and_then(|range| text.get(range));
        let Some(details) = details else {
            return Ok(self.unranked.clone());
        };
        if let Some((last, ranks)) = &self.last
            && *last == details
        {
            return Ok(ranks.clone());
        }
        let ranks = read_details(details)?;
        self.last = Some((details, ranks.clone()));
        Ok(ranks)
    }

    /// A document's ranks by its own values, and whether it was listed before.
    fn sorted(&mut self, text: &'a [u8], span: &HitSpan, interest: &Interest) -> (Ranks, bool) {
        let hit = text.get(span.range.clone()).unwrap_or_default();
        let document: Value = serde_json::from_slice(hit).unwrap_or_default();
        let mut times = 0;
        let ranks = place(&interest.sort, &document, |places| {
            if places > 1
                && let Some(id) = id_of(text, span)
            {
                let listed = self.listed.entry(id).or_default();
                times = *listed;
                *listed += 1;
            }
            times
        });
        (ranks.into(), times > 0)
    }
}
