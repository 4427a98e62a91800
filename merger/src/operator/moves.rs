//! Growing and shrinking: `/_cluster/rebalance`, `/_cluster/moves…`, `/_cluster/shards/{shard}/drain`.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use weft_routing::placement::ShardId;

use super::{body_of, ok};
use crate::answer::Answer;
use crate::call::Call;
use crate::cluster::{ClusterError, Move, MoveOptions, Placement, Step, forecast};
use crate::repair::{Context, Size, Survey, batch_documents};

/// The most moves that may run at once.
const MOST_AT_ONCE: usize = 64;
/// The most documents of a batch, as for `--move-batch`.
const LARGEST_BATCH: usize = 1_000_000;

/// What a rebalance concerns.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Wish {
    dry_run: bool,
    /// The indexes; all if there are none.
    indexes: Option<Vec<String>>,
    /// Shards that are to hold nothing of them.
    exclude: Vec<Value>,
    max_concurrent: Option<usize>,
    #[serde(deserialize_with = "given")]
    bytes_per_second: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    batch_documents: Option<Option<usize>>,
}

/// How moves are carried out from now on.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Pace {
    paused: Option<bool>,
    max_concurrent: Option<usize>,
    #[serde(deserialize_with = "given")]
    bytes_per_second: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    batch_documents: Option<Option<usize>>,
}

impl Pace {
    fn check(&self) -> Result<(), ClusterError> {
        let numbers = [
            ("maxConcurrent", self.max_concurrent, MOST_AT_ONCE),
            (
                "batchDocuments",
                self.batch_documents.flatten(),
                LARGEST_BATCH,
            ),
        ];
        for (name, wanted, most) in numbers {
            if wanted.is_some_and(|count| !(1..=most).contains(&count)) {
                let what = format!("`{name}` must be between 1 and {most}");
                return Err(ClusterError::InvalidBody(what));
            }
        }
        Ok(())
    }

    fn apply(&self, options: &mut MoveOptions) {
        options.paused = self.paused.unwrap_or(options.paused);
        options.max_concurrent = self.max_concurrent.unwrap_or(options.max_concurrent);
        options.bytes_per_second = self.bytes_per_second.unwrap_or(options.bytes_per_second);
        options.batch_documents = self.batch_documents.unwrap_or(options.batch_documents);
    }
}

/// A member that may be `null`, and isn't missing.
#[allow(clippy::option_option, reason = "missing, null, or a number")]
fn given<'de, D, T>(from: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(from).map(Some)
}

/// Answers a call on moves; `None` if it isn't one.
pub(super) async fn handle(
    ctx: &Arc<Context>,
    call: &mut Call,
    parts: &[&str],
) -> Option<Result<Answer, ClusterError>> {
    Some(match (call.method.clone(), parts) {
        (Method::POST, ["rebalance"]) => rebalance(ctx, call).await,
        (Method::GET, ["moves"]) => Ok(ok(&list(ctx))),
        (Method::PATCH, ["moves"]) => change(ctx, call).await,
        (Method::DELETE, ["moves"]) => cancel(ctx, None).await,
        (Method::DELETE, ["moves", id]) => cancel(ctx, Some(id)).await,
        (Method::POST, ["shards", shard, "drain"]) => drain(ctx, shard).await,
        (Method::DELETE, ["shards", shard, "drain"]) => resume(ctx, shard).await,
        _ => return None,
    })
}

/// `shard-3`, `3`, or the number itself.
fn shard_named(ctx: &Context, name: &str) -> Result<ShardId, ClusterError> {
    let digits = name.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let shard = digits.parse().ok().map(ShardId);
    let known = ctx.cluster.shards();
    let found = shard.filter(|shard| known.contains(shard));
    found.ok_or_else(|| ClusterError::UnknownShard(name.to_owned()))
}

/// All shards that may hold anything.
fn usable(ctx: &Context, exclude: &BTreeSet<ShardId>) -> Vec<ShardId> {
    let draining = ctx.cluster.moves.draining();
    let mut shards = ctx.cluster.shards();
    shards.retain(|shard| !draining.contains(shard) && !exclude.contains(shard));
    shards
}

