//! Readings of Redis, as `operator::pool::resync` makes them: when, of which jobs, and what is read in which order. Each
//! stage takes its time, and anything may happen in between. What follows from them is decided in `core::index::audit`.

use std::mem;
use std::time::Duration;

use super::super::evidence::Place;
use super::super::id::{ObjectKey, TaskId};
use super::super::index::Table;
use super::super::index::audit::{self, Asked, Findings, Results, Tracked};
use super::at;
use super::broker::{Glance, RESULT_EXPIRES};
use super::operator::Order;
use super::stages::Stage;
use super::world::World;

pub const AUDIT_EVERY: i64 = 20_000;
/// How much sooner than it may be a result is taken for expired: two audits.
const AUDIT_MARGIN: i64 = 2 * AUDIT_EVERY;
/// How often all messages are read although no queue has changed.
const AT_LEAST_EVERY: u32 = 3;

/// What an operator reads of its pool's Redis: one reading at a time.
#[derive(Debug, Default)]
pub struct Readings {
    under_way: Option<Reading>,
    /// How many have begun, or were given up.
    number: u32,
    /// All jobs are to be read next.
    wants_audit: bool,
    /// The unread jobs are to be read next.
    wants_unread: bool,
    /// When all jobs are read although nothing asks for it, unless that can be spared.
    due_at: i64,
    /// A reading has failed: none begins before then.
    asleep_until: i64,
    /// When the last full audit began.
    audited_at: i64,
    /// Messages that were published.
    publications: u32,
    last: LastAudit,
}

/// What the last reading of all messages saw of the queue, while no job but waiting ones was out and none was missed.
#[derive(Debug, Default)]
struct LastAudit {
    seen: Option<Seen>,
    spared: u32,
}

/// What must not have changed for an audit to be spared.
#[derive(Debug, PartialEq)]
pub struct Seen {
    glance: Glance,
    publications: u32,
}

/// A reading that has begun.
#[derive(Debug)]
pub struct Reading {
    began_at: i64,
    pub stage: Stage,
    /// What was seen of the queue before; `None` for a reading of the unread jobs alone.
    seen: Option<Seen>,
    pub tracked: Vec<Tracked>,
    /// What was in flight before the queue was read.
    pub in_flight: Vec<(TaskId, Place)>,
    /// The tasks that workers are asked about.
    pub unplaced: Vec<TaskId>,
    /// The workers that are asked.
    pub asked: Option<Asked>,
    pub found: Findings,
    /// How often what was looked for in vain has been, at least.
    pub missed: Option<u32>,
}

impl Readings {
    /// Those of a leader: the last full audit by a leader before it began then.
    pub fn after(audited_at: i64) -> Self {
        Self { audited_at, due_at: i64::MAX, ..Self::default() }
    }

    /// The unread jobs are to be read.
    pub fn want_unread(&mut self) {
        self.wants_unread = true;
    }

    /// A message was published.
    pub fn published(&mut self) {
        self.publications += 1;
    }

    /// The connection was lost, and all that went on with it.
    pub fn give_up(&mut self) {
        self.under_way = None;
        self.number += 1;
        self.last = LastAudit::default();
    }
}

impl Reading {
    pub fn of(tracked: Vec<Tracked>, found: Findings, seen: Option<Seen>, began_at: i64) -> Self {
        Self {
            began_at,
            stage: Stage::Results,
            seen,
            tracked,
            in_flight: Vec::new(),
            unplaced: Vec::new(),
            asked: None,
            found,
            missed: None,
        }
    }
}

impl World {
    /// All jobs are to be read.
    pub fn ask_for_audit(&mut self, operator: usize) {
        self.operators[operator].readings.wants_audit = true;
        self.order(operator, 1, Order::BeginReading);
    }

    /// Begins what is to be read next, unless a reading is under way.
    pub fn begin_reading(&mut self, operator: usize) {
        let (now, it) = (self.now, &mut self.operators[operator]);
        let readings = &mut it.readings;
        let is_busy = readings.under_way.is_some() || now < readings.asleep_until || it.paused_until > now;
        if is_busy || !it.connected {
            return;
        }
        let is_asked = mem::take(&mut readings.wants_audit);
        let is_full = is_asked || now >= readings.due_at;
        if !is_full && !mem::take(&mut readings.wants_unread) {
            return;
        }
        let expired = now - (RESULT_EXPIRES - AUDIT_MARGIN);
        if readings.audited_at < expired {
            audit::note_possible_expiry(&mut it.table, &self.pool, at(expired));
        }
        if is_full {
            return self.begin_audit(operator, is_asked);
        }
        let tracked = self.tracked(operator, Tracked::unread);
        if !tracked.is_empty() {
            self.read(operator, Reading::of(tracked, Findings::of_few(Results::default()), None, now));
        }
    }

