//! Weft's pure routing logic. The filter (in Envoy) and the merger share it, so that they can never disagree.
//!
//! A request passes the modules in this order: [`operation`] says which of the API's operations it is, [`document_id`] and
//! [`body`] find the ids it names, [`slot`], [`strategy`], [`value`] and [`placement`] say which shard owns them, [`filters`] which shards a
//! search can match, [`table`] holds what is known of every index, and [`decision`] makes the decision. [`headers`] names the headers that the filter sends to the merger,
//! [`cors`] says which pages may read the answer, [`index_uid`] which names an index may have. [`term`] is for guards, which stand
//! in front of nodes.
//!
//! Invariants: nothing here does I/O, depends on proxy-wasm, reads a clock or depends on the width of `usize`; every
//! function is total (no panics on any input) and gives the same result on every target.

pub mod body;
pub mod cors;
pub mod decision;
pub mod document_id;
pub mod filters;
pub mod headers;
pub mod index_uid;
pub mod operation;
pub mod placement;
pub mod shard_names;
pub mod slot;
pub mod strategy;
pub mod table;
pub mod term;
pub mod treatment;
pub mod value;

pub use body::{BodyFormat, DocumentIds, Unclear};
pub use cors::Origins;
pub use decision::{
    BodyFacts, Decision, Facts, Held, Needs, Policy, decide, decide_by_body, needs,
};
pub use document_id::{DocumentId, InvalidDocumentId};
pub use filters::{Asked, TenantRules};
pub use index_uid::is_index_uid;
pub use operation::{Classified, ClassifyError, NamedOperation, Operation, Setting, classify};
pub use placement::{NoShards, ShardId, SlotMap, choose_shards};
pub use shard_names::{BadShardNames, ShardNames};
pub use slot::{SLOT_COUNT, Slot, slot_of, slot_of_value};
pub use strategy::{
    BadChange, BadRanges, BadStrategy, Change, IdKey, IdRange, MAX_BOUNDARIES, Ranges, Strategy,
};
pub use table::{Epoch, IndexRoute, RoutingTable, TableChange, TableError, TableNews};
pub use term::{Term, may_change};
pub use treatment::Treatment;
pub use value::{InvalidField, InvalidValue, RoutingField, RoutingValue};
