//! Settings, which are the same on every node of an index.
//!
//! `sent → done by the nodes → read back → reported`: a change succeeds only when every node was seen to have it.
//! [`crate::desired`] keeps the settings last set through Weft, which all nodes must have. [`read_back`] checks after a change,
//! and [`drift`] checks periodically, since a node may have been changed by hand; [`repair`] repairs nodes that differ. A
//! change that only some nodes could make is undone on those nodes ([`undo`]), so that it is on all nodes or on none.

mod drift;
mod read_back;
mod repair;
mod undo;

pub use drift::watch;
pub use read_back::look_into;

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Method;
use weft_routing::is_index_uid;
use weft_routing::operation::Operation;

use super::BroadcastError;
use super::indexes::unplaced;
use super::place::Place;
use super::spread::NodeChange;
use crate::answer::Answer;
use crate::broadcast::Context;
use crate::call::Call;
use crate::cluster::Wanted;
use crate::tasks::{NewTask, ReadBack, Touches};

use crate::desired::Values;

/// All settings routes that change something. A node creates a missing index on such a request, so the merger places it.
pub(super) async fn change(ctx: &Arc<Context>, call: Call) -> Result<Answer, BroadcastError> {
    let kind = "settingsUpdate";
    let index_uid = call.index.clone();
    let resets = call.method == Method::DELETE;
    let change = NodeChange::of(ctx, call).await?;
    let known = index_uid
        .as_deref()
        .and_then(|uid| ctx.cluster.placement(uid));
    let uid = match &index_uid {
        Some(uid) if is_index_uid(uid) && (known.is_some() || !resets) => uid.clone(),
        _ => return unplaced(ctx, &change, index_uid, kind).await,
    };
    let touches = touches(&change);
    let place = Place::take(ctx, &uid, &Wanted::default()).await?;
    let task = NewTask {
        kind: kind.to_owned(),
        read_back: ReadBack::Due,
        touches,
        ..NewTask::default()
    };
    place.spread_as_task(ctx, &change, task).await
}

/// The settings that a change touches: the one that it names, or those in its body.
fn touches(change: &NodeChange) -> Touches {
    match change.named.operation {
        Operation::UpdateSetting(setting) | Operation::ResetSetting(setting) => {
            Touches::Named(BTreeSet::from([setting.json_key().to_owned()]))
        }
        Operation::ResetSettings => Touches::All,
        _ => match serde_json::from_slice::<Values>(&change.body) {
            Ok(body) => Touches::Named(body.into_iter().map(|(name, _)| name).collect()),
            Err(_) => Touches::All,
        },
    }
}
