//! What a command prints.

use tokio::sync::watch;

use super::answer;
use super::lines::{Line, Lines};
use super::spec::Output;
use super::stderr::{Names, shown};
use crate::wire::RawJson;

/// What is left of the output once it has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Printed {
    /// With [`Output::Json`] the last line that says something, with [`Output::Text`] everything. Without progress.
    Text(Vec<u8>),
    /// More than this many bytes.
    TooLarge(usize),
}

/// Reads the output: forwards progress, keeps what may be the result, logs the rest.
pub(super) struct Stdout<'a> {
    output: Output,
    limit: usize,
    names: Names<'a>,
    progress: &'a watch::Sender<Option<RawJson>>,
    lines: Lines,
    kept: Kept,
}

struct Kept {
    text: Vec<u8>,
    too_large: bool,
}

impl<'a> Stdout<'a> {
    pub(super) fn new(
        output: Output,
        limit: usize,
        names: Names<'a>,
        progress: &'a watch::Sender<Option<RawJson>>,
    ) -> Self {
        let kept = Kept { text: Vec::new(), too_large: false };
        Self { output, limit, names, progress, lines: Lines::new(limit), kept }
    }

    /// Takes the next chunk.
    pub(super) fn take(&mut self, chunk: &[u8]) {
        let Self { output, limit, names, progress, lines, kept } = self;
        lines.push(chunk, |line| kept.line(*output, *limit, names, progress, &line));
    }

    /// The end of the stream.
    pub(super) fn finish(mut self) -> Printed {
        let Self { output, limit, names, progress, lines, kept } = &mut self;
        lines.finish(|line| kept.line(*output, *limit, names, progress, &line));
        if self.kept.too_large { Printed::TooLarge(self.limit) } else { Printed::Text(self.kept.text) }
    }
}

impl Kept {
    fn line(
        &mut self,
        output: Output,
        limit: usize,
        names: &Names<'_>,
        progress: &watch::Sender<Option<RawJson>>,
        line: &Line<'_>,
    ) {
        if line.whole && report(line.bytes, names, progress) {
            return;
        }
        match output {
            Output::Json if !line.whole => self.give_up(),
            Output::Json => {
                if line.bytes.trim_ascii().is_empty() {
                    return;
                }
                if !self.text.is_empty() {
                    tracing::info!(task.id = names.id, task.name = names.task, line = %shown(&self.text), "printed");
                }
                line.bytes.trim_ascii().clone_into(&mut self.text);
            }
            Output::Text => {
                if !line.whole || self.text.len() + line.bytes.len() + usize::from(line.ended) > limit {
                    self.give_up();
                }
                if !self.too_large {
                    self.text.extend_from_slice(line.bytes);
                    self.text.extend_from_slice(if line.ended { b"\n" } else { b"" });
                }
            }
        }
    }

    fn give_up(&mut self) {
        self.too_large = true;
        self.text = Vec::new();
    }
}

/// Forwards a progress report; false if the line is none.
pub(super) fn report(line: &[u8], names: &Names<'_>, progress: &watch::Sender<Option<RawJson>>) -> bool {
    let said = std::str::from_utf8(line).ok().and_then(answer::progress);
    match said {
        None => return false,
        Some(Ok(value)) => {
            progress.send_replace(Some(value));
        }
        Some(Err(error)) => {
            tracing::warn!(task.id = names.id, task.name = names.task, %error, "progress report ignored");
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: Output, text: &str, expected: &str, last_progress: Option<&str>) {
        let (progress, latest) = watch::channel(None);
        let mut stdout = Stdout::new(output, 40, Names { id: "i", task: "t" }, &progress);
        stdout.take(text.as_bytes());
        let printed = match stdout.finish() {
            Printed::Text(text) => String::from_utf8(text).unwrap(),
            Printed::TooLarge(limit) => format!("more than {limit}"),
        };
        assert_eq!(printed, expected, "{text:?}");
        assert_eq!(latest.borrow().as_ref().map(RawJson::as_str), last_progress, "{text:?}");
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
