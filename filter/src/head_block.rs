//! The headers of a request as Envoy passes them: one block of bytes, read in place.
//!
//! The block (proxy-wasm 0.2.1, "serialized map", numbers in little endian) is: the number of headers, then the
//! lengths of each name and value, then each name and each value with a zero byte after it.

/// The headers of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadBlock(Vec<u8>);

impl HeadBlock {
    /// The block as it came.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The block that holds these headers.
    #[must_use]
    pub fn of(headers: &[(String, Vec<u8>)]) -> Self {
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
        let mut block = length(headers.len()).to_vec();
        for (name, value) in headers {
            block.extend(length(name.len()));
            block.extend(length(value.len()));
        }
        for (name, value) in headers {
            block.extend(name.as_bytes());
            block.push(0);
            block.extend(value);
            block.push(0);
        }
        Self(block)
    }

    /// Names and values in their order; repeated headers one by one. A truncated block ends early.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let (count, rest) = self.0.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let count = usize::try_from(u32::from_le_bytes(*count)).unwrap_or_default();
        let (lengths, mut texts) = rest
            .split_at_checked(count.saturating_mul(8))
            .unwrap_or_default();
        let mut lengths = lengths
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| u32::from_le_bytes(*bytes));
        std::iter::from_fn(move || {
            let name = take(&mut texts, lengths.next()?)?;
            let value = take(&mut texts, lengths.next()?)?;
            // Envoy's names are ASCII. A name that isn't ASCII can't be one of those that matter.
            Some((std::str::from_utf8(name).unwrap_or_default(), value))
        })
    }
}

/// The next text of this length; the zero byte after it is skipped.
fn take<'b>(texts: &mut &'b [u8], length: u32) -> Option<&'b [u8]> {
    let (text, rest) = texts.split_at_checked(usize::try_from(length).ok()?)?;
    *texts = rest.get(1..)?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> Vec<(String, Vec<u8>)> {
        [
            (":path", &b"/"[..]),
            ("x-a", b""),
            ("x-a", b"\xff\0\xfe"),
            ("", b"v"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_vec()))
        .to_vec()
    }

    fn read(block: &HeadBlock) -> Vec<(String, Vec<u8>)> {
        block
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_vec()))
            .collect()
    }

    #[test]
    fn a_block_gives_back_its_headers() {
        assert_eq!(read(&HeadBlock::of(&headers())), headers());
        assert_eq!(read(&HeadBlock::of(&[])), []);
        assert_eq!(read(&HeadBlock::default()), []);
    }

    #[test]
    fn the_layout_is_the_abis() {
        let block = HeadBlock::of(&[("ab".to_owned(), b"c".to_vec())]);
        assert_eq!(block.0, b"\x01\0\0\0\x02\0\0\0\x01\0\0\0ab\0c\0");
    }

    #[test]
    fn a_block_cut_anywhere_gives_whole_headers_only() {
        let whole = HeadBlock::of(&headers());
        for end in 0..whole.0.len() {
            let cut = read(&HeadBlock::new(whole.0[..end].to_vec()));
            assert!(headers().starts_with(&cut), "{end}: {cut:?}");
        }
        let absurd = HeadBlock::new(vec![0xff; 64]);
        assert_eq!(read(&absurd), []);
    }
}
