//! The guard in front of one node: no write of a merger passes once a merger of a newer term was heard.
//!
//! ```text
//! head ─┬─ no term ───────────────► passes; a write only where terms aren't required
//!       ├─ as new as any, or newer ► noted, the header taken off, passes ─► each piece of the body: still as new as any?
//!       └─ older ─────────────────► a write is refused, a read passes        ├─ yes: passes
//!                                                                            └─ no: refused, so the node gets half a request
//! ```
//!
//! The newest term is shared by all workers of this Envoy, and changed by compare-and-swap only. The body is judged, too, because
//! it may come slowly: a merger that was stopped in the middle of a write, and goes on after its successor has written, must not
//! end that write. Nothing is held back, so this works where Envoy can't stop a filter's iteration.
//!
//! Invariants: the noted term never decreases; whenever it can't be read or noted, no write with a term passes.

use std::borrow::Cow;
use std::rc::Rc;

use weft_routing::{Term, headers, may_change};

use crate::host::{Change, Host, SharedData, Step};
use crate::metrics::Counter;
use crate::root::Shared;

/// The key under which the workers share the newest term, as eight bytes, the least significant one first.
const KEY: &str = "weft.term";
/// A version that no value has. Where there is no value yet, only the first worker may note one: version 0 would let the second
/// one overwrite it.
const NO_VERSION: u32 = u32::MAX;
/// How often a newer term is noted again because another worker was quicker. Each time the noted term has grown.
const ATTEMPTS: usize = 100;

/// One request to the node.
pub struct Guarded<H> {
    shared: Rc<Shared<H>>,
    state: State,
}

enum State {
    /// Its body passes without being judged.
    Free,
    /// A write of this term has been let through, and its body is under way.
    Writing(Term),
    /// It was refused: nothing more of it passes.
    Refused,
}

/// The header as it came.
enum Sent {
    Nothing,
    Term(Term),
    /// Not a number, or more than one header.
    Malformed,
}

/// What a term is among those that were seen.
enum Standing {
    /// None is newer. It is noted.
    Newest,
    /// This one is newer.
    Older(Term),
    /// The workers' common knowledge can't be read or changed.
    Unknown,
}

/// Why a request is refused.
enum Refusal {
    Stale { sent: Term, newest: Term },
    Missing,
    Malformed,
    Unknown,
}

impl<H: Host> Guarded<H> {
    /// The state of a new request.
    #[must_use]
    pub fn new(shared: Rc<Shared<H>>) -> Self {
        Self {
            shared,
            state: State::Free,
        }
    }

    /// Judges the request's head, before anything of it goes to the node.
    pub fn on_request_headers(&mut self, end_of_stream: bool) -> Step {
        let host = &self.shared.host;
        let all = host.request_headers();
        let (mut method, mut path, mut sent) = ("", Cow::Borrowed(""), Sent::Nothing);
        for (name, value) in all.iter() {
            match name {
                ":method" => method = std::str::from_utf8(value).unwrap_or_default(),
                ":path" => path = String::from_utf8_lossy(value),
                headers::TERM => sent = sent.and(value),
                _ => {}
            }
        }
        // Envoy gives no head, so nobody knows what is in it.
        if method.is_empty() {
            return self.refuse(&Refusal::Unknown);
        }
        let term = match sent {
            Sent::Malformed => return self.refuse(&Refusal::Malformed),
            Sent::Nothing => {
                let required = self.shared.config.require_term && may_change(method, &path);
                return match required {
                    true => self.refuse(&Refusal::Missing),
                    false => Step::Continue,
                };
            }
            Sent::Term(term) => term,
        };
        host.remove_request_header(headers::TERM);
        // A read makes its term known as well: so a new leader is heard by the first thing that it asks.
        let standing = note(host, term);
        if !may_change(method, &path) {
            return Step::Continue;
        }
        match standing {
            Standing::Newest if end_of_stream => Step::Continue,
            Standing::Newest => {
                self.state = State::Writing(term);
                Step::Continue
            }
            Standing::Older(newest) => self.refuse(&Refusal::Stale { sent: term, newest }),
            Standing::Unknown => self.refuse(&Refusal::Unknown),
        }
    }

