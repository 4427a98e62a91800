//! `/_cluster/jobs`: backups, restores and imports, as their programs tell of them.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{MAX_BODY_BYTES, ok};
use crate::answer::Answer;
use crate::call::{Call, empty, read_whole};
use crate::cluster::{ClusterError, JobKind, JobReport, Jobs, note_vanished_jobs};
use crate::repair::Context;

/// Answers a call on jobs; `None` if it isn't one.
pub(super) async fn handle(
    ctx: &Context,
    call: &mut Call,
    parts: &[&str],
) -> Option<Result<Answer, ClusterError>> {
    Some(match (call.method.clone(), parts) {
        (Method::GET, []) => {
            note_vanished_jobs(ctx);
            Ok(ok(&list(&ctx.cluster.jobs)))
        }
        (Method::PUT, [id]) => match Uuid::try_parse(id) {
            Ok(id) => hear(ctx, call, id).await,
            Err(_) => return None,
        },
        _ => return None,
    })
}

fn list(jobs: &Jobs) -> Value {
    let last = JobKind::ALL.into_iter().map(|kind| {
        let last = jobs.last(kind);
        let text = |time: Option<time::OffsetDateTime>| time?.format(&Rfc3339).ok();
        let ends = json!({
            "success": text(last.success),
            "failure": text(last.failure),
            "error": last.error,
        });
        (kind.as_str().to_owned(), ends)
    });
    json!({"jobs": jobs.all(), "last": last.collect::<Map<_, _>>()})
}

async fn hear(ctx: &Context, call: &mut Call, id: Uuid) -> Result<Answer, ClusterError> {
    let body = std::mem::replace(&mut call.body, empty());
    let body = read_whole(body, MAX_BODY_BYTES, ctx.pace.idle).await?;
    let told: JobReport = serde_json::from_slice(&body)
        .map_err(|error| ClusterError::InvalidBody(error.to_string()))?;
    let (kind, state) = (told.kind.as_str(), told.state.as_str());
    let error = told.error.clone();
    let progress = ctx.cluster.jobs.hear(id, told).await?;
    let metrics = &ctx.metrics;
    let documents = metrics.job_documents.with_label_values(&[kind]);
    documents.inc_by(progress.documents);
    let bytes = metrics.job_bytes.with_label_values(&[kind]);
    bytes.inc_by(progress.bytes);
    if progress.ended {
        let ended = metrics.jobs_ended.with_label_values(&[kind, state]);
        ended.inc();
        tracing::info!(kind, state, error, "a job has ended");
    }
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
