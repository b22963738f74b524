//! Where in its queue a job waits.

use std::time::Duration;

use jiff::Timestamp;

use super::forecast::Load;
use crate::api::{CrewJob, CrewWorkerPool, Phase};
use crate::core::id::Priority;

/// Runs that are measured: the last of the pool.
const MEASURED: usize = 50;

/// Where a message waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The queue.
    pub queue: String,
    /// Where the band of its priority begins, in Celery's counting: 0 is served first.
    pub band: u8,
    /// Messages that are taken before it: those of jobs, and all of other producers that may be.
    pub ahead: usize,
    /// How many of them are of no CrewJob.
    pub foreign: usize,
    /// Messages that wait in the queue.
    pub depth: usize,
}

/// What is gathered of the jobs of a pool while they are listed, so that none of them is kept.
#[derive(Debug)]
pub struct Survey {
    queue: String,
    steps: Vec<u8>,
    band: u8,
    since: (Option<Timestamp>, String),
    task: String,
    ahead_in_band: usize,
    in_band: usize,
    before_band: usize,
    running: Vec<Duration>,
    /// When runs ended and how long they took, of the same task, and of any.
    runs: [Vec<(Timestamp, Duration)>; 2],
}

impl Survey {
    /// For a job that waits in this pool.
    pub fn new(job: &CrewJob, pool: &CrewWorkerPool) -> Self {
        let steps: Vec<u8> =
            pool.spec.celery.priority_steps.iter().filter_map(|step| u8::try_from(*step).ok()).collect();
        Self {
            queue: queue_of(job, pool),
            band: band(job, &steps),
            steps,
            since: since(job),
            task: job.spec.task.clone(),
            ahead_in_band: 0,
            in_band: 0,
            before_band: 0,
            running: Vec::new(),
            runs: [Vec::new(), Vec::new()],
        }
    }

    /// Adds a job of the same pool.
    pub fn add(&mut self, job: &CrewJob, pool: &CrewWorkerPool, now: Timestamp) {
        let Some(status) = &job.status else { return };
        let started = status.started_at.as_ref().map(|time| time.0);
        match status.phase {
            Phase::Running => self.running.extend(started.map(|started| length(started, now))),
            Phase::Succeeded => {
                let ended = status.finished_at.as_ref().map(|time| time.0);
                if let Some((started, ended)) = started.zip(ended) {
                    let kind = usize::from(job.spec.task != self.task);
                    self.runs[kind].push((ended, length(started, ended)));
                }
            }
            Phase::Queued if queue_of(job, pool) == self.queue => {
                let band = band(job, &self.steps);
                self.before_band += usize::from(band < self.band);
                if band == self.band {
                    self.in_band += 1;
                    self.ahead_in_band += usize::from(since(job) < self.since);
                }
            }
            Phase::Queued | Phase::Pending | Phase::Retrying | Phase::Failed | Phase::Cancelled => {}
        }
    }

    /// Where the job waits. Messages of other producers are those that the pool counts and no job explains.
    pub fn place(&self, pool: &CrewWorkerPool) -> Place {
        let depth_of = |is_it: &dyn Fn(i32) -> bool| depth(pool, &self.queue, is_it);
        let own = i32::from(self.band);
        let foreign = depth_of(&|step| step < own).saturating_sub(self.before_band)
            + depth_of(&|step| step == own).saturating_sub(self.in_band);
        let ahead = self.before_band + self.ahead_in_band + foreign;
        Place { queue: self.queue.clone(), band: self.band, ahead, foreign, depth: depth_of(&|_| true).max(ahead + 1) }
    }

    /// What has to be known to say when the job begins.
    pub fn load(mut self, pool: &CrewWorkerPool, ahead: usize) -> Load {
        let [same, any] = &mut self.runs;
        let measured = if same.is_empty() { any } else { same };
        measured.sort_unstable_by_key(|run| std::cmp::Reverse(run.0));
        let replicas = pool.status.as_ref().and_then(|status| status.replicas.as_ref());
        let workers = replicas.map_or(0, |replicas| replicas.desired.max(replicas.ready));
        let slots = workers.saturating_mul(pool.spec.concurrency.max(1));
        Load {
            slots: usize::try_from(slots).unwrap_or_default(),
            running: self.running,
            ahead,
            runs: measured.iter().take(MEASURED).map(|(_, length)| *length).collect(),
        }
    }
}

/// Messages that wait in such bands of a queue, as the pool counts them.
pub fn depth(pool: &CrewWorkerPool, queue: &str, is_it: &dyn Fn(i32) -> bool) -> usize {
    let queue = pool.status.as_ref().and_then(|status| status.queues.iter().find(|it| it.name == queue));
    let bands = queue.iter().flat_map(|queue| &queue.bands).filter(|band| is_it(band.step));
    bands.map(|band| usize::try_from(band.depth).unwrap_or_default()).sum()
}

