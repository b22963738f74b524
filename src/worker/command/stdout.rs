//! What a command prints.

use super::answer::{self, Said};
use super::lines::{Line, Lines};
use super::reports::Reports;
use super::spec::Output;
use super::stderr::Names;
use super::values::{Printed, Values};

/// Reads the output: notes reports, keeps what may be the result, logs the rest.
pub(super) struct Stdout<'a> {
    limit: usize,
    names: Names<'a>,
    reports: &'a Reports,
    lines: Lines,
    kept: Kept,
}

enum Kept {
    Json {
        /// The last line that is an answer.
        answer: Option<Vec<u8>>,
        values: Values,
    },
    Text {
        text: Vec<u8>,
        too_large: bool,
    },
}

impl<'a> Stdout<'a> {
    pub(super) fn new(output: Output, limit: usize, names: Names<'a>, reports: &'a Reports) -> Self {
        let kept = match output {
            Output::Json => Kept::Json { answer: None, values: Values::new(limit) },
            Output::Text => Kept::Text { text: Vec::new(), too_large: false },
        };
        Self { limit, names, reports, lines: Lines::new(limit), kept }
    }

    /// Takes the next chunk.
    pub(super) fn take(&mut self, chunk: &[u8]) {
        let Self { limit, names, reports, lines, kept } = self;
        lines.push(chunk, |line| kept.line(*limit, names, reports, &line));
    }

    /// The end of the stream.
    pub(super) fn finish(mut self) -> Printed {
        let Self { limit, names, reports, lines, kept } = &mut self;
        lines.finish(|line| kept.line(*limit, names, reports, &line));
        match self.kept {
            Kept::Json { answer: Some(answer), .. } => Printed::Text(answer),
            Kept::Json { answer: None, values } => values.finish(&self.names),
            Kept::Text { too_large: true, .. } => Printed::TooLarge(self.limit),
            Kept::Text { text, too_large: false } => Printed::Text(text),
        }
    }
}

impl Kept {
    fn line(&mut self, limit: usize, names: &Names<'_>, reports: &Reports, line: &Line<'_>) {
        let is_part = matches!(self, Self::Json { values, .. } if values.is_inside(line.bytes));
        let said = if line.whole && !is_part { answer::read(line.bytes) } else { Said::Other };
        match (self, said) {
            (_, Said::Interim(interim)) => reports.note(interim, names),
            (Self::Json { answer, .. }, Said::Answer(_)) => *answer = Some(line.bytes.trim_ascii().to_owned()),
            (Self::Json { values, .. }, Said::Malformed | Said::Other) if line.whole => values.line(line.bytes, names),
            (Self::Json { values, .. }, Said::Malformed | Said::Other) => values.too_large(),
            (Self::Text { text, too_large }, Said::Answer(_) | Said::Malformed | Said::Other) => {
                if !line.whole || text.len() + line.bytes.len() + usize::from(line.ended) > limit {
                    (*text, *too_large) = (Vec::new(), true);
                }
                if !*too_large {
                    text.extend_from_slice(line.bytes);
                    text.extend_from_slice(if line.ended { b"\n" } else { b"" });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RawJson;

    fn check(output: Output, text: &str, expected: &str, last_progress: Option<&str>) {
        let reports = Reports::default();
        let mut stdout = Stdout::new(output, 40, Names { id: "i", task: "t" }, &reports);
        stdout.take(text.as_bytes());
        let printed = match stdout.finish() {
            Printed::Text(text) => String::from_utf8(text).unwrap(),
            Printed::Followed(text) => format!("followed: {}", String::from_utf8(text).unwrap()),
            Printed::TooLarge(limit) => format!("more than {limit}"),
        };
        assert_eq!(printed, expected, "{text:?}");
        assert_eq!(reports.progress.borrow().as_ref().map(RawJson::as_str), last_progress, "{text:?}");
    }

    #[test]
    fn the_last_line_that_says_something_is_kept() {
        check(Output::Json, "", "", None);
        check(Output::Json, "a\nb\n\n  \n", "b", None);
        check(Output::Json, "a\r\n  b\r\n", "b", None);
        check(Output::Json, "a\nb", "b", None);
    }

    #[test]
    fn progress_is_no_result() {
        check(Output::Json, "1\n{\"progress\":50}\n{\"progress\":60}\n", "1", Some("60"));
        check(Output::Json, "{\"progress\":50}\n{\"progress\":NaN}", "", Some("50"));
        check(Output::Text, "a\n{\"progress\":50}\nb", "a\nb", Some("50"));
    }

    #[test]
    fn a_line_after_the_result_loses_nothing() {
        let answers = [r#"{"result": 1}"#, r#"{"error":{"type":"E"}}"#, r#"{"error":{"type":"E"},"retry":true}"#];
        for answer in answers {
            check(Output::Json, &format!("{answer}\ntraces are in /tmp\n[2]\n3\n"), answer, None);
        }
        check(Output::Json, &format!("{}\n{{\"result\":1}}\n", "x".repeat(41)), r#"{"result":1}"#, None);
        check(Output::Json, "{\"file\":\"x\"}\nbye\n", "followed: {\"file\":\"x\"}", None);
        check(Output::Json, "[\n  {\"result\": 1}\n]\n", "[\n  {\"result\": 1}\n]", None);
        check(Output::Text, "{\"result\": 1}\nbye", "{\"result\": 1}\nbye", None);
    }

    #[test]
    fn text_is_kept_as_it_is() {
        check(Output::Text, " a\r\n\n b", " a\r\n\n b", None);
    }

    #[test]
    fn too_much_is_told() {
        let long = "x".repeat(41);
        check(Output::Json, &long, "more than 40", None);
        check(Output::Json, &format!("{long}\n1\n"), "more than 40", None);
        check(Output::Json, &"1\n".repeat(100), "1", None);
        check(Output::Text, &long, "more than 40", None);
        check(Output::Text, &"1\n".repeat(21), "more than 40", None);
        check(Output::Text, &"1\n".repeat(20), &"1\n".repeat(20), None);
    }
}
