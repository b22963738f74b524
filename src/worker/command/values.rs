//! The JSON value among the lines that a program prints: in one line, or pretty-printed.
//!
//! The result is the last line, if that is JSON. Programs print more after it, such as the farewell of a library, and
//! print JSON in several lines, as `jq`, `json.dumps(…, indent=2)` and `JSON.stringify(…, null, 2)` do. So the last
//! object or array is kept as well: one that fills a line, or the lines from one that begins with a bracket to the one
//! that closes it.

use super::answer::is_json;
use super::stderr::{Names, shown};

/// What is left of the output once it has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Printed {
    /// What may be the result. With `output: json` the last answer, or else what [`Values`] leaves; with
    /// `output: text` everything. Without progress.
    Text(Vec<u8>),
    /// With `output: json`, a JSON value that other lines follow.
    Followed(Vec<u8>),
    /// More than this many bytes.
    TooLarge(usize),
}

/// What was found so far, in bounded memory.
pub(super) struct Values {
    /// Most bytes of a value.
    limit: usize,
    /// The last object or array.
    found: Option<Vec<u8>>,
    /// The last line, if it came after that.
    last: Vec<u8>,
    /// An object or array whose end has not come yet.
    open: Option<Open>,
    too_large: bool,
}

struct Open {
    text: Vec<u8>,
    depth: usize,
}

/// What a line makes of an object or array.
enum Step {
    /// More is to come.
    Goes,
    /// It is closed.
    Ends,
    /// It is no JSON.
    Breaks,
}

impl Values {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, found: None, last: Vec::new(), open: None, too_large: false }
    }

    /// Whether this line goes on with an object or array that was begun.
    pub(super) fn is_inside(&self, line: &[u8]) -> bool {
        self.open.is_some() && line.starts_with(b" ") | line.starts_with(b"\t")
    }

    /// Takes the next line, without its newline.
    pub(super) fn line(&mut self, line: &[u8], names: &Names<'_>) {
        let trimmed = line.trim_ascii();
        if let Some(mut open) = self.open.take() {
            let before = open.text.len();
            if before + line.len() + 1 > self.limit {
                self.too_large = true;
                return;
            }
            match open.add(line) {
                Step::Goes => self.open = Some(open),
                Step::Ends if is_value(&open.text) => return self.find(open.text, names),
                Step::Ends | Step::Breaks => log(&open.text[..before], names),
            }
        }
        let begins = trimmed.starts_with(b"{") || trimmed.starts_with(b"[");
        if begins && is_value(trimmed) {
            return self.find(trimmed.to_owned(), names);
        }
        if self.open.is_some() || trimmed.is_empty() {
            return;
        }
        log(&std::mem::take(&mut self.last), names);
        let mut open = Open { text: Vec::new(), depth: 0 };
        if begins && matches!(open.add(line), Step::Goes) {
            self.open = Some(open);
        } else {
            trimmed.clone_into(&mut self.last);
        }
    }

    /// Takes note of a line beyond the limit.
    pub(super) fn too_large(&mut self) {
        self.too_large = true;
    }

    /// What is left in the end.
    pub(super) fn finish(mut self, names: &Names<'_>) -> Printed {
        if self.too_large {
            return Printed::TooLarge(self.limit);
        }
        if let Some(Open { text, .. }) = self.open {
            let last = text.split(|&byte| byte == b'\n').rfind(|line| !line.trim_ascii().is_empty());
            last.unwrap_or_default().trim_ascii().clone_into(&mut self.last);
        }
        match self.found {
            Some(found) if self.last.is_empty() => Printed::Text(found),
            Some(found) if !is_value(&self.last) => {
                log(&self.last, names);
                Printed::Followed(found)
            }
            found => {
                log(&found.unwrap_or_default(), names);
                Printed::Text(self.last)
            }
        }
    }

    /// Another object or array. Those inside an array that goes on are not logged: they are parts of it.
    fn find(&mut self, text: Vec<u8>, names: &Names<'_>) {
        let before = self.found.replace(text);
        if self.open.is_none() {
            log(&before.unwrap_or_default(), names);
            log(&std::mem::take(&mut self.last), names);
        }
    }
}

