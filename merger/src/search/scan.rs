//! A light reader of JSON text written by a node: it finds where values begin and end, and parses nothing else.
//!
//! Documents pass through a merge as the bytes in which they came. This module finds the hits and the few members that
//! order them. It skips everything between, strings by `memchr`. It trusts that the text is JSON (a node wrote it) and
//! returns [`Malformed`] if the text visibly isn't; it never reads past the end.

use std::ops::Range;

use memchr::memchr2;

/// The text isn't the JSON that was expected at this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unexpected JSON at byte {at}")]
pub struct Malformed {
    /// The position, in bytes from the start of the text.
    pub at: usize,
}

/// A position in a text.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor on `text` at byte `at`.
    pub fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// The current position, in bytes from the start of the text.
    pub fn at(&self) -> usize {
        self.at
    }

    fn malformed<T>(&self) -> Result<T, Malformed> {
        Err(Malformed { at: self.at })
    }

    /// The next byte that isn't white space, without consuming it.
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Consumes `byte` if it is next, and says whether it was.
    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    /// Consumes `byte`.
    ///
    /// # Errors
    /// The next byte is another one, or the text ends.
    pub fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.eat(byte) {
            Ok(())
        } else {
            self.malformed()
        }
    }

    /// Skips a string and returns the text between its quotes, escapes included.
    ///
    /// # Errors
    /// No string begins here, or it doesn't end.
    pub fn string(&mut self) -> Result<&'a [u8], Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(step) = memchr2(b'"', b'\\', rest) else {
                return self.malformed();
            };
            self.at += step;
            if self.text.get(self.at) == Some(&b'"') {
                let inner = self.text.get(start..self.at).unwrap_or_default();
                self.at += 1;
                return Ok(inner);
            }
            self.at += 2;
        }
    }

    /// Skips a value of any kind and returns its range.
    ///
    /// # Errors
    /// The text ends before the value does, or no value begins here.
    pub fn value(&mut self) -> Result<Range<usize>, Malformed> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => {
                self.string()?;
            }
            Some(b'{' | b'[') => self.container()?,
            Some(_) => self.scalar(),
            None => {}
        }
        if self.at == start {
            self.malformed()
        } else {
            Ok(start..self.at)
        }
    }

    fn scalar(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| {
            matches!(
                byte,
                b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t' | b':'
            )
        });
        self.at += length.unwrap_or(rest.len());
    }

    fn container(&mut self) -> Result<(), Malformed> {
        let mut depth = 0_usize;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let found = rest
                .iter()
                .position(|byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']'));
            let Some(step) = found else {
                return self.malformed();
            };
            self.at += step;
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                _ => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// One member of an object.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// The key, between its quotes.
    pub key: &'a [u8],
    /// The start of the member: its key's opening quote.
    pub start: usize,
    /// The range of its value.
    pub value: Range<usize>,
}

/// The members of the object at the cursor, one after the other.
#[derive(Debug)]
pub struct Members<'a> {
    cursor: Cursor<'a>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    Within,
    Done,
}

impl<'a> Members<'a> {
    /// The members of the object that begins at byte `at` of `text`.
    pub fn new(text: &'a [u8], at: usize) -> Self {
        Self {
            cursor: Cursor::new(text, at),
            state: State::Before,
        }
    }

    /// The next member; `None` after the last.
    ///
    /// # Errors
    /// The text isn't an object.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator of results would go on after an error"
    )]
    pub fn next(&mut self) -> Result<Option<Member<'a>>, Malformed> {
        match self.state {
            State::Done => return Ok(None),
            State::Before => {
                self.cursor.expect(b'{')?;
                self.state = State::Within;
                if self.cursor.eat(b'}') {
                    self.state = State::Done;
                    return Ok(None);
                }
            }
            State::Within => {
                if self.cursor.eat(b'}') {
                    self.state = State::Done;
                    return Ok(None);
                }
                self.cursor.expect(b',')?;
            }
        }
        self.cursor.peek();
        let start = self.cursor.at();
        let key = self.cursor.string()?;
        self.cursor.expect(b':')?;
        let value = self.cursor.value()?;
        Ok(Some(Member { key, start, value }))
    }

    /// The current position; after the last member, the byte after the object.
    pub fn at(&self) -> usize {
        self.cursor.at()
    }
}

