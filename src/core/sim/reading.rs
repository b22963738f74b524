//! Readings of the levels, as `operator::pool::resync` does them: results and markers, then places, then the workers are
//! asked and results are read once more, then the table is told. Each takes its time, and anything may happen between.

use std::mem;

use super::super::evidence::Place;
use super::super::id::TaskId;
use super::super::index::audit::{self, Answer, Asked, Findings, Outcome, Tracked, Workers};
use super::broker::RESULT_EXPIRES;
use super::operator::Order;
use super::world::World;
use super::{at, worker};

pub const AUDIT_EVERY: i64 = 20_000;
/// Longest silence of a worker: here all are Pods, and none is given up for that.
const LONGEST_SILENCE: std::time::Duration = std::time::Duration::from_mins(10);

/// What is read of the pool's Redis, one reading at a time.
#[derive(Debug, Default)]
pub struct Readings {
    under_way: Option<Reading>,
    /// All jobs are to be read next.
    wants_audit: bool,
    /// The unread jobs are to be read next.
    wants_unread: bool,
    /// How many audits were planned: only the last of them takes place.
    planned: u32,
}

/// A reading that has begun.
#[derive(Debug)]
struct Reading {
    stage: Stage,
    /// Whether it is of all jobs.
    is_full: bool,
    tracked: Vec<Tracked>,
    asked: Vec<TaskId>,
    found: Findings,
}

/// What is read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Results,
    Places,
    Workers,
    ResultsAgain,
    Tell,
}

impl Readings {
    /// The unread jobs are to be read.
    pub fn want_unread(&mut self) {
        self.wants_unread = true;
    }
}

impl World {
    /// Plans the next audit, in place of the one that was planned.
    pub fn plan_audit(&mut self, operator: usize, wait: i64) {
        let readings = &mut self.operators[operator].readings;
        readings.planned += 1;
        let number = readings.planned;
        self.order(operator, wait, Order::Audit { number });
    }

    /// An audit is due, unless another one was planned since.
    pub fn audit(&mut self, operator: usize, number: u32) {
        if self.operators[operator].readings.planned == number {
            self.operators[operator].readings.wants_audit = true;
            self.plan_audit(operator, AUDIT_EVERY);
        }
    }

    /// Begins what is to be read next, unless a reading is under way.
    pub fn begin_reading(&mut self, operator: usize) {
        let is_paused = self.operators[operator].paused_until > self.now;
        let it = &mut self.operators[operator];
        if it.readings.under_way.is_some() || !it.connected || self.broker.down || is_paused {
            return;
        }
        let is_full = mem::take(&mut it.readings.wants_audit);
        if !is_full && !mem::take(&mut it.readings.wants_unread) {
            return;
        }
        let kept = RESULT_EXPIRES - AUDIT_EVERY;
        if self.now - it.read_at > kept {
            audit::note_possible_expiry(&mut it.table, &self.pool, at(self.now - kept));
        }
        let found = if is_full { Findings::of_audit() } else { Findings::default() };
        self.read_levels(operator, is_full, found);
    }

    fn read_levels(&mut self, operator: usize, is_full: bool, found: Findings) {
        let table = &self.operators[operator].table;
        let mut tracked = if is_full { Tracked::all(table, &self.pool) } else { Tracked::unread(table, &self.pool) };
        tracked.sort_by(|one, other| one.key.cmp(&other.key));
        if is_full || !tracked.is_empty() {
            let reading = Reading { stage: Stage::Results, is_full, tracked, asked: Vec::new(), found };
            self.operators[operator].readings.under_way = Some(reading);
            self.read_on(operator);
        }
    }

