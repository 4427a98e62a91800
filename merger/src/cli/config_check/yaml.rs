//! A configuration of Envoy as a tree in which everything knows its line, which serde's readers don't tell. The crate
//! `saphyr-parser` reads the YAML; this builds the tree from what it tells.
//!
//! Beside what isn't YAML, what has no place in such a file is refused with its line: keys that aren't scalars, a key that is there
//! twice, more than one document, and aliases or depths without end. JSON is read, too. Pure.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

/// The largest depth of collections in each other.
const DEEPEST: usize = 100;
/// The most values in a file, those of its aliases included.
const MOST_NODES: usize = 1_000_000;

/// A value and the line on which it begins, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub line: usize,
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Nothing is there.
    Null,
    /// A text, a number or a truth value, as it is written.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A member of a map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub line: usize,
    pub value: Node,
}

/// Why a file can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(super) struct Unreadable {
    /// Where, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// Reads a file.
pub(super) fn read(text: &str) -> Result<Node, Unreadable> {
    let mut reader = Reader {
        events: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
        anchors: HashMap::new(),
        nodes: 0,
        depth: 0,
    };
    // The parser tells of what is missing at the end as if one more line were there.
    let lines = text.lines().count().max(1);
    reader.document().map_err(|error| Unreadable {
        line: error.line.clamp(1, lines),
        ..error
    })
}

impl Node {
    /// The member of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The member of a map with its line.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The member of a member of …
    pub(super) fn at(&self, keys: &[&str]) -> Option<&Node> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The members of a map; none of anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The values of a list; none of anything else.
    pub(super) fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    /// The values of a list below keys.
    pub(super) fn list(&self, keys: &[&str]) -> &[Node] {
        self.at(keys).map_or(&[], Node::items)
    }

    /// A scalar as it is written.
    pub(super) fn scalar(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// A scalar below keys.
    pub(super) fn text(&self, keys: &[&str]) -> Option<&str> {
        self.at(keys)?.scalar()
    }

    /// Calls `see` with the value and all below it, outer ones first.
    pub(super) fn walk<'a>(&'a self, see: &mut impl FnMut(&'a Node)) {
        see(self);
        self.items().iter().for_each(|item| item.walk(see));
        self.entries()
            .iter()
            .for_each(|entry| entry.value.walk(see));
    }

    fn size(&self) -> usize {
        let mut size = 0;
        self.walk(&mut |_| size += 1);
        size
    }
}

/// Builds the tree from the parser's events.
struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    /// What aliases stand for, by the parser's numbers.
    anchors: HashMap<usize, Node>,
    nodes: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), Unreadable> {
        let event = self.events.next_event();
        let Some(event) = event else {
            return wrong(1, "the file breaks off");
        };
        let (event, Span { start, .. }) = event?;
        Ok((event, start.line()))
    }

    /// The only document; `Null` of a file without any.
    fn document(&mut self) -> Result<Node, Unreadable> {
        let mut root = None;
        loop {
            let (event, line) = self.next()?;
            match event {
                Event::StreamEnd => {
                    let kind = Kind::Null;
                    return Ok(root.unwrap_or(Node { line: 1, kind }));
                }
                Event::DocumentStart(_) if root.is_some() => {
                    return wrong(line, "a second document begins: Envoy reads one");
                }
                Event::DocumentStart(_) => {
                    let (event, line) = self.next()?;
                    root = Some(self.node(event, line)?);
                }
                _ => {}
            }
        }
    }

    /// The value that begins with this event.
    fn node(&mut self, event: Event<'a>, line: usize) -> Result<Node, Unreadable> {
        self.count(1, line)?;
        let (kind, anchor) = match event {
            Event::Alias(number) => return self.alias(number, line),
            Event::Scalar(text, ScalarStyle::Plain, anchor, _)
                if matches!(&*text, "" | "~" | "null") =>
            {
                (Kind::Null, anchor)
            }
            Event::Scalar(text, _, anchor, _) => (Kind::Scalar(text.into_owned()), anchor),
            Event::SequenceStart(anchor, _) => (self.deeper(line, Self::list)?, anchor),
            Event::MappingStart(anchor, _) => (self.deeper(line, Self::map)?, anchor),
            _ => return wrong(line, "a value is missing"),
        };
        let node = Node { line, kind };
        // The parser numbers anchors from 1.
        if anchor > 0 {
            self.count(node.size(), line)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self) -> Result<Kind, Unreadable> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Kind::List(items)),
                (event, line) => items.push(self.node(event, line)?),
            }
        }
    }

    fn map(&mut self) -> Result<Kind, Unreadable> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (key, line) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Kind::Map(entries)),
                (Event::Scalar(key, ..), line) => (key.into_owned(), line),
                (_, line) => return wrong(line, "a key that is no plain text"),
            };
            if entries.iter().any(|entry| entry.key == key) {
                return wrong(line, format!("`{key}` is there twice"));
            }
            let (event, begins) = self.next()?;
            let value = self.node(event, begins)?;
            entries.push(Entry { key, line, value });
        }
    }

    /// The value that an alias stands for.
    fn alias(&mut self, number: usize, line: usize) -> Result<Node, Unreadable> {
        let Some(node) = self.anchors.get(&number).cloned() else {
            return wrong(line, "an alias of something that it is part of");
        };
        self.count(node.size(), line)?;
        // What is below keeps its own lines: there is where a mistake in it is mended.
        Ok(Node { line, ..node })
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), Unreadable> {
        self.nodes += nodes;
        match self.nodes > MOST_NODES {
            true => wrong(line, format!("the file has more than {MOST_NODES} values")),
            false => Ok(()),
        }
    }

    /// Reads something inside of something else.
    fn deeper(
        &mut self,
        line: usize,
        read: impl FnOnce(&mut Self) -> Result<Kind, Unreadable>,
    ) -> Result<Kind, Unreadable> {
        if self.depth >= DEEPEST {
            return wrong(
                line,
                format!("more than {DEEPEST} collections in each other"),
            );
        }
        self.depth += 1;
        let done = read(self);
        self.depth -= 1;
        done
    }
}

fn wrong<T>(line: usize, problem: impl Into<String>) -> Result<T, Unreadable> {
    Err(Unreadable {
        line,
        problem: problem.into(),
    })
}

impl From<ScanError> for Unreadable {
    fn from(error: ScanError) -> Self {
        Self {
            line: error.marker().line(),
            problem: error.info().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