/// The elements of an array, one after the other.
#[derive(Debug)]
pub struct Elements<'a> {
    cursor: Cursor<'a>,
    state: State,
}

impl<'a> Elements<'a> {
    /// The elements of the array that begins at byte `at` of `text`.
    pub fn new(text: &'a [u8], at: usize) -> Self {
        Self {
            cursor: Cursor::new(text, at),
            state: State::Before,
        }
    }

    /// The start of the next element; `None` after the last. The caller must call [`Elements::resume`] with the element's end.
    ///
    /// # Errors
    /// The text isn't an array.
    pub fn enter(&mut self) -> Result<Option<usize>, Malformed> {
        match self.state {
            State::Done => return Ok(None),
            State::Before => {
                self.cursor.expect(b'[')?;
                self.state = State::Within;
                if self.cursor.eat(b']') {
                    self.state = State::Done;
                    return Ok(None);
                }
            }
            State::Within => {
                if self.cursor.eat(b']') {
                    self.state = State::Done;
                    return Ok(None);
                }
                self.cursor.expect(b',')?;
            }
        }
        self.cursor.peek();
        Ok(Some(self.cursor.at()))
    }

    /// Continues after an element that ended at byte `at`.
    pub fn resume(&mut self, at: usize) {
        self.cursor.at = at;
    }

    /// The range of the next element; `None` after the last.
    ///
    /// # Errors
    /// The text isn't an array.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator of results would go on after an error"
    )]
    pub fn next(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        if self.enter()?.is_none() {
            return Ok(None);
        }
        self.cursor.value().map(Some)
    }
}

/// A string's value from its JSON text, quotes included; `None` if the text isn't a string.
pub fn unquote(text: &[u8]) -> Option<String> {
    serde_json::from_slice(text).ok()
}

/// A number's value from its JSON text.
pub fn number(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Vec<(String, String)> {
        let mut members = Members::new(text.as_bytes(), 0);
        let mut found = Vec::new();
        while let Some(member) = members.next().unwrap() {
            let key = String::from_utf8(member.key.to_vec()).unwrap();
            found.push((key, text[member.value].to_owned()));
        }
        found
    }

    #[test]
    fn members_are_found_whatever_their_values_hold() {
        let text =
            r#" { "a":1, "b\"}" : "x\\\"]}", "c":{"d":["}",{"e":null}]},"f":[] ,"g":-1.5e3}"#;
        let expected = [
            ("a", "1"),
            (r#"b\"}"#, r#""x\\\"]}""#),
            ("c", r#"{"d":["}",{"e":null}]}"#),
            ("f", "[]"),
            ("g", "-1.5e3"),
        ];
        let expected: Vec<_> = expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(members(text), expected);
        assert_eq!(members("{}"), []);
    }

    #[test]
    fn elements_are_found() {
        let text = r#"[ {"a":"]"}, 2 ,"x", [3] ]"#;
        let mut elements = Elements::new(text.as_bytes(), 0);
        let mut found = Vec::new();
        while let Some(range) = elements.next().unwrap() {
            found.push(&text[range]);
        }
        assert_eq!(found, [r#"{"a":"]"}"#, "2", r#""x""#, "[3]"]);
    }

    #[test]
    fn a_text_cut_anywhere_is_malformed_and_never_read_past_its_end() {
        let text = r#"{"a":[1,{"b":"c\\"}],"d":"e"}"#;
        for end in 0..text.len() {
            let mut members = Members::new(&text.as_bytes()[..end], 0);
            let result = loop {
                match members.next() {
                    Ok(Some(_)) => {}
                    other => break other.map(|_| ()),
                }
            };
            assert!(result.is_err(), "cut at {end}");
        }
    }
}
