//! From what was seen of a command to what came of it. Pure.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use super::answer::{self, Described};
use super::spec::{MODULE, Output, seconds};
use super::stderr::Tail;
use super::stdout::Printed;
use super::supervise::Done;
use crate::wire::{Exception, RawJson, Value};
use crate::worker::outcome::{Failure, Outcome};

/// The module of the exceptions with which Celery tells of limits and lost processes.
pub(super) const BILLIARD: &str = "billiard.exceptions";
/// The types of failures that a command does not mean.
pub(super) const FLAWS: [&str; 6] = [
    "InvalidResult",
    "ResultTooLarge",
    "CommandNotFound",
    "CommandNotExecutable",
    "DirectoryNotFound",
    "CommandNotStarted",
];
/// What a shell ends with when SIGKILL ended what it ran: 128 and the signal.
const SHELL_SAW_SIGKILL: i32 = 137;

/// How the main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
    /// Another part of this process has reaped it.
    Unknown,
}

/// What is known beforehand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub id: &'a str,
    pub output: Output,
    pub retry_exit_codes: &'a [i32],
    pub hard: Option<Duration>,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub exit: Exit,
    pub done: Done,
    pub printed: Printed,
    pub errors: Tail,
    /// The kernel killed a process in our cgroup while it ran, because there was no memory left.
    pub oom: bool,
}

impl From<std::io::Result<ExitStatus>> for Exit {
    fn from(status: std::io::Result<ExitStatus>) -> Self {
        let status = status.ok();
        let code = status.and_then(|status| status.code()).map(Self::Code);
        code.or_else(|| status?.signal().map(Self::Signal)).unwrap_or(Self::Unknown)
    }
}

impl Seen {
    /// Whether it was this command that the kernel killed.
    pub(super) fn oom_killed(&self) -> bool {
        let untouched = self.done == Done::default();
        self.oom && untouched && matches!(self.exit, Exit::Signal(9) | Exit::Code(SHELL_SAW_SIGKILL))
    }
}

/// What came of it.
pub(super) fn classify(rules: &Rules<'_>, seen: &Seen) -> Outcome {
    let Seen { exit, done, printed, errors, oom: _ } = seen;
    let result = result(rules.output, printed);
    if let Some(outcome) = cut_short(rules, *done, errors) {
        let in_time = done.stopped.is_none() && !done.hard && *exit == Exit::Code(0);
        return match result {
            // Many programs exit with 0 when they are told to stop. Only a program that prints a result has one.
            Ok(Some(value)) if in_time => Outcome::Succeeded(value),
            _ => outcome,
        };
    }
    match *exit {
        Exit::Code(0) => match result {
            Ok(value) => Outcome::Succeeded(value.unwrap_or_default()),
            Err((kind, message)) => failed(kind, message, errors, false),
        },
        Exit::Code(code) => {
            let Described { kind, message } = described(printed).unwrap_or_else(|| Described {
                kind: "CommandFailed".to_owned(),
                message: exit_message(code, errors.last(), seen.oom_killed()),
            });
            failed(&kind, message, errors, rules.retry_exit_codes.contains(&code))
        }
        Exit::Signal(signal) => lost(rules.id, signal, seen.oom_killed(), errors),
        Exit::Unknown => failed("CommandFailed", "its exit status is unknown", errors, false),
    }
}

/// What came of a run that was not left to end by itself.
pub(super) fn cut_short(rules: &Rules<'_>, done: Done, errors: &Tail) -> Option<Outcome> {
    if let Some(signal) = done.stopped {
        return Some(Outcome::Stopped { signal });
    }
    if done.hard {
        let limit = rules.hard.map(seconds).into_iter().collect();
        return Some(billiard("TimeLimitExceeded", limit, None));
    }
    done.soft.then(|| billiard("SoftTimeLimitExceeded", Vec::new(), errors.text()))
}

/// A failure in the words of this worker.
pub(super) fn failed(kind: &str, message: impl Into<String>, errors: &Tail, retryable: bool) -> Outcome {
    let failure = Failure::new(MODULE, kind, message).with_traceback(errors.text());
    Outcome::Failed { failure, retryable }
}

fn billiard(kind: &str, exc_message: Vec<Value>, traceback: Option<String>) -> Outcome {
    let exception = Exception { exc_type: kind.to_owned(), exc_message, exc_module: Some(BILLIARD.to_owned()) };
    Outcome::Failed { failure: Failure { exception, traceback }, retryable: false }
}

/// What Celery reports of a child process that was killed; the operator counts it as a lost worker.
fn lost(id: &str, signal: i32, oom_killed: bool, errors: &Tail) -> Outcome {
    let name = usize::try_from(signal).ok().and_then(|signal| SIGNALS.get(signal)).unwrap_or(&"unknown");
    let reason = if oom_killed { " It ran out of memory." } else { "" };
    let message = format!("Worker exited prematurely: signal {signal} ({name}) Job: {id}.{reason}");
    billiard("WorkerLostError", vec![message.into()], errors.text())
}

fn exit_message(code: i32, last_words: Option<&str>, oom_killed: bool) -> String {
    let reason = if oom_killed { " (out of memory)" } else { "" };
    match last_words {
        Some(words) => format!("exit status {code}{reason}: {words}"),
        None => format!("exit status {code}{reason}"),
    }
}

/// The value that was printed, if any was; or the type and the message of the failure that it is.
fn result(output: Output, printed: &Printed) -> Result<Option<RawJson>, (&'static str, String)> {
    let text = match printed {
        Printed::Text(text) if text.is_empty() => return Ok(None),
        Printed::Text(text) => text,
        Printed::TooLarge(limit) => {
            let what = if output == Output::Json { "a line" } else { "text" };
            let message =
                format!("{what} of more than {limit} bytes on standard output: store it elsewhere, and return where");
            return Err(("ResultTooLarge", message));
        }
    };
    if output == Output::Text {
        return Ok(Some(RawJson::from(&Value::from(String::from_utf8_lossy(text).into_owned()))));
    }
    let value = match std::str::from_utf8(text) {
        Ok(line) => answer::value_of(line).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    value.map(Some).map_err(|flaw| {
        let line: String = String::from_utf8_lossy(&text[..text.len().min(400)]).chars().take(100).collect();
        ("InvalidResult", format!("the last line of standard output is no JSON that Celery can carry: {flaw}: {line}"))
    })
}

fn described(printed: &Printed) -> Option<Described> {
    let Printed::Text(text) = printed else { return None };
    let last = text.split(|&byte| byte == b'\n').rfind(|line| !line.trim_ascii().is_empty())?;
    answer::error(std::str::from_utf8(last).ok()?)
}

const SIGNALS: [&str; 32] = [
    "",
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

#[cfg(test)]
mod tests;
