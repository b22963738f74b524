//! What a server says during one call.

use super::super::answer::{self, Answer};
use super::super::classify::{failed, named};
use super::super::lines::Line;
use super::super::reports::Reports;
use super::super::stderr::{Names, Tail, shown};
use crate::worker::outcome::Outcome;

/// Listens to the lines of a server until the call has ended.
pub(super) struct Talk<'a> {
    pub names: Names<'a>,
    reports: &'a Reports,
    said: Option<Said>,
    spoke_on: bool,
}

/// What ended the call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Answer(Answer),
    Malformed(String),
    TooLong(usize),
}

impl<'a> Talk<'a> {
    pub(super) fn new(names: Names<'a>, reports: &'a Reports) -> Self {
        Self { names, reports, said: None, spoke_on: false }
    }

    /// Takes the next line.
    pub(super) fn line(&mut self, line: &Line<'_>) {
        if line.whole && line.bytes.trim_ascii().is_empty() {
            return;
        }
        if !line.whole {
            self.end(Said::TooLong(line.bytes.len()));
            return;
        }
        match answer::read(line.bytes) {
            answer::Said::Interim(interim) if self.said.is_none() => self.reports.note(interim, &self.names),
            answer::Said::Interim(_) => self.spoke_on = true,
            answer::Said::Answer(answer) => self.end(Said::Answer(answer)),
            answer::Said::Malformed => self.end(Said::Malformed(excerpt(line.bytes))),
            answer::Said::Other => {
                tracing::info!(task.id = self.names.id, task.name = self.names.task, line = %shown(line.bytes), "printed");
            }
        }
    }

    fn end(&mut self, said: Said) {
        if self.said.is_some() {
            self.spoke_on = true;
        } else {
            self.said = Some(said);
        }
    }

    /// Whether the call has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.said.is_some()
    }

    /// Whether that was a result.
    pub(super) fn has_succeeded(&self) -> bool {
        matches!(self.said, Some(Said::Answer(Answer::Result(Ok(_)))))
    }

    /// Whether no answer or report followed the end of the call.
    pub(super) fn in_step(&self) -> bool {
        !self.spoke_on
    }

    /// Whether the server can be asked again.
    pub(super) fn keeps_the_contract(&self) -> bool {
        matches!(self.said, Some(Said::Answer(_)))
    }

    /// What the end of the call means.
    pub(super) fn outcome(self, errors: &Tail) -> Outcome {
        match self.said {
            Some(Said::Answer(Answer::Result(Ok(value)))) => Outcome::Succeeded(value),
            Some(Said::Answer(Answer::Result(Err(flaw)))) => {
                let message = format!("the result is no JSON that Celery can carry: {flaw}");
                failed("InvalidResult", message, errors, false)
            }
            // No exit status says whether another run may succeed.
            Some(Said::Answer(Answer::Error(described))) => named(&described, errors, false),
            Some(Said::Malformed(line)) => {
                let message = format!("a line of standard output has the keys of an answer and is none: {line}");
                failed("InvalidResult", message, errors, false)
            }
            Some(Said::TooLong(limit)) => {
                let message = format!("a line of more than {limit} bytes on standard output");
                failed("ResultTooLarge", message, errors, false)
            }
            None => failed("InvalidResult", "the server did not answer", errors, false),
        }
    }
}

fn excerpt(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(400)]).chars().take(100).collect()
}
