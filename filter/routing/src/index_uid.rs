//! The uid of an index: which texts a node accepts as one.

/// The longest uid that a node accepts, in bytes.
pub const MAX_UID_BYTES: usize = 400;

/// Whether a node accepts the text as the uid of an index: not empty, not too long, and only `A-Z a-z 0-9 - _`.
#[must_use]
pub fn is_index_uid(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_UID_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_has_letters_digits_hyphens_and_underscores_and_a_limit() {
        let longest = "x".repeat(MAX_UID_BYTES);
        for uid in ["movies", "A-z_09", "-", "7", longest.as_str()] {
            assert!(is_index_uid(uid), "{uid}");
        }
        let longer = "x".repeat(MAX_UID_BYTES + 1);
        for text in ["", "a b", "a/b", "a.b", "*", "ä", "a\n", longer.as_str()] {
            assert!(!is_index_uid(text), "{text}");
        }
    }
}
