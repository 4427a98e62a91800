use weft_filter::host::Step;
use weft_filter::request::Request;

use crate::mock::{Filter, Mock, owner};

const JSON: (&str, &str) = ("content-type", "application/json");
const ANSWER: &str = r#"{"taskUid":17,"indexUid":"wide","status":"enqueued","type":"documentAdditionOrUpdate","enqueuedAt":"2025-01-01T00:00:00Z"}"#;

fn post(filter: &Filter, more: &[(&str, &str)]) -> (Request<Mock>, Step) {
    let mut request = filter.request("POST", "/indexes/wide/documents", more);
    let step = request.on_request_headers(false);
    (request, step)
}

fn send(filter: &Filter, request: &mut Request<Mock>, body: &str) -> Step {
    *filter.host.0.request_body.borrow_mut() = body.as_bytes().to_vec();
    request.on_request_body(body.len(), true)
}

/// A direct write that its node answered with `status` and `body`.
fn answered(filter: &Filter, status: &str, body: &str) -> (Request<Mock>, Step) {
    let trace = [
        JSON,
        ("x-request-id", "r-1"),
        ("traceparent", "00-a-b-01"),
        ("accept-encoding", "br"),
    ];
    let (mut request, _) = post(filter, &trace);
    send(filter, &mut request, "{\"id\":1}");
    assert_eq!(filter.host.cluster(), owner("1"));
    filter
        .host
        .0
        .response
        .borrow_mut()
        .insert(":status".to_owned(), status.to_owned());
    *filter.host.0.response_body.borrow_mut() = body.as_bytes().to_vec();
    let step = request.on_response_headers(false);
    if step == Step::Continue {
        return (request, step);
    }
    assert_eq!(request.on_response_body(1, false), Step::Hold);
    let step = request.on_response_body(body.len(), true);
    (request, step)
}

fn assert_failed(filter: &Filter) {
    assert_eq!(filter.host.response(":status"), "503");
    let body = filter.host.response_body_text();
    assert_eq!(
        filter.host.response("content-length"),
        body.len().to_string()
    );
    assert!(body.contains("\"code\":\"internal\""), "{body}");
    assert_eq!(filter.metric("weft_filter_register_failed"), 1);
}

#[test]
fn a_body_of_one_shard_is_written_there() {
    let filter = Filter::new();
    let (mut request, step) = post(&filter, &[JSON]);
    assert_eq!(step, Step::Hold);
    assert_eq!(request.on_request_body(3, false), Step::Hold);
    assert_eq!(send(&filter, &mut request, "{\"id\":1}"), Step::Continue);
    assert_eq!(filter.host.cluster(), owner("1"));
    assert_eq!(filter.metric("weft_filter_requests_body_looked_at"), 1);
    assert_eq!(filter.metric("weft_filter_body_bytes"), 8);
}

#[test]
fn bodies_of_several_shards_and_unclear_ones_go_to_the_merger() {
    let several: Vec<String> = (0..20).map(|id| format!("{{\"id\":{id}}}")).collect();
    for body in [
        &*format!("[{}]", several.join(",")),
        "{\"id\":null}",
        "{\"id\":1",
        "",
        "[]",
    ] {
        let filter = Filter::new();
        let (mut request, _) = post(&filter, &[JSON]);
        assert_eq!(send(&filter, &mut request, body), Step::Continue);
        assert_eq!(filter.host.cluster(), "merger", "{body}");
        assert_eq!(filter.host.sent("x-weft-op"), ["replace-documents"]);
    }
}

#[test]
fn what_is_large_compressed_or_another_format_is_never_held() {
    for more in [
        [JSON, ("content-length", "65537")],
        [JSON, ("content-encoding", "gzip")],
        [("content-type", "text/csv"), ("content-length", "10")],
        [("x-none", "1"), ("content-length", "10")],
        [JSON, ("x-weft-write", "quorum")],
    ] {
        let filter = Filter::new();
        let (mut request, step) = post(&filter, &more);
        assert_eq!(step, Step::Continue, "{more:?}");
        assert_eq!(filter.host.cluster(), "merger", "{more:?}");
        assert_eq!(request.on_request_body(10, false), Step::Continue);
    }
}

#[test]
fn a_body_without_a_length_is_let_go_when_it_proves_too_large() {
    let filter = Filter::new();
    let (mut request, step) = post(&filter, &[JSON]);
    assert_eq!(step, Step::Hold);
    assert_eq!(request.on_request_body(65_536, false), Step::Hold);
    assert_eq!(request.on_request_body(65_537, false), Step::Continue);
    assert_eq!(filter.host.cluster(), "merger");
    assert_eq!(request.on_request_body(100_000, false), Step::Continue);
}

#[test]
fn a_body_that_ends_with_trailers_is_looked_at() {
    let filter = Filter::new();
    let (mut request, _) = post(&filter, &[JSON]);
    *filter.host.0.request_body.borrow_mut() = b"{\"id\":1}".to_vec();
    assert_eq!(request.on_request_body(8, false), Step::Hold);
    assert_eq!(request.on_request_trailers(), Step::Continue);
    assert_eq!(filter.host.cluster(), owner("1"));
}

