//! Where the readers bring documents: finds the shard of each and appends it to the shard's part.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use weft_routing::document_id::DocumentId;
use weft_routing::placement::{ShardId, SlotMap};

use super::explain;
use super::identify::{PrimaryKey, Refused, Repeats, infer, infer_from_names};
use super::scan::Object;
use super::{Batch, ShardPart, SplitKey, framing};
use crate::ids::Ids;
use crate::write::format::Format;
use crate::write::judge::{Judge, Special};
use crate::write::spool::{Framing, Piece, Spool, SpoolLimits};

/// The ids of so many documents of a body are kept for each shard; of more, none is.
const KEPT_IDS: usize = 10_000;

/// The documents of a body so far.
pub(super) struct Documents {
    framing: Framing,
    repeats: Repeats,
    slots: Arc<SlotMap>,
    key: Option<PrimaryKey>,
    /// One for each shard of the index, in the shards' order.
    parts: Vec<Own>,
    limits: SpoolLimits,
    received: u64,
    refused: Option<Bytes>,
    /// Whether documents of a refused batch are kept: it may yet be split by another key.
    keeps_refused: bool,
    judge: Option<Judge>,
}

/// What one shard gets, so far.
struct Own {
    shard: ShardId,
    spool: Spool,
    ids: Option<Ids>,
}

impl Own {
    fn note(&mut self, id: &DocumentId<'_>) {
        match &mut self.ids {
            Some(ids) if ids.len() < KEPT_IDS => ids.push(id.as_str()),
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
        };
        documents.open_parts();
        documents
    }

    pub(super) fn judge(&mut self, judge: Judge) {
        self.judge = Some(judge);
    }

    /// CSV: every piece begins with the header line.
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

    /// The key that the scanner shall look for.
    pub(super) fn wanted(&self) -> Option<&[u8]> {
        self.key.as_ref().and_then(PrimaryKey::plain)
    }

    pub(super) fn key(&self) -> Option<&PrimaryKey> {
        self.key.as_ref()
    }

    /// Whether a document must name the primary key first.
    pub(super) fn wants_key(&self) -> bool {
        self.key.is_none() && self.refused.is_none()
    }

    /// Takes a JSON document. The key that it was scanned for must be [`wanted`](Self::wanted).
    pub(super) fn object(&mut self, object: &Object<'_>) -> Result<(), Invalid> {
        let text =
            simdutf8::basic::from_utf8(object.raw).map_err(|_| Invalid::Text(object.raw.len()))?;
        if object.escaped_keys && explain::entries(text).is_err() {
            return Err(Invalid::Key);
        }
        self.received += 1;
        if self.refused.is_some() {
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
                self.append(&id, object.raw);
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
                self.append(&id, object.raw);
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
            // The whole document is text.
            let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
            let special = object.special.map(text);
            judge.see(id.as_str(), place, object.raw, special, names);
        }
    }

    /// Takes a line of a CSV body, with its id where it has one, and the values of its special fields as JSON.
    pub(super) fn row(
        &mut self,
        raw: &[u8],
        id: Option<&DocumentId<'_>>,
        special: &Special<String>,
        names: impl FnOnce() -> Vec<String>,
    ) {
        self.received += 1;
        if self.refused.is_some() {
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
                self.append(id, raw);
            }
            None => self.refuse(raw),
        }
    }

    /// Infers the key from the names of a CSV body's columns; needs a row, which is refused if there is no one key.
    pub(super) fn infer_from_columns<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.key = infer_from_names(names).ok();
    }

    fn append(&mut self, id: &DocumentId<'_>, raw: &[u8]) {
        // A table of 4,096 slots for each body would cost a small write more than all the rest of it.
        let place = self.slots.shards().binary_search(&self.slots.shard_of(id));
        if let Some(part) = place.ok().and_then(|place| self.parts.get_mut(place)) {
            part.spool.append(raw);
            part.note(id);
        }
    }

    /// The batch is refused for this document: what came before it is not written either.
    fn refuse(&mut self, raw: &[u8]) {
        self.refused = Some(Bytes::copy_from_slice(raw));
        if self.keeps_refused {
            self.keep(raw);
        } else {
            self.parts.clear();
        }
    }

    /// Keeps a document of a refused batch, wherever.
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
        })
    }
}

/// Why a scanned document is no document after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invalid {
    /// It is no UTF-8; so long it is.
    Text(usize),
    /// A key's escapes name no text.
    Key,
}
