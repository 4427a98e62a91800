//! The guard, with several workers of one Envoy.

use std::rc::Rc;

use weft_filter::guard::Guarded;
use weft_filter::host::Step;
use weft_filter::root::Root;

use crate::mock::{Common, Mock};

const GUARD: &str = r#"{"mode": "guard"}"#;
const STRICT: &str = r#"{"mode": "guard", "require_term": true}"#;
const WRITE: (&str, &str) = ("POST", "/indexes/x/documents");
const READ: (&str, &str) = ("GET", "/indexes/x/documents");
const SEARCH: (&str, &str) = ("POST", "/indexes/x/search");

struct Worker {
    host: Mock,
    root: Root<Mock>,
}

/// What became of a request: it passed, or was refused with this status.
type Outcome = Result<(), u16>;

impl Worker {
    fn of(common: &Rc<Common>, configuration: &str) -> Self {
        let host = Mock::sharing(common);
        let root = Root::configure(host.clone(), configuration.as_bytes()).unwrap();
        Self { host, root }
    }

    fn alone(configuration: &str) -> Self {
        Self::of(&Rc::default(), configuration)
    }

    /// Begins a request with these values of the header.
    fn begin(
        &self,
        (method, path): (&str, &str),
        terms: &[&str],
        ends: bool,
    ) -> (Guarded<Mock>, Outcome) {
        let fixed = [(":method", method), (":path", path), ("x-other", "1")];
        let terms = terms.iter().map(|term| ("x-weft-term", *term));
        *self.host.0.request.borrow_mut() = fixed
            .into_iter()
            .chain(terms)
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .collect();
        self.host.0.responded.set(None);
        let mut request = Guarded::new(self.root.shared());
        let step = request.on_request_headers(ends);
        let outcome = self.outcome(step);
        if outcome.is_ok() {
            assert!(self.host.sent("x-weft-term").is_empty(), "the node sees it");
            assert_eq!(self.host.sent("x-other"), ["1"]);
        }
        (request, outcome)
    }

    fn outcome(&self, step: Step) -> Outcome {
        match (step, self.host.0.responded.get()) {
            (Step::Continue, None) => Ok(()),
            (Step::Hold, Some(status)) => Err(status),
            other => panic!("{other:?}"),
        }
    }

    fn ask(&self, what: (&str, &str), terms: &[&str]) -> Outcome {
        self.begin(what, terms, true).1
    }

    fn write(&self, term: u64) -> Outcome {
        self.ask(WRITE, &[&term.to_string()])
    }

