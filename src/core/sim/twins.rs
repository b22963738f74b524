//! Jobs with the same dedup key, in some worlds.

use std::time::Duration;

use uuid::Uuid;

use super::super::dedup::{Dedup, OnConflict};
use super::super::job::Job;
use super::super::twins::{Twin, TwinEnd, Verdict, judge};
use super::apiserver::Stored;
use super::at;
use super::world::World;

const CHOICES: [OnConflict; 3] = [OnConflict::Reject, OnConflict::Attach, OnConflict::Replace];

fn twin(stored: &Stored) -> Twin {
    let Job { key, uid, created_at, status, .. } = &stored.job;
    let end = TwinEnd { phase: status.phase, result: status.result.clone(), error: status.error.clone() };
    Twin {
        job: key.name.clone(),
        uid: *uid,
        created_at: *created_at,
        stands: status.stands.as_deref().copied(),
        end: status.phase.is_terminal().then_some(end),
    }
}

impl World {
    /// What a job declares: all have the same key.
    pub fn dedup(&mut self) -> Dedup {
        let on_conflict = self.rng.one_of(&CHOICES);
        Dedup { key: "key".into(), window: Duration::from_hours(1), on_conflict }
    }

    /// Lists the jobs with the key of a job, and notes what they mean for it.
    pub fn list_twins(&mut self, operator: usize, job: &Job) {
        let twins: Vec<Twin> = self.api.jobs.iter().filter(|stored| !stored.deleted).map(twin).collect();
        let verdict = judge(job, &twins, at(self.now));
        if matches!(verdict, Verdict::Undecided { .. }) {
            self.count("twin undecided");
        }
        self.operators[operator].table.update(&job.key, |entry| {
            if entry.job.uid == job.uid {
                entry.twins = Some(Box::new(verdict));
            }
        });
        self.look_at(operator, &job.key);
    }

    /// Cancels another job, if it is there.
    pub fn cancel_twin(&mut self, uid: Uuid) {
        let found = self.api.jobs.iter().position(|stored| stored.job.uid == uid && !stored.deleted);
        if let Some(other) = found {
            self.count("twin cancelled");
            self.edit(other, "cancelled by another job", |spec| spec.cancel = true);
        }
    }

    /// Something of a job was published: no other one with its key may have been, unless this one takes its place, and
    /// then it has ended.
    pub fn judge_twins(&mut self, job: usize) {
        let Some(dedup) = self.api.jobs[job].job.spec.dedup.clone() else { return };
        self.count("stands for its key");
        let stands = |stored: &Stored| stored.job.status.stands.as_deref() == Some(&stored.job.uid);
        let is_in_the_way = |(other, stored): (usize, &Stored)| {
            let is_over = dedup.on_conflict == OnConflict::Replace && stored.job.status.phase.is_terminal();
            // One that came to stand for the key when the one before it had been replaced.
            let is_before = stored.job.status.phase.is_terminal() && self.was_replaced(other);
            other != job && !stored.deleted && stands(stored) && !is_over && !is_before
        };
        let others: Vec<usize> =
            self.api.jobs.iter().enumerate().filter(|it| is_in_the_way(*it)).map(|(other, _)| other).collect();
        if !others.is_empty() {
            self.broken.push(format!("job-{job} is published although {others:?} stand for its key"));
        }
    }

    /// Whether a job that was to take its place was created after it.
    fn was_replaced(&self, job: usize) -> bool {
        let later = self.api.jobs.iter().skip(job + 1);
        later.filter_map(|stored| stored.job.spec.dedup.as_ref()).any(|dedup| dedup.on_conflict == OnConflict::Replace)
    }
}