/// The queue that a job is on, or comes to.
pub fn queue_of(job: &CrewJob, pool: &CrewWorkerPool) -> String {
    let used = job.status.as_ref().and_then(|status| status.queue.clone());
    let first = || pool.spec.queues.first().map(|queue| queue.name.clone());
    used.or_else(|| job.spec.queue.clone()).or_else(first).unwrap_or_default()
}

/// The band that the message of a job waits in.
pub fn band(job: &CrewJob, steps: &[u8]) -> u8 {
    let priority = Priority::clamped(job.spec.priority).celery(steps);
    steps.iter().copied().filter(|step| *step <= priority).max().unwrap_or_default()
}

/// Since when it waits; jobs of the same second are in the order of their names.
pub fn since(job: &CrewJob) -> (Option<Timestamp>, String) {
    let at = job.status.as_ref().and_then(|status| status.queued_at.as_ref()).map(|time| time.0);
    (at, job.metadata.name.clone().unwrap_or_default())
}

fn length(from: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn job(name: &str, priority: i32, status: &Value) -> CrewJob {
        let spec = json!({ "topic": "Tea", "priority": priority });
        serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec, "status": status })).unwrap()
    }

    fn waits(name: &str, priority: i32, since: i64) -> CrewJob {
        job(name, priority, &json!({ "phase": "Queued", "queue": "crew_jobs", "queuedAt": at(since).to_string() }))
    }

    /// A pool of which so many messages wait in each of the bands 0, 3, 6 and 9.
    fn pool(depths: [u32; 4]) -> CrewWorkerPool {
        let bands: Vec<Value> =
            depths.iter().zip([0, 3, 6, 9]).map(|(depth, step)| json!({ "step": step, "depth": depth })).collect();
        let status = json!({
            "queues": [{ "name": "crew_jobs", "bands": bands }], "replicas": { "desired": 2, "ready": 1, "busy": 1 },
        });
        let spec = json!({ "redis": { "secretName": "redis" }, "concurrency": 3 });
        serde_json::from_value(json!({ "metadata": { "name": "default" }, "spec": spec, "status": status })).unwrap()
    }

    fn place(own: &CrewJob, others: &[CrewJob], pool: &CrewWorkerPool) -> (usize, usize, usize) {
        let mut survey = Survey::new(own, pool);
        others.iter().chain([own]).for_each(|job| survey.add(job, pool, at(100)));
        let place = survey.place(pool);
        (place.ahead, place.foreign, place.depth)
    }

    #[test]
    fn more_urgent_jobs_and_earlier_ones_of_the_band_are_ahead() {
        let others = [waits("urgent", 10, 50), waits("earlier", 5, 5), waits("later", 5, 20), waits("idle", 0, 1)];
        let own = waits("own", 5, 10);
        assert_eq!(place(&own, &others, &pool([1, 3, 0, 1])), (2, 0, 5));
    }

    #[test]
    fn messages_of_other_producers_may_be_ahead() {
        let own = waits("own", 5, 10);
        assert_eq!(place(&own, &[waits("urgent", 10, 50)], &pool([4, 3, 0, 9])), (1 + 3 + 2, 5, 16));
        assert_eq!(place(&own, &[], &pool([0, 0, 0, 0])), (0, 0, 1), "a count that is behind");
    }

    #[test]
    fn runs_of_the_same_task_are_measured_and_the_last_ones_first() {
        let ended = |name: &str, task: &str, end: i64, length: i64| {
            let (from, to) = (at(end - length).to_string(), at(end).to_string());
            let mut job = job(name, 5, &json!({ "phase": "Succeeded", "startedAt": from, "finishedAt": to }));
            job.spec.task = task.to_owned();
            job
        };
        let own = waits("own", 5, 10);
        let task = own.spec.task.clone();
        let mut survey = Survey::new(&own, &pool([0; 4]));
        let running = job("running", 5, &json!({ "phase": "Running", "startedAt": at(70).to_string() }));
        for job in [ended("a", &task, 20, 3), ended("b", &task, 30, 4), ended("c", "other", 40, 9), running] {
            survey.add(&job, &pool([0; 4]), at(100));
        }
        let load = survey.load(&pool([0; 4]), 7);
        let seconds = |lengths: &[u64]| lengths.iter().copied().map(Duration::from_secs).collect::<Vec<_>>();
        assert_eq!(load, Load { slots: 6, running: seconds(&[30]), ahead: 7, runs: seconds(&[4, 3]) });
        let other = Survey::new(&own, &pool([0; 4]));
        let other = [ended("c", "other", 40, 9)].iter().fold(other, |mut survey, job| {
            survey.add(job, &pool([0; 4]), at(100));
            survey
        });
        assert_eq!(other.load(&pool([0; 4]), 0).runs, seconds(&[9]), "of another task, where there is none of its own");
    }
}
