//! Which values of one field can match a filter.
//!
//! Pure: functions of values.

use super::parse::{Condition, Filter};
use crate::value::RoutingValue;

/// The most intervals of a kind. A filter with more is taken to match more than it does.
const MOST: usize = 1000;
/// The longest value that is looked at, in bytes: a node compares longer ones by their beginnings.
const LONGEST: usize = 300;

/// Numbers, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Numbers {
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Numbers {
    /// The only integer among them, if it is the only one that a node takes for this number.
    pub(super) fn integer(&self) -> Option<i64> {
        const LARGEST: f64 = 9_007_199_254_740_992.0;
        let is_one = self.from == self.to && self.from.fract() == 0.0 && self.from.abs() < LARGEST;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "an integer of at most 53 bits"
        )]
        is_one.then_some(self.from as i64)
    }

    /// Whether it is one number that isn't an integer, so that no id is equal to it.
    pub(super) fn is_fraction(&self) -> bool {
        self.from == self.to && self.from.fract() != 0.0
    }

    fn and(&self, other: &Self) -> Option<Self> {
        let (from, to) = (self.from.max(other.from), self.to.min(other.to));
        (from <= to).then_some(Self { from, to })
    }
}

/// Texts in their normal form, both ends inclusive and missing where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
}

impl Texts {
    /// The only text, if it is one.
    pub(super) fn only(&self) -> Option<&str> {
        let from = self.from.as_deref()?;
        (self.to.as_deref() == Some(from)).then_some(from)
    }

    /// Whether any integer from `least` to `most` may be among them, written as a text.
    pub(super) fn hold_integers(&self, (least, most): (i128, i128)) -> bool {
        let low = self.from.as_deref().unwrap_or_default();
        // All negative ones begin with the same sign.
        let below_zero = match low.strip_prefix('-') {
            Some(digits) => Some(digits),
            None => (low < "-").then_some(""),
        };
        (1..=20_u32).any(|digits| {
            let (first, end) = match digits {
                1 => (0, 9),
                _ => (10_i128.pow(digits - 1), 10_i128.pow(digits) - 1),
            };
            let hold = |sign: &str, low: &str, from: i128, to: i128| {
                let found = first_from(low, digits).map(|number| number.max(from).max(first));
                let found = found.filter(|number| *number <= to.min(end));
                let high = self.to.as_deref();
                found.is_some_and(|number| {
                    high.is_none_or(|high| format!("{sign}{number}").as_str() <= high)
                })
            };
            hold("", low, least, most)
                || below_zero.is_some_and(|low| hold("-", low, (-most).max(1), -least))
        })
    }

    /// Whether any other id from `from` to before `to` may be among them.
    pub(super) fn hold_others(&self, from: &str, to: Option<&str>) -> bool {
        // Ids are ordered as they are written, so only the part without letters tells where the spellings of a text begin.
        let low = self.from.as_deref().unwrap_or_default();
        let plain = low.bytes().position(|byte| byte >= b'A');
        let low = low.get(..plain.unwrap_or(low.len())).unwrap_or_default();
        let low = low.max(from);
        // A text comes after all of its other spellings.
        let ends_after = self.to.as_deref().is_none_or(|high| low <= high);
        ends_after && to.is_none_or(|to| low < to)
    }

    fn and(&self, other: &Self) -> Option<Self> {
        let from = self.from.as_ref().max(other.from.as_ref());
        let to = match (&self.to, &other.to) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.as_ref().or(two.as_ref()),
        };
        let is_empty = from.zip(to).is_some_and(|(from, to)| from > to);
        (!is_empty).then(|| Self {
            from: from.cloned(),
            to: to.cloned(),
        })
    }
}

/// The least number that is not before `low` as a text, among those with as many digits (or zeros before them).
fn first_from(low: &str, digits: u32) -> Option<i128> {
    let length = usize::try_from(digits).ok()?;
    let plain = low.bytes().take(length);
    let plain = plain.take_while(u8::is_ascii_digit).count();
    let start: i128 = match low.get(..plain)? {
        "" => 0,
        start => start.parse().ok()?,
    };
    // The next letter of `low` comes after any digit, or there is one where the number has ended.
    let is_beyond = low.as_bytes().get(plain);
    let is_beyond = is_beyond.is_some_and(|letter| plain == length || *letter > b'9');
    let missing = digits.checked_sub(u32::try_from(plain).ok()?)?;
    let number = (start + i128::from(is_beyond)) * 10_i128.pow(missing);
    (number < 10_i128.pow(digits)).then_some(number)
}

