use weft_filter::root::Root;
use weft_routing::{Epoch, RoutingTable, TableChange};

use crate::mock::{Filter, Mock, owner, table};

const DOCUMENT: &str = "/indexes/wide/documents/1";

#[test]
fn the_table_is_asked_for_with_the_epoch_held() {
    let mut filter = Filter::new();
    assert_eq!(
        filter.host.last_call().header(":path"),
        Some("/_weft/table")
    );
    filter.root.on_tick();
    let call = filter.host.last_call();
    assert_eq!(
        (call.cluster.as_str(), call.header(":path")),
        ("merger", Some("/_weft/table?epoch=7&changes=true"))
    );
    assert_eq!(filter.host.0.tick_ms.get(), 250);
}

#[test]
fn one_question_is_under_way_at_a_time_unless_it_was_lost() {
    let mut filter = Filter::new();
    filter.root.on_tick();
    let asked = filter.host.0.calls.borrow().len();
    filter.root.on_tick();
    assert_eq!(filter.host.0.calls.borrow().len(), asked);
    filter.host.0.now_ms.set(10_000);
    filter.root.on_tick();
    assert_eq!(filter.host.0.calls.borrow().len(), asked + 1);
}

#[test]
fn a_lease_that_ran_out_sends_everything_to_the_merger() {
    let filter = Filter::new();
    filter.host.0.now_ms.set(999);
    assert_eq!(filter.routed("GET", DOCUMENT, &[]), owner("1"));
    filter.host.0.now_ms.set(1000);
    for (method, path) in [
        ("GET", DOCUMENT),
        ("DELETE", DOCUMENT),
        ("POST", "/indexes/tiny/search"),
    ] {
        assert_eq!(
            filter.routed(method, path, &[]),
            "merger",
            "{method} {path}"
        );
    }
    assert_eq!(filter.metric("weft_filter_requests_table_stale"), 3);
    filter.routed("GET", "/health", &[]);
    assert_eq!(
        filter.metric("weft_filter_requests_table_stale"),
        3,
        "health needs no table"
    );
}

#[test]
fn a_confirmation_renews_the_lease_from_when_it_was_asked_for() {
    for status in [204, 304] {
        let mut filter = Filter::new();
        filter.host.0.now_ms.set(800);
        filter.root.on_tick();
        filter.host.0.now_ms.set(900);
        filter.answer_poll(status, b"");
        filter.host.0.now_ms.set(1799);
        assert_eq!(filter.routed("GET", DOCUMENT, &[]), owner("1"));
        filter.host.0.now_ms.set(1800);
        assert_eq!(filter.routed("GET", DOCUMENT, &[]), "merger");
    }
}

#[test]
fn failures_leave_the_lease_to_run_out() {
    let older = RoutingTable {
        epoch: Epoch(6),
        ..table()
    };
    let answers: [(u16, Vec<u8>); 5] = [
        (500, Vec::new()),
        (404, Vec::new()),
        (200, b"{}".to_vec()),
        (200, Vec::new()),
        (200, older.to_json().unwrap().into_bytes()),
    ];
    for (status, body) in answers {
        let mut filter = Filter::new();
        filter.host.0.now_ms.set(500);
        filter.root.on_tick();
        filter.answer_poll(status, &body);
        assert_eq!(
            filter.metric("weft_filter_table_poll_failed"),
            1,
            "{status}"
        );
        assert_eq!(filter.routed("GET", DOCUMENT, &[]), owner("1"));
        filter.host.0.now_ms.set(1000);
        assert_eq!(filter.routed("GET", DOCUMENT, &[]), "merger");
    }
}

#[test]
fn a_merger_that_cant_be_reached_is_asked_again_at_the_next_tick() {
    let mut filter = Filter::new();
    filter.host.0.calls_fail.set(true);
    filter.root.on_tick();
    filter.host.0.calls_fail.set(false);
    let asked = filter.host.0.calls.borrow().len();
    filter.root.on_tick();
    assert_eq!(filter.host.0.calls.borrow().len(), asked + 1);
    // A failed call calls back without headers.
    *filter.host.0.answer.borrow_mut() = None;
    filter.root.on_call_response(filter.host.last_call().token);
    assert_eq!(filter.metric("weft_filter_table_poll_failed"), 2);
}

#[test]
fn a_new_table_is_taken_over_and_an_answer_to_nothing_is_ignored() {
    let mut filter = Filter::new();
    filter.root.on_call_response(999);
    filter.root.on_tick();
    let newer = RoutingTable {
        epoch: Epoch(8),
        indexes: Default::default(),
        ..table()
    };
    filter.answer_poll(200, newer.to_json().unwrap().as_bytes());
    assert_eq!(filter.metric("weft_filter_table_epoch"), 8);
    assert_eq!(filter.routed("GET", DOCUMENT, &[]), "merger");
}

#[test]
fn a_change_of_the_held_table_is_taken_over_and_one_of_another_is_not() {
    let mut filter = Filter::new();
    let change = |since| TableChange {
        since: Epoch(since),
        epoch: Epoch(9),
        lease_ms: 1000,
        gone: vec!["wide".to_owned()],
        ..TableChange::default()
    };
    filter.host.0.now_ms.set(500);
    filter.root.on_tick();
    filter.answer_poll(200, change(8).to_json().unwrap().as_bytes());
    assert_eq!(filter.metric("weft_filter_table_poll_failed"), 1);
    assert_eq!(filter.routed("GET", DOCUMENT, &[]), owner("1"));
    filter.host.0.now_ms.set(1_000);
    assert_eq!(filter.routed("GET", DOCUMENT, &[]), "merger", "its lease");
    filter.root.on_tick();
    filter.answer_poll(200, change(7).to_json().unwrap().as_bytes());
    assert_eq!(filter.metric("weft_filter_table_epoch"), 9);
    assert_eq!(filter.routed("GET", DOCUMENT, &[]), "merger", "it is gone");
    let tiny = "/indexes/tiny/documents/1";
    assert_eq!(
        filter.routed("GET", tiny, &[]),
        "shard-2",
        "it is as it was"
    );
    filter.host.0.now_ms.set(2_000);
    assert_eq!(
        filter.routed("GET", tiny, &[]),
        "merger",
        "a lease of its own"
    );
}

#[test]
fn the_configuration_bounds_the_lease() {
    let filter = Filter::configured(r#"{"max_lease_ms": 100}"#);
    filter.host.0.now_ms.set(100);
    assert_eq!(filter.routed("GET", DOCUMENT, &[]), "merger");
}

#[test]
fn a_bad_configuration_is_refused_with_a_line_in_the_log() {
    let host = Mock::default();
    assert!(Root::configure(host.clone(), b"{\"body_rooting\": true}").is_none());
    assert!(host.0.log.borrow()[0].contains("`body_routing`"));
}
