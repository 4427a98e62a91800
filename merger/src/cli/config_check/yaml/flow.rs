//! Flow collections (`[…]`, `{…}`) and texts in quotes: what is told by brackets.

use super::{Entry, Kind, Node, Reader, Unreadable};

impl Reader<'_> {
    /// A value inside of brackets, or one that begins with them.
    pub(super) fn flow(&mut self) -> Result<Node, Unreadable> {
        self.skip_gaps();
        let anchor = self.properties()?;
        self.skip_gaps();
        let line = self.line;
        let node = match self.peek() {
            Some(b'[') => self.deeper(Self::flow_list)?,
            Some(b'{') => self.deeper(Self::flow_map)?,
            Some(b'*') => self.alias()?,
            Some(b'"' | b'\'') => {
                let text = self.quoted()?;
                self.node(line, Kind::Scalar(text))?
            }
            _ => {
                let text = self.flow_plain();
                let kind = match text.as_str() {
                    "" | "~" | "null" => Kind::Null,
                    _ => Kind::Scalar(text),
                };
                self.node(line, kind)?
            }
        };
        self.remember(anchor, &node)?;
        Ok(node)
    }

    fn flow_list(&mut self) -> Result<Node, Unreadable> {
        let (line, mut items) = (self.line, Vec::new());
        self.bump();
        loop {
            self.skip_gaps();
            if self.peek() == Some(b']') {
                self.bump();
                return self.node(line, Kind::List(items));
            }
            let item = self.flow()?;
            // `[a: b]` is a list of maps with one member.
            let item = match self.is_at_colon() {
                false => item,
                true => {
                    let (line, key) = (item.line, self.key_of(&item)?);
                    self.bump();
                    let value = self.flow()?;
                    self.node(line, Kind::Map(vec![Entry { key, line, value }]))?
                }
            };
            items.push(item);
            self.separator(b']', line)?;
        }
    }

    fn flow_map(&mut self) -> Result<Node, Unreadable> {
        let (line, mut entries) = (self.line, Vec::<Entry>::new());
        self.bump();
        loop {
            self.skip_gaps();
            if self.peek() == Some(b'}') {
                self.bump();
                return self.node(line, Kind::Map(entries));
            }
            let line_of_key = self.line;
            let key = self.flow()?;
            let key = self.key_of(&key)?;
            if entries.iter().any(|entry| entry.key == key) {
                return self.wrong(format!("`{key}` is there twice"));
            }
            let value = match self.is_at_colon() {
                true => {
                    self.bump();
                    self.flow()?
                }
                false => self.node(line_of_key, Kind::Null)?,
            };
            entries.push(Entry {
                key,
                line: line_of_key,
                value,
            });
            self.separator(b'}', line)?;
        }
    }

    fn key_of(&self, node: &Node) -> Result<String, Unreadable> {
        match &node.kind {
            Kind::Scalar(text) => Ok(text.clone()),
            _ => self.wrong("a key must be a text"),
        }
    }

    fn is_at_colon(&mut self) -> bool {
        self.skip_gaps();
        self.peek() == Some(b':')
    }

    /// A comma, or the bracket that closes.
    fn separator(&mut self, closes: u8, began: usize) -> Result<(), Unreadable> {
        self.skip_gaps();
        match self.peek() {
            Some(b',') => {
                self.bump();
                Ok(())
            }
            Some(byte) if byte == closes => Ok(()),
            _ => self.wrong(format!(
                "`,` or `{}` is expected here, for the bracket of line {began}",
                char::from(closes)
            )),
        }
    }

    /// Over white space, line ends and comments.
    fn skip_gaps(&mut self) {
        loop {
            if self.line_is_over() {
                self.skip_line();
                if self.peek().is_none() {
                    return;
                }
                self.bump();
            } else {
                return;
            }
        }
    }

    /// A text without quotes inside of brackets.
    fn flow_plain(&mut self) -> String {
        let line = self.rest_of_line();
        let mut end = line.len();
        for (at, letter) in line.char_indices() {
            let before_gap = || {
                let after = line.get(at + 1..).and_then(|rest| rest.chars().next());
                after.is_none_or(|next| next.is_whitespace() || ",[]{}".contains(next))
            };
            let comment = || line.get(..at).is_some_and(|before| before.ends_with(' '));
            let ends = match letter {
                ',' | '[' | ']' | '{' | '}' => true,
                ':' => before_gap(),
                '#' => comment(),
                _ => false,
            };
            if ends {
                end = at;
                break;
            }
        }
        let text = line.get(..end).unwrap_or("").trim_end().to_owned();
        self.skip(text.len());
        text
    }

    /// A text in quotes. A line's end in it is a space.
    pub(super) fn quoted(&mut self) -> Result<String, Unreadable> {
        let began = self.line;
        let quote = self.peek();
        self.bump();
        let mut text = String::new();
        loop {
            let Some(letter) = self.rest().chars().next() else {
                self.line = began;
                return self.wrong("a quote is opened here and never closed");
            };
            match letter {
                '\'' if quote == Some(b'\'') => {
                    self.bump();
                    if self.peek() != Some(b'\'') {
                        return Ok(text);
                    }
                    self.bump();
                    text.push('\'');
                }
                '"' if quote == Some(b'"') => {
                    self.bump();
                    return Ok(text);
                }
                '\\' if quote == Some(b'"') => {
                    self.bump();
                    self.escape(&mut text)?;
                }
                '\n' => {
                    text.truncate(text.trim_end().len());
                    text.push(' ');
                    self.bump();
                    self.skip_spaces();
                }
                letter => {
                    text.push(letter);
                    self.skip(letter.len_utf8());
                }
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Result<(), Unreadable> {
        let Some(letter) = self.rest().chars().next() else {
            return Ok(());
        };
        self.skip(letter.len_utf8());
        let meant: Option<char> = match letter {
            'n' => '\n'.into(),
            't' => '\t'.into(),
            'r' => '\r'.into(),
            '0' => '\0'.into(),
            'e' => '\u{1b}'.into(),
            'b' => '\u{8}'.into(),
            'f' => '\u{c}'.into(),
            '"' | '\\' | '/' | ' ' => letter.into(),
            '\n' => {
                self.skip_spaces();
                return Ok(());
            }
            'x' => self.digits(2),
            'u' => self.digits(4),
            'U' => self.digits(8),
            _ => None,
        };
        match meant {
            Some(letter) => {
                text.push(letter);
                Ok(())
            }
            None => self.wrong(format!("`\\{letter}` means nothing in double quotes")),
        }
    }

    fn digits(&mut self, count: usize) -> Option<char> {
        let digits = self.rest().get(..count)?;
        let code = u32::from_str_radix(digits, 16).ok()?;
        self.skip(count);
        // Half of a pair stands for nothing by itself.
        Some(char::from_u32(code).unwrap_or('\u{fffd}'))
    }
}
