//! Block collections and block scalars: what is told by indentation.

use super::{Entry, Kind, Node, Reader, Unreadable};

impl Reader<'_> {
    /// The whole file.
    pub(super) fn document(&mut self) -> Result<Node, Unreadable> {
        if self.next_content()?.is_none() && self.rest().starts_with("---") {
            self.skip(3);
        }
        if self.rest().starts_with('%') && self.column() == 0 {
            return self.wrong("directives (`%`) are not read here");
        }
        let node = self.block(None)?;
        if self.next_content()?.is_some() {
            return self.wrong("this belongs to nothing above it: look at the indentation");
        }
        if self.rest().starts_with("...") {
            self.skip_line();
            self.next_content()?;
        }
        match self.rest().trim().is_empty() {
            true => Ok(node),
            false => self.wrong("a second document: only one is read"),
        }
    }

    /// The value that begins at the next content, if that is indented more than `parent`; nothing otherwise.
    fn block(&mut self, parent: Option<usize>) -> Result<Node, Unreadable> {
        let line = self.line;
        match self.next_content()? {
            Some(column) if parent.is_none_or(|parent| column > parent) => self.here(parent),
            _ => self.node(line, Kind::Null),
        }
    }

    /// The value that begins here. `parent` is the indentation of what it is in.
    fn here(&mut self, parent: Option<usize>) -> Result<Node, Unreadable> {
        let anchor = self.properties()?;
        if anchor.is_some() && self.line_is_over() {
            let node = self.block(parent)?;
            self.remember(anchor, &node)?;
            return Ok(node);
        }
        let column = self.column();
        let node = match self.peek() {
            Some(b'-') if Self::is_gap(self.peek_at(1)) => {
                self.deeper(|reader| reader.sequence(column))?
            }
            Some(b'?') if Self::is_gap(self.peek_at(1)) => {
                return self.wrong("a complex key (`?`) is not read here");
            }
            _ if self.is_at_key() => self.deeper(|reader| reader.mapping(column))?,
            _ => self.inline(parent)?,
        };
        self.remember(anchor, &node)?;
        Ok(node)
    }

    /// Whether a key of a map is here: a scalar on this line with `: ` behind it.
    fn is_at_key(&self) -> bool {
        let line = self.rest_of_line();
        let after = match line.chars().next() {
            Some(quote @ ('"' | '\'')) => match end_of_quoted(line, quote) {
                Some(end) => line.get(end..).unwrap_or("").trim_start(),
                None => return false,
            },
            Some('[' | '{' | '*' | '|' | '>' | '#') | None => return false,
            Some(_) => match end_of_key(line) {
                Some(end) => line.get(end..).unwrap_or(""),
                None => return false,
            },
        };
        after.strip_prefix(':').is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
    }

    fn sequence(&mut self, column: usize) -> Result<Node, Unreadable> {
        let (line, mut items) = (self.line, Vec::new());
        loop {
            // Over the dash.
            self.bump();
            let item = match self.line_is_over() {
                true => self.block(Some(column))?,
                false => self.here(Some(column))?,
            };
            items.push(item);
            match self.next_content()? {
                Some(at) if at == column && self.is_at_dash() => {}
                Some(at) if at > column => {
                    return self.wrong("this belongs to nothing above it: look at the indentation");
                }
                _ => return self.node(line, Kind::List(items)),
            }
        }
    }

    fn is_at_dash(&self) -> bool {
        self.peek() == Some(b'-') && Self::is_gap(self.peek_at(1))
    }

    fn mapping(&mut self, column: usize) -> Result<Node, Unreadable> {
        let (line, mut entries) = (self.line, Vec::<Entry>::new());
        loop {
            let line_of_key = self.line;
            let key = self.key()?;
            if entries.iter().any(|entry| entry.key == key) {
                return self.wrong(format!("`{key}` is there twice"));
            }
            let value = self.member(column)?;
            entries.push(Entry {
                key,
                line: line_of_key,
                value,
            });
            match self.next_content()? {
                Some(at) if at == column && self.is_at_key() => {}
                Some(at) if at >= column => {
                    let what = match self.is_at_key() || self.is_at_dash() {
                        true => "this belongs to nothing above it: look at the indentation",
                        false => "a key with `: ` is expected here",
                    };
                    return self.wrong(what);
                }
                _ => return self.node(line, Kind::Map(entries)),
            }
        }
    }

    fn key(&mut self) -> Result<String, Unreadable> {
        let key = match self.peek() {
            Some(b'"' | b'\'') => self.quoted()?,
            _ => {
                let line = self.rest_of_line();
                let end = end_of_key(line).unwrap_or(line.len());
                let key = line.get(..end).unwrap_or("").trim_end().to_owned();
                self.skip(end);
                key
            }
        };
        self.skip_spaces();
        // The colon.
        self.bump();
        Ok(key)
    }

    /// The value of a key that stands at `column`.
    fn member(&mut self, column: usize) -> Result<Node, Unreadable> {
        self.skip_spaces();
        let line = self.line;
        let anchor = self.properties()?;
        let node = match self.line_is_over() {
            false => self.inline(Some(column))?,
            true => match self.next_content()? {
                Some(at) if at > column => self.here(Some(column))?,
                // The dashes of a list may stand below the key.
                Some(at) if at == column && self.is_at_dash() => {
                    self.deeper(|reader| reader.sequence(column))?
                }
                _ => self.node(line, Kind::Null)?,
            },
        };
        self.remember(anchor, &node)?;
        Ok(node)
    }

    /// A value that isn't told by indentation; it may go on over lines that are indented more than `parent`.
    fn inline(&mut self, parent: Option<usize>) -> Result<Node, Unreadable> {
        let line = self.line;
        let node = match self.peek() {
            Some(b'|' | b'>') => {
                let text = self.block_scalar(parent)?;
                return self.node(line, Kind::Scalar(text));
            }
            Some(b'*') => self.alias()?,
            Some(b'[' | b'{') => self.flow()?,
            Some(b'"' | b'\'') => {
                let text = self.quoted()?;
                self.node(line, Kind::Scalar(text))?
            }
            Some(letter @ (b'@' | b'`' | b'%')) => {
                return self.wrong(format!("a value can't begin with `{}`: put it in quotes", char::from(letter)));
            }
            _ => {
                let text = self.plain(parent)?;
                return self.node(line, scalar(text));
            }
        };
        match self.line_is_over() {
            true => Ok(node),
            false => self.wrong("something stands behind a value that has ended"),
        }
    }

    /// A scalar without quotes, which may go on in the next lines.
    fn plain(&mut self, parent: Option<usize>) -> Result<String, Unreadable> {
        let mut text = self.plain_line()?;
        loop {
            let (at, line, line_start) = (self.at, self.line, self.line_start);
            let goes_on = match self.next_content()? {
                Some(column) => parent.is_none_or(|parent| column > parent),
                None => false,
            };
            // A comment ends it, and so does what is a collection.
            let gap = self.text.get(at..self.at).unwrap_or("");
            if !goes_on || gap.contains('#') || self.is_at_dash() {
                (self.at, self.line, self.line_start) = (at, line, line_start);
                return Ok(text);
            }
            text.push(' ');
            let more = self.plain_line()?;
            text.push_str(&more);
        }
    }

    fn plain_line(&mut self) -> Result<String, Unreadable> {
        let line = self.rest_of_line();
        let comment = line.find(" #").unwrap_or(line.len());
        let line = line.get(..comment).unwrap_or("").trim_end().to_owned();
        if line.contains(": ") || line.ends_with(':') {
            return self.wrong("a value can't hold `: ` without quotes; or the indentation is wrong");
        }
        self.skip(line.len());
        Ok(line)
    }

    /// `|` and `>`: the lines below, as long as they are indented.
    fn block_scalar(&mut self, parent: Option<usize>) -> Result<String, Unreadable> {
        let folds = self.peek() == Some(b'>');
        self.bump();
        let header = self.name();
        if !header.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-')) {
            return self.wrong(format!("`{header}` can't stand behind `|` or `>`"));
        }
        self.skip_line();
        let least = parent.map_or(0, |parent| parent + 1);
        let given = header.bytes().find(u8::is_ascii_digit);
        let mut indentation = given.map(|digit| usize::from(digit - b'0') + parent.unwrap_or(0));
        let mut lines: Vec<String> = Vec::new();
        while self.peek().is_some() {
            let (at, line, line_start) = (self.at, self.line, self.line_start);
            self.bump();
            let content = self.rest_of_line();
            let spaces = content.len() - content.trim_start_matches(' ').len();
            let empty = content.trim().is_empty();
            if !empty && spaces < indentation.unwrap_or(least).max(least) {
                (self.at, self.line, self.line_start) = (at, line, line_start);
                break;
            }
            let indented = match empty {
                true => "",
                false => content.get(*indentation.get_or_insert(spaces)..).unwrap_or(""),
            };
            lines.push(indented.to_owned());
            self.skip_line();
        }
        while !header.contains('+') && lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        let mut text = lines.join(if folds { " " } else { "\n" });
        if !header.contains('-') && !text.is_empty() {
            text.push('\n');
        }
        Ok(text)
    }
}

/// A plain scalar, which may stand for nothing.
fn scalar(text: String) -> Kind {
    match text.as_str() {
        "" | "~" | "null" => Kind::Null,
        _ => Kind::Scalar(text),
    }
}

/// Where a plain key ends: at the first colon with a gap behind it, before any comment.
fn end_of_key(line: &str) -> Option<usize> {
    let end = line.match_indices(':').map(|(at, _)| at).find(|at| {
        let after = line.get(at + 1..).unwrap_or("");
        after.is_empty() || after.starts_with([' ', '\t'])
    })?;
    let comment = line.find(" #").unwrap_or(line.len());
    (end < comment && end > 0).then_some(end)
}

/// Where a text in quotes ends on its line, behind the quote.
fn end_of_quoted(line: &str, quote: char) -> Option<usize> {
    let mut letters = line.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' if quote == '"' => {
                letters.next();
            }
            _ if letter != quote => {}
            '\'' if letters.peek().is_some_and(|(_, next)| *next == '\'') => {
                letters.next();
            }
            _ => return Some(at + 1),
        }
    }
    None
}
