//! Finds conditions with `!=` in a filter's text, and writes the same filter without them.
//!
//! This reads only as much of the grammar as necessary: words, quoted texts, and the operator between them. In a filter
//! that a node accepts, `!=` always follows a field. A filter that a node doesn't accept is refused in either form.
//!
//! Pure: functions of values.

use std::ops::Range;

use serde_json::Value;

/// The text before a rewritten condition. The spaces are needed since a word may end directly before it, and another begins
/// directly after it.
const NOT: &str = " NOT ";

/// One condition `field != value`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unequal {
    /// The start of the white space before the field.
    start: usize,
    /// The field as it is written, in quotes or not.
    field: Range<usize>,
    /// The position of the operator.
    operator: usize,
}

/// True if `!=` stands anywhere in `filter`, whether as an operator or not.
#[must_use]
pub fn stands_in(filter: &Value) -> bool {
    let in_text = |text: &str| text.contains("!=");
    match filter {
        Value::String(text) => in_text(text),
        Value::Array(elements) => elements.iter().any(stands_in),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| in_text(name) || stands_in(value)),
        _ => false,
    }
}

/// The fields that `filter` compares by `!=`, named as by [`name_of`], each once.
#[must_use]
pub fn fields(filter: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for_each_text(filter, &mut |text| {
        for condition in conditions(text).unwrap_or_default() {
            let name = text.get(condition.field).map(name_of).unwrap_or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    });
    names
}

/// `filter` with `NOT field = value` for each `field != value` whose field is `known`; `None` if there is none.
#[must_use]
pub fn reworded(filter: &Value, known: &dyn Fn(&str) -> bool) -> Option<Value> {
    let list = |elements: &[Value]| {
        let new: Vec<Option<Value>> = elements
            .iter()
            .map(|element| reworded(element, known))
            .collect();
        new.iter().any(Option::is_some).then(|| {
            let both = elements.iter().zip(new);
            both.map(|(old, new)| new.unwrap_or_else(|| old.clone()))
                .collect()
        })
    };
    match filter {
        Value::String(text) => reworded_text(text, known).map(Value::String),
        Value::Array(elements) => list(elements),
        _ => None,
    }
}

/// The same for a filter's text.
#[must_use]
pub fn reworded_text(text: &str, known: &dyn Fn(&str) -> bool) -> Option<String> {
    let mut new = String::with_capacity(text.len() + 16);
    let mut copied = 0;
    for condition in conditions(text)? {
        let name = name_of(text.get(condition.field)?);
        if known(&name) {
            new.push_str(text.get(copied..condition.start)?);
            new.push_str(NOT);
            new.push_str(text.get(condition.start..condition.operator)?);
            // Leaves out the exclamation mark.
            copied = condition.operator + 1;
        }
    }
    if copied == 0 {
        return None;
    }
    new.push_str(text.get(copied..)?);
    Some(new)
}

/// A pair of positions at which the old and the rewritten text have the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The position in the rewritten text, in bytes.
    pub new: usize,
    /// The position in the old text, in bytes.
    pub old: usize,
}

/// Which parts of `old` are where in `new`, which is `old` with some of its conditions rewritten; `None` if `new` is
/// another text.
#[must_use]
pub fn aligned(old: &str, new: &str) -> Option<Vec<Step>> {
    let mut steps = vec![Step { new: 0, old: 0 }];
    for condition in conditions(old)? {
        let last = steps.last()?;
        let at = last.new + (condition.start - last.old);
        let kept = old.get(condition.start..condition.operator)?;
        let there = new.get(at..)?;
        let is_rewritten = |rest: &str| rest.starts_with(kept);
        if !there.strip_prefix(NOT).is_some_and(is_rewritten) {
            continue;
        }
        let inner = at + NOT.len();
        let equal = inner + kept.len();
        steps.push(Step {
            new: inner,
            old: condition.start,
        });
        steps.push(Step {
            new: equal,
            old: condition.operator + 1,
        });
    }
    let mut rebuilt = String::new();
    for (at, step) in steps.iter().enumerate() {
        let next = steps.get(at + 1);
        let end = next.map_or(old.len(), |next| match at % 2 {
            // An odd step ends before the exclamation mark.
            1 => next.old - 1,
            _ => next.old,
        });
        rebuilt.push_str(old.get(step.old..end)?);
        if at % 2 == 0 && next.is_some() {
            rebuilt.push_str(NOT);
        }
    }
    (rebuilt == new && steps.len() > 1).then_some(steps)
}

/// A filter that matches all documents if the field `name` is known, and none if it isn't.
#[must_use]
pub fn is_known(name: &str) -> String {
    let field = written(name);
    format!("{field} = 0 OR {field} != 0")
}

/// A field's name without its quotes. A name with a backslash keeps them and stays as it was written.
fn name_of(written: &str) -> String {
    let inner = written
        .get(1..written.len().saturating_sub(1))
        .filter(|inner| written.starts_with(['"', '\'']) && !inner.contains('\\'));
    inner.unwrap_or(written).to_owned()
}

/// A field's name as a filter needs it.
fn written(name: &str) -> String {
    if name.contains('\\') {
        name.to_owned()
    } else if name.contains('"') {
        format!("'{name}'")
    } else {
        format!("\"{name}\"")
    }
}

/// Calls `each` with all texts of a filter, down to the depth at which a node looks.
fn for_each_text<'a>(filter: &'a Value, each: &mut dyn FnMut(&'a str)) {
    match filter {
        Value::String(text) => each(text),
        Value::Array(elements) => elements
            .iter()
            .for_each(|element| for_each_text(element, each)),
        _ => {}
    }
}