    /// Judges the request again when more of its body has come, or its trailers, before they go to the node.
    pub fn on_request_body(&mut self) -> Step {
        match self.state {
            State::Free => Step::Continue,
            State::Refused => Step::Hold,
            State::Writing(sent) => match newest(&self.shared.host) {
                Some(newest) if newest <= sent => Step::Continue,
                Some(newest) => self.refuse(&Refusal::Stale { sent, newest }),
                None => self.refuse(&Refusal::Unknown),
            },
        }
    }

    fn refuse(&mut self, refusal: &Refusal) -> Step {
        self.state = State::Refused;
        self.shared.count(Counter::GuardRefused);
        let (status, why) = refusal.status();
        let answer = [("content-type", "application/json"), (headers::GUARD, why)];
        let body = refusal.body();
        self.shared.host.respond_with(status, &answer, &body);
        Step::Hold
    }
}

impl Sent {
    fn and(self, value: &[u8]) -> Self {
        match (self, Term::parse(value)) {
            (Self::Nothing, Some(term)) => Self::Term(term),
            _ => Self::Malformed,
        }
    }
}

impl Refusal {
    /// The status, and the value of the header by which the merger tells this answer from a node's.
    fn status(&self) -> (u16, &'static str) {
        match self {
            Self::Stale { .. } => (412, headers::GUARD_STALE),
            Self::Missing => (412, "missing"),
            Self::Malformed => (412, "malformed"),
            Self::Unknown => (503, "unknown"),
        }
    }

    /// The body, in Meilisearch's error shape.
    fn body(&self) -> String {
        let (message, code, kind) = match self {
            Self::Stale { sent, newest } => (
                format!(
                    "A merger of term {} sent this write, and one of term {} leads by now.",
                    sent.0, newest.0
                ),
                "stale_term",
                "invalid_request",
            ),
            Self::Missing => (
                format!(
                    "The guard of this node wants the header `{}` with each write.",
                    headers::TERM
                ),
                "missing_term",
                "invalid_request",
            ),
            Self::Malformed => (
                format!("The header `{}` must be one number.", headers::TERM),
                "invalid_term",
                "invalid_request",
            ),
            Self::Unknown => (
                "The guard of this node can't tell which term is the newest.".to_owned(),
                "internal",
                "internal",
            ),
        };
        let link = format!("https://docs.meilisearch.com/errors#{code}");
        // No text here has a character that JSON escapes.
        format!(r#"{{"message":"{message}","code":"{code}","type":"{kind}","link":"{link}"}}"#)
    }
}

/// The newest term that was noted, 0 if none was; `None` if Envoy doesn't say.
pub fn newest(host: &impl Host) -> Option<Term> {
    match host.shared_data(KEY) {
        SharedData::Absent => Some(Term(0)),
        SharedData::Value { bytes, .. } => term_of(&bytes),
        SharedData::Unknown => None,
    }
}

/// Notes a term unless a newer one is noted already.
fn note(host: &impl Host, term: Term) -> Standing {
    for _ in 0..ATTEMPTS {
        let version = match host.shared_data(KEY) {
            SharedData::Absent => NO_VERSION,
            SharedData::Value { bytes, version } => match term_of(&bytes) {
                Some(newest) if newest > term => return Standing::Older(newest),
                Some(newest) if newest == term => return Standing::Newest,
                Some(_) => version,
                None => return Standing::Unknown,
            },
            SharedData::Unknown => return Standing::Unknown,
        };
        match host.set_shared_data(KEY, &term.0.to_le_bytes(), version) {
            Change::Made => return Standing::Newest,
            Change::Overtaken => {}
            Change::Refused => return Standing::Unknown,
        }
    }
    Standing::Unknown
}

fn term_of(bytes: &[u8]) -> Option<Term> {
    bytes.try_into().ok().map(u64::from_le_bytes).map(Term)
}