    fn code(&self) -> String {
        let body = self.host.response_body_text();
        let error: serde_json::Value = serde_json::from_str(&body).unwrap();
        for name in ["message", "type", "link"] {
            assert!(error[name].is_string(), "{body}");
        }
        assert_eq!(self.host.response("content-type"), "application/json");
        error["code"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_write_of_an_older_term_is_refused_and_says_why() {
    let worker = Worker::alone(GUARD);
    assert_eq!(worker.write(7), Ok(()));
    assert_eq!(worker.write(7), Ok(()));
    assert_eq!(worker.write(9), Ok(()));
    assert_eq!(worker.write(8), Err(412));
    assert_eq!(worker.code(), "stale_term");
    assert_eq!(worker.host.response("x-weft-guard"), "stale");
    assert!(worker.host.response_body_text().contains("term 8 sent"));
    for method in ["PUT", "PATCH", "DELETE"] {
        assert_eq!(worker.ask((method, "/indexes/x"), &["8"]), Err(412));
        assert_eq!(worker.ask((method, "/indexes/x"), &["9"]), Ok(()));
    }
}

#[test]
fn a_request_without_a_term_passes() {
    let worker = Worker::alone(GUARD);
    assert_eq!(worker.write(7), Ok(()));
    for what in [
        WRITE,
        READ,
        SEARCH,
        ("GET", "/health"),
        ("DELETE", "/indexes/x"),
    ] {
        assert_eq!(worker.ask(what, &[]), Ok(()), "{what:?}");
    }
}

#[test]
fn where_terms_are_required_a_write_without_one_is_refused() {
    let worker = Worker::alone(STRICT);
    for what in [READ, SEARCH, ("HEAD", "/health"), ("OPTIONS", "/indexes")] {
        assert_eq!(worker.ask(what, &[]), Ok(()), "{what:?}");
    }
    for what in [WRITE, ("DELETE", "/indexes/x"), ("POST", "/nowhere")] {
        assert_eq!(worker.ask(what, &[]), Err(412), "{what:?}");
        assert_eq!(worker.code(), "missing_term");
        assert_eq!(worker.host.response("x-weft-guard"), "missing");
    }
    assert_eq!(worker.write(0), Ok(()));
}

#[test]
fn a_malformed_header_is_refused_on_every_request() {
    for configuration in [GUARD, STRICT] {
        let worker = Worker::alone(configuration);
        for what in [WRITE, READ] {
            for terms in [
                &["seven"][..],
                &[""],
                &["7", "7"],
                &["7", "8"],
                &["7,8"],
                &["-1"],
            ] {
                assert_eq!(worker.ask(what, terms), Err(412), "{what:?} {terms:?}");
                assert_eq!(worker.code(), "invalid_term");
            }
        }
        assert_eq!(worker.write(0), Ok(()), "a refused request was noted");
    }
}

#[test]
fn a_read_passes_whatever_its_term_and_makes_a_newer_one_known() {
    let worker = Worker::alone(GUARD);
    assert_eq!(worker.write(7), Ok(()));
    for what in [READ, SEARCH] {
        assert_eq!(worker.ask(what, &["6"]), Ok(()));
    }
    assert_eq!(worker.write(7), Ok(()));
    assert_eq!(worker.ask(READ, &["8"]), Ok(()));
    assert_eq!(worker.write(7), Err(412));
}

#[test]
fn a_body_that_comes_after_a_newer_leader_was_heard_doesnt_reach_its_end() {
    let common = Rc::default();
    let (one, two) = (Worker::of(&common, GUARD), Worker::of(&common, GUARD));
    let (mut write, begun) = one.begin(WRITE, &["7"], false);
    assert_eq!(begun, Ok(()));
    assert_eq!(write.on_request_body(), Step::Continue);
    assert_eq!(two.ask(READ, &["8"]), Ok(()));
    let step = write.on_request_body();
    assert_eq!(one.outcome(step), Err(412));
    assert_eq!(one.code(), "stale_term");
    one.host.0.responded.set(None);
    assert_eq!(write.on_request_body(), Step::Hold);
    assert_eq!(one.host.0.responded.get(), None, "it was answered twice");
    // Neither does a read's body, or a write by hand.
    for (what, terms) in [(SEARCH, &["7"][..]), (WRITE, &[])] {
        let (mut other, begun) = one.begin(what, terms, false);
        assert_eq!((begun, other.on_request_body()), (Ok(()), Step::Continue));
    }
}

#[test]
fn what_was_refused_has_no_body_for_the_node() {
    let worker = Worker::alone(GUARD);
    assert_eq!(worker.write(7), Ok(()));
    let (mut write, begun) = worker.begin(WRITE, &["6"], false);
    assert_eq!((begun, write.on_request_body()), (Err(412), Step::Hold));
}

#[test]
fn no_write_with_a_term_passes_while_the_newest_one_is_not_known() {
    let common = Rc::<Common>::default();
    let worker = Worker::of(&common, GUARD);
    let (mut begun, outcome) = worker.begin(WRITE, &["7"], false);
    assert_eq!(outcome, Ok(()));
    for break_it in [
        |common: &Common| common.unreadable.set(true),
        |common: &Common| common.unchangeable.set(true),
        |common: &Common| common.put(b"nonsense!"),
    ] {
        common.put(&7_u64.to_le_bytes());
        break_it(&common);
        assert_eq!(worker.write(8), Err(503));
        assert_eq!(worker.code(), "internal");
        assert_eq!(worker.ask(READ, &["8"]), Ok(()));
        assert_eq!(worker.ask(WRITE, &[]), Ok(()));
        common.unreadable.set(false);
        common.unchangeable.set(false);
    }
    let step = begun.on_request_body();
    assert_eq!(worker.outcome(step), Err(503));
    worker.host.0.request.borrow_mut().clear();
    let nothing = Guarded::new(worker.root.shared()).on_request_headers(true);
    assert_eq!(nothing, Step::Hold, "a head that can't be read passes");
}

#[test]
fn over_several_workers_no_older_term_passes_after_a_newer_one() {
    const WORKERS: usize = 3;
    const LENGTH: u32 = 5;
    let choices = 3 * WORKERS;
    for mut number in 0..choices.pow(LENGTH) {
        let common = Rc::default();
        let workers = [GUARD, STRICT, GUARD].map(|mode| Worker::of(&common, mode));
        let mut newest = 0;
        let mut said = Vec::new();
        for _ in 0..LENGTH {
            let term = 1 + (number % 3) as u64;
            let worker = number / 3 % WORKERS;
            number /= choices;
            let outcome = workers[worker].write(term);
            said.push((worker, term, outcome));
            assert_eq!(outcome.is_ok(), term >= newest, "{said:?}");
            newest = newest.max(term);
        }
    }
}

#[test]
fn workers_that_note_terms_at_the_same_time_dont_undo_each_other() {
    let terms = || 1..=4_u64;
    for before in 0..=4_u64 {
        for (outer, inner) in terms().flat_map(|outer| terms().map(move |inner| (outer, inner))) {
            let common = Rc::<Common>::default();
            if before > 0 {
                common.put(&before.to_le_bytes());
            }
            let (one, two) = (Worker::of(&common, GUARD), Worker::of(&common, GUARD));
            let meanwhile = move || {
                assert_eq!(two.write(inner).is_ok(), inner >= before);
            };
            *common.meanwhile.borrow_mut() = Some(Box::new(meanwhile));
            let outcome = one.write(outer);
            let what = format!("{before}, then {outer}, and {inner} meanwhile: {outcome:?}");
            // As new as what it read, it came first; otherwise it saw what the other one had noted.
            let newest = before.max(inner);
            assert_eq!(
                outcome.is_ok(),
                outer == before || outer >= newest,
                "{what}"
            );
            let noted = u64::from_le_bytes(common.bytes().unwrap().try_into().unwrap());
            assert_eq!(noted, newest.max(outer), "{what}");
            assert_eq!(one.write(noted - 1), Err(412), "{what}");
            assert_eq!(one.write(noted), Ok(()), "{what}");
        }
    }
}

#[test]
fn a_guard_asks_for_no_table_and_reports_what_it_did() {
    let common = Rc::default();
    let (mut one, mut two) = (Worker::of(&common, GUARD), Worker::of(&common, GUARD));
    assert_eq!(one.host.0.tick_ms.get(), 250);
    one.root.on_tick();
    assert_eq!(one.host.metric("weft_filter_guard_term"), 0);
    assert_eq!(one.write(7), Ok(()));
    assert_eq!(two.write(8), Ok(()));
    assert_eq!(one.write(7), Err(412));
    one.root.on_tick();
    two.root.on_tick();
    assert_eq!(one.host.metric("weft_filter_guard_term"), 8);
    assert_eq!(two.host.metric("weft_filter_guard_term"), 8);
    assert_eq!(one.host.metric("weft_filter_guard_refused"), 1);
    assert_eq!(two.host.metric("weft_filter_guard_refused"), 0);
    assert!(one.host.0.calls.borrow().is_empty());
    assert!(one.host.sent("x-weft-op").is_empty() && one.host.sent("x-weft-cluster").is_empty());
}
