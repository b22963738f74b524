//! Retry policy, time limits and time to live: what a job sets, what its pool sets, and what holds in the end.

use std::sync::Arc;
use std::time::Duration;

use super::id::TaskId;

/// What to do with an attempt whose outcome cannot be known any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnknown {
    /// End the job as failed: it is not run, and paid for, a second time.
    #[default]
    Fail,
    /// Begin another attempt if the budget allows it.
    Retry,
}

/// Policies set by a job or by its pool; `None` leaves the choice to the next in line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// Retries after the first run.
    pub max_retries: Option<u32>,
    /// Delay before the first retry.
    pub backoff_initial: Option<Duration>,
    /// Growth of the delay per retry.
    pub backoff_factor: Option<u32>,
    /// Longest delay.
    pub backoff_max: Option<Duration>,
    /// Exception types that are not retried.
    pub non_retryable: Option<Arc<[Arc<str>]>>,
    /// Workers that may die under the job.
    pub max_worker_losses: Option<u32>,
    /// What to do when the outcome cannot be known.
    pub on_unknown: Option<OnUnknown>,
    /// Whether an attempt begins with the state that the last one left.
    pub resume: Option<bool>,
    /// Soft time limit of one run.
    pub soft: Option<Duration>,
    /// Hard time limit of one run.
    pub hard: Option<Duration>,
    /// Longest wait for a worker, per attempt.
    pub queue: Option<Duration>,
    /// Longest time from the first enqueue to the end.
    pub total: Option<Duration>,
    /// How long a finished job is kept.
    pub ttl: Option<Duration>,
}

/// The policies that hold for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Retries after the first run, Celery's meaning: 3 allows four runs.
    pub max_retries: u32,
    /// How long to wait before a retry.
    pub backoff: Backoff,
    /// Exception types that are not retried.
    pub non_retryable: Arc<[Arc<str>]>,
    /// Workers that may die under the job before it is given up.
    pub max_worker_losses: u32,
    /// What to do when the outcome cannot be known.
    pub on_unknown: OnUnknown,
    /// Whether an attempt begins with the state that the last one left.
    pub resume: bool,
    /// Soft time limit of one run.
    pub soft: Duration,
    /// Hard time limit of one run.
    pub hard: Duration,
    /// Longest wait for a worker, per attempt.
    pub queue: Option<Duration>,
    /// Longest time from the first enqueue to the end.
    pub total: Option<Duration>,
    /// How long a finished job is kept; `None` keeps it.
    pub ttl: Option<Duration>,
}

impl Policy {
    /// Soft time limit where none is set.
    pub const SOFT: Duration = Duration::from_mins(50);
    /// Hard time limit where none is set.
    pub const HARD: Duration = Duration::from_hours(1);

    /// The job's choice where it made one, else the pool's, else the built-in one.
    pub fn resolve(job: Option<&Overrides>, pool: &Overrides) -> Self {
        fn pick<T: Clone>(
            job: Option<&Overrides>,
            pool: &Overrides,
            of: impl Fn(&Overrides) -> &Option<T>,
        ) -> Option<T> {
            job.and_then(|job| of(job).clone()).or_else(|| of(pool).clone())
        }
        let hard = pick(job, pool, |o| &o.hard).unwrap_or(Self::HARD);
        Self {
            max_retries: pick(job, pool, |o| &o.max_retries).unwrap_or(3),
            backoff: Backoff {
                initial: pick(job, pool, |o| &o.backoff_initial).unwrap_or(Duration::from_secs(1)),
                factor: pick(job, pool, |o| &o.backoff_factor).unwrap_or(2),
                max: pick(job, pool, |o| &o.backoff_max).unwrap_or(Duration::from_mins(10)),
            },
            non_retryable: pick(job, pool, |o| &o.non_retryable).unwrap_or_default(),
            max_worker_losses: pick(job, pool, |o| &o.max_worker_losses).unwrap_or(3),
            on_unknown: pick(job, pool, |o| &o.on_unknown).unwrap_or_default(),
            resume: pick(job, pool, |o| &o.resume).unwrap_or(true),
            soft: pick(job, pool, |o| &o.soft).unwrap_or(Self::SOFT.min(hard * 5 / 6)).min(hard),
            hard,
            queue: pick(job, pool, |o| &o.queue),
            total: pick(job, pool, |o| &o.total),
            ttl: pick(job, pool, |o| &o.ttl),
        }
    }
}

/// Exponential backoff with full jitter, as Celery's `get_exponential_backoff_interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the delay before the first retry.
    pub initial: Duration,
    /// Growth of the bound per retry.
    pub factor: u32,
    /// Cap of the bound.
    pub max: Duration,
}

impl Backoff {
    /// Delay before retry number `retry` (counted from 0), spread evenly between zero and the bound.
    ///
    /// The jitter comes from the id of the attempt to begin: it is the same after a restart, and different for two
    /// jobs that failed together.
    pub fn delay(&self, retry: u32, next: TaskId) -> Duration {
        let bound = self.bound(retry).as_millis();
        let spread = u128::from(next.spread());
        let millis = ((bound + 1) * spread) >> 64;
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    fn bound(&self, retry: u32) -> Duration {
        let growth = self.factor.checked_pow(retry).unwrap_or(u32::MAX);
        self.initial.checked_mul(growth).unwrap_or(self.max).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn ids() -> impl Iterator<Item = TaskId> {
        (1..=2000).map(|number| TaskId::derive(Uuid::from_u128(7), number))
    }

    #[test]
    fn the_job_decides_before_the_pool_and_the_pool_before_the_defaults() {
        let job = Overrides { max_retries: Some(0), ..Overrides::default() };
        let pool = Overrides { max_retries: Some(9), hard: Some(Duration::from_secs(5)), ..Overrides::default() };
        let policy = Policy::resolve(Some(&job), &pool);
        assert_eq!((policy.max_retries, policy.hard, policy.max_worker_losses), (0, Duration::from_secs(5), 3));
    }

    #[test]
    fn a_soft_limit_that_is_not_set_leaves_a_sixth_of_a_short_hard_limit() {
        let soft = |hard| Policy::resolve(None, &Overrides { hard: Some(hard), ..Overrides::default() }).soft;
        assert_eq!(soft(Duration::from_secs(6)), Duration::from_secs(5));
        assert_eq!(soft(Duration::from_hours(9)), Policy::SOFT);
    }

    #[test]
    fn the_bound_doubles_until_the_cap_and_never_overflows() {
        let backoff = Policy::resolve(None, &Overrides::default()).backoff;
        let bounds: Vec<u64> = [0, 1, 2, 9, 10, 31, 32, u32::MAX].map(|n| backoff.bound(n).as_secs()).to_vec();
        assert_eq!(bounds, [1, 2, 4, 512, 600, 600, 600, 600]);
    }

    #[test]
    fn jitter_is_full_and_never_above_the_bound() {
        let backoff = Backoff { initial: Duration::from_secs(8), factor: 2, max: Duration::from_mins(10) };
        let delays: Vec<u128> = ids().map(|id| backoff.delay(0, id).as_millis()).collect();
        assert!(delays.iter().all(|delay| *delay <= 8000));
        assert!(delays.iter().any(|delay| *delay < 400) && delays.iter().any(|delay| *delay > 7600));
    }
}
