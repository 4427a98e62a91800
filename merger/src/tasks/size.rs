//! Parses and prints sizes in the text form that nodes use.

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Parses `68 KiB` or `1.25 MiB` into bytes.
pub(super) fn parse(words: &str) -> Option<f64> {
    let (number, unit) = words.split_once(' ')?;
    let power = UNITS.iter().position(|known| *known == unit)?;
    let number: f64 = number.parse().ok()?;
    Some(number * 1024_f64.powi(i32::try_from(power).ok()?))
}

/// Prints a size in bytes, with at most two decimals.
pub fn print(bytes: f64) -> String {
    let (mut value, mut units) = (bytes, UNITS.iter().peekable());
    let mut unit = units.next().unwrap_or(&"B");
    while value >= 1024.0
        && let Some(next) = units.next()
    {
        value /= 1024.0;
        unit = next;
    }
    format!("{} {unit}", (value * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed_as_nodes_print_them() {
        for words in ["68 KiB", "44 KiB", "1.25 MiB", "0 B", "512 B", "3 GiB"] {
            assert_eq!(print(parse(words).unwrap()), words);
        }
        assert_eq!(
            print(parse("68 KiB").unwrap() + parse("1000 KiB").unwrap()),
            "1.04 MiB"
        );
        assert_eq!(parse("many KiB"), None);
    }
}
