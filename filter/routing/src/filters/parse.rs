//! Reads a filter as far as shards can be told from it.
//!
//! What isn't a comparison by `=`, an order, `TO` or `IN` is read, so that it is known where it ends, and is taken to match
//! anything. A filter with anything that isn't known here isn't read at all.
//!
//! Pure: functions of values.

use std::iter::Peekable;

use serde_json::Value;

/// The longest filter that is read, in bytes.
const LONGEST: usize = 64 * 1024;
/// How deeply parentheses and `NOT` may be nested.
const DEEPEST: usize = 100;

/// A filter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Filter {
    /// It may match any document.
    Anything,
    /// The field compares so.
    Compare(String, Condition),
    /// All of these match.
    All(Vec<Filter>),
    /// One of these matches, or several.
    AnyOf(Vec<Filter>),
}

/// How a field compares. Whether an end is included doesn't matter here.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    /// `=`
    Equal(String),
    /// `>` or `>=`
    Above(String),
    /// `<` or `<=`
    Below(String),
    /// `TO`
    Between(String, String),
}

impl Filter {
    /// Reads a filter in one of its forms: a text, or an array of texts and of arrays of alternatives. `None` if it can't be read.
    pub(super) fn read(filter: &Value) -> Option<Self> {
        match filter {
            Value::String(text) => Self::of_text(text),
            Value::Array(elements) => {
                let all = elements.iter().map(|element| match element {
                    Value::String(text) => Self::of_text(text),
                    Value::Array(alternatives) => {
                        let texts = alternatives
                            .iter()
                            .map(|text| Self::of_text(text.as_str()?));
                        let texts = texts.collect::<Option<Vec<_>>>()?;
                        match texts.is_empty() {
                            true => Some(Self::Anything),
                            false => Some(Self::AnyOf(texts)),
                        }
                    }
                    _ => None,
                });
                Some(Self::All(all.collect::<Option<_>>()?))
            }
            _ => None,
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        if text.trim().is_empty() {
            // A node ignores it.
            return Some(Self::Anything);
        }
        let tokens = tokens(text)?;
        let mut parser = Parser {
            tokens: tokens.into_iter().peekable(),
        };
        let filter = parser.alternatives(0)?;
        parser.tokens.next().is_none().then_some(filter)
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A word without quotes.
    Word(String),
    /// A text in quotes.
    Quoted(String),
    /// An operator, a parenthesis, a bracket or a comma.
    Sign(&'static str),
}

const SIGNS: [&str; 11] = ["!=", ">=", "<=", "=", ">", "<", "(", ")", "[", "]", ","];
const KEYWORDS: [&str; 12] = [
    "AND", "OR", "IN", "NOT", "TO", "EXISTS", "IS", "NULL", "EMPTY", "CONTAINS", "STARTS", "WITH",
];

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push(Token::Sign(sign));
            sign.len()
        } else if first == '"' || first == '\'' {
            let inner = rest.get(1..)?;
            let inner = inner.get(..inner.find(first)?)?;
            if inner.contains('\\') {
                return None;
            }
            tokens.push(Token::Quoted(inner.to_owned()));
            inner.len() + 2
        } else {
            let is_end = |letter: char| !(letter.is_alphanumeric() || "_-.".contains(letter));
            let length = rest.find(is_end).unwrap_or(rest.len());
            tokens.push(Token::Word(
                rest.get(..length)
                    .filter(|word| !word.is_empty())?
                    .to_owned(),
            ));
            length
        };
        rest = rest.get(length..)?.trim_start();
    }
    Some(tokens)
}

/// Its functions read one part each, and return `None` at anything unknown.
struct Parser {
    tokens: Peekable<std::vec::IntoIter<Token>>,
}

impl Parser {
    fn alternatives(&mut self, depth: usize) -> Option<Filter> {
        let mut alternatives = vec![self.conjunction(depth)?];
        while self.takes("OR") {
            alternatives.push(self.conjunction(depth)?);
        }
        Some(match alternatives.len() {
            1 => alternatives.pop()?,
            _ => Filter::AnyOf(alternatives),
        })
    }

    fn conjunction(&mut self, depth: usize) -> Option<Filter> {
        let mut all = vec![self.negation(depth)?];
        while self.takes("AND") {
            all.push(self.negation(depth)?);
        }
        Some(match all.len() {
            1 => all.pop()?,
            _ => Filter::All(all),
        })
    }

