//! Keys that are slowed down because their tasks were told that they make too many requests.
//!
//! As TCP does with its window: a key begins with what is in flight, is halved with each failure of a job that was released
//! since it was halved last, and grows by one for each round of jobs that end without such a failure. What slows a key
//! down is read from the attempts in the statuses; a leader that begins knows those of unfinished jobs only.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::status::{AttemptOutcome, PastAttempt};

/// What a status can say at most about when to try again.
const LONGEST: Duration = Duration::from_hours(1);
/// After so long without a failure of that kind, what is left of it is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);
/// One job, in the unit in which a window is counted.
const ONE: u64 = 1000;

/// What tells that a task was told so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowDown {
    /// Types of exceptions. Beside them, each error counts whose message says "too many requests".
    pub errors: Vec<Arc<str>>,
    /// Exit statuses of commands.
    pub exit_statuses: Vec<i32>,
}

/// An attempt that failed because of too many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// When its message was published.
    pub released_at: Timestamp,
    /// When it failed.
    pub at: Timestamp,
    /// When it may be tried again, as far as its error tells.
    pub again_at: Timestamp,
}

/// How much slower a key is than its limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// How many of its jobs may be in flight, in thousandths.
    window: u64,
    /// When it was last halved.
    since: Timestamp,
    /// Until then none is released.
    until: Timestamp,
}

impl SlowDown {
    /// Whether an attempt failed for that.
    pub fn signal(&self, past: &PastAttempt) -> Option<Signal> {
        let error = past.error.as_ref().filter(|_| past.outcome == AttemptOutcome::Failed)?;
        let message = error.message.to_ascii_lowercase();
        let exit_status =
            || message.strip_prefix("exit status ")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        let is_named = self.errors.contains(&error.kind);
        let is_status = || exit_status().is_some_and(|status| self.exit_statuses.contains(&status));
        if !is_named && !message.contains("too many requests") && !is_status() {
            return None;
        }
        let at = past.finished_at;
        let again_at = again_after(&message).and_then(|wait| at.checked_add(wait).ok()).unwrap_or(at);
        Some(Signal { released_at: past.enqueued_at.or(past.started_at).unwrap_or(at), at, again_at })
    }
}

/// How long to wait, as a message in lower case says it: `retry-after: 20`, `retry after 1.5 s`, `try again in 300ms`.
fn again_after(message: &str) -> Option<Duration> {
    const BEFORE: [&str; 4] = ["retry-after", "retry after", "retry_after", "try again in"];
    let rest = BEFORE.iter().find_map(|words| message.split_once(words).map(|(_, rest)| rest))?;
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ':' | '=' | '"' | '\'' | '(' | '['));
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, unit) = rest.split_at(end);
    let number: f64 = number.trim_end_matches('.').parse().ok()?;
    let unit: String = unit.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    let seconds = match &*unit {
        "ms" | "millisecond" | "milliseconds" => number / 1000.0,
        "m" | "min" | "minute" | "minutes" => number * 60.0,
        "h" | "hour" | "hours" => number * 3600.0,
        _ => number,
    };
    Duration::try_from_secs_f64(seconds).ok().map(|wait| wait.min(LONGEST))
}

impl Slow {
    /// A key that had so many jobs in flight, of at most so many, is slowed down.
    pub fn begin(in_flight: u32, most: u32, signal: Signal) -> Self {
        let window = u64::from(in_flight.clamp(1, most.max(1))) * ONE;
        Self { window: halved(window), since: signal.at, until: signal.again_at }
    }

    /// It was told so again. Jobs that were released before it was halved tell nothing new, but for when to try again.
    pub fn again(&mut self, signal: Signal) {
        self.until = self.until.max(signal.again_at);
        if !self.knows(signal) {
            self.window = halved(self.window);
            self.since = self.since.max(signal.at);
        }
    }

    /// A job has given its place back, and was not told so: a round of them makes one place more.
    pub fn grow(&mut self) {
        self.window += ONE * ONE / self.window.max(ONE);
    }

    /// How many jobs may be in flight.
    pub fn most(&self) -> u32 {
        u32::try_from(self.window / ONE).unwrap_or(u32::MAX).max(1)
    }

    /// Until when none is released.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Whether it says nothing any more of a key of which so many may be in flight.
    pub fn is_over(&self, most: u32, now: Timestamp) -> bool {
        self.is_forgotten(now) || self.until <= now && self.most() >= most
    }

    /// Whether the failure was so long ago that it says nothing any more. Until then it is remembered also where the key has
    /// grown again: the status of its job may be told any time.
    pub fn is_forgotten(&self, now: Timestamp) -> bool {
        self.until <= now && self.since.checked_add(FORGOTTEN_AFTER).is_ok_and(|at| at <= now)
    }

