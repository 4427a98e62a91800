//! What was merged into a node task that failed is sent again, each write alone.

use std::sync::Arc;

use serde_json::{Value, json};

use super::delivery;
use super::held::Taken;
use crate::app::App;
use crate::tasks::{LocalState, Part, SharedEnd};
use crate::write::deliver::{Delivered, deliver_now, is_alive};

/// Node tasks have ended that several writes were merged into: those of a failed one are sent again, each alone.
pub(in crate::write) fn ended(app: &Arc<App>, mut ends: Vec<SharedEnd>) {
    ends.sort_by(|a, b| {
        (&a.node, a.local_uid, a.share.place).cmp(&(&b.node, b.local_uid, b.share.place))
    });
    let mut failed = Vec::new();
    for end in ends {
        let taken = app
            .writes
            .coalescer
            .held()
            .take(&(end.node.clone(), end.local_uid), end.share.place);
        if let Some(state) = end.failed {
            failed.push((end.uid, state, taken));
        }
    }
    if failed.is_empty() {
        return;
    }
    let app = Arc::clone(app);
    tokio::spawn(async move {
        for (uid, state, taken) in failed {
            send_alone(&app, uid, state, taken).await;
        }
    });
}

async fn send_alone(app: &Arc<App>, uid: u32, mut state: LocalState, taken: Option<Taken>) {
    let why_not = match taken {
        None => "what was sent is not kept any more".to_owned(),
        Some(taken) if taken.overtaken => "the index has been written to since".to_owned(),
        Some(Taken { shard, small, .. }) => {
            let ids = small.ids.clone();
            let _turn = app.sequencer.turn(&[shard]).await;
            let delivered = if is_alive(app, &small.kind.index_uid) {
                deliver_now(app, &delivery(&small, shard, small.piece.clone(), ids)).await
            } else {
                // It went with its index.
                Ok(Delivered::Taken(Vec::new()))
            };
            match delivered {
                Ok(Delivered::Taken(parts)) => match parts.into_iter().next() {
                    Some(part) => return resent(app, uid, part).await,
                    None => "no shard took it".to_owned(),
                },
                Ok(Delivered::Refused(answer)) => format!("a node answered {}", answer.status),
                Err(error) => error.to_string(),
            }
        }
    };
    let said = state
        .error
        .as_ref()
        .and_then(|error| error["message"].as_str())
        .unwrap_or_default();
    let message = format!(
        "{said} (The write shared a node's task with others and was not repeated alone: {why_not}. Send it again.)"
    );
    match state.error.as_mut().and_then(Value::as_object_mut) {
        Some(error) => {
            error.insert("message".to_owned(), message.into());
        }
        None => {
            state.error = Some(json!({"message": message, "code": "internal", "type": "internal"}))
        }
    }
    app.tasks.give_up(uid, state).await;
}

async fn resent(app: &App, uid: u32, part: Part) {
    if let Err(error) = app.tasks.resend(uid, part).await {
        tracing::error!(uid, %error, "a write that was sent again alone could not be recorded");
    }
}
