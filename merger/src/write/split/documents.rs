//! Takes documents from the readers: finds the shard of each and appends the document to the shard's part.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use weft_routing::document_id::DocumentId;
use weft_routing::placement::{ShardId, SlotMap};

use super::by_field::{ByField, Goes, Owners, Twice, Unplaced};
use super::explain;
use super::identify::{PrimaryKey, Refused, Repeats, infer, infer_from_names};
use super::scan::{Object, Wanted};
use super::{Batch, ShardPart, SplitKey, framing};
use crate::ids::Ids;
use crate::write::format::Format;
use crate::write::judge::{Judge, Special};
use crate::write::spool::{Framing, Piece, Spool, SpoolLimits};

/// How many ids of a body's documents are kept for each shard; if there are more, none is kept.
const KEPT_IDS: usize = 10_000;

/// The documents of a body that were read so far.
pub(super) struct Documents {
    framing: Framing,
    repeats: Repeats,
    slots: Arc<SlotMap>,
    key: Option<PrimaryKey>,
    /// One part for each shard of the index, in the shards' order.
    parts: Vec<Own>,
    limits: SpoolLimits,
    received: u64,
    refused: Option<Bytes>,
    /// Whether documents of a refused batch are kept, because it may be split again by another key.
    keeps_refused: bool,
    judge: Option<Judge>,
    /// For an index that lies by a field.
    by_field: Option<ByField>,
    unplaced: Option<Unplaced>,
}

/// One shard's part so far.
struct Own {
    shard: ShardId,
    spool: Spool,
    ids: Option<Ids>,
}

impl Own {
    fn note(&mut self, id: &DocumentId<'_>, goes: Goes) {
        match &mut self.ids {
            Some(ids) if ids.len() < KEPT_IDS => {
                if ids.is_empty() && goes != Goes::Unknown {
                    *ids = Ids::placed();
                }
                ids.push(id.as_str());
                if let Goes::To(slot) = goes {
                    ids.goes_to(slot);
                }
            }
            ids => *ids = None,
        }
    }
}

impl Documents {
    pub(super) fn new(
        format: Format,
        slots: &Arc<SlotMap>,
        key: SplitKey,
        limits: SpoolLimits,
    ) -> Self {
        let framing = framing(format);
        let mut documents = Self {
            framing,
            repeats: if format == Format::Json {
                Repeats::LastWins
            } else {
                Repeats::Refused
            },
            slots: Arc::clone(slots),
            key: key.name.map(PrimaryKey::new),
            parts: Vec::new(),
            limits,
            received: 0,
            refused: None,
            keeps_refused: key.is_open,
            judge: None,
            by_field: None,
            unplaced: None,
        };
        if let Some(field) = slots.field() {
            let memory = documents.limits.memory.share();
            documents.by_field = Some(ByField::replacing(field, memory));
        }
        documents.open_parts();
        documents
    }

    /// Keeps updates together, so that their documents can be looked for.
    pub(super) fn gather(&mut self) {
        self.by_field = self.by_field.take().map(ByField::gathering);
    }

    /// Places updates by where their documents were found.
    pub(super) fn update(&mut self, found: Arc<Owners>, skips_creation: bool) {
        let by_field = self.by_field.take();
        self.by_field = by_field.map(|by_field| by_field.updating(found, skips_creation));
    }

    pub(super) fn judge(&mut self, judge: Judge) {
        self.judge = Some(judge);
    }

    /// Sets the CSV header line, with which every piece begins.
    pub(super) fn set_header(&mut self, header: &[u8]) {
        let mut before = BytesMut::with_capacity(header.len() + 1);
        before.put_slice(header);
        before.put_u8(b'\n');
        self.framing.before = before.freeze();
        self.open_parts();
    }

    fn open_parts(&mut self) {
        let part = |shard: &ShardId| Own {
            shard: *shard,
            spool: Spool::new(self.framing.clone(), &self.limits),
            ids: Some(Ids::default()),
        };
        self.parts = self.slots.shards().iter().map(part).collect();
    }