#[test]
fn a_lease_that_ran_out_while_the_body_came_sends_it_to_the_merger() {
    let filter = Filter::new();
    let (mut request, _) = post(&filter, &[JSON]);
    filter.host.0.now_ms.set(5000);
    assert_eq!(send(&filter, &mut request, "{\"id\":1}"), Step::Continue);
    assert_eq!(filter.host.cluster(), "merger");
}

#[test]
fn without_body_routing_every_write_is_the_mergers() {
    let filter = Filter::configured("{}");
    let (_, step) = post(&filter, &[JSON, ("content-length", "8")]);
    assert_eq!(
        (step, filter.host.cluster().as_str()),
        (Step::Continue, "merger")
    );
    assert_eq!(
        filter.routed("DELETE", "/indexes/wide/documents/1", &[]),
        "merger"
    );
    assert_eq!(
        filter.routed("GET", "/indexes/wide/documents/1", &[]),
        owner("1")
    );
}

#[test]
fn a_deletion_by_path_goes_to_the_owner_and_is_registered() {
    let filter = Filter::new();
    let mut request = filter.request("DELETE", "/indexes/wide/documents/42", &[]);
    assert_eq!(request.on_request_headers(true), Step::Continue);
    assert_eq!(filter.host.cluster(), owner("42"));
    assert_eq!(filter.metric("weft_filter_requests_direct_write"), 1);
}

#[test]
fn the_client_sees_the_clusters_task_uid() {
    let filter = Filter::new();
    let (mut request, step) = answered(&filter, "202", ANSWER);
    assert_eq!(step, Step::Hold);
    let call = filter.host.last_call();
    assert_eq!(
        (call.cluster.as_str(), call.header(":path")),
        ("merger", Some("/_weft/register"))
    );
    assert_eq!(call.header("x-request-id"), Some("r-1"));
    assert_eq!(call.header("traceparent"), Some("00-a-b-01"));
    let shard = owner("1").replace("shard-", "");
    assert!(
        call.body
            .starts_with(&format!("{{\"shard\":{shard},\"taskUid\":17,")),
        "{}",
        call.body
    );
    assert!(
        filter.host.sent("accept-encoding").is_empty(),
        "a compressed answer can't be read"
    );

    filter.host.0.now_ms.set(30);
    *filter.host.0.answer.borrow_mut() = Some((200, b"{\"taskUid\":123456}".to_vec()));
    request.on_call_response(call.token + 1);
    assert!(!filter.host.0.resumed.get(), "that was not its call");
    request.on_call_response(call.token);
    assert!(filter.host.0.resumed.get());
    let body = filter.host.response_body_text();
    assert_eq!(body, ANSWER.replace(":17", ":123456"));
    assert_eq!(
        filter.host.response("content-length"),
        body.len().to_string()
    );
    assert_eq!(filter.host.response(":status"), "202");
    assert_eq!(filter.metric("weft_filter_registered"), 1);
    assert_eq!(filter.metric("weft_filter_register_ms"), 30);
}

#[test]
fn an_answer_that_isnt_202_passes_unchanged() {
    for status in ["200", "400", "403", "404", "413", "503"] {
        let filter = Filter::new();
        let (mut request, step) = answered(&filter, status, "{\"code\":\"x\"}");
        assert_eq!(step, Step::Continue);
        assert_eq!(request.on_response_body(12, true), Step::Continue);
        assert_eq!(filter.host.response_body_text(), "{\"code\":\"x\"}");
        assert_eq!(filter.host.response(":status"), status);
    }
}

#[test]
fn a_registration_that_fails_is_a_503_in_meilisearchs_shape() {
    let answers: [Option<(u16, Vec<u8>)>; 4] = [
        None,
        Some((500, b"{\"taskUid\":1}".to_vec())),
        Some((200, b"{}".to_vec())),
        Some((200, Vec::new())),
    ];
    for answer in answers {
        let filter = Filter::new();
        let (mut request, _) = answered(&filter, "202", ANSWER);
        *filter.host.0.answer.borrow_mut() = answer;
        request.on_call_response(filter.host.last_call().token);
        assert!(filter.host.0.resumed.get());
        assert_failed(&filter);
    }
}

#[test]
fn a_registration_that_cant_be_sent_is_a_503_too() {
    let filter = Filter::new();
    filter.host.0.calls_fail.set(true);
    let (_, step) = answered(&filter, "202", ANSWER);
    assert_eq!(step, Step::Continue);
    assert_failed(&filter);
}

#[test]
fn a_202_that_is_no_task_is_a_503() {
    for body in ["", "{}", "[]", &"x".repeat(20_000)] {
        let filter = Filter::new();
        let (_, step) = answered(&filter, "202", body);
        assert_eq!(step, Step::Continue);
        assert_failed(&filter);
    }
}

#[test]
fn nothing_passes_while_a_registration_is_under_way() {
    let filter = Filter::new();
    let (mut request, _) = answered(&filter, "202", ANSWER);
    assert_eq!(request.on_response_body(200, true), Step::Hold);
    assert_eq!(request.on_response_trailers(), Step::Hold);
}
