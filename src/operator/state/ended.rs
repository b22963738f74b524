//! The last jobs that ended without a result: a result of theirs would be late.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::core::claims::{self, Concern};
use crate::core::id::{ObjectKey, TaskId};
use crate::core::job::Job;

/// Jobs that are remembered after their end; the oldest are forgotten first.
const REMEMBERED: usize = 1000;

/// The last jobs that ended without a result.
#[derive(Default)]
pub struct Ended(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    jobs: HashMap<TaskId, Last>,
    /// Oldest first.
    order: VecDeque<TaskId>,
}

/// A job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Last {
    job: ObjectKey,
    uid: Uuid,
    /// Its pool, in its namespace.
    pool: Arc<str>,
}

impl Ended {
    /// A job has ended; a result of this attempt would be late.
    pub fn remember(&self, job: &Job) {
        let task = job.attempt_in_hand().task;
        let last = Last { job: job.key.clone(), uid: job.uid, pool: job.spec.pool.clone() };
        let mut ended = self.0.lock();
        if ended.jobs.insert(task, last).is_none() {
            ended.order.push_back(task);
        }
        if ended.order.len() > REMEMBERED
            && let Some(oldest) = ended.order.pop_front()
        {
            ended.jobs.remove(&oldest);
        }
    }

    /// Whether a result of this attempt would be late.
    pub fn awaits(&self, task: TaskId) -> bool {
        self.0.lock().jobs.contains_key(&task)
    }

    /// Forgets the job that had this attempt, if its pool is the one on whose Redis its result was heard.
    pub fn take(&self, task: TaskId, heard_on: &ObjectKey) -> Late {
        let mut ended = self.0.lock();
        let Some(last) = ended.jobs.get(&task) else { return Late::Unknown };
        match claims::concern(&last.job.namespace, &last.pool, heard_on) {
            Concern::Own => ended.jobs.remove(&task).map_or(Late::Unknown, |last| Late::Own(last.job, last.uid)),
            Concern::Foreign => Late::Foreign,
        }
    }
}

/// Whose late result it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Late {
    Own(ObjectKey, Uuid),
    Foreign,
    Unknown,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::CrewJob;

    fn job(name: &str, uid: u128, pool: &str) -> Job {
        let metadata = json!({
            "name": name, "namespace": "team", "uid": Uuid::from_u128(uid).to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        });
        let object = json!({ "metadata": metadata, "spec": { "topic": "t", "poolRef": { "name": pool } } });
        serde_json::from_value::<CrewJob>(object).unwrap().to_job().unwrap()
    }

    #[test]
    fn so_many_jobs_are_remembered_and_no_more() {
        let ended = Ended::default();
        let jobs: Vec<Job> = (0..=1000).map(|uid| job("a", uid, "default")).collect();
        for job in &jobs {
            ended.remember(job);
        }
        let pool = ObjectKey::new("team", "default");
        let take = |job: &Job| ended.take(job.attempt_in_hand().task, &pool);
        assert_eq!((take(&jobs[0]), take(&jobs[1])), (Late::Unknown, Late::Own(jobs[1].key.clone(), jobs[1].uid)));
        assert_eq!(take(&jobs[1]), Late::Unknown, "it is late once");
    }

    #[test]
    fn a_late_result_counts_only_on_the_redis_of_the_jobs_pool() {
        let ended = Ended::default();
        let job = job("a", 1, "gpu");
        ended.remember(&job);
        let take =
            |namespace: &str, pool: &str| ended.take(job.attempt_in_hand().task, &ObjectKey::new(namespace, pool));
        assert_eq!(take("team", "default"), Late::Foreign);
        assert_eq!(take("other", "gpu"), Late::Foreign);
        assert_eq!(take("team", "gpu"), Late::Own(job.key.clone(), job.uid));
    }
}