/// The conditions with `!=` in a filter's text, in order; `None` if the text can't be read.
fn conditions(text: &str) -> Option<Vec<Unequal>> {
    let mut found = Vec::new();
    if !text.contains("!=") {
        return Some(found);
    }
    let mut last: Option<(usize, Range<usize>)> = None;
    let mut at = 0;
    loop {
        let start = at;
        at += spaces(rest(text, at));
        let Some(first) = rest(text, at).chars().next() else {
            return Some(found);
        };
        let end = at + token_length(rest(text, at), first)?;
        if first == '"' || first == '\'' || is_word(first) {
            last = Some((start, at..end));
        } else if text.get(at..end) == Some("!=") {
            let (start, field) = last.take()?;
            found.push(Unequal {
                start,
                field,
                operator: at,
            });
        } else {
            last = None;
        }
        at = end;
    }
}

fn rest(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

fn spaces(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// True for a character that a word of a filter may contain outside of quotes.
fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.')
}

/// The length of the token at the beginning of `text`; `None` for a quote that doesn't end.
fn token_length(text: &str, first: char) -> Option<usize> {
    match first {
        '"' | '\'' => quoted_length(text, first),
        '!' if text.starts_with("!=") => Some(2),
        _ if is_word(first) => {
            let end = text.find(|letter| !is_word(letter));
            Some(end.unwrap_or(text.len()))
        }
        _ => Some(first.len_utf8()),
    }
}

/// A quote ends at the next quote of its kind; a character after a backslash has no special meaning.
fn quoted_length(text: &str, quote: char) -> Option<usize> {
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        if letter == quote {
            return Some(at + quote.len_utf8());
        }
        if letter == '\\' {
            letters.next()?;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let new = reworded_text(text, &|_| true);
        assert_eq!(new.as_deref().unwrap_or(text), expected);
    }

    #[test]
    fn an_unequal_becomes_the_negation_of_an_equal() {
        check("a != 1", " NOT a = 1");
        check("a!=1", " NOT a=1");
        check("  a  !=  'x y' ", " NOT   a  =  'x y' ");
        check("NOT a != 1", "NOT NOT  a = 1");
        check("(a != 1)", "( NOT a = 1)");
        check("a = 1 AND b.c != x", "a = 1 AND NOT  b.c = x");
        check(
            "(a != 1 OR b != 2) AND NOT (c != 3)",
            "( NOT a = 1 OR NOT  b = 2) AND NOT ( NOT c = 3)",
        );
    }

    #[test]
    fn a_field_may_be_quoted_and_stand_right_after_a_word() {
        check(
            r#"x = 1 AND"a b"!='c'OR'd'!=e"#,
            r#"x = 1 AND NOT "a b"='c'OR NOT 'd'=e"#,
        );
        check(r#""a\" != b" != 1"#, r#" NOT "a\" != b" = 1"#);
        check("\u{a0}été != 1", " NOT \u{a0}été = 1");
    }

    #[test]
    fn what_is_quoted_or_no_condition_stays() {
        for text in [
            "a = '!='",
            "a = \"b != c\"",
            "a IN ['x != y', z]",
            "a > 1 AND b NOT IN [1]",
            "",
            "!= 1",
            "a = 1 != 2 'never ends",
            "(a) != 1",
            "a ! = 1",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn only_known_fields_are_reworded_at_any_depth() {
        let known = |name: &str| name == "a";
        let filter = json!(["a != 1 AND b != 2", ["b != 1", "\"a\" != 2"], "c = 1"]);
        let new = json!([
            " NOT a = 1 AND b != 2",
            ["b != 1", " NOT \"a\" = 2"],
            "c = 1"
        ]);
        assert_eq!(reworded(&filter, &known), Some(new));
        assert_eq!(fields(&filter), ["a", "b"]);
        for other in [json!("b != 1"), json!(7), json!(null), json!({"a != 1": 1})] {
            assert_eq!(reworded(&other, &known), None);
        }
    }

    #[test]
    fn an_unequal_is_noticed_wherever_it_stands() {
        for filter in [
            json!("a!=1"),
            json!(["b = 1", ["a != 1"]]),
            json!("b = 'a != 1'"),
            json!([{"a": "!="}]),
            json!({"!=": 1}),
        ] {
            assert!(stands_in(&filter), "{filter}");
        }
        for filter in [json!("a = 1 !"), json!(["!", "="]), json!(1), json!(null)] {
            assert!(!stands_in(&filter), "{filter}");
        }
    }

    #[test]
    fn a_field_is_asked_for_as_it_was_written() {
        let asked = |text: &str| is_known(&fields(&json!(text))[0]);
        assert_eq!(asked("a.b != 1"), r#""a.b" = 0 OR "a.b" != 0"#);
        assert_eq!(asked("'a b' != 1"), r#""a b" = 0 OR "a b" != 0"#);
        assert_eq!(asked("'a \"b' != 1"), r#"'a "b' = 0 OR 'a "b' != 0"#);
        assert_eq!(asked(r"'a\'b' != 1"), r"'a\'b' = 0 OR 'a\'b' != 0");
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in r#"([ab!=<>()\[\],'"\\ éß]|!=|AND|OR|NOT){0,40}"#) {
            let found = fields(&json!(text));
            match reworded_text(&text, &|_| true) {
                Some(new) => {
                    prop_assert!(!found.is_empty());
                    prop_assert_eq!(reworded_text(&new, &|_| true), None);
                }
                None => prop_assert!(found.is_empty()),
            }
        }
    }
}
