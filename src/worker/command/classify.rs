//! From what was seen of a command to what came of it. Pure.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use super::answer::{self, Answer, Described};
use super::exception::class_of;
use super::spec::{MODULE, Output, seconds};
use super::stderr::Tail;
use super::supervise::Done;
use super::values::Printed;
use crate::wire::{Exception, RawJson, Value};
use crate::worker::outcome::{Failure, Outcome};

/// The module of the exceptions with which Celery tells of limits and lost processes.
pub(super) const BILLIARD: &str = "billiard.exceptions";
/// The types of failures that a command does not mean.
pub(super) const FLAWS: [&str; 7] = [
    "ArgumentMissing",
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
    /// What it wrote to the file of its result, if it wrote something.
    pub filed: Option<Printed>,
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
    let Seen { exit, done, errors, printed: _, filed: _, oom: _ } = seen;
    if let Some(outcome) = cut_short(rules, *done, errors) {
        let in_time = done.stopped.is_none() && !done.hard && *exit == Exit::Code(0);
        // Many programs exit with 0 when they are told to stop, and say so. Only one that returns a result has one.
        let has_result = seen.filed.is_some() || !matches!(seen.printed, Printed::Followed(_));
        return match result(rules.output, seen) {
            Ok(Some(value)) if in_time && has_result => Outcome::Succeeded(value),
            Ok(_) | Err(_) => outcome,
        };
    }
    match *exit {
        Exit::Code(0) => match result(rules.output, seen) {
            Ok(value) => Outcome::Succeeded(value.unwrap_or_default()),
            Err(Flaw::Described(described)) => named(&described, errors, false),
            Err(Flaw::Of(kind, message)) => failed(kind, message, errors, false),
        },
        Exit::Code(code) => {
            let is_retryable = rules.retry_exit_codes.contains(&code);
            if let Some(described) = described(seen) {
                return named(&described, errors, is_retryable);
            }
            let message = exit_message(code, errors.last(), seen.oom_killed());
            failed("CommandFailed", message, errors, is_retryable)
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

/// The failure that a command has described. What it says of another run goes before `usual`.
pub(super) fn named(described: &Described, errors: &Tail, usual: bool) -> Outcome {
    let (module, name) = class_of(&described.kind);
    let failure = Failure::new(module, name, &*described.message).with_traceback(errors.text());
    Outcome::Failed { failure, retryable: described.retry.unwrap_or(usual) }
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

/// Why there is no result.
enum Flaw {
    /// The command says so.
    Described(Described),
    /// Type and message of what is wrong.
    Of(&'static str, String),
}

/// The value that was returned, if any was, in its file or else on standard output.
fn result(output: Output, seen: &Seen) -> Result<Option<RawJson>, Flaw> {
    let is_text = output == Output::Text;
    let place = if seen.filed.is_some() { "in the file of the result" } else { "on standard output" };
    let text = match seen.filed.as_ref().unwrap_or(&seen.printed) {
        Printed::Text(text) if text.is_empty() => return Ok(None),
        Printed::Text(text) | Printed::Followed(text) => text,
        Printed::TooLarge(limit) => {
            let what = if is_text { "text" } else { "a value" };
            let message = format!("{what} of more than {limit} bytes {place}: store it elsewhere, and return where");
            return Err(Flaw::Of("ResultTooLarge", message));
        }
    };
    if is_text {
        return Ok(Some(RawJson::from(&Value::from(String::from_utf8_lossy(text).into_owned()))));
    }
    let value = match answer::answer(text) {
        Some(Answer::Error(described)) => return Err(Flaw::Described(described)),
        Some(Answer::Result(value)) => value.map_err(|error| error.to_string()),
        None => match std::str::from_utf8(text) {
            Ok(text) => answer::value_of(text.trim_ascii()).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        },
    };
    value.map(Some).map_err(|flaw| {
        let text: String = String::from_utf8_lossy(&text[..text.len().min(400)]).chars().take(100).collect();
        let message = match &seen.filed {
            Some(_) => format!("the file of the result is no JSON that Celery can carry: {flaw}: {text}"),
            None => format!(
                "the last line of standard output is no JSON that Celery can carry: {flaw}: {text}: print the result in \
                 one line, as `jq -c` does, or write it to the file that CREWJOB_RESULT names"
            ),
        };
        Flaw::Of("InvalidResult", message)
    })
}

/// The error that the command describes: in the file of its result, in its answer, or in the last line of a text.
fn described(seen: &Seen) -> Option<Described> {
    let texts = seen.filed.iter().chain([&seen.printed]).filter_map(|printed| match printed {
        Printed::Text(text) | Printed::Followed(text) => Some(text),
        Printed::TooLarge(_) => None,
    });
    let error = |text: &[u8]| match answer::answer(text) {
        Some(Answer::Error(described)) => Some(described),
        Some(Answer::Result(_)) | None => None,
    };
    texts.into_iter().find_map(|text| {
        error(text).or_else(|| error(text.split(|&byte| byte == b'\n').rfind(|line| !line.trim_ascii().is_empty())?))
    })
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
