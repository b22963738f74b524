//! Logs: constant messages with fields, as text for people or as JSON for collectors.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::time::Duration;

use clap::ValueEnum;
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use super::logs::Logs;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// Where all lines go.
static LOGS: OnceLock<Logs> = OnceLock::new();
/// How long the last lines may take.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Starts logging to standard error. `filter` is a level, or directives such as `info,crewjob::store=debug`.
pub fn init(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let logs = LOGS.get_or_init(|| Logs::start(std::io::stderr()));
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        flush();
        usual(panic);
    }));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(logs.clone())
        // It would say on standard error that a line could not be written there, and panic where that fails, too.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => logs.with_target(false).init(),
        LogFormat::Json => logs.json().flatten_event(true).with_current_span(false).init(),
    }
    Ok(())
}

/// Waits for the last lines.
pub fn flush() {
    if let Some(logs) = LOGS.get() {
        logs.flush(LAST_LINES);
    }
}

/// The whole chain of causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// How often a failure that goes on is said.
const SAID_EVERY: Duration = Duration::from_mins(1);

/// A failure that may repeat: it is said at once, and then once a minute.
#[derive(Debug, Default)]
pub struct Repeated {
    said_at: Option<Instant>,
}

impl Repeated {
    /// Whether this occurrence is to be said.
    pub fn is_to_be_said(&mut self, now: Instant) -> bool {
        let is_due = self.said_at.is_none_or(|at| now >= at + SAID_EVERY);
        if is_due {
            self.said_at = Some(now);
        }
        is_due
    }

    /// It is over; whether any was said.
    pub fn is_over(&mut self) -> bool {
        self.said_at.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_repeats_is_said_at_once_and_then_once_a_minute_until_it_is_over() {
        let (mut failure, began) = (Repeated::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(!failure.is_over());
        let said: Vec<u64> = (0..150).filter(|seconds| failure.is_to_be_said(at(*seconds))).collect();
        assert_eq!(said, [0, 60, 120]);
        assert!(failure.is_over() && !failure.is_over());
        assert!(failure.is_to_be_said(at(150)));
    }
}