    /// What the scanner must look for.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let field = self.by_field.as_ref().map(ByField::field);
        Wanted {
            key: self.key.as_ref().and_then(PrimaryKey::plain),
            field: field.map(|field| field.as_str().as_bytes()),
        }
    }

    /// The routing field, if the index lies by one.
    pub(super) fn field(&self) -> Option<&str> {
        self.by_field
            .as_ref()
            .map(|by_field| by_field.field().as_str())
    }

    pub(super) fn key(&self) -> Option<&PrimaryKey> {
        self.key.as_ref()
    }

    /// Whether the primary key must be inferred from the next document.
    pub(super) fn wants_key(&self) -> bool {
        self.key.is_none() && !self.is_refused()
    }

    /// Takes a JSON document. It must have been scanned for the key that [`wanted`](Self::wanted) returns.
    pub(super) fn object(&mut self, object: &Object<'_>) -> Result<(), Invalid> {
        let text =
            simdutf8::basic::from_utf8(object.raw).map_err(|_| Invalid::Text(object.raw.len()))?;
        if object.escaped_keys && explain::entries(text).is_err() {
            return Err(Invalid::Key);
        }
        self.received += 1;
        if self.is_refused() {
            self.keep(object.raw);
            return Ok(());
        }
        let Some(key) = &self.key else {
            match infer(text) {
                Ok(key) => self.key = Some(key),
                Err(Refused) => self.refuse(object.raw),
            }
            return self.unscanned(text, object);
        };
        if key.plain().is_none()
            || object.escaped_keys
            || (object.repeated && self.repeats == Repeats::Refused)
        {
            return self.unscanned(text, object);
        }
        let id = object
            .id
            .and_then(|id| std::str::from_utf8(id).ok())
            .map(DocumentId::from_json);
        match id {
            Some(Ok(id)) => {
                self.see(&id, text, object);
                self.append_object(&id, text, object);
            }
            _ => self.refuse(object.raw),
        }
        Ok(())
    }

    fn unscanned(&mut self, text: &str, object: &Object<'_>) -> Result<(), Invalid> {
        let Some(key) = &self.key else { return Ok(()) };
        match key.identify(text, self.repeats) {
            Ok(id) => {
                self.see(&id, text, object);
                self.append_object(&id, text, object);
            }
            Err(Refused) => self.refuse(object.raw),
        }
        Ok(())
    }

    /// Shows a document to the judge.
    fn see(&mut self, id: &DocumentId<'_>, text: &str, object: &Object<'_>) {
        let Some(judge) = &mut self.judge else { return };
        if object.special.is_empty() && !object.escaped_keys && judge.passes_plain() {
            return;
        }
        let place = self.received.saturating_sub(1);
        let fields = || explain::entries(text).unwrap_or_default();
        let names = || fields().into_iter().map(|(name, _)| name.into_owned());
        let names = || names().collect();
        if object.escaped_keys {
            let mut special = Special::NONE;
            for (name, value) in fields() {
                special.note(name.as_bytes(), value.get());
            }
            judge.see(id.as_str(), place, object.raw, special, names);
        } else {
            // The whole document was checked to be UTF-8.
            let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
            let special = object.special.map(text);
            judge.see(id.as_str(), place, object.raw, special, names);
        }
    }

    /// Takes a row of a CSV body, with its id if it has one, and the values of its special fields and of its routing field as JSON.
    pub(super) fn row(
        &mut self,
        raw: &[u8],
        id: Option<&DocumentId<'_>>,
        special: &Special<String>,
        value: Option<&str>,
        names: impl FnOnce() -> Vec<String>,
    ) {
        self.received += 1;
        if self.is_refused() {
            self.keep(raw);
            return;
        }
        match id {
            Some(id) => {
                if let Some(judge) = &mut self.judge {
                    let special = Special {
                        vectors: special.vectors.as_deref(),
                        geo: special.geo.as_deref(),
                        geojson: special.geojson.as_deref(),
                    };
                    let place = self.received.saturating_sub(1);
                    judge.see(id.as_str(), place, raw, special, names);
                }
                self.append(id, Ok(value), raw);
            }
            None => self.refuse(raw),
        }
    }

    /// Infers the key from a CSV body's column names. Called only with a row, which is refused if there isn't exactly one
    /// candidate.
    pub(super) fn infer_from_columns<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.key = infer_from_names(names).ok();
    }

    fn append_object(&mut self, id: &DocumentId<'_>, text: &str, object: &Object<'_>) {
        let Some(field) = self.field() else {
            return self.append(id, Ok(None), object.raw);
        };
        if !object.escaped_keys && (!object.repeats_value || self.repeats == Repeats::LastWins) {
            // The whole document was checked to be UTF-8.
            let value = object
                .value
                .and_then(|value| std::str::from_utf8(value).ok());
            return self.append(id, Ok(value), object.raw);
        }
        let fields = explain::entries(text).unwrap_or_default();
        let mut values = fields.iter().filter(|(name, _)| name.as_ref() == field);
        let last = values.next_back().map(|(_, value)| value.get());
        let value = match values.next() {
            Some(_) if self.repeats == Repeats::Refused => Err(Twice),
            _ => Ok(last),
        };
        self.append(id, value, object.raw);
    }

    /// Appends a document to the part of its shard. `value` is that of its routing field, as JSON.
    fn append(&mut self, id: &DocumentId<'_>, value: Result<Option<&str>, Twice>, raw: &[u8]) {
        let (shard, goes) = match &mut self.by_field {
            None => (self.slots.shard_of(id), Goes::Unknown),
            Some(by_field) => match by_field.place(&self.slots, id.as_str(), value) {
                Ok((shard, goes)) => (Some(shard), goes),
                Err(unplaced) => {
                    self.unplaced = Some(unplaced);
                    return self.drop_or_keep(raw);
                }
            },
        };
        // A table of 4,096 slots for each body would cost a small write more than everything else in it.
        let place = shard.and_then(|shard| self.slots.shards().binary_search(&shard).ok());
        if let Some(part) = place.and_then(|place| self.parts.get_mut(place)) {
            part.spool.append(raw);
            part.note(id, goes);
        }
    }

    fn is_refused(&self) -> bool {
        self.refused.is_some() || self.unplaced.is_some()
    }

    /// Refuses the batch because of this document: the documents before it are not written either.
    fn refuse(&mut self, raw: &[u8]) {
        self.refused = Some(Bytes::copy_from_slice(raw));
        self.drop_or_keep(raw);
    }

    fn drop_or_keep(&mut self, raw: &[u8]) {
        if self.keeps_refused {
            self.keep(raw);
        } else {
            self.parts.clear();
        }
    }

    /// Keeps a document of a refused batch, in any part.
    fn keep(&mut self, raw: &[u8]) {
        if let (true, Some(part)) = (self.keeps_refused, self.parts.first_mut()) {
            part.spool.append(raw);
            part.ids = None;
        }
    }

    pub(super) async fn spill(&mut self) -> io::Result<()> {
        for part in &mut self.parts {
            part.spool.spill(&self.limits).await?;
        }
        if let Some(by_field) = &mut self.by_field {
            by_field.hold_memory().map_err(io::Error::other)?;
        }
        Ok(())
    }

    pub(super) fn discard(&mut self, bytes: usize) {
        for part in &mut self.parts {
            part.spool.discard(bytes);
        }
    }

    pub(super) async fn finish(self) -> io::Result<Batch> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for Own { shard, spool, ids } in self.parts {
            if !spool.is_empty() {
                let pieces = spool.finish(&self.limits).await?;
                parts.push(ShardPart { shard, pieces, ids });
            }
        }
        Ok(Batch {
            parts,
            received: self.received,
            key: self.key.map(|key| key.name().to_owned()),
            refused: self
                .refused
                .map(|raw| Piece::of(self.framing.clone(), &[&raw])),
            nothing: Piece::of(self.framing, &[]),
            suspicions: self.judge.and_then(Judge::finish),
            owners: self.by_field.map(ByField::into_owners).map(Arc::new),
            unplaced: self.unplaced,
        })
    }
}

/// Why a scanned document isn't valid after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invalid {
    /// It isn't UTF-8; its length in bytes.
    Text(usize),
    /// The escapes of a key don't form valid text.
    Key,
}