async fn survey(ctx: &Context) -> Result<Survey, ClusterError> {
    let unread = |error: crate::repair::MoveError| ClusterError::Unread(error.to_string());
    Survey::of(ctx).await.map_err(unread)
}

async fn rebalance(ctx: &Arc<Context>, call: &mut Call) -> Result<Answer, ClusterError> {
    let wish: Wish = body_of(ctx, call).await?;
    let mut exclude = BTreeSet::new();
    for shard in &wish.exclude {
        let name = shard
            .as_str()
            .map_or_else(|| shard.to_string(), str::to_owned);
        exclude.insert(shard_named(ctx, &name)?);
    }
    for uid in wish.indexes.iter().flatten() {
        if ctx.cluster.placement(uid).is_none() {
            return Err(ClusterError::UnknownIndex(uid.clone()));
        }
    }
    let pace = Pace {
        paused: None,
        max_concurrent: wish.max_concurrent,
        bytes_per_second: wish.bytes_per_second,
        batch_documents: wish.batch_documents,
    };
    pace.check()?;
    let shards = usable(ctx, &exclude);
    if shards.is_empty() {
        return Err(ClusterError::NoShards);
    }
    let survey = survey(ctx).await?;
    let indexes = wish.indexes;
    let concerns = |uid: &String| indexes.as_ref().is_none_or(|wanted| wanted.contains(uid));
    let steps = survey.steps(ctx, |index| concerns(&index.uid), &shards);
    let left_out = changing(ctx, |index| concerns(&index.uid));
    let mut options = ctx.cluster.moves.options();
    pace.apply(&mut options);
    if !wish.dry_run && options != ctx.cluster.moves.options() {
        let set = ctx.cluster.moves.set_options(|options| pace.apply(options));
        set.await?;
    }
    answer(
        ctx,
        (steps, left_out),
        wish.dry_run,
        options.bytes_per_second,
    )
    .await
}

/// The indexes that go to another strategy, which are left alone meanwhile.
fn changing(ctx: &Context, concerns: impl Fn(&Placement) -> bool) -> Vec<String> {
    let placements = ctx.cluster.placements.all().into_iter();
    let changing = placements.filter(|index| index.change().is_some() && concerns(index));
    changing.map(|index| index.uid.clone()).collect()
}

/// Shows the plan and, unless it is a dry run, begins it. What is left out is planned when it can be.
async fn answer(
    ctx: &Context,
    (steps, left_out): (Vec<(Step, Size)>, Vec<String>),
    dry_run: bool,
    bytes_per_second: Option<u64>,
) -> Result<Answer, ClusterError> {
    let bytes: u64 = steps.iter().map(|(_, size)| size.bytes).sum();
    let plan: Vec<Value> = steps
        .iter()
        .map(|(step, size)| {
            json!({
                "index": step.index,
                "from": step.from,
                "to": step.to,
                "slots": step.slots.len(),
                "documents": size.documents,
                "bytes": size.bytes,
            })
        })
        .collect();
    let expected = expected_seconds(
        ctx,
        &steps,
        bytes.checked_div(bytes_per_second.unwrap_or(0)),
    );
    let mut told = json!({"plan": plan, "expectedSeconds": expected, "changing": left_out});
    if dry_run {
        return Ok(ok(&told));
    }
    let steps = steps.into_iter().map(|(step, size)| (step, size.documents));
    let ids = ctx.cluster.moves.add(steps.collect()).await?;
    for uid in left_out {
        ctx.cluster.moves.set_replan(&uid, true).await?;
    }
    if let Some(fields) = told.as_object_mut() {
        fields.insert("moves".to_owned(), json!(ids));
    }
    Ok(Answer::json(StatusCode::ACCEPTED, &told))
}

