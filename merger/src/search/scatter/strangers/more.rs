//! What a shard must show of its hits, so that strangers among them can be told.

use weft_routing::operation::Operation;

use crate::cluster::Placement;
use crate::search::request::{Carrier, Search};

/// What hits must show although the client doesn't ask for it: what tells their slots.
#[derive(Debug, Default)]
pub(super) struct More {
    /// The members.
    pub(super) names: Vec<String>,
    /// The top-level members that the client has formatted, `*` for all.
    pub(super) formats: Vec<String>,
}

impl More {
    /// What `carrier` lacks in its list `member`; `None` if it can't be read.
    pub(super) fn of(carrier: &Carrier, placement: &Placement, member: &str) -> Option<Self> {
        let Some(shown) = carrier.list(member)? else {
            return Some(Self::default());
        };
        let field = placement.slots.field().map(|field| field.as_str());
        let key = placement.primary_key.as_deref();
        let is_lacking = |name: &&str| !shown.iter().any(|shown| shown == "*" || shown == name);
        let names = key.into_iter().chain(field).filter(is_lacking);
        Some(Self {
            names: names.map(str::to_owned).collect(),
            formats: Search::formatted_in(carrier),
        })
    }

    pub(super) fn push(&self, carrier: &mut Carrier, member: &str) {
        for name in &self.names {
            carrier.push(member, name);
        }
    }
}

/// The list of a request that says what its hits show.
pub(super) fn member_of(operation: Operation) -> &'static str {
    match operation {
        Operation::ListDocuments | Operation::FetchDocuments => "fields",
        _ => "attributesToRetrieve",
    }
}
