//! The stages of a reading of Redis, in their order: results before places, and places before workers.

use std::mem;
use std::time::Duration;

use super::super::claims::clocks::Clocks;
use super::super::id::TaskId;
use super::super::index::audit::{self, Answer, Asked, Findings, Outcome, RateLimit, Results, Tracked, Workers};
use super::super::index::pods::{Fleet, Pods};
use super::at;
use super::leases::RATE_LIMIT;
use super::reading::Reading;
use super::worker::Pod;
use super::world::World;

/// Longest silence of a worker: here all are Pods, and none is given up for that.
const LONGEST_SILENCE: Duration = Duration::from_mins(10);

/// What is read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Results,
    Markers,
    /// The messages of a few jobs are looked up one by one.
    Locate,
    InFlight,
    Queue,
    InFlightAgain,
    Ask,
    Answers,
    ResultsAgain,
    Tell,
    Renew,
}

impl World {
    /// Reads one thing; what is read next, unless that was all.
    pub fn read_stage(&mut self, operator: usize, reading: &mut Reading) -> Option<Stage> {
        let found = &mut reading.found;
        let tasks = reading.tracked.iter().map(|it| it.id.task);
        Some(match reading.stage {
            Stage::Results => {
                self.read_results(operator, &mut found.results, tasks);
                Stage::Markers
            }
            Stage::Markers => {
                let mark = |task: TaskId| Some((task, self.broker.data.markers.get(&task)?.mark()));
                found.marks.extend(tasks.filter_map(mark));
                if found.is_audit { Stage::InFlight } else { Stage::Locate }
            }
            Stage::Locate => {
                found.copies.extend(tasks.map(|task| (task, self.broker.locate(task).into_iter().collect())));
                if reading.tracked.iter().all(|it| found.is_placed(it.id.task)) {
                    let all = reading.tracked.iter().map(|it| it.id.task);
                    reading.unplaced = all.filter(|task| !found.is_there(*task)).collect();
                    return Some(Stage::ResultsAgain);
                }
                // Only a look at all messages tells of each where it is.
                let tracked = self.tracked(operator, Tracked::unread);
                if tracked.is_empty() {
                    return None;
                }
                *reading = Reading::of(tracked, Findings::of_audit(Results::default()), None, self.now);
                Stage::Results
            }
            Stage::InFlight => {
                reading.in_flight = self.broker.in_flight();
                self.note_followed(reading, true);
                Stage::Queue
            }
            Stage::Queue => {
                for (task, place) in self.broker.queued() {
                    found.copies.entry(task).or_default().push(place);
                }
                self.note_followed(reading, false);
                Stage::InFlightAgain
            }
            Stage::InFlightAgain => {
                for (task, place) in self.broker.in_flight() {
                    found.copies.entry(task).or_default().push(place);
                }
                for (task, place) in mem::take(&mut reading.in_flight) {
                    found.copies.entry(task).or_insert_with(|| vec![place]);
                }
                self.note_followed(reading, true);
                let found = &mut reading.found;
                let table = &self.operators[operator].table;
                let is_asked = |it: &&Tracked| audit::is_to_be_asked_about(table, it, found);
                reading.unplaced = reading.tracked.iter().filter(is_asked).map(|it| it.id.task).collect();
                if reading.unplaced.is_empty() { Stage::Tell } else { Stage::Ask }
            }
            Stage::Ask => {
                reading.asked = Some(Asked::of(&self.known_pods, Some(&self.fleet)));
                Stage::Answers
            }
            Stage::Answers => {
                let answers = self.ask_workers(&reading.unplaced);
                let limits = if self.chaos.limits { self.rate_limits(&answers) } else { Vec::new() };
                found.answers = reading.asked.take().map(|asked| asked.answered(answers, &[], false));
                if let Some(answers) = &mut found.answers {
                    answers.limited(limits);
                }
                Stage::ResultsAgain
            }
            Stage::ResultsAgain => {
                self.read_results(operator, &mut found.results, reading.unplaced.iter().copied());
                Stage::Tell
            }
            Stage::Tell => return self.tell(operator, reading),
            Stage::Renew => {
                let it = &self.operators[operator];
                let workers = workers(&self.known_pods, &self.fleet, &it.clocks);
                for tag in audit::to_renew(&it.table, &reading.tracked, &workers, LONGEST_SILENCE, at(self.now)) {
                    self.broker.renew(&tag);
                }
                return None;
            }
        })
    }