    /// Whether a failure was heard of already, or is of a job that was released before the key was halved.
    pub fn knows(&self, signal: Signal) -> bool {
        signal.released_at <= self.since
    }
}

fn halved(window: u64) -> u64 {
    (window / 2).max(ONE)
}

#[cfg(test)]
mod tests {
    use super::super::super::id::TaskId;
    use super::super::super::status::TaskError;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn failed(kind: &str, message: &str) -> PastAttempt {
        PastAttempt {
            number: 1,
            task: TaskId::derive(uuid::Uuid::from_u128(1), 1),
            outcome: AttemptOutcome::Failed,
            worker: None,
            enqueued_at: Some(at(0)),
            started_at: None,
            finished_at: at(10),
            error: Some(TaskError::new(kind, message, None)),
            account: None,
        }
    }

    fn declared() -> SlowDown {
        SlowDown { errors: vec!["RateLimitError".into()], exit_statuses: vec![29] }
    }

    fn signal(released: i64, failed: i64) -> Signal {
        Signal { released_at: at(released), at: at(failed), again_at: at(failed) }
    }

    #[test]
    fn an_exception_a_message_or_an_exit_status_tells_of_too_many_requests() {
        let tells = |kind, message| declared().signal(&failed(kind, message)).is_some();
        assert!(tells("RateLimitError", "quota"));
        assert!(tells("HTTPError", "429 Client Error: Too Many Requests for url: https://example.com"));
        assert!(tells("CommandFailed", "exit status 29: busy"));
        assert!(!tells("CommandFailed", "exit status 2: RateLimitError"));
        assert!(!tells("ValueError", "no"));
        let died = PastAttempt { outcome: AttemptOutcome::WorkerLost, ..failed("RateLimitError", "quota") };
        assert_eq!(declared().signal(&died), None);
    }

    #[test]
    fn an_error_tells_when_to_try_again_up_to_an_hour() {
        let waits = |message| {
            let signal = declared().signal(&failed("RateLimitError", message)).unwrap();
            Duration::try_from(signal.again_at.duration_since(signal.at)).unwrap().as_millis()
        };
        for (message, wait) in [
            ("Retry-After: 20", 20_000),
            ("{'retry-after': '7'}", 7_000),
            ("Limit 10, used 10. Please try again in 1.5s. Visit https://example.com", 1_500),
            ("please try again in 300ms", 300),
            ("retry after 2 minutes", 120_000),
            ("retry_after=1e9", 1_000),
            ("Retry-After: 999999", 3_600_000),
            ("Retry-After: -5", 0),
            ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT", 0),
            ("Retry-After: ..", 0),
            ("no more for today", 0),
        ] {
            assert_eq!(waits(message), wait, "{message}");
        }
    }

    #[test]
    fn a_key_is_halved_once_for_what_was_in_flight_and_never_below_one() {
        let mut slow = Slow::begin(8, 20, signal(0, 10));
        assert_eq!(slow.most(), 4);
        for _ in 0..7 {
            slow.again(signal(5, 11));
        }
        assert_eq!(slow.most(), 4, "these were released before");
        slow.again(signal(12, 13));
        assert_eq!(slow.most(), 2);
        slow.again(signal(14, 15));
        slow.again(signal(16, 17));
        assert_eq!(slow.most(), 1);
        assert_eq!(Slow::begin(50, 20, signal(0, 1)).most(), 10, "more than may be count as many as may be");
    }

    #[test]
    fn a_key_grows_by_one_for_each_round_until_its_limit_holds_again() {
        let mut slow = Slow::begin(8, 6, signal(0, 10));
        assert_eq!(slow.most(), 3);
        let mut rounds = Vec::new();
        while !slow.is_over(6, at(20)) {
            let before = slow.most();
            let jobs = (1..).take_while(|_| {
                slow.grow();
                slow.most() == before
            });
            rounds.push(jobs.count() + 1);
        }
        assert_eq!(rounds, [4, 4, 6], "about as many jobs as are in flight");
        assert!(Slow::begin(8, 6, signal(0, 10)).is_over(6, at(10 + 3600)), "an hour without a failure");
    }

    #[test]
    fn nothing_is_released_before_the_time_that_was_told() {
        let mut slow = Slow::begin(8, 20, Signal { again_at: at(30), ..signal(0, 10) });
        slow.again(Signal { again_at: at(20), ..signal(0, 11) });
        assert_eq!(slow.until(), at(30));
        assert!(!slow.is_over(1, at(29)) && slow.is_over(1, at(30)));
    }
}