/// The values of a field that can match.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Region {
    pub(super) numbers: Vec<Numbers>,
    pub(super) texts: Vec<Texts>,
}

impl Region {
    /// The values of `field` that can match `filter`; `None` for all, and for documents without one.
    pub(super) fn of(filter: &Filter, field: &str) -> Option<Self> {
        match filter {
            Filter::Anything => None,
            Filter::Compare(name, condition) if name == field => Self::of_condition(condition),
            Filter::Compare(..) => None,
            Filter::All(filters) => {
                let regions = filters.iter().filter_map(|filter| Self::of(filter, field));
                regions.reduce(|one, two| one.and(two))
            }
            Filter::AnyOf(filters) => {
                let mut all = Self::default();
                for filter in filters {
                    let region = Self::of(filter, field)?;
                    all.numbers.extend(region.numbers);
                    all.texts.extend(region.texts);
                }
                (all.len() <= MOST).then_some(all)
            }
        }
    }

    fn of_condition(condition: &Condition) -> Option<Self> {
        match condition {
            Condition::Equal(value) => {
                let (number, text) = (number(value)?, normal(value)?);
                let numbers = number.map(|number| (number, number));
                Some(Self::new(numbers, Some(text.clone()), Some(text)))
            }
            Condition::Above(value) => {
                let numbers = number(value)?.map(|number| (number, f64::INFINITY));
                Some(Self::new(numbers, Some(low(value)?), None))
            }
            Condition::Below(value) => {
                let numbers = number(value)?.map(|number| (f64::NEG_INFINITY, number));
                Some(Self::new(numbers, None, Some(high(value)?)))
            }
            Condition::Between(from, to) => {
                let numbers = number(from)?.zip(number(to)?);
                Some(Self::new(numbers, Some(low(from)?), Some(high(to)?)))
            }
        }
    }

    fn new(numbers: Option<(f64, f64)>, from: Option<String>, to: Option<String>) -> Self {
        let numbers = numbers.filter(|(from, to)| from <= to);
        let numbers = numbers.map(|(from, to)| Numbers { from, to });
        Self {
            numbers: numbers.into_iter().collect(),
            texts: Texts {
                from: None,
                to: None,
            }
            .and(&Texts { from, to })
            .into_iter()
            .collect(),
        }
    }

    fn len(&self) -> usize {
        self.numbers.len() + self.texts.len()
    }

    /// What is in both; the smaller one of both if that would be too much.
    fn and(self, other: Self) -> Self {
        let is_much = self.numbers.len() * other.numbers.len() > MOST
            || self.texts.len() * other.texts.len() > MOST;
        if is_much {
            return if self.len() <= other.len() {
                self
            } else {
                other
            };
        }
        let mut both = Self::default();
        for one in &self.numbers {
            let shared = other.numbers.iter().filter_map(|two| one.and(two));
            both.numbers.extend(shared);
        }
        for one in &self.texts {
            let shared = other.texts.iter().filter_map(|two| one.and(two));
            both.texts.extend(shared);
        }
        both
    }
}

/// The number that a value is compared as, if it is one. `None` if the value can't be judged here.
#[allow(clippy::option_option, reason = "unknown, no number, or a number")]
fn number(value: &str) -> Option<Option<f64>> {
    (value.len() <= LONGEST).then(|| {
        let number = value.trim().parse::<f64>().ok();
        number.filter(|number| number.is_finite())
    })
}

/// The normal form by which a node compares a text. `None` if the value can't be judged here.
fn normal(value: &str) -> Option<String> {
    if is_plain(value) {
        return Some(value.trim().to_ascii_lowercase());
    }
    let value = RoutingValue::from_text(value).ok()?;
    Some(value.as_str().to_owned())
}

/// Older nodes compare normal forms of texts with the value as it was written, newer ones with its normal form: the lower one.
fn low(value: &str) -> Option<String> {
    let normal = normal(value).filter(|_| is_plain(value))?;
    Some(normal.min(value.to_owned()))
}

/// The higher one.
fn high(value: &str) -> Option<String> {
    let normal = normal(value).filter(|_| is_plain(value))?;
    Some(normal.max(value.to_owned()))
}

/// Whether the normal form of a value is known without a table of letters.
fn is_plain(value: &str) -> bool {
    value.is_ascii() && value.len() <= LONGEST
}
