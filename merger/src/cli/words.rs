//! Values of answers in words for people. Pure functions.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A text member; empty if there is none.
pub(super) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or("")
}

/// A number member; 0 if there is none.
pub(super) fn number(value: &Value, member: &str) -> u64 {
    value.get(member).and_then(Value::as_u64).unwrap_or(0)
}

/// A truth member; false if there is none.
pub(super) fn holds(value: &Value, member: &str) -> bool {
    value.get(member).and_then(Value::as_bool).unwrap_or(false)
}

/// A list member; empty if there is none.
pub(super) fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    let list = value.get(member).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// A value that a cell shows: texts without their quotes, nothing for `null`.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A count with its thousands apart: `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and what is counted: `1 node`, `2 nodes`.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A size: `3.4 MiB`.
#[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(super) fn bytes(number: u64) -> String {
    let mut size = number as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            let decimals = usize::from(unit != "B");
            return format!("{size:.decimals$} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

/// A size as people write it: `8388608`, `8MiB`, `500k`. Units are powers of 1,024, with `MB` as with `MiB` and `M`.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let refused = || format!("`{text}` is no size, such as 8388608, 500k or 8MiB");
    let end = text.find(|letter: char| !letter.is_ascii_digit());
    let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if !unit.contains('i') => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(refused()),
    };
    let number: u64 = digits.parse().map_err(|_| refused())?;
    number.checked_mul(1 << shift).ok_or_else(refused)
}

/// A span of time: `12 s`, `3 min`, `2 h 5 min`, `4 d`.
pub(super) fn seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long ago a moment was, as the API writes it; the text itself if it isn't one.
pub(super) fn ago(moment: &str, now: OffsetDateTime) -> String {
    match OffsetDateTime::parse(moment, &Rfc3339) {
        Ok(then) => {
            let past = (now - then).whole_seconds();
            format!("{} ago", seconds(u64::try_from(past).unwrap_or(0)))
        }
        Err(_) => moment.to_owned(),
    }
}

/// A task's duration, as the API writes it (`PT1.23S`), in seconds; the text itself if it isn't one.
pub(super) fn duration(text: &str) -> String {
    let digits = text
        .strip_prefix("PT")
        .and_then(|rest| rest.strip_suffix('S'));
    match digits.and_then(|digits| digits.parse::<f64>().ok()) {
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
        None => text.to_owned(),
    }
}

/// A part of a whole, in percent.
#[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(super) fn share(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}

/// A text that is no longer than `most` characters; what is cut off is shown as `…`. Control characters become spaces.
pub(super) fn cut(text: &str, most: usize) -> String {
    let clean = text.replace(char::is_control, " ");
    if clean.chars().count() <= most {
        return clean;
    }
    let mut short: String = clean.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A name as a part of a path.
pub(super) fn encoded(name: &str) -> String {
    // A space becomes `+`, which means a plus sign in a path.
    let form: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    form.replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_sizes_and_times_are_short_and_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "node", "nodes"), "1 node");
        assert_eq!(counted(0, "node", "nodes"), "0 nodes");
        assert_eq!(bytes(17), "17 B");
        assert_eq!(bytes(3 << 19), "1.5 MiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(seconds(119), "119 s");
        assert_eq!(seconds(7_500), "2 h 5 min");
        assert_eq!(seconds(200_000), "2 d");
        assert_eq!(duration("PT0.0123S"), "12 ms");
        assert_eq!(duration("PT12.34S"), "12.3 s");
        assert_eq!(duration("P1D"), "P1D");
        assert_eq!(share(1_365, 4_096), "33.3 %");
        assert_eq!(share(0, 0), "0.0 %");
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, size) in [
            ("0", 0),
            ("8388608", 8 << 20),
            ("8MiB", 8 << 20),
            ("8M", 8 << 20),
            ("500k", 500 << 10),
            ("2 GB", 2 << 30),
            ("12B", 12),
        ] {
            assert_eq!(parse_bytes(text), Ok(size), "{text}");
        }
        for text in ["", "M", "8x", "-1", "1.5M", "99999999999G", "4i", "4iB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_is_told_from_now_and_the_future_is_now() {
        let now = OffsetDateTime::from_unix_timestamp(1_000_000).unwrap();
        assert_eq!(ago("1970-01-12T13:46:00Z", now), "40 s ago");
        assert_eq!(ago("1971-01-12T13:46:00Z", now), "0 s ago");
        assert_eq!(ago("yesterday", now), "yesterday");
    }

    #[test]
    fn what_is_cut_is_marked_and_holds_no_control_characters() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "long…");
        assert_eq!(cut("a\u{1b}[31m\nb", 20), "a [31m b");
        assert_eq!(encoded("a:7700/é b"), "a%3A7700%2F%C3%A9%20b");
    }
}
