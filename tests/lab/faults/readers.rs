//! Readers: they know which answers are right, and record every answer that is missing, late or wrong.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::check::{self, Breach, Violation};
use super::documents::{INDEX, query};
use super::world::{Asked, Read, ReadKind, World};

/// The pause between two reads of one reader.
const PAUSE: Duration = Duration::from_millis(20);
/// The interval of the steady reads.
const BEAT: Duration = Duration::from_millis(25);

/// Reads until the run is over: searches, filters by id, documents by id.
pub(super) async fn reader(world: Arc<World>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    while !world.closed() {
        match (random.u32(0..10), any_id(&world, &mut random)) {
            (0..5, _) | (_, None) => search(&world, json!({"q": query(&mut random)})).await,
            (5..7, Some(id)) => {
                search(&world, json!({"filter": format!("id = \"{id}\"")})).await;
            }
            (_, Some(id)) => document(&world, &id, ReadKind::Document).await,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads one document again and again at a steady interval, without waiting for the previous reads, until the run is over.
pub(super) async fn beat(world: Arc<World>, id: String) {
    let mut next = Instant::now();
    while !world.closed() {
        let (world, id) = (Arc::clone(&world), id.clone());
        tokio::spawn(async move { document(&world, &id, ReadKind::Beat).await });
        next += BEAT;
        tokio::time::sleep_until(next).await;
    }
}

async fn search(world: &World, mut body: Value) {
    let filtered = body.get("filter").is_some();
    if let Some(body) = body.as_object_mut() {
        body.insert("limit".to_owned(), json!(20));
    }
    let (began, request) = (world.now(), world.request_id());
    let edge = world.next_edge();
    let answer = world
        .ask_as(
            (edge, &request),
            Method::POST,
            &format!("/indexes/{INDEX}/search"),
            Some(&body),
        )
        .await;
    let ended = world.now();
    let kind = ReadKind::Search;
    world.note_read(Read {
        began,
        ended,
        edge,
        kind,
        failure: failure(&answer, &[200]),
    });
    let Ok(reply) = answer else { return };
    let Some(hits) = reply.at("/hits").as_array() else {
        return;
    };
    let history = world.history();
    let mut violations: Vec<Violation> = hits
        .iter()
        .filter_map(|hit| {
            let id = hit.get("id")?.as_str()?;
            check::read(&history, id, Some(hit), began, ended)
        })
        .collect();
    let ids = hits.iter().filter_map(|hit| hit.get("id")?.as_str());
    violations.extend(check::shown_twice("read", ids));
    if filtered
        && hits.is_empty()
        && let Some(id) = asked_id(&body)
    {
        violations.extend(check::read(&history, &id, None, began, ended));
    }
    drop(history);
    world.note(
        violations
            .into_iter()
            .map(|violation| with_request_id(&request, violation)),
    );
}

async fn document(world: &World, id: &str, kind: ReadKind) {
    let (began, request) = (world.now(), world.request_id());
    let path = format!("/indexes/{INDEX}/documents/{id}");
    let edge = world.next_edge();
    let answer = world
        .ask_as((edge, &request), Method::GET, &path, None)
        .await;
    let ended = world.now();
    world.note_read(Read {
        began,
        ended,
        edge,
        kind,
        failure: failure(&answer, &[200, 404]),
    });
    let Ok(reply) = answer else { return };
    let violation = match (reply.status, reply.at("/code").as_str()) {
        (200, _) => check::read(&world.history(), id, Some(&reply.body), began, ended),
        (404, Some("document_not_found")) => check::read(&world.history(), id, None, began, ended),
        // The index was created before the first reader started.
        (404, _) => Some(Violation {
            breach: Breach::StaleRead,
            what: id.to_owned(),
            place: "read".to_owned(),
            detail: reply.text,
        }),
        _ => None,
    };
    world.note(violation.map(|violation| with_request_id(&request, violation)));
}

/// Adds the request's id, with which Envoy's log shows the node that answered.
fn with_request_id(request: &str, mut violation: Violation) -> Violation {
    violation.place = request.to_owned();
    violation
}

fn failure(answer: &Asked, fine: &[u16]) -> Option<String> {
    match answer {
        Ok(reply) if fine.contains(&reply.status) => None,
        Ok(reply) => Some(format!("{}: {}", reply.status, reply.text)),
        Err(error) => Some(error.clone()),
    }
}

fn asked_id(body: &Value) -> Option<String> {
    let filter = body.get("filter")?.as_str()?;
    Some(filter.split('"').nth(1)?.to_owned())
}

fn any_id(world: &World, random: &mut fastrand::Rng) -> Option<String> {
    let history = world.history();
    let place = random.usize(0..history.len().max(1));
    history.lives().nth(place).map(|(id, _)| id.to_owned())
}
