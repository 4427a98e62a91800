//! Decompresses request bodies, for the parts that read a body whole.
//!
//! Place in the flow: in dispatch, after the key was checked. Writes of documents decode their own bodies while they arrive.

use bytes::BytesMut;
use http::header::CONTENT_ENCODING;
use weft_routing::operation::Operation;

use super::errors::ApiError;
use crate::base::Base;
use crate::call::{Call, empty, full};
use crate::write::{Plain, WriteError};

/// Replaces a compressed body with the plain one.
pub(super) async fn unpack(ctx: &Base, call: &mut Call) -> Result<(), ApiError> {
    let Some(encoding) = call.header(CONTENT_ENCODING.as_str()) else {
        return Ok(());
    };
    if decodes_itself(call.operation) {
        return Ok(());
    }
    let encoding = encoding.to_owned();
    let limit = ctx.max_body_bytes;
    let idle = ctx.pace.idle;
    let body = std::mem::replace(&mut call.body, empty());
    let mut packed = Plain::new(body, Some(&encoding), limit, idle);
    let (mut plain, mut share) = (BytesMut::new(), ctx.bounds.bodies.share());
    while let Some(part) = packed.next().await.map_err(WriteError::from)? {
        share.grow(part.len() as u64)?;
        plain.extend_from_slice(&part);
    }
    call.body = full(share.held_by(plain.freeze()));
    call.headers.remove(CONTENT_ENCODING);
    Ok(())
}

fn decodes_itself(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::ReplaceDocuments
            | Operation::UpdateDocuments
            | Operation::DeleteDocumentsBatch
            | Operation::DeleteDocumentsByFilter
            | Operation::EditDocuments
    )
}
