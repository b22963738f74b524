//! What people look for in `kubectl describe`: that a job was enqueued, started, retried and finished, as Normal Events.
//!
//! A job that is over within seconds has none: each is a write to the API server. Which ones a job has follows from its
//! status alone, and the name of each from the job and the attempt, so that another leader that tells of one again
//! changes nothing.

use std::time::Duration;

use jiff::Timestamp;

use super::job::Job;
use super::status::Status;

/// A job that is over sooner has no Normal Events.
pub const TOLD_AFTER: Duration = Duration::from_secs(5);
/// What another leader has recorded, and this long ago, it has told of as well.
const LEFT_TO_OTHERS: Duration = Duration::from_mins(2);

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// The first message was published.
    Enqueued,
    /// A worker has begun an attempt.
    Started,
    /// An attempt has failed, and another one follows.
    Retried,
    /// The job has ended, in whatever phase.
    Finished,
}

impl Happening {
    /// Reason of the Event.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Enqueued => "Enqueued",
            Self::Started => "Started",
            Self::Retried => "Retried",
            Self::Finished => "Finished",
        }
    }
}

/// Something that is told of once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Milestone {
    /// What.
    pub what: Happening,
    /// Of which attempt; 0 where it is about the job as a whole.
    pub attempt: u32,
    /// When it happened.
    pub at: Timestamp,
    /// One sentence.
    pub message: String,
}

/// How much of a job's life was told of: everything up to here. There is one for each job in memory, so it is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Told(u16);

impl Told {
    /// Attempts that are told apart.
    const ATTEMPTS: u16 = u16::MAX / 2 - 1;

    fn of(milestone: &Milestone) -> Self {
        let number = u16::try_from(milestone.attempt).unwrap_or(u16::MAX).min(Self::ATTEMPTS);
        match milestone.what {
            Happening::Enqueued => Self(1),
            Happening::Started => Self(2 * number),
            Happening::Retried => Self(2 * number + 1),
            Happening::Finished => Self(u16::MAX),
        }
    }
}

/// What is to be told of now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// In the order in which it happened.
    pub milestones: Vec<Milestone>,
    /// What was told of then.
    pub told: Told,
    /// When to ask again, if the job is too young yet.
    pub again: Option<Timestamp>,
}

/// What is to be told of a job whose status is now `recorded`; `job` has the status that was recorded before.
pub fn due(job: &Job, recorded: &Status, told: Told, now: Timestamp) -> Due {
    let old_enough = job.created_at.checked_add(TOLD_AFTER).unwrap_or(Timestamp::MAX);
    let is_left = |it: &Milestone| now.duration_since(it.at.max(old_enough)).unsigned_abs() > LEFT_TO_OTHERS;
    let told = if told == Told::default() {
        let by_others = milestones(&job.status).into_iter().filter(|it| it.at <= now && is_left(it));
        by_others.map(|it| Told::of(&it)).max().unwrap_or_default()
    } else {
        told
    };
    let mut milestones = milestones(recorded);
    milestones.retain(|it| Told::of(it) > told);
    if milestones.is_empty() {
        return Due { told, ..Due::default() };
    }
    if now < old_enough {
        let again = Some(old_enough).filter(|_| !recorded.phase.is_terminal());
        return Due { told, again, ..Due::default() };
    }
    let told = milestones.iter().map(Told::of).max().unwrap_or(told);
    Due { milestones, told, again: None }
}

/// Everything that a status tells of, in the order in which it happened.
fn milestones(status: &Status) -> Vec<Milestone> {
    let mut all: Vec<Milestone> = Vec::new();
    let mut tell = |what, attempt, at, message| {
        let milestone = Milestone { what, attempt, at, message };
        // An attempt that lost its worker is in the history as often as that has happened.
        if all.iter().all(|other| Told::of(other) != Told::of(&milestone)) {
            all.push(milestone);
        }
    };
    let queue = status.queue.as_deref().unwrap_or_default();
    if let Some(at) = status.queued_at {
        tell(Happening::Enqueued, 0, at, format!("published on queue {queue}, where it waits for a worker"));
    }
    let started = |number: u32, worker: Option<&str>| match worker {
        Some(worker) => format!("worker {worker} has begun attempt {number}"),
        None => format!("a worker has begun attempt {number}"),
    };
    for (place, past) in status.history.iter().enumerate() {
        if let Some(at) = past.started_at {
            tell(Happening::Started, past.number, at, started(past.number, past.worker.as_deref()));
        }
        let next = status.history.get(place + 1).map(|next| next.number);
        let next = next.or(status.attempt.map(|attempt| attempt.number)).or(status.retry_at.as_ref().map(|_| u32::MAX));
        if next.is_some_and(|next| next > past.number) {
            tell(Happening::Retried, past.number, past.finished_at, retried(status, place));
        }
    }
    if let Some((attempt, at)) = status.attempt.and_then(|attempt| Some((attempt, attempt.started_at?))) {
        let worker = status.worker.as_ref().map(|holder| &*holder.node);
        tell(Happening::Started, attempt.number, at, started(attempt.number, worker));
    }
    if let Some(at) = status.finished_at() {
        let message = format!("{:?} ({}): {}", status.phase, status.why.reason(), status.message());
        tell(Happening::Finished, 0, at, message);
    }
    all
}

fn retried(status: &Status, place: usize) -> String {
    let past = &status.history[place];
    let error = match &past.error {
        Some(error) if error.message.is_empty() => error.kind.to_string(),
        Some(error) => format!("{}: {}", error.kind, error.message),
        None => past.outcome.name().to_owned(),
    };
    let is_last = place + 1 == status.history.len();
    let when = match status.retry_at.as_deref().filter(|_| is_last) {
        Some(at) => format!("at {at:.0}"),
        None => "after its backoff".to_owned(),
    };
    format!("attempt {} failed ({error}); the next one is published {when}", past.number)
}

#[cfg(test)]
mod tests;