impl Open {
    fn add(&mut self, line: &[u8]) -> Step {
        if !self.text.is_empty() {
            self.text.push(b'\n');
        }
        self.text.extend_from_slice(line);
        let (mut is_string, mut is_escaped) = (false, false);
        for &byte in line {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if is_string => is_escaped = true,
                b'"' if self.depth > 0 => is_string = !is_string,
                _ if is_string => {}
                b'{' | b'[' if self.depth > 0 || self.is_fresh(line) => self.depth += 1,
                b'}' | b']' if self.depth > 0 => self.depth -= 1,
                b' ' | b'\t' | b'\r' => {}
                // Numbers and words of JSON and of Python's dialect of it.
                b',' | b':' | b'0'..=b'9' | b'+' | b'-' | b'.' if self.depth > 0 => {}
                _ if self.depth > 0 && b"truefalsnNIiyE".contains(&byte) => {}
                _ => return Step::Breaks,
            }
        }
        match self.depth {
            0 => Step::Ends,
            _ if is_string => Step::Breaks,
            _ => Step::Goes,
        }
    }

    /// Whether its first line is being read.
    fn is_fresh(&self, line: &[u8]) -> bool {
        self.text.len() == line.len()
    }
}

fn is_value(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| is_json(text.trim_ascii()))
}

fn log(line: &[u8], names: &Names<'_>) {
    if !line.is_empty() {
        tracing::info!(task.id = names.id, task.name = names.task, line = %shown(line), "printed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(text: &str) -> (String, bool) {
        let names = Names { id: "i", task: "t" };
        let mut values = Values::new(1000);
        for line in text.lines() {
            values.line(line.as_bytes(), &names);
        }
        match values.finish(&names) {
            Printed::Text(text) => (String::from_utf8(text).unwrap(), false),
            Printed::Followed(text) => (String::from_utf8(text).unwrap(), true),
            Printed::TooLarge(limit) => (format!("more than {limit}"), false),
        }
    }

    #[track_caller]
    fn check(text: &str, result: &str) {
        assert_eq!(left(text), (result.to_owned(), false), "{text}");
    }

    #[test]
    fn pretty_printed_json_is_found_among_other_lines() {
        for json in [
            "{\n  \"a\": [\n    1,\n    2\n  ],\n\n  \"b\": \"} [\\\" {\"\n}",
            "[\n1,\n2]",
            "[\n  {\"a\": 1},\n  {\"a\": 2}\n]",
            "{\n\t\"a\": NaN\n}",
        ] {
            check(json, json);
            check(&format!("loading\n[info] ready\n[step 1 of {{\n{json}\n\n"), json);
            assert_eq!(left(&format!("{json}\ntraces are in [/tmp]\n")), (json.to_owned(), true));
        }
    }

    #[test]
    fn the_last_line_counts_if_it_is_json_and_else_the_last_object_or_array() {
        check("{\"level\": \"info\"}\n7", "7");
        check("1\n[2]", "[2]");
        check("1\ndone", "done");
        assert_eq!(left("[1]\n[\n"), ("[1]".to_owned(), true));
        check("1\n[\n", "[");
        assert_eq!(left("{\"a\": 1}\n[2]\nbye\nbye"), ("[2]".to_owned(), true));
        check("[2]\n[NaN]", "[NaN]");
    }

    #[test]
    fn a_value_beyond_the_limit_is_too_large_in_many_lines_too() {
        check(&format!("[\n{}1\n]", "1,\n".repeat(500)), "more than 1000");
        check(&"[1]\n".repeat(500), "[1]");
    }
}