    /// What the workers that have answered say of the rate of the task.
    fn rate_limits(&self, answers: &[Answer]) -> Vec<RateLimit> {
        let limits = |pod: &&Pod| !pod.is_native() && answers.iter().any(|answer| answer.node == pod.holder().node);
        let limit = |pod: &Pod| RateLimit {
            task: "run".into(),
            every: Duration::from_millis(RATE_LIMIT.unsigned_abs()),
            prefetched: i64::try_from(pod.concurrency).ok(),
        };
        self.pods.iter().filter(limits).map(limit).collect()
    }

    /// Notes from which attempts messages of other tasks follow.
    fn note_followed(&self, reading: &mut Reading, in_flight: bool) {
        for job in self.broker.followed(in_flight) {
            let root = TaskId::derive(self.api.jobs[job].job.uid, 1);
            let tracked = reading.tracked.iter().filter(|it| it.root == root);
            reading.found.followed.extend(tracked.map(|it| it.id.task));
        }
    }

    fn read_results(&self, operator: usize, results: &mut Results, tasks: impl Iterator<Item = TaskId>) {
        for task in tasks {
            if let Some(document) = self.broker.document(task) {
                results.document(task, self.heard_of(operator, self.told(document)));
            }
        }
    }

    /// Asks every worker which of these tasks it has. Some do not hear, some replies get lost.
    fn ask_workers(&mut self, tasks: &[TaskId]) -> Vec<Answer> {
        let lost = if self.chaos.deafness { 150 } else { 20 };
        let mut answers = Vec::new();
        for pod in 0..self.pods.len() {
            if !self.pods[pod].hears() || self.rng.per_mille(lost) {
                continue;
            }
            let it = &self.pods[pod];
            let said: Vec<_> = tasks.iter().filter_map(|task| Some((*task, it.answer(*task)?))).collect();
            let has = said.iter().map(|(task, answer)| (*task, answer.began_at.map(|began| it.told(began)))).collect();
            answers.push(Answer { node: it.holder().node, has });
            if said.iter().any(|(_, answer)| answer.is_aside) {
                self.count("asked while it is put aside");
            }
        }
        answers
    }

    /// Notes what was found, where nothing has happened since.
    fn tell(&mut self, operator: usize, reading: &mut Reading) -> Option<Stage> {
        let Reading { tracked, found, .. } = reading;
        let now = at(self.now);
        if tracked.iter().any(|it| it.is_overtaken(&self.operators[operator].table)) {
            self.count("reading overtaken");
        }
        let it = &mut self.operators[operator];
        let workers = workers(&self.known_pods, &self.fleet, &it.clocks);
        let mut outcome = Outcome::default();
        audit::apply_findings(&mut it.table, tracked, found, &workers, now, &mut outcome);
        let Outcome { changed, missed, is_overtaken } = outcome;
        for (lane, key) in changed {
            it.turns.push(lane, key);
        }
        if is_overtaken {
            it.readings.want_unread();
        }
        reading.missed = missed.into_iter().min();
        reading.found.is_audit.then_some(Stage::Renew)
    }
}

fn workers<'a>(pods: &'a Pods, fleet: &'a Fleet, clocks: &'a Clocks) -> Workers<'a> {
    Workers { pods, fleet: Some(fleet), clocks, restarts_unreachable: false }
}