    fn negation(&mut self, depth: usize) -> Option<Filter> {
        if depth > DEEPEST {
            return None;
        }
        if self.takes("NOT") {
            self.negation(depth + 1)?;
            return Some(Filter::Anything);
        }
        if self.takes_sign("(") {
            let inner = self.alternatives(depth + 1)?;
            return self.takes_sign(")").then_some(inner);
        }
        let field = self.tokens.next()?;
        if self.tokens.peek() == Some(&Token::Sign("(")) {
            // A function, as `_geoRadius(…)`.
            return match field {
                Token::Word(name) if name.starts_with('_') => self.arguments(),
                _ => None,
            };
        }
        self.condition(value(field)?)
    }

    /// The arguments of a function, which may contain anything that is well nested.
    fn arguments(&mut self) -> Option<Filter> {
        let mut open = Vec::new();
        loop {
            match self.tokens.next()? {
                Token::Sign("(") => open.push(")"),
                Token::Sign("[") => open.push("]"),
                Token::Sign(sign @ (")" | "]")) => {
                    if open.pop()? != sign {
                        return None;
                    }
                    if open.is_empty() {
                        return Some(Filter::Anything);
                    }
                }
                _ => {}
            }
        }
    }

    /// What follows a field.
    fn condition(&mut self, field: String) -> Option<Filter> {
        let compare = |condition| Some(Filter::Compare(field.clone(), condition));
        match self.tokens.next()? {
            Token::Sign("=") => compare(Condition::Equal(self.value()?)),
            Token::Sign(">" | ">=") => compare(Condition::Above(self.value()?)),
            Token::Sign("<" | "<=") => compare(Condition::Below(self.value()?)),
            Token::Sign("!=") => self.value().map(|_| Filter::Anything),
            Token::Sign(_) => None,
            Token::Word(word) if KEYWORDS.contains(&word.as_str()) => self.keyword(&field, &word),
            from => {
                let from = value(from)?;
                let to = self.takes("TO").then(|| self.value())??;
                compare(Condition::Between(from, to))
            }
        }
    }

    fn keyword(&mut self, field: &str, word: &str) -> Option<Filter> {
        match word {
            "IN" => {
                let equal = |value| Filter::Compare(field.to_owned(), Condition::Equal(value));
                Some(Filter::AnyOf(self.list()?.into_iter().map(equal).collect()))
            }
            "EXISTS" => Some(Filter::Anything),
            "IS" => {
                let _ = self.takes("NOT");
                let known = self.takes("NULL") || self.takes("EMPTY");
                known.then_some(Filter::Anything)
            }
            "CONTAINS" => self.value().map(|_| Filter::Anything),
            "STARTS" => {
                let value = self.takes("WITH").then(|| self.value())?;
                value.map(|_| Filter::Anything)
            }
            "NOT" => match self.tokens.next()? {
                Token::Word(word)
                    if matches!(word.as_str(), "IN" | "EXISTS" | "CONTAINS" | "STARTS") =>
                {
                    self.keyword(field, &word)?;
                    Some(Filter::Anything)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// `[a, b]`, with a comma after the last one or not.
    fn list(&mut self) -> Option<Vec<String>> {
        let mut values = Vec::new();
        if !self.takes_sign("[") {
            return None;
        }
        loop {
            if self.takes_sign("]") {
                return Some(values);
            }
            values.push(self.value()?);
            if !self.takes_sign(",") {
                return self.takes_sign("]").then_some(values);
            }
        }
    }

    fn value(&mut self) -> Option<String> {
        value(self.tokens.next()?)
    }

    fn takes(&mut self, keyword: &str) -> bool {
        let is_it = |token: &Token| matches!(token, Token::Word(word) if word == keyword);
        self.tokens.next_if(is_it).is_some()
    }

    fn takes_sign(&mut self, wanted: &str) -> bool {
        let is_it = |token: &Token| matches!(token, Token::Sign(sign) if *sign == wanted);
        self.tokens.next_if(is_it).is_some()
    }
}

fn value(token: Token) -> Option<String> {
    match token {
        Token::Quoted(text) => Some(text),
        Token::Word(word) => (!KEYWORDS.contains(&word.as_str())).then_some(word),
        Token::Sign(_) => None,
    }
}
