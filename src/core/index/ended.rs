//! The last jobs that ended without a result: a result of theirs would be late.

use std::sync::Arc;

use uuid::Uuid;

use super::super::claims::{self, Concern};
use super::super::id::{ObjectKey, TaskId};
use super::super::job::Job;
use super::last::Last;

/// Jobs that are remembered after their end; the oldest are forgotten first.
const REMEMBERED: usize = 1000;

/// The last jobs that ended without a result, by the attempt that they had in hand.
#[derive(Debug)]
pub struct Ended(Last<TaskId, Origin>);

#[derive(Debug)]
struct Origin {
    job: ObjectKey,
    uid: Uuid,
    /// Its pool, in its namespace.
    pool: Arc<str>,
}

/// Whose late result it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Late {
    /// Of this job.
    Own(ObjectKey, Uuid),
    /// Of a job of another pool.
    Foreign,
    /// Of no job that is remembered.
    Unknown,
}

impl Default for Ended {
    fn default() -> Self {
        Self(Last::new(REMEMBERED))
    }
}

impl Ended {
    /// A job has ended; a result of this attempt would be late.
    pub fn remember(&mut self, job: &Job) {
        let origin = Origin { job: job.key.clone(), uid: job.uid, pool: job.spec.pool.clone() };
        self.0.remember(job.attempt_in_hand().task, origin);
    }

    /// Whether a result of this attempt would be late.
    pub fn awaits(&self, task: TaskId) -> bool {
        self.0.contains(&task)
    }

    /// Forgets the job that had this attempt, if its pool is the one on whose Redis its result was heard.
    pub fn take(&mut self, task: TaskId, heard_on: &ObjectKey) -> Late {
        let Some(origin) = self.0.get(&task) else { return Late::Unknown };
        match claims::concern(&origin.job.namespace, &origin.pool, heard_on) {
            Concern::Own => self.0.take(&task).map_or(Late::Unknown, |origin| Late::Own(origin.job, origin.uid)),
            Concern::Foreign => Late::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    #[test]
    fn a_late_result_counts_once_and_only_on_the_redis_of_the_jobs_pool() {
        let mut ended = Ended::default();
        let mut job = fixtures::job("team", "a", 1);
        job.spec.pool = "gpu".into();
        ended.remember(&job);
        let mut take =
            |namespace: &str, pool: &str| ended.take(job.attempt_in_hand().task, &ObjectKey::new(namespace, pool));
        assert_eq!(take("team", "default"), Late::Foreign);
        assert_eq!(take("other", "gpu"), Late::Foreign);
        assert_eq!(take("team", "gpu"), Late::Own(job.key.clone(), job.uid));
        assert_eq!(take("team", "gpu"), Late::Unknown);
    }

    #[test]
    fn a_thousand_jobs_are_remembered_after_their_end_and_no_more() {
        let mut ended = Ended::default();
        let jobs: Vec<Job> = (0..=1000).map(|uid| fixtures::job("team", "a", uid)).collect();
        for job in &jobs {
            ended.remember(job);
        }
        let awaits = |job: &Job| ended.awaits(job.attempt_in_hand().task);
        assert!(!awaits(&jobs[0]) && awaits(&jobs[1]));
    }
}
