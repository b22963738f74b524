//! Lines out of chunks, in bounded memory.

/// Cuts a stream into lines and keeps at most `limit` bytes of each.
pub(super) struct Lines {
    limit: usize,
    line: Vec<u8>,
    whole: bool,
}

/// One line.
pub(super) struct Line<'a> {
    /// Its first bytes, without the newline.
    pub bytes: &'a [u8],
    /// Whether these are all.
    pub whole: bool,
    /// Whether a newline ended it, rather than the end of the stream.
    pub ended: bool,
}

impl Lines {
    /// What is kept for the next line, although it was needed for a long one.
    const SPARE: usize = 64 << 10;

    pub(super) fn new(limit: usize) -> Self {
        Self { limit, line: Vec::new(), whole: true }
    }

    /// Takes the next chunk, and gives every line that ends in it to `each`.
    pub(super) fn push(&mut self, chunk: &[u8], mut each: impl FnMut(Line<'_>)) {
        for piece in chunk.split_inclusive(|&byte| byte == b'\n') {
            let (bytes, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |bytes| (bytes, true));
            let room = self.limit - self.line.len();
            self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
            self.whole &= bytes.len() <= room;
            if ended {
                self.give(true, &mut each);
            }
        }
    }

    /// Gives what came after the last newline, if anything did.
    pub(super) fn finish(&mut self, mut each: impl FnMut(Line<'_>)) {
        if !self.line.is_empty() || !self.whole {
            self.give(false, &mut each);
        }
    }

    /// Whether a line has begun.
    pub(super) fn begun(&self) -> bool {
        !self.line.is_empty() || !self.whole
    }

    fn give(&mut self, ended: bool, each: &mut impl FnMut(Line<'_>)) {
        each(Line { bytes: &self.line, whole: self.whole, ended });
        self.line.clear();
        self.line.shrink_to(Self::SPARE);
        self.whole = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limit: usize, chunks: &[&str], expected: &[(&str, bool, bool)]) {
        let mut lines = Lines::new(limit);
        let mut given = Vec::new();
        let mut each = |line: Line<'_>| {
            given.push((String::from_utf8(line.bytes.to_vec()).unwrap(), line.whole, line.ended));
        };
        for chunk in chunks {
            lines.push(chunk.as_bytes(), &mut each);
        }
        lines.finish(&mut each);
        let expected: Vec<_> = expected.iter().map(|&(text, whole, ended)| (text.to_owned(), whole, ended)).collect();
        assert_eq!(given, expected);
    }

    #[test]
    fn lines_do_not_depend_on_how_they_arrive() {
        let expected = [("ab", true, true), ("", true, true), ("cd", true, false)];
        check(9, &["ab\n\ncd"], &expected);
        check(9, &["a", "b", "\n", "\nc", "d"], &expected);
    }

    #[test]
    fn a_line_beyond_the_limit_is_cut_and_says_so() {
        check(
            3,
            &["abc\nabcd\nab", "cdef", "\nx\n"],
            &[("abc", true, true), ("abc", false, true), ("abc", false, true), ("x", true, true)],
        );
        check(3, &["abcd"], &[("abc", false, false)]);
    }
}
