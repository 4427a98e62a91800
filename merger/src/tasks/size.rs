//! Parses and prints sizes in the text form that nodes use.

/// Units by which sizes are printed: each is `step` times the one before.
struct Units {
    step: f64,
    names: [&'static str; 5],
}

const BINARY: Units = Units {
    step: 1024.0,
    names: ["B", "KiB", "MiB", "GiB", "TiB"],
};
const DECIMAL: Units = Units {
    step: 1000.0,
    names: ["B", "KB", "MB", "GB", "TB"],
};

impl Units {
    /// A size in the largest unit of which it is at least one.
    fn express(&self, bytes: f64) -> (f64, &'static str) {
        let mut value = bytes;
        let mut names = self.names.into_iter();
        let mut name = names.next().unwrap_or_default();
        while value >= self.step
            && let Some(next) = names.next()
        {
            value /= self.step;
            name = next;
        }
        (value, name)
    }
}

/// Parses `68 KiB` or `1.25 MiB` into bytes.
pub(super) fn parse(words: &str) -> Option<f64> {
    let (number, unit) = words.split_once(' ')?;
    let power = BINARY.names.iter().position(|known| *known == unit)?;
    let number: f64 = number.parse().ok()?;
    Some(number * BINARY.step.powi(i32::try_from(power).ok()?))
}

/// Prints a size in bytes in binary units, with at most two decimals.
pub fn print(bytes: f64) -> String {
    let (value, unit) = BINARY.express(bytes);
    format!("{} {unit}", (value * 100.0).round() / 100.0)
}

/// Prints the limit of a body's size as nodes do in their error: in binary units if it is a multiple of 1,024 bytes, else in
/// decimal units, and with all decimals.
pub fn print_limit(bytes: u64) -> String {
    let units = if bytes.is_multiple_of(1024) {
        BINARY
    } else {
        DECIMAL
    };
    let (value, unit) = units.express(bytes as f64);
    format!("{value} {unit}")
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

    #[test]
    fn limits_are_printed_as_nodes_print_them() {
        assert_eq!(print_limit(3), "3 B");
        assert_eq!(print_limit(100 << 20), "100 MiB");
        assert_eq!(print_limit(1_500_000), "1.5 MB");
        assert_eq!(print_limit(4 << 30), "4 GiB");
        assert_eq!(print_limit(0), "0 B");
    }
}