    /// Goes on with a reading: one stage, and then it takes its time.
    pub fn read_on(&mut self, operator: usize) {
        let Some(mut reading) = self.operators[operator].readings.under_way.take() else { return };
        if self.broker.down || !self.operators[operator].connected {
            let wait = self.rng.between(250, 500);
            return self.plan_audit(operator, wait);
        }
        let Reading { stage, tracked, asked, found, .. } = &mut reading;
        match *stage {
            Stage::Results => {
                self.read_results(operator, found, tracked.iter().map(|it| it.id.task));
                for task in tracked.iter().map(|it| it.id.task) {
                    found.marks.extend(self.broker.data.markers.get(&task).map(|marker| (task, marker.mark())));
                }
                *stage = Stage::Places;
            }
            Stage::Places => {
                for task in tracked.iter().map(|it| it.id.task) {
                    found.copies.insert(task, self.copies(task));
                }
                if !found.is_audit && !tracked.iter().all(|it| found.is_placed(it.id.task)) {
                    // Only a look at all messages tells of each where it is.
                    return self.read_levels(operator, false, Findings::of_audit());
                }
                let table = &self.operators[operator].table;
                let is_asked = |it: &&Tracked| found.is_audit && audit::is_to_be_asked_about(table, it, found);
                *asked = tracked.iter().filter(is_asked).map(|it| it.id.task).collect();
                *stage = if asked.is_empty() { Stage::Tell } else { Stage::Workers };
            }
            Stage::Workers => {
                let were_there = Asked::of(&self.known_pods, Some(&self.fleet));
                let answers = self.ask_workers(asked);
                found.answers = Some(were_there.answered(answers, &[], false));
                *stage = Stage::ResultsAgain;
            }
            Stage::ResultsAgain => {
                self.read_results(operator, found, asked.iter().copied());
                *stage = Stage::Tell;
            }
            Stage::Tell => return self.tell(operator, reading),
        }
        self.operators[operator].readings.under_way = Some(reading);
        let slowest = self.rng.one_of(&[3, 30, 300, 3_000]);
        self.order_after(operator, 1, slowest, Order::Read);
    }

    fn read_results(&self, operator: usize, found: &mut Findings, tasks: impl Iterator<Item = TaskId>) {
        for task in tasks {
            if let Some(document) = self.broker.document(task) {
                found.document(task, self.heard_of(operator, self.told(document)));
            }
        }
    }

    /// Where the copies of a task's message are.
    fn copies(&self, task: TaskId) -> Vec<Place> {
        let in_flight = self.broker.data.unacked.range((task, 0)..=(task, u32::MAX));
        let in_flight = in_flight.map(|((_, generation), entry)| Place::InFlight {
            generation: *generation,
            received_at: Some(at(entry.score)),
        });
        let queued = self.broker.data.queue.iter().filter(|message| message.id.task == task);
        in_flight.chain(queued.map(|message| Place::Queued { generation: message.id.generation })).collect()
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
            let mut has = Vec::new();
            let mut is_any_aside = false;
            for task in tasks {
                if let Some(worker::Answer { began_at, is_aside }) = it.answer(*task) {
                    has.push((*task, began_at.map(|began| it.told(began))));
                    is_any_aside |= is_aside;
                }
            }
            answers.push(Answer { node: it.holder().node, has });
            if is_any_aside {
                self.count("asked while it is put aside");
            }
        }
        answers
    }

    /// Notes what was found, where nothing has happened since.
    fn tell(&mut self, operator: usize, reading: Reading) {
        let Reading { is_full, tracked, mut found, .. } = reading;
        let now = at(self.now);
        let overtaken = tracked.iter().filter(|it| it.is_overtaken(&self.operators[operator].table)).count();
        for _ in 0..overtaken {
            self.count("reading overtaken");
        }
        let it = &mut self.operators[operator];
        let workers = Workers {
            pods: &self.known_pods,
            fleet: Some(&self.fleet),
            clocks: &it.clocks,
            restarts_unreachable: false,
        };
        let mut outcome = Outcome::default();
        audit::apply_findings(&mut it.table, &tracked, &mut found, &workers, now, &mut outcome);
        for tag in audit::to_renew(&it.table, &tracked, &workers, LONGEST_SILENCE, now) {
            self.broker.renew(&tag);
        }
        let Outcome { changed, missed, is_overtaken } = outcome;
        for (lane, key) in changed {
            it.turns.push(lane, key);
        }
        if is_overtaken {
            it.readings.wants_unread = true;
        }
        if is_full {
            it.read_at = self.now;
            if it.epoch == Some(self.api.lease.transitions) {
                // What this audit found is acted on only now; what the one before found, has been.
                self.api.lease.audited_at = self.now - AUDIT_EVERY;
            }
            self.look_for_strays(operator);
        }
        if let Some(misses) = missed.into_iter().min() {
            let every = std::time::Duration::from_millis(AUDIT_EVERY.unsigned_abs());
            let wait = audit::look_again_after(misses, every).as_millis();
            self.plan_audit(operator, i64::try_from(wait).unwrap());
        }
    }
}
