//! Search and replace in a stream that arrives in chunks.

use bytes::{Bytes, BytesMut};

/// One search and replace; holds back what could be the beginning of a match.
#[derive(Debug)]
pub(super) struct Replace {
    from: Bytes,
    to: Bytes,
    held: BytesMut,
}

impl Replace {
    /// `from` must not be empty.
    pub(super) fn new(from: Bytes, to: Bytes) -> Self {
        Self { from, to, held: BytesMut::new() }
    }

    /// Returns the bytes that can go on, with every match replaced.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> BytesMut {
        let to = self.to.clone();
        self.feed_with(chunk, |out| out.extend_from_slice(&to))
    }

    /// Returns the bytes that can go on, with what `replaced` puts in the place of each match.
    pub(super) fn feed_with(&mut self, chunk: &[u8], mut replaced: impl FnMut(&mut BytesMut)) -> BytesMut {
        self.held.extend_from_slice(chunk);
        let mut out = BytesMut::with_capacity(self.held.len());
        while let Some(at) = find(&self.held, &self.from) {
            out.extend_from_slice(&self.held.split_to(at));
            let _matched = self.held.split_to(self.from.len());
            replaced(&mut out);
        }
        let longest = self.held.len().min(self.from.len().saturating_sub(1));
        let kept = (1..=longest)
            .rev()
            .find(|len| self.held.ends_with(self.from.get(..*len).unwrap_or_default()))
            .unwrap_or(0);
        let free = self.held.len().saturating_sub(kept);
        out.extend_from_slice(&self.held.split_to(free));
        out
    }

    /// Returns what was held back, when no more will come.
    pub(super) fn finish(&mut self) -> BytesMut {
        self.held.split()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(chunks: &[&str]) -> String {
        let mut replace = Replace::new(Bytes::from("abac"), Bytes::from("X"));
        let mut out = BytesMut::new();
        for chunk in chunks {
            out.extend_from_slice(&replace.feed(chunk.as_bytes()));
        }
        out.extend_from_slice(&replace.finish());
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_match_is_found_wherever_the_chunks_end() {
        let text = "ababac-abac-aba";
        for cut in 0..=text.len() {
            for second in cut..=text.len() {
                assert_eq!(replaced(&[&text[..cut], &text[cut..second], &text[second..]]), "abX-X-aba");
            }
        }
    }

    #[test]
    fn bytes_that_cannot_begin_a_match_do_not_wait() {
        let mut replace = Replace::new(Bytes::from("abac"), Bytes::from("X"));
        assert_eq!(&replace.feed(b"xyz")[..], b"xyz");
        assert_eq!(&replace.feed(b"xab")[..], b"x");
        assert_eq!(&replace.feed(b"!")[..], b"ab!");
    }
}
