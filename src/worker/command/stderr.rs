//! What a command writes to its standard error: logged line by line, and the last of it kept.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::lines::{Line, Lines};

/// Longest line that is shown, in bytes.
const LINE: usize = 4 << 10;
/// Most lines, and most bytes, that are kept for a failure.
const TAIL: (usize, usize) = (20, 4 << 10);

/// What tells the lines of one task from those of another.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub id: &'a str,
    pub task: &'a str,
}

/// Reads standard error.
pub(super) struct Stderr<'a> {
    names: Names<'a>,
    lines: Lines,
    tail: Tail,
}

/// The last lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl<'a> Stderr<'a> {
    pub(super) fn new(names: Names<'a>) -> Self {
        Self { names, lines: Lines::new(LINE), tail: Tail::default() }
    }

    /// Takes the next chunk.
    pub(super) fn take(&mut self, chunk: &[u8]) {
        let Self { names, lines, tail } = self;
        lines.push(chunk, |line| tail.log(*names, &line));
    }

    /// The end of the stream.
    pub(super) fn finish(mut self) -> Tail {
        let Self { names, lines, tail } = &mut self;
        lines.finish(|line| tail.log(*names, &line));
        self.tail
    }
}

impl Tail {
    fn log(&mut self, names: Names<'_>, line: &Line<'_>) {
        let mut text = shown(line.bytes).into_owned();
        if !line.whole {
            text.push('…');
        }
        tracing::info!(task.id = names.id, task.name = names.task, line = %text, "written to standard error");
        self.push(text);
    }

    /// Takes one more line, and forgets the first ones where these are too many.
    pub(super) fn push(&mut self, line: String) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.lines.len() > TAIL.0 || (self.bytes > TAIL.1 && self.lines.len() > 1) {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len() + 1);
        }
    }

    /// The last line that says something.
    pub(super) fn last(&self) -> Option<&str> {
        self.lines.iter().rev().map(|line| line.trim()).find(|line| !line.is_empty())
    }

    /// All that is kept, or nothing if that says nothing.
    pub(super) fn text(&self) -> Option<String> {
        self.last()?;
        Some(self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n"))
    }
}

/// As much of `bytes` as is shown in one line.
pub(super) fn shown(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LINE)]);
    if bytes.len() > LINE { Cow::Owned(text.into_owned() + "…") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(text: &str) -> Tail {
        let mut stderr = Stderr::new(Names { id: "i", task: "t" });
        for chunk in text.as_bytes().chunks(1000) {
            stderr.take(chunk);
        }
        stderr.finish()
    }

    #[test]
    fn the_last_words_are_kept() {
        let tail = tail("Traceback\n  here\nValueError: no\n\n");
        assert_eq!(tail.last(), Some("ValueError: no"));
        assert_eq!(tail.text().as_deref(), Some("Traceback\n  here\nValueError: no\n"));
    }

    #[test]
    fn silence_is_no_traceback() {
        assert_eq!(tail("").text(), None);
        assert_eq!(tail("\n \n").text(), None);
    }

    #[test]
    fn twenty_lines_or_four_kibibytes_are_kept() {
        let numbers: String = (0..100).map(|number| number.to_string() + "\n").collect();
        let kept = tail(&numbers).text().unwrap();
        assert_eq!((kept.lines().count(), kept.lines().next()), (20, Some("80")));
        let kept = tail(&format!("{}\n", "x".repeat(300)).repeat(50)).text().unwrap();
        assert_eq!(kept.lines().count(), 13);
    }

    #[test]
    fn a_long_line_is_cut() {
        let kept = tail(&format!("short\n{}", "x".repeat(1 << 20))).text().unwrap();
        assert_eq!(kept.chars().count(), LINE + 1);
        assert!(kept.ends_with("x…"));
    }
}
