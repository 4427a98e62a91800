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

/// A hit, with what it is ordered by.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    /// The text that contains it.
    pub text: &'a [u8],
    /// Its position in the text.
    pub span: HitSpan,
    /// The rules' verdicts; empty if the shard wasn't asked for them.
    pub ranks: Ranks,
    /// The shard's own score, if it was asked for.
    pub score: Option<f64>,
    /// True if the verdict on exactness was corrected and isn't the shard's own any more.
    pub corrected: bool,
    /// True if the verdicts on words or proximity were converted, because the shard saw only a part of the query.
    pub in_part: bool,
    /// The number of neighbouring pairs whose distance the shard measured, if that was asked for and can be computed.
    pub pairs: Option<u32>,
    /// True if a sorted list of documents has already contained this document: see [`place`].
    pub again: bool,
}

impl<'a> Head<'a> {
    /// The document's id as text, whether it is a number or a string.
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
    /// The remaining answers: each one's text, and where its array of hits begins.
    pages: std::vec::IntoIter<(&'a [u8], usize)>,
    page: Option<(&'a [u8], Elements<'a>)>,
    head: Option<Head<'a>>,
    /// How many hits with the head's ranks came before the head.
    run: usize,
    /// The details read last, as text and as ranks: ties come in long runs with the same text.
    last: Option<(&'a [u8], Ranks)>,
    /// The ranks of the hit read last, for counting the run.
    before: Option<Ranks>,
    unranked: Ranks,
    more: bool,
    /// The number of hits read.
    read: usize,
    /// The number of hits asked for. If the shard gave fewer, it has no more.
    asked: usize,
    /// For documents with several places in a sorted list: how often each was listed so far.
    listed: HashMap<&'a [u8], usize>,
    known: Option<(Scheme, Known)>,
    part: Option<(Scheme, Part)>,
    pairs: Option<(Scheme, Pairs)>,
    unclear: bool,
}

impl<'a> Source<'a> {
    /// A source of `pages`: each a text, and where its array of hits begins. `more` says that the shard has further hits.
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

    /// Sets how many hits the shard was asked for: a shard that gave fewer has no more.
    #[must_use]
    pub fn asked_for(mut self, asked: usize) -> Self {
        self.asked = asked;
        self
    }

    /// Sets what the shard knows of the query's words, by which its verdicts on exactness are corrected.
    #[must_use]
    pub fn knowing(mut self, scheme: Scheme, known: Known) -> Self {
        self.known = Some((scheme, known));
        self
    }

    /// Sets the part of the search that the shard was asked for.
    #[must_use]
    pub fn in_part(mut self, scheme: Scheme, part: Part) -> Self {
        self.part = Some((scheme, part));
        self
    }

    /// Sets the scales of the `proximity` rule, for searches where hits with equally many words may have different ones.
    #[must_use]
    pub fn on_scales(mut self, scheme: Scheme, pairs: Pairs) -> Self {
        self.pairs = Some((scheme, pairs));
        self
    }

    /// True if the shard split the query into other words than the merger did: its hits aren't that part of the search.
    pub fn is_unclear(&self) -> bool {
        self.unclear
    }

    /// The next hit.
    pub fn head(&self) -> Option<&Head<'a>> {
        self.head.as_ref()
    }

    /// How many hits of this source with the same rank came before its head.
    pub fn run(&self) -> usize {
        self.run
    }

    /// True if all hits were taken and the shard has more.
    pub fn is_dry(&self) -> bool {
        self.head.is_none() && self.more && self.read >= self.asked
    }

    /// Takes the head; [`Source::advance`] reads the next one.
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

    /// A document's ranks by its own values, and whether it was already listed before.
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