/// How long these steps take: as long as the limit of bytes asks for, or longer if moves went slower lately.
fn expected_seconds(ctx: &Context, steps: &[(Step, Size)], limited: Option<u64>) -> Option<u64> {
    let documents: u64 = steps.iter().map(|(_, size)| size.documents).sum();
    #[allow(
        clippy::cast_precision_loss,
        reason = "a count of documents needs no more than 52 bits"
    )]
    let measured = ctx
        .cluster
        .moves
        .pace()
        .seconds(documents as f64, steps.len());
    limited.max(measured.map(whole))
}

fn list(ctx: &Context) -> Value {
    let options = ctx.cluster.moves.options();
    let moves = ctx.cluster.moves.all();
    let at_once = options.max_concurrent;
    let ends = forecast(&moves, at_once, ctx.cluster.moves.pace());
    let describe = |one: &Move| describe(one, ends.get(&one.id).copied());
    let moves: Vec<Value> = moves.iter().map(describe).collect();
    json!({
        "moves": moves,
        "paused": options.paused,
        "maxConcurrent": options.max_concurrent,
        "bytesPerSecond": options.bytes_per_second,
        "batchDocuments": batch_documents(ctx),
    })
}

fn describe(one: &Move, left: Option<f64>) -> Value {
    let at = |time: Option<OffsetDateTime>| time.and_then(|time| time.format(&Rfc3339).ok());
    json!({
        "id": one.id,
        "index": one.index,
        "from": one.from,
        "to": one.to,
        "slots": one.slots.len(),
        "state": one.state,
        "progress": one.progress(),
        "documents": one.documents,
        "documentsCopied": one.copied,
        "documentsMoved": one.moved,
        "bytesCopied": one.bytes,
        "secondsLeft": left.map(whole),
        "createdAt": at(Some(one.created_at)),
        "startedAt": at(one.started_at),
        "finishedAt": at(one.finished_at),
        "error": one.error,
    })
}

/// Whole seconds.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of seconds, not below zero"
)]
fn whole(seconds: f64) -> u64 {
    seconds.max(0.0).round() as u64
}

async fn change(ctx: &Arc<Context>, call: &mut Call) -> Result<Answer, ClusterError> {
    let pace: Pace = body_of(ctx, call).await?;
    pace.check()?;
    let set = ctx.cluster.moves.set_options(|options| pace.apply(options));
    set.await?;
    Ok(ok(&list(ctx)))
}

async fn cancel(ctx: &Context, id: Option<&str>) -> Result<Answer, ClusterError> {
    let id = match id {
        None => None,
        Some(text) => {
            let id = text.parse::<u64>().ok();
            let known = id.filter(|id| ctx.cluster.moves.get(*id).is_some());
            Some(known.ok_or_else(|| ClusterError::UnknownMove(text.to_owned()))?)
        }
    };
    let concerns = |one: &Move| id.is_none_or(|id| id == one.id);
    ctx.cluster.moves.cancel(concerns).await?;
    Ok(Answer::json(StatusCode::ACCEPTED, &list(ctx)))
}

/// Empties a shard. It gets no new indexes until that is taken back.
async fn drain(ctx: &Arc<Context>, name: &str) -> Result<Answer, ClusterError> {
    let shard = shard_named(ctx, name)?;
    let left = usable(ctx, &BTreeSet::from([shard]));
    if left.is_empty() {
        return Err(ClusterError::LastShard(shard));
    }
    // Read before anything is changed.
    let survey = survey(ctx).await?;
    ctx.cluster.moves.set_draining(shard, true).await?;
    let steps = survey.steps(ctx, |index| index.shards().contains(&shard), &left);
    let left_out = changing(ctx, |index| index.concerns(shard));
    let rate = ctx.cluster.moves.options().bytes_per_second;
    answer(ctx, (steps, left_out), false, rate).await
}

/// Lets a shard hold indexes again. What has left it stays where it is until the next rebalance.
async fn resume(ctx: &Arc<Context>, name: &str) -> Result<Answer, ClusterError> {
    let shard = shard_named(ctx, name)?;
    ctx.cluster.moves.set_draining(shard, false).await?;
    ctx.cluster.moves.cancel(|one| one.from == shard).await?;
    Ok(ok(&super::describe_shard(ctx, shard)))
}
