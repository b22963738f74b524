//! How a job stands under the limits of its pool.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// Reason of a job that waits for a permit.
pub const LIMIT_REACHED: &str = "LimitReached";
/// Reason of a job that has one and is not known to be on Redis yet.
pub const RELEASED: &str = "Released";

/// By how much a place must have become better for it to be told again: each time costs a write of the status.
const TOLD_AGAIN: u32 = 4;
/// How soon a job that waits is looked at again to tell its place, at least and at most, and where nothing is expected.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));

/// How a job stands under the limits of its pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Permit {
    /// The pool has no limits.
    #[default]
    Free,
    /// It is not known yet: the operator has only begun to lead, or the limits are new.
    Unknown,
    /// It has not asked for a permit.
    Unasked,
    /// It waits for one.
    Waits(Box<Wait>),
    /// It has one.
    Granted {
        /// Since when, as its status is to say.
        at: Timestamp,
    },
}

/// What a job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Name of the pool.
    pub pool: Arc<str>,
    /// Name of the limit.
    pub limit: Arc<str>,
    /// The key of the job under that limit; `None` where all jobs have one.
    pub key: Option<Arc<str>>,
    /// What of the limit is reached.
    pub reached: Reached,
    /// Its place among the jobs that wait under the same keys, the first being 1.
    pub position: u32,
    /// When it is expected to be released, where that can be told.
    pub expected_at: Option<Timestamp>,
}

/// What of a limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// So many are in flight.
    InFlight(u32),
    /// So many are in flight, fewer than the limit allows: a task of the key was told that it makes too many requests.
    Slowed(u32),
    /// Nothing; a task of the key was told when to try again, and that is not yet.
    Paused,
    /// So many were released in the last so long.
    Rate(u32, Duration),
    /// Nothing; the turn is another key's.
    Turn,
}

impl Wait {
    /// Whether it is to be told although `told` was: the limit is another one, or the place much better.
    pub fn is_news_after(&self, told: &Self) -> bool {
        let is_other = (&self.pool, &self.limit, &self.key) != (&told.pool, &told.limit, &told.key);
        is_other || self.is_first() && !told.is_first() || self.position.saturating_mul(TOLD_AGAIN) <= told.position
    }

    /// Whether it is the next one under its keys.
    pub fn is_first(&self) -> bool {
        self.position <= 1
    }

    /// When to look again whether it is to be told anew: when the place is expected to be so much better.
    pub fn look_again_at(&self, now: Timestamp) -> Timestamp {
        let (least, most) = LOOK_AGAIN;
        let expected = self.expected_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let wait = expected.map_or(most, |wait| wait / TOLD_AGAIN * (TOLD_AGAIN - 1)).clamp(least, most);
        now.checked_add(wait).unwrap_or(Timestamp::MAX)
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, limit, key, reached, position, expected_at } = self;
        write!(f, "limit {limit:?} of CrewWorkerPool {pool:?} is reached")?;
        if let Some(key) = key {
            write!(f, " for key {key:?}")?;
        }
        match reached {
            Reached::InFlight(most) => write!(f, ": {most} jobs may be in flight")?,
            Reached::Rate(count, per) => write!(f, ": {count} jobs may be released in {} s", per.as_secs_f64())?,
            Reached::Slowed(most) => {
                write!(
                    f,
                    ": {most} jobs may be in flight for now, as a task was told that there are too many requests"
                )?;
            }
            Reached::Paused => {
                f.write_str(": a task was told that there are too many requests, and when to try again")?;
            }
            Reached::Turn => f.write_str(": other keys have their turn first")?,
        }
        write!(f, "; this job is number {position} of those that wait with the same keys")?;
        match expected_at {
            Some(at) => write!(f, ", and is expected to be released at about {at:.0}"),
            None => f.write_str(", and when it is released cannot be told yet"),
        }
    }
}
