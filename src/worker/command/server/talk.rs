//! What a server says during one call.

use tokio::sync::watch;

use super::super::answer::{self, Answer, Described};
use super::super::classify::failed;
use super::super::lines::Line;
use super::super::stderr::{Names, Tail};
use super::super::stdout::report;
use crate::wire::RawJson;
use crate::worker::outcome::Outcome;

/// Listens to the lines of a server until the call has ended.
pub(super) struct Talk<'a> {
    pub names: Names<'a>,
    progress: &'a watch::Sender<Option<RawJson>>,
    said: Option<Said>,
    spoke_on: bool,
}

/// What ended the call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Answer(Answer),
    Garbage(String),
    TooLong(usize),
}

impl<'a> Talk<'a> {
    pub(super) fn new(names: Names<'a>, progress: &'a watch::Sender<Option<RawJson>>) -> Self {
        Self { names, progress, said: None, spoke_on: false }
    }

    /// Takes the next line.
    pub(super) fn line(&mut self, line: &Line<'_>) {
        if line.whole && line.bytes.trim_ascii().is_empty() {
            return;
        }
        if self.said.is_some() {
            self.spoke_on = true;
            return;
        }
        if !line.whole {
            self.said = Some(Said::TooLong(line.bytes.len()));
            return;
        }
        if report(line.bytes, &self.names, self.progress) {
            return;
        }
        let answer = std::str::from_utf8(line.bytes).ok().and_then(answer::answer);
        self.said = Some(answer.map_or_else(|| Said::Garbage(excerpt(line.bytes)), Said::Answer));
    }

    /// Whether the call has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.said.is_some()
    }

    /// Whether that was a result.
    pub(super) fn has_succeeded(&self) -> bool {
        matches!(self.said, Some(Said::Answer(Answer::Result(Ok(_)))))
    }

    /// Whether nothing followed the end of the call.
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
            Some(Said::Answer(Answer::Error { described: Described { kind, message }, retry })) => {
                failed(&kind, message, errors, retry)
            }
            Some(Said::Garbage(line)) => {
                let message = format!("a line of standard output is neither progress nor result nor error: {line}");
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
