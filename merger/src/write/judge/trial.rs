//! The judge as a plain function, for tests that compare it with an engine's own verdicts.

use std::sync::Arc;

use futures_util::FutureExt;
use hashbrown::HashSet;
use serde_json::{Map, Value};
use weft_routing::placement::{ShardId, SlotMap};

use super::{Manner, Rules, Verdict};
use crate::write::dry_run;
use crate::write::format::Format;
use crate::write::split::SplitError;

/// The settings and circumstances by which a batch is judged.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    /// The answer to `GET …/settings`.
    pub settings: Map<String, Value>,
    /// The engine's version.
    pub version: String,
    /// Whether documents are updated field by field.
    pub updates: bool,
    /// Whether documents that don't exist are left out.
    pub skips_creation: bool,
    /// The ids of the documents that exist.
    pub there: Vec<String>,
}

impl Trial {
    /// The error with which the engine would refuse the body, for an index `index_uid` with the primary key `id`.
    ///
    /// # Errors
    /// The body is not of its format.
    pub fn of(
        &self,
        index_uid: &str,
        format: Format,
        body: &[u8],
    ) -> Result<Option<Value>, SplitError> {
        let rules = Arc::new(Rules::of(&self.settings, &self.version));
        let manner = Manner {
            updates: self.updates,
            skips_creation: self.skips_creation,
            keeps: false,
        };
        let slots = Arc::new(SlotMap::single(ShardId(0)));
        let mut splitter =
            dry_run::in_memory(format, &slots, Some("id")).judged(super::Judge::new(rules, manner));
        splitter.push(body)?;
        let batch = splitter
            .finish()
            .now_or_never()
            .unwrap_or(Err(SplitError::Empty))?;
        let Some(suspicions) = batch.suspicions else {
            return Ok(None);
        };
        let there: HashSet<String> = self.there.iter().cloned().collect();
        Ok(match suspicions.verdict(Some(&there)) {
            Verdict::Refused { finding, .. } => Some(finding.error(index_uid)),
            Verdict::Fine | Verdict::Ask(_) => None,
        })
    }
}
