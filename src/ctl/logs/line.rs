//! The lines of a log, and which of them are printed.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};

use jiff::Timestamp;
use regex::bytes::Regex;

use super::super::args::Logs;
use super::super::error::Error;

/// A line as the kubelet gives it with `timestamps=true`: when it was written, a space, and the line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was written; `None` where it does not begin with a time.
    pub at: Option<Timestamp>,
    /// What was written, with its line break.
    pub text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Divides it.
    pub fn read(line: &'a [u8]) -> Self {
        let divided = line.iter().position(|byte| *byte == b' ').map(|space| line.split_at(space));
        let at = divided.and_then(|(at, _)| std::str::from_utf8(at).ok()?.parse().ok());
        match (at, divided) {
            (Some(at), Some((_, text))) => Self { at: Some(at), text: text.get(1..).unwrap_or_default() },
            _ => Self { at: None, text: line },
        }
    }
}

impl Line<'_> {
    /// The text without its line break and control characters.
    pub fn printable(&self) -> String {
        without_controls(self.text.strip_suffix(b"\n").unwrap_or(self.text))
    }
}

/// Prints those lines that were asked for.
pub struct Printer {
    grep: Option<Regex>,
    with_times: bool,
    is_terminal: bool,
    /// The last lines, until it is known which they are.
    tail: Option<(usize, VecDeque<Vec<u8>>)>,
    /// When the last line was written that it was given.
    pub last: Option<Timestamp>,
}

impl Printer {
    /// As the options ask for it.
    pub fn new(what: &Logs) -> Result<Self, Error> {
        let grep = what.grep.as_deref().map(Regex::new).transpose();
        Ok(Self {
            grep: grep.map_err(|error| Error::Usage(format!("--grep is not a regular expression: {error}")))?,
            with_times: what.timestamps,
            is_terminal: io::stdout().is_terminal(),
            tail: what.tail.map(|count| (count, VecDeque::new())),
            last: None,
        })
    }

    /// Prints it, or keeps it until it is known to be one of the last.
    pub fn take(&mut self, line: &Line) -> Result<(), Error> {
        self.last = line.at.or(self.last);
        let text = line.text.strip_suffix(b"\n").unwrap_or(line.text);
        if self.grep.as_ref().is_some_and(|grep| !grep.is_match(text)) {
            return Ok(());
        }
        let mut printed = Vec::new();
        if let Some(at) = line.at.filter(|_| self.with_times) {
            printed.extend_from_slice(format!("{at} ").as_bytes());
        }
        if self.is_terminal {
            printed.extend_from_slice(without_controls(text).as_bytes());
        } else {
            printed.extend_from_slice(text);
        }
        printed.push(b'\n');
        match &mut self.tail {
            None => Ok(io::stdout().write_all(&printed)?),
            Some((count, kept)) => {
                kept.push_back(printed);
                if kept.len() > *count {
                    kept.pop_front();
                }
                Ok(())
            }
        }
    }

    /// Prints what was kept; what comes now is printed at once.
    pub fn flush(&mut self) -> Result<(), Error> {
        for line in self.tail.take().map(|(_, kept)| kept).unwrap_or_default() {
            io::stdout().write_all(&line)?;
        }
        Ok(io::stdout().flush()?)
    }
}

/// A task's text, without anything that would move a terminal's cursor.
fn without_controls(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|it| *it == '\t' || !it.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_divided_into_its_time_and_its_text() {
        let line = Line::read(b"2026-03-01T10:00:00.5Z crew begins\n");
        assert_eq!((line.at, line.text), ("2026-03-01T10:00:00.5Z".parse().ok(), &b"crew begins\n"[..]));
        for odd in [&b"no time here\n"[..], b"\n", b"", b"2026-03-01T10:00:00Z", b"\xff\xfe x\n"] {
            assert_eq!(Line::read(odd), Line { at: None, text: odd });
        }
    }

    #[test]
    fn on_a_terminal_no_line_moves_the_cursor() {
        assert_eq!(without_controls(b"a\x1b[2Jb\tc\r\xff"), "a[2Jb\tc\u{fffd}");
    }
}
