//! Reads the part of YAML that configurations of Envoy are written in, and remembers the line of everything, which serde's readers
//! don't tell. Pure.
//!
//! Read are: block and flow collections, plain, quoted and block scalars, anchors and aliases, tags (which are skipped), comments,
//! one document. Refused with its line is what has no place in such a file: complex keys, directives, more than one document, tabs
//! as indentation. JSON is read, too.

mod block;
mod flow;

use std::collections::HashMap;

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
        text: text.strip_prefix('\u{feff}').unwrap_or(text),
        at: 0,
        line: 1,
        line_start: 0,
        anchors: HashMap::new(),
        nodes: 0,
        depth: 0,
    };
    reader.document()
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
        self.entries().iter().for_each(|entry| entry.value.walk(see));
    }

    fn size(&self) -> usize {
        let mut size = 0;
        self.walk(&mut |_| size += 1);
        size
    }
}

/// A place in the text.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    line_start: usize,
    anchors: HashMap<String, Node>,
    nodes: usize,
    depth: usize,
}

impl Reader<'_> {
    fn wrong<T>(&self, problem: impl Into<String>) -> Result<T, Unreadable> {
        Err(Unreadable {
            line: self.line,
            problem: problem.into(),
        })
    }

    fn peek(&self) -> Option<u8> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    /// What is left of the line, without its end.
    fn rest_of_line(&self) -> &str {
        let rest = self.rest();
        let line = rest.split('\n').next().unwrap_or("");
        line.strip_suffix('\r').unwrap_or(line)
    }

    fn column(&self) -> usize {
        self.at - self.line_start
    }

    fn bump(&mut self) {
        if self.peek() == Some(b'\n') {
            self.line += 1;
            self.line_start = self.at + 1;
        }
        self.at += 1;
    }

    fn skip(&mut self, bytes: usize) {
        (0..bytes).for_each(|_| self.bump());
    }

    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.bump();
        }
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.bump();
        }
    }

    /// Whether a byte ends a token: white space, or the end of the text.
    fn is_gap(byte: Option<u8>) -> bool {
        matches!(byte, None | Some(b' ' | b'\t' | b'\n' | b'\r'))
    }

    /// Whether nothing but a comment is left of the line.
    fn line_is_over(&mut self) -> bool {
        self.skip_spaces();
        match self.peek() {
            None | Some(b'\n' | b'\r') => true,
            Some(b'#') => {
                let before = self.at.checked_sub(1).and_then(|at| self.text.as_bytes().get(at));
                self.column() == 0 || Self::is_gap(before.copied())
            }
            Some(_) => false,
        }
    }

    /// Goes to the next content, over empty lines and comments. Returns its column; `None` at the end of the document.
    fn next_content(&mut self) -> Result<Option<usize>, Unreadable> {
        loop {
            let begins = self.column() == 0;
            let tab = begins && {
                let line = self.rest_of_line();
                let indented = line.trim_start_matches(' ');
                indented.starts_with('\t') && !indented.trim_start().is_empty()
            };
            if tab {
                return self.wrong("a tab in an indentation: use spaces");
            }
            if self.line_is_over() {
                self.skip_line();
                if self.peek().is_none() {
                    return Ok(None);
                }
                self.bump();
                continue;
            }
            let marker = self.column() == 0
                && (self.rest().starts_with("---") || self.rest().starts_with("..."))
                && Self::is_gap(self.peek_at(3));
            return Ok((!marker).then(|| self.column()));
        }
    }

    fn node(&mut self, line: usize, kind: Kind) -> Result<Node, Unreadable> {
        self.nodes += 1;
        self.is_not_too_much()?;
        Ok(Node { line, kind })
    }

    fn is_not_too_much(&self) -> Result<(), Unreadable> {
        match self.nodes > MOST_NODES {
            true => self.wrong(format!("the file has more than {MOST_NODES} values")),
            false => Ok(()),
        }
    }

    /// Reads something inside of something else.
    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<T, Unreadable> {
        if self.depth >= DEEPEST {
            return self.wrong(format!("more than {DEEPEST} collections in each other"));
        }
        self.depth += 1;
        let done = read(self);
        self.depth -= 1;
        done
    }

    /// The value that an alias stands for.
    fn alias(&mut self) -> Result<Node, Unreadable> {
        let line = self.line;
        self.bump();
        let name = self.name();
        let Some(node) = self.anchors.get(&name).cloned() else {
            return self.wrong(format!("`*{name}` stands for nothing: there is no `&{name}` above"));
        };
        self.nodes += node.size();
        self.is_not_too_much()?;
        // What is below keeps its own lines: there is where a mistake in it is mended.
        Ok(Node { line, ..node })
    }

    /// An anchor's or a tag's name.
    fn name(&mut self) -> String {
        let is_end = |letter: char| letter.is_whitespace() || "[]{},".contains(letter);
        let rest = self.rest();
        let name = rest.split(is_end).next().unwrap_or("").to_owned();
        self.skip(name.len());
        name
    }

    /// Skips tags, and returns the anchor that the next value has.
    fn properties(&mut self) -> Result<Option<String>, Unreadable> {
        let mut anchor = None;
        loop {
            match self.peek() {
                Some(b'&') => {
                    self.bump();
                    let name = self.name();
                    if name.is_empty() {
                        return self.wrong("`&` without a name");
                    }
                    anchor = Some(name);
                }
                Some(b'!') => {
                    self.name();
                }
                _ => return Ok(anchor),
            }
            self.skip_spaces();
        }
    }

    fn remember(&mut self, anchor: Option<String>, node: &Node) -> Result<(), Unreadable> {
        if let Some(anchor) = anchor {
            self.nodes += node.size();
            self.is_not_too_much()?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