    /// Reads all messages, unless nothing asks for it and a glance tells that nothing can have changed.
    fn begin_audit(&mut self, operator: usize, is_asked: bool) {
        let (now, glance) = (self.now, self.broker.glance());
        let it = &mut self.operators[operator];
        let seen = Seen { glance, publications: it.readings.publications };
        let last = &mut it.readings.last;
        let is_same = last.seen.as_ref() == Some(&seen) && last.spared < AT_LEAST_EVERY;
        if !is_asked && is_same && audit::all_wait(&it.table, &self.pool) {
            last.spared += 1;
            self.count("audit spared");
            self.audited(operator, now);
            return self.read_next_at(operator, now + AUDIT_EVERY);
        }
        let tracked = self.tracked(operator, Tracked::all);
        self.read(operator, Reading::of(tracked, Findings::of_audit(Results::default()), Some(seen), now));
    }

    /// The jobs to read, in an order that is the same at every run.
    pub fn tracked(&self, operator: usize, of: impl Fn(&Table<()>, &ObjectKey) -> Vec<Tracked>) -> Vec<Tracked> {
        let mut tracked = of(&self.operators[operator].table, &self.pool);
        tracked.sort_by(|one, other| one.key.cmp(&other.key));
        tracked
    }

    fn read(&mut self, operator: usize, reading: Reading) {
        let readings = &mut self.operators[operator].readings;
        readings.under_way = Some(reading);
        readings.number += 1;
        let number = readings.number;
        self.read_on(operator, number);
    }

    /// Goes on with a reading, unless it was given up: some stages, and then it takes its time.
    pub fn read_on(&mut self, operator: usize, number: u32) {
        if self.operators[operator].readings.number != number {
            return;
        }
        while let Some(mut reading) = self.operators[operator].readings.under_way.take() {
            if self.chaos.outages && self.rng.per_mille(20) {
                self.count("reading failed");
                let wait = self.rng.between(250, 1_000);
                self.operators[operator].readings.asleep_until = self.now + wait;
                return self.read_next_at(operator, self.now + wait);
            }
            let Some(next) = self.read_stage(operator, &mut reading) else { return self.has_read(operator, reading) };
            reading.stage = next;
            self.operators[operator].readings.under_way = Some(reading);
            if self.rng.per_mille(500) {
                let slowest = self.rng.one_of(&[3, 30, 300, 3_000]);
                return self.order_after(operator, 1, slowest, Order::Read { number });
            }
        }
    }

    /// A reading has ended: what it found of the queue is remembered, and the next one planned.
    fn has_read(&mut self, operator: usize, mut reading: Reading) {
        let is_full = reading.seen.is_some();
        let it = &mut self.operators[operator];
        if is_full {
            let is_quiet = reading.missed.is_none() && audit::all_wait(&it.table, &self.pool);
            it.readings.last = LastAudit { seen: reading.seen.take().filter(|_| is_quiet), spared: 0 };
            self.audited(operator, reading.began_at);
            self.look_for_strays(operator);
        } else if reading.missed.is_some() {
            it.readings.last.seen = None;
        }
        let every = Duration::from_millis(AUDIT_EVERY.unsigned_abs());
        let again = |misses| self.now + i64::try_from(audit::look_again_after(misses, every).as_millis()).unwrap();
        let due = if is_full { self.now + AUDIT_EVERY } else { self.operators[operator].readings.due_at };
        self.read_next_at(operator, reading.missed.map_or(due, |misses| due.min(again(misses))));
    }

    /// Everything of this operator's jobs was compared with Redis, from this time on.
    fn audited(&mut self, operator: usize, began_at: i64) {
        let it = &mut self.operators[operator];
        let before = mem::replace(&mut it.readings.audited_at, began_at);
        if it.epoch == Some(self.api.lease.transitions) {
            // What this audit found is acted on only now; what the one before found, has been.
            self.api.lease.audited_at = before;
        }
    }

    fn read_next_at(&mut self, operator: usize, due_at: i64) {
        if mem::replace(&mut self.operators[operator].readings.due_at, due_at) != due_at {
            self.order(operator, due_at - self.now, Order::BeginReading);
        }
    }
}
